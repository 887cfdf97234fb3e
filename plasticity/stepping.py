"""What torch does around each step of an optimizer, hooks above all, at less than the cost of a small step."""

from __future__ import annotations

import functools
from collections.abc import Callable
from itertools import chain
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim import optimizer as torchs

_before: Any = getattr(torchs, "_global_optimizer_pre_hooks", None)
_after: Any = getattr(torchs, "_global_optimizer_post_hooks", None)
_is_profiled: Any = getattr(torch.autograd, "_profiler_enabled", None)


def with_hooks(step: Callable[..., Any]) -> Any:
    """A method `step` of an optimizer with its hooks, and all optimizers', without gradients.

    As `Optimizer.profile_hook_step` and `torch.no_grad` have it; a profiler is told of a step only while there is one.
    """
    quiet = torch.no_grad()(step)
    profiled: Any = Optimizer.profile_hook_step(quiet)
    if _before is None or _after is None or _is_profiled is None:
        profiled.hooked = True
        return profiled

    @functools.wraps(step)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        if type(self).step is not call:  # a kind of one's own, around whose step torch calls them
            return quiet(self, *args, **kwargs)
        if _is_profiled():
            return profiled(self, *args, **kwargs)
        given: Any = (self, *args), kwargs
        for hook in chain(_before.values(), self._optimizer_step_pre_hooks.values()):
            changed = hook(self, *given)
            if changed is not None:
                given = _arguments(changed)
        found = (quiet if torch.is_grad_enabled() else step)(*given[0], **given[1])
        for hook in chain(self._optimizer_step_post_hooks.values(), _after.values()):
            hook(self, *given)
        return found

    call.hooked = True  # type: ignore[attr-defined]  # what torch looks for, before it does the same
    return call


def _arguments(changed: Any) -> Any:
    if isinstance(changed, tuple) and len(changed) == 2:
        return changed
    raise RuntimeError(f"a hook before a step must return None or a tuple (new_args, new_kwargs), got {changed}")
