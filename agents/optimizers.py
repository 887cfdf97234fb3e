"""The optimizers of an SB3 policy: which there are, and how Adam becomes UnitAdam."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from stable_baselines3.common.policies import BaseModel
from torch import nn
from torch.optim import Adam, AdamW, Optimizer

from plasticity import SettingsError, UnitAdam

_KEPT = ("lr", "betas", "eps", "weight_decay")


def owners(policy: nn.Module) -> Iterator[Any]:
    """The modules of a policy that hold an optimizer: itself, or its actor and its critic."""
    for module in policy.modules():
        if isinstance(vars(module).get("optimizer"), Optimizer):
            yield module


def become_unit_adam(policy: BaseModel, **settings: Any) -> None:
    """Put UnitAdam in the place of each Adam and AdamW, with its hyper-parameters, moments and counts.

    settings: of `UnitAdam`, where they shall differ. Other optimizers, and Adam with `amsgrad` or `maximize`, stay.
    """
    for owner in owners(policy):
        if type(owner.optimizer) not in (Adam, AdamW):
            continue
        if any(group["amsgrad"] or group["maximize"] for group in owner.optimizer.param_groups):
            continue
        owner.optimizer = unit_adam(owner.optimizer, settings)
        policy.optimizer_class = UnitAdam
        group = owner.optimizer.param_groups[0]
        policy.optimizer_kwargs = {key: group[key] for key in ("betas", "eps", "weight_decay", "decoupled")}


def unit_adam(stock: Optimizer, settings: dict[str, Any]) -> UnitAdam:
    """UnitAdam in the place of an Adam or AdamW."""
    groups = [
        {
            "params": group["params"],
            **{key: group[key] for key in _KEPT if key not in settings},
            **({} if "decoupled" in settings else {"decoupled": bool(group["decoupled_weight_decay"])}),
        }
        for group in stock.param_groups
    ]
    made = UnitAdam(groups, **settings)
    if stock.state:
        made.load_state_dict(stock.state_dict())
    return made


def set_betas(policy: BaseModel, betas: tuple[float, float]) -> None:
    """Give every optimizer of the policy these betas; raises `SettingsError` where one has none."""
    for owner in owners(policy):
        for group in owner.optimizer.param_groups:
            if "betas" not in group:
                raise SettingsError(
                    [f"a method asks for Adam's betas {betas}, but {type(owner.optimizer).__name__} has none"]
                )
            group["betas"] = betas
    policy.optimizer_kwargs = {**policy.optimizer_kwargs, "betas": betas}
