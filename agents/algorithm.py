"""What the plastic algorithms share: the `plasticity` argument, and warm starts from stock checkpoints."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import torch
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import RolloutReturn

from agents.backend import Backend, ByHand, check_backend
from agents.policies import PlasticPolicy, plastic_policy
from plasticity import UnitAdam
from plasticity.registry import Methods, method_configs

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm as _Base
else:
    # the base of BaseAlgorithm, so that objects are laid out alike and a stock model can become one of ours
    from abc import ABC as _Base
Self = TypeVar("Self", bound="PlasticAlgorithm")


class PlasticAlgorithm(_Base):
    """Mixin for SB3 algorithms.

    plasticity: the methods to use: None, a name such as "cbp", a config, a list of them, or a mapping of names to
        settings, `{"l2": {"strength": 1e-3}, "cbp": {}}`; see `plasticity.METHODS`. Without any, and with the default
        optimizer, training equals stock SB3 bit for bit.
    backend: "stock" uses SB3's rollouts and updates; "auto" those of ours that are worked out by hand where there are
        any (`agents.PPO`, `agents.SAC`: plain MLPs on the CPU), which are faster and differ from SB3's by rounding.
    All other arguments are SB3's own. Methods draw from streams of their own that derive from `seed`.

    between_rollouts: an attribute that may be set before `learn`: called between an update and the next rollout, the
        one time at which a run can be saved and resumed to the last bit; training ends where it returns False.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]]
    between_rollouts: Callable[[], bool] | None = None
    backend: str = "stock"
    by_hand: ClassVar[ByHand | None] = None

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        aliases = {name: stock for name, stock in cls.policy_aliases.items() if not name.startswith("MultiInput")}
        cls.policy_aliases = {name: plastic_policy(stock) for name, stock in aliases.items()}

    def __init__(
        self, policy: Any, env: Any, *args: Any, plasticity: Methods = None, backend: str = "stock", **kwargs: Any
    ):
        method_configs(plasticity)  # bad settings are found before anything is built
        self.backend = check_backend(backend)
        policy_kwargs = dict(kwargs.pop("policy_kwargs", None) or {})
        if plasticity is not None:
            policy_kwargs["plasticity"] = plasticity
        seed = kwargs.get("seed")
        policy_kwargs.setdefault("plasticity_seed", random_seed() if seed is None else seed)
        self._optimizer_is_chosen = "optimizer_class" in policy_kwargs
        super().__init__(policy, env, *args, **kwargs | {"policy_kwargs": policy_kwargs})

    def _get_policy_from_name(self, policy_name: str) -> Any:
        if policy_name.startswith("MultiInput"):
            raise ValueError(
                f"{type(self).__name__} has no policy for dictionary observations yet; flatten them, as "
                "gymnasium.wrappers.FlattenObservation does"
            )
        return super()._get_policy_from_name(policy_name)

    def _setup_model(self) -> None:
        if "plasticity" in vars(self):  # SB3's load takes any keyword and keeps it without looking
            raise ValueError("load keeps the methods an agent was saved with; for others build it and warm_start(path)")
        if not issubclass(self.policy_class, PlasticPolicy):
            names = ", ".join(f'"{name}"' for name in self.policy_aliases)
            raise ValueError(
                f"{type(self).__name__} needs a policy with plasticity, one of {names} or a subclass of "
                f"agents.PlasticPolicy, got {self.policy_class.__name__}; to go on from a stock SB3 checkpoint, build "
                "a new agent and call warm_start(path)"
            )
        if not self._optimizer_is_chosen and self.policy_kwargs.get("optimizer_class") is torch.optim.Adam:
            self.policy_kwargs["optimizer_class"] = UnitAdam  # QR-DQN names Adam itself, to give it another eps
        super()._setup_model()  # type: ignore[safe-super]

    def why_stock(self) -> str | None:
        """Why rollouts and updates are SB3's own and not those by hand, or None."""
        reason: str | None = self._backend.why_stock(self)
        return reason

    @property
    def _backend(self) -> Any:
        """Made when it is first asked for: SB3's load, and models that became ours, never call the constructor."""
        if (found := vars(self).get("_chosen_backend")) is None or found.choice != self.backend:
            found = vars(self)["_chosen_backend"] = Backend(self.backend, self.by_hand)
        return found

    def collect_rollouts(self, *args: Any, **kwargs: Any) -> Any:
        """SB3's, after asking `between_rollouts`."""
        if self.between_rollouts is not None and not self.between_rollouts():
            return RolloutReturn(0, 0, continue_training=False) if isinstance(self, OffPolicyAlgorithm) else False
        policy: Any = self.policy
        policy.fast = self._backend.of(self)
        try:
            return super().collect_rollouts(*args, **kwargs)  # type: ignore[misc]
        finally:
            policy.fast = None

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "between_rollouts", "_chosen_backend"]

    def warm_start(self: Self, path: str | Path, optimizer: bool = False) -> Self:
        """Take the networks' weights from a checkpoint of SB3 or of ours; methods and counters start anew, from these.

        Reads tensors only and never unpickles objects, so a stranger's file can do no harm. SAC's entropy coefficient
        is not taken.

        path: a zip written by `save`.
        optimizer: take the networks' optimizer moments and counts as well; hyper-parameters stay ours.
        Raises `ValueError` if the file does not fit this agent.
        """
        states = read_states(Path(path))
        own = {key: value for key, value in self.policy.state_dict().items() if not key.startswith("plasticity.")}
        given = {key: value for key, value in states["policy"].items() if not key.startswith("plasticity.")}
        wrong = sorted(own.keys() ^ given.keys()) or sorted(key for key in own if own[key].shape != given[key].shape)
        if wrong:
            raise ValueError(f"{path} does not fit this agent's networks; these weights differ: {', '.join(wrong)}")
        policy: Any = self.policy
        policy.load_state_dict(given, strict=False)
        policy.take_first_weights()
        if optimizer:
            for owner in ("policy", "actor", "critic"):
                if f"{owner}.optimizer" in states:
                    _load_moments(getattr(self, owner).optimizer, states[f"{owner}.optimizer"])
        return self


def random_seed() -> int:
    """A seed that no global stream knows of."""
    return int.from_bytes(os.urandom(4), "little")


def _load_moments(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    own = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, settings in zip(optimizer.param_groups, own, strict=True):
        group.update(settings)


def read_states(path: Path) -> dict[str, dict[str, Any]]:
    """What a checkpoint of SB3 says of the policy and each optimizer; raises `pickle.UnpicklingError` at other things.

    Reads tensors only and never unpickles objects, so a stranger's file can do no harm.
    """
    if not path.exists() and path.with_name(f"{path.name}.zip").exists():
        path = path.with_name(f"{path.name}.zip")  # SB3's save adds it
    if not path.exists():
        raise ValueError(f"{path}: no such file")
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is no SB3 checkpoint (a zip file that holds policy.pth)")
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith(".pth")]
        if "policy.pth" not in names:
            raise ValueError(f"{path} is no SB3 checkpoint: it holds no policy.pth")
        return {
            name.removesuffix(".pth"): torch.load(io.BytesIO(archive.read(name)), "cpu", weights_only=True)
            for name in names
        }
