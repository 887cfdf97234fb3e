"""UnitAdam: Adam that can start single units afresh."""

from __future__ import annotations

import copy
import functools
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.adam import adam

from plasticity.fused_adam import ColumnSums, FusedAdam, Halves
from plasticity.stepping import with_hooks
from plasticity.uncompiled import without_compiler

_load_state_dict = without_compiler(Optimizer.load_state_dict)
_COUNTS = ("row_step", "column_step", "entry_step")  # along dimension 0, along dimension 1, for each weight


class UnitAdam(Optimizer):
    """Adam (Kingma & Ba 2015) with a step count per weight, so that a replaced unit restarts its bias correction.

    Until something of a tensor is reset it has one count and torch's own arithmetic: the result equals
    `torch.optim.Adam` (or `AdamW` with `decoupled=True`) bit for bit. From then on weight (j, i, ...) counts
    min(row count j, column count i), exactly, because a weight is reset with its row or with its column. Where single
    weights are reset too (sparse training), the tensor keeps a count for each of them besides.

    lr, betas, eps: as in `torch.optim.Adam`.
    weight_decay: added to the gradient, or with `decoupled` subtracted from the weight (Loshchilov & Hutter 2019).
    fused: work on dense parameters on the CPU in one pass of our own, which equals torch's arithmetic but for rounding;
        without it this is done where something was reset only, and all else is torch's to the last bit.

    steady: as `Network.steady`, of all of its parameters.

    Source: the need is stated by Dohare et al., Nature 632:768 (2024), Methods ("effective step size"); the AdamGnT of
    their code drops the bias correction, this one keeps it.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        decoupled: bool = False,
        fused: bool = False,
    ):
        for name, value in {"lr": lr, "eps": eps, "weight_decay": weight_decay}.items():
            if not value >= 0:
                raise ValueError(f"{name} must be in [0, inf), got {value}")
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas must be in [0, 1), got {tuple(betas)}")
        defaults = {"lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay, "decoupled": decoupled}
        super().__init__(params, defaults)
        self.fused = fused
        self.steady: object | None = None
        self._in_one_pass = FusedAdam()

    add_param_group = without_compiler(Optimizer.add_param_group)
    state_dict = without_compiler(Optimizer.state_dict)
    zero_grad = without_compiler(Optimizer.zero_grad)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "fused": self.fused}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # of a copy, or what load_state_dict puts into this one
        self.__dict__.setdefault("_in_one_pass", FusedAdam())
        self.steady = None

    @with_hooks
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One gradient step."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            steady = None if group["decoupled"] or not self.fused else self.steady
            if steady is None or not self._in_one_pass.again(group, self.state, steady):
                self._step_group(group)
                self._in_one_pass.remember(group, self.state, steady)
        return loss

    def unattended(self) -> Halves | None:
        """The work of a step, for native_steps.h; None where `step` has to be called. `attend` comes afterwards."""
        first, *others = self.param_groups
        return None if others else self._in_one_pass.unattended(first, self.state, self.steady)

    def attend(self) -> None:
        """Tell torch that parameters have changed."""
        self._in_one_pass.attend()

    def _step_group(self, group: dict[str, Any]) -> None:
        trained = [parameter for parameter in group["params"] if parameter.grad is not None]
        if group["decoupled"] and group["weight_decay"]:
            for parameter in trained:
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
        states = [self.state[parameter] for parameter in trained]
        for parameter, state in zip(trained, states, strict=True):
            if not state:
                state["step"] = torch.zeros((), dtype=torch.float64)  # float32 would stop counting at 2^24
                state["exp_avg"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
                state["exp_avg_sq"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
        if not self.fused:
            whole = [p for p in trained if "row_step" not in self.state[p]]
            _adam(whole, [self.state[p] for p in whole], group)
            trained = [p for p in trained if "row_step" in self.state[p]]
            states = [self.state[p] for p in trained]
        left = self._in_one_pass.step(trained, states, group)
        if left:
            self._step_left(left, group)

    def _step_left(self, left: list[nn.Parameter], group: dict[str, Any]) -> None:
        """Those that cannot be worked on in one pass: on a GPU, sparse, or laid out otherwise."""
        whole = [p for p in left if "row_step" not in self.state[p]]
        _adam(whole, [self.state[p] for p in whole], group)
        by_unit: dict[Any, list[nn.Parameter]] = {}  # those that can be worked on together
        for parameter in left:
            if "row_step" in self.state[parameter]:
                by_unit.setdefault((parameter.device, parameter.dtype), []).append(parameter)
        for together in by_unit.values():
            self._step_by_unit(together, group)

    def _step_by_unit(self, parameters: list[nn.Parameter], group: dict[str, Any]) -> None:
        """A step of parameters of which something was reset, all on one device and of one type."""
        beta1, beta2 = group["betas"]
        states = [self.state[p] for p in parameters]
        torch._foreach_add_([s["step"] for s in states], 1)
        torch._foreach_add_([s[name] for s in states for name in _COUNTS if name in s], 1)
        corrections = _bias_corrections((beta1, beta2), states, parameters)
        for parameter, state, (correct_mean, correct_square) in zip(parameters, states, corrections, strict=True):
            gradient = parameter.grad
            assert gradient is not None
            if group["weight_decay"] and not group["decoupled"]:
                gradient = gradient.add(parameter, alpha=group["weight_decay"])
            mean, square = state["exp_avg"], state["exp_avg_sq"]
            mean.lerp_(gradient, 1 - beta1)
            square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
            scale = (square / correct_square).sqrt_().add_(group["eps"])
            parameter.addcdiv_(mean / correct_mean, scale, value=-group["lr"])

    def reset(
        self,
        parameter: nn.Parameter,
        *,
        rows: Tensor | None = None,
        columns: Tensor | None = None,
        entries: Tensor | None = None,
    ) -> None:
        """Zero the moments and step counts of some rows (dimension 0), columns (dimension 1) or single weights.

        rows, columns, entries: boolean masks, (parameter.shape[0],), (parameter.shape[1],) and the parameter's shape.
        """
        for name, mask, dimension in (("rows", rows, 0), ("columns", columns, 1)):
            if mask is not None and tuple(mask.shape) != tuple(parameter.shape[dimension : dimension + 1]):
                raise ValueError(
                    f"{name} must be a mask over dimension {dimension} of a parameter of shape "
                    f"{tuple(parameter.shape)}, got shape {tuple(mask.shape)}"
                )
        if entries is not None and entries.shape != parameter.shape:
            raise ValueError(f"entries must have the shape {tuple(parameter.shape)}, got {tuple(entries.shape)}")
        if not (state := self.state_by_unit(parameter)):
            return
        if entries is not None and "entry_step" not in state:
            state["entry_step"] = self.steps(parameter)
        _zero_elements(state, parameter, rows, columns, entries)
        for name, mask in zip(_COUNTS, (rows, columns, entries), strict=True):
            if mask is not None:
                state[name][mask] = 0

    def state_by_unit(self, parameter: nn.Parameter) -> dict[str, Any]:
        """What is remembered of a parameter, counts of its rows and columns among it; empty before its first step."""
        state: dict[str, Any] = self.state.get(parameter) or {}
        if state and "row_step" not in state:
            for name, size in zip(_COUNTS[:2], parameter.shape[:2], strict=False):
                state[name] = torch.full((size,), int(state["step"]), dtype=torch.int64, device=parameter.device)
        return state

    def column_sums(self, parameter: nn.Parameter) -> ColumnSums:
        """The sums of |weights| over a matrix's rows, which come with steps in one pass once they were asked for."""
        return self._in_one_pass.column_sums(parameter)

    def steps(self, parameter: nn.Parameter) -> Tensor:
        """Gradient steps since the last reset, one integer for each weight of `parameter`, in its shape."""
        state = self.state.get(parameter) or {"step": 0}
        if "row_step" not in state:
            return torch.full(parameter.shape, int(state["step"]), device=parameter.device)
        counts = [state[n].view(_shape(state[n], d, parameter)) for d, n in enumerate(_COUNTS) if n in state]
        return torch.stack([count.expand(parameter.shape) for count in counts]).amin(0)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load UnitAdam's own state exactly, or a stock Adam's moments and counts under our own hyper-parameters."""
        groups = state_dict["param_groups"]
        foreign = not all("decoupled" in group for group in groups)
        if any(group.get("amsgrad") for group in groups):
            raise ValueError("UnitAdam cannot load an Adam state with amsgrad=True")
        if any("exp_avg" not in state for state in state_dict["state"].values()):
            raise ValueError("UnitAdam can load the state of Adam, AdamW or UnitAdam only; this one has no exp_avg")
        own = [{key: value for key, value in group.items() if key != "params"} for group in self.param_groups]
        _load_state_dict(self, copy.deepcopy(state_dict))  # torch would share the moments with the source
        if foreign:
            for group, settings in zip(self.param_groups, own, strict=True):
                kept = {"params": group["params"], **settings}
                group.clear()
                group.update(kept)
        keys = chain.from_iterable(group["params"] for group in groups)
        parameters = chain.from_iterable(group["params"] for group in self.param_groups)
        for key, parameter in zip(keys, parameters, strict=True):
            if key in state_dict["state"]:
                self._restore_counts(parameter, state_dict["state"][key])

    def _restore_counts(self, parameter: nn.Parameter, saved: dict[str, Any]) -> None:
        # torch casts every state but "step" to the parameter's type: counts would lose exactness
        state = self.state[parameter]
        state["step"] = torch.as_tensor(saved["step"]).to("cpu", torch.float64, copy=True).reshape(())
        for name in _COUNTS:
            if name in saved:
                state[name] = saved[name].to(parameter.device, torch.int64, copy=True)


def _adam(parameters: list[nn.Parameter], states: list[dict[str, Any]], group: dict[str, Any]) -> None:
    """torch's own step, of parameters that have one count each."""
    if not parameters:
        return
    adam(
        parameters,  # type: ignore[arg-type]
        [p.grad for p in parameters if p.grad is not None],
        [s["exp_avg"] for s in states],
        [s["exp_avg_sq"] for s in states],
        [],
        [s["step"] for s in states],
        amsgrad=False,
        beta1=group["betas"][0],
        beta2=group["betas"][1],
        lr=group["lr"],
        weight_decay=0.0 if group["decoupled"] else group["weight_decay"],
        eps=group["eps"],
        maximize=False,
    )


def reset_state(
    optimizer: Optimizer,
    parameter: nn.Parameter,
    *,
    rows: Tensor | None = None,
    columns: Tensor | None = None,
    entries: Tensor | None = None,
) -> None:
    """Start rows, columns or single entries of a parameter afresh in any optimizer, without masks all of it.

    Nothing happens where the optimizer holds no state of it.
    """
    masks = (rows, columns, entries)
    if all(mask is None for mask in masks):
        optimizer.state.pop(parameter, None)  # as before its first step: one count again, and torch's own arithmetic
    elif isinstance(optimizer, UnitAdam):
        optimizer.reset(parameter, rows=rows, columns=columns, entries=entries)
    elif parameter in optimizer.state:
        state = optimizer.state[parameter]
        if "step" in state and "exp_avg" in state:
            warnings.warn(
                f"{type(optimizer).__name__} keeps one step count a tensor, so a replaced unit's first steps are up to "
                "6.5 times too long; use plasticity.UnitAdam",
                stacklevel=2,
            )
        _zero_elements(state, parameter, *masks)


def _zero_elements(
    state: dict[str, Any], parameter: nn.Parameter, rows: Tensor | None, columns: Tensor | None, entries: Tensor | None
) -> None:
    own = [v for v in state.values() if isinstance(v, Tensor) and v.shape == parameter.shape and v.dim() > 0]
    for dimension, mask in ((0, rows), (1, columns)):
        if mask is None:
            continue
        if mask.dim() == 1:
            places = mask.nonzero().squeeze(1)
            for value in own:
                value.index_fill_(dimension, places, 0)
        else:  # replicas stand before outputs and inputs
            for value in own:
                value.transpose(-2, -2 + dimension)[mask] = 0
    if entries is not None:
        for value in own:
            value[entries] = 0


def _bias_corrections(
    betas: tuple[float, float], states: Sequence[dict[str, Any]], parameters: Sequence[Tensor]
) -> Iterator[Tensor]:
    """For each parameter 1 - beta^count of both betas, (2, ...), the rest broadcastable to the parameter.

    It grows with the count, so of several counts the smallest has the smallest correction. All powers are taken
    together: one by one so many small operations would take longer than the rest of the step.
    """
    counts = [[(d, s[name]) for d, name in enumerate(_COUNTS) if name in s] for s in states]
    every = [count.flatten() for own in counts for _, count in own]
    logs = torch.tensor(betas, dtype=torch.float64, device=every[0].device).log_().unsqueeze(1)
    terms = (torch.cat(every) * logs).expm1_().neg_().to(parameters[0].dtype)
    parts = iter(terms.split_with_sizes([len(count) for count in every], 1))
    for own, parameter in zip(counts, parameters, strict=True):
        yield functools.reduce(torch.minimum, [next(parts).view(2, *_shape(c, d, parameter)) for d, c in own])


def _shape(counts: Tensor, dimension: int, parameter: Tensor) -> tuple[int, ...]:
    """The shape in which counts along one dimension broadcast to the parameter; those of its own shape keep it."""
    if counts.shape == parameter.shape:
        return tuple(counts.shape)
    return tuple(len(counts) if d == dimension else 1 for d in range(parameter.dim()))
