"""Numbers of an agent that are no longer finite: gradients before they do harm, and parameters that they harmed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from operator import is_
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from torch import Tensor, nn
from torch.optim import Optimizer

from agents.optimizers import owners
from plasticity.native import NATIVE, Tasks, Work, addressable, addresses_and_sizes, halves, table, together


class GradientGuard:
    """Raises `FloatingPointError` before an optimizer's step whose gradients hold NaN or infinity; nothing is changed.

    Looks before the methods do, so these do not act on such gradients either; what they add is not looked at. One pass
    over the gradients, 1 to 2 % of the time of a gradient step of PPO (two networks of 64 or 256 units, one CPU core);
    none where an update by hand has the sum of their squares anyway, the optimizer's `gradient_squares`.

    Copying an optimizer drops it; put it on when the agent is complete.

    steps: optimizer's name (`optimizers`) -> gradient steps that were let through.
    """

    def __init__(self, model: BaseAlgorithm):
        self._names = {id(parameter): name for name, parameter in _parameters(model)}
        self.steps: dict[str, int] = {}
        for name, optimizer in optimizers(model).items():
            self._watch(name, optimizer)

    def state_dict(self) -> dict[str, int]:
        """What a checkpoint must keep."""
        return dict(self.steps)

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on counting where `state_dict` was taken."""
        self.steps.update(state)

    def _watch(self, name: str, optimizer: Optimizer) -> None:
        self.steps[name] = 0
        handle = optimizer.register_step_pre_hook(_Watch(self, name, optimizer).look)
        hooks: Any = optimizer._optimizer_step_pre_hooks  # an OrderedDict, called in its order
        hooks.move_to_end(handle.id, last=False)

    def look_closely(self, name: str, parameters: list[nn.Parameter]) -> None:
        """Raise where a gradient of this optimizer is not finite."""
        bad = [
            self._names[id(parameter)]
            for parameter in parameters
            if parameter.grad is not None and not _is_finite(parameter.grad)
        ]
        if bad:
            rest = f" and of {len(bad) - 1:,} more" if len(bad) > 1 else ""
            raise FloatingPointError(
                f"gradients of the {name} are no longer finite at gradient step {self.steps[name] + 1:,}, before the "
                f"step was taken: that of {bad[0]}{rest}"
            )


class _Watch:
    """A guard's hook before the steps of one optimizer."""

    def __init__(self, guard: GradientGuard, name: str, optimizer: Optimizer):
        self._guard, self._name, self._optimizer = guard, name, optimizer
        self._parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        self._seem_finite = SquaresFinite()

    def look(self, *_: object) -> None:
        """Called by the optimizer."""
        squares = getattr(self._optimizer, "gradient_squares", None)  # from who worked the gradients out and knows them
        if squares is None:
            gradients = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
            fine = not gradients or self._seem_finite(gradients)
        else:
            fine = math.isfinite(squares)
        if not fine:
            self._guard.look_closely(self._name, self._parameters)
        self._guard.steps[self._name] += 1

    def unattended(self) -> Tasks | None:
        """Nothing: steps that are taken without hooks end before one whose gradients are not finite."""
        return ()

    def attend(self, steps: int) -> None:
        """So many steps have been taken without hooks."""
        self._guard.steps[self._name] += steps


def optimizers(model: BaseAlgorithm) -> dict[str, Optimizer]:
    """An agent's optimizers by name: `policy`, or `actor` and `critic`; `entropy coefficient` where SAC tunes it."""
    names = {id(module): name for name, module in model.policy.named_modules()}
    found = {names[id(owner)] or "policy": owner.optimizer for owner in owners(model.policy)}
    entropy = getattr(model, "ent_coef_optimizer", None)
    return found if entropy is None else {**found, "entropy coefficient": entropy}


def non_finite(model: BaseAlgorithm) -> list[str]:
    """The parameters of an agent, and entries of its optimizers' states, that hold NaN or infinity; best empty.

    Steps with finite gradients can make them: a learning rate too high, squares of gradients that overflow in Adam.
    """
    numbers = list(_parameters(model))
    names = {id(parameter): name for name, parameter in numbers}
    for label, optimizer in optimizers(model).items():
        for parameter, state in optimizer.state.items():
            where = f"of {names[id(parameter)]} (optimizer of the {label})"
            numbers += [(f"{key} {where}", value) for key, value in state.items() if isinstance(value, Tensor)]
    by_device: dict[torch.device, list[Tensor]] = {}
    for _, tensor in numbers:
        if tensor.is_floating_point():
            by_device.setdefault(tensor.device, []).append(tensor.detach())
    if all(SquaresFinite()(tensors) for tensors in by_device.values()):
        return []
    return [name for name, tensor in numbers if not _is_finite(tensor)]


def _parameters(model: BaseAlgorithm) -> Iterator[tuple[str, Tensor]]:
    yield from nn.Module.named_parameters(model.policy)  # those that methods hold too
    entropy: Any = getattr(model, "log_ent_coef", None)
    if entropy is not None:
        yield "log_ent_coef", entropy


class SquaresFinite:
    """Whether the squares of all numbers add up to a finite one, which is quick to see; if not, look closely.

    Remembers where tensors lie while it is shown the same ones.
    """

    def __init__(self) -> None:
        self._held: list[Tensor] = []
        self._works: tuple[Work, ...] = ()
        self._sums = np.zeros(2)

    def __call__(self, tensors: list[Tensor]) -> bool:
        if len(tensors) != len(self._held) or not all(map(is_, tensors, self._held)):
            self._held, self._works = tensors, self._plan(tensors) if addressable(*tensors) else ()
        if not self._works:
            return math.isfinite(torch.stack(torch._foreach_norm(tensors)).sum().item())
        together(*self._works)
        return math.isfinite(sum(self._sums.tolist()))

    def _plan(self, tensors: list[Tensor]) -> tuple[Work, ...]:
        every, squares = addresses_and_sizes(tensors), NATIVE[tensors[0].dtype].squares
        self._parts = halves(every, every[:, 1])
        place = self._sums.ctypes.data
        tasks = [table([part.ctypes.data, len(part), place + 8 * k]) for k, part in enumerate(self._parts)]
        return tuple(Work((squares, task)) for task in tasks)


def _is_finite(tensor: Tensor) -> bool:
    return bool(torch.isfinite(tensor).all())
