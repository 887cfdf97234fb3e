"""Whether an agent still is what it was, at a glance: SAC asks before and after each step."""

from __future__ import annotations

from itertools import chain
from operator import attrgetter, is_
from typing import Any

from torch import Tensor

PARTS = ("policy", "rollout_buffer", "replay_buffer", "log_ent_coef", "ent_coef_optimizer")
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_of_parameter = attrgetter("dtype", "requires_grad", "_backward_hooks", "_post_accumulate_grad_hooks")


class Unchanged:
    """What an agent was made of: its modules, their hooks, and where their weights lie."""

    def __init__(self, model: Any):
        policy = model.policy
        modules = [module for name, module in policy.named_modules() if not f"{name}.".startswith("plasticity.")]
        self._tables = [table for module in modules for table in (module._modules, module._parameters) if table]
        self._held = self._values()
        self._hooks = [vars(module)[name] for module in modules for name in HOOKS]
        parameters = [p for module in modules for p in module._parameters.values()]
        self._parameters: list[Any] = [p for p in [*parameters, vars(model).get("log_ent_coef")] if p is not None]
        self._networks, self._parts = policy.networks, _parts(model)
        self._state = self._look()

    def __call__(self, model: Any) -> bool:
        """Whether this is so still."""
        return (
            all(map(is_, _parts(model), self._parts))
            and model.policy.networks is self._networks
            and len(held := self._values()) == len(self._held)
            and all(map(is_, held, self._held))
            and self._look() == self._state
        )

    def _values(self) -> list[Any]:
        return [*chain.from_iterable(map(dict.values, self._tables))]

    def _look(self) -> tuple[Any, ...]:
        found = [*map(Tensor.data_ptr, self._parameters)], [*map(_of_parameter, self._parameters)]
        return [*map(len, self._hooks)], *found


def _parts(model: Any) -> list[Any]:
    return [*map(vars(model).get, PARTS)]
