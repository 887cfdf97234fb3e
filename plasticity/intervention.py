"""The one seam: something done to a network around each gradient step, and ways to combine such things."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor, nn

from plasticity.buffers import HostCounts
from plasticity.native import Table, Tasks
from plasticity.network import Network

_HOOKS = {"before_step", "after_step"}


@runtime_checkable
class Intervention(Protocol):
    """Something done to a network around each gradient step.

    A method implements `after_step` (replacing units, shrinking weights) or `before_step` (adding to gradients, which
    the algorithm has already clipped); the rest has defaults. State that must survive a checkpoint is a module's
    buffer; randomness comes from the method's own generator, never from torch's global one.
    """

    def before_step(self, network: Network) -> None:
        """Called when the gradients are final, just before the optimizer uses them."""
        return

    def after_step(self, network: Network) -> None:
        """Called just after the optimizer's step; `network.activations` are those the gradients came from."""
        return

    def notice_change(self) -> None:
        """Called when the world has changed: a new regime of the environment, a new task."""
        return

    def telemetry(self) -> dict[str, float]:
        """Numbers for the log, such as `0/replaced` (layer/metric); without side effects."""
        return {}

    def histograms(self) -> dict[str, Tensor]:
        """Values whose distribution is worth a look, such as `0/age` -> (units,); without side effects."""
        return {}


def unattended(intervention: Intervention, network: Network) -> Tasks | None:
    """What compiled code can do in place of the hooks, in gradient steps that follow one another in it.

    These are tasks of `plasticity.native`; each one's table begins with the address of a number that is not 0 once the
    intervention is needed, which ends such steps. None, where hooks have to be called. A method that has more to offer
    than to do nothing has a method of this name, `unattended(network)`, and `attend(network)`, called after the last
    of such steps.
    """
    if not _HOOKS.isdisjoint(getattr(intervention, "__dict__", ())):
        return None  # put in the place of its kind's
    own = getattr(intervention, "unattended", None)
    if own is not None:
        return own(network)  # type: ignore[no-any-return]
    kind: Any = type(intervention)
    idle = kind.before_step is Intervention.before_step and kind.after_step is Intervention.after_step
    return () if idle else None


def attend(intervention: Intervention, network: Network) -> None:
    """Tell an intervention that steps have been taken as `unattended` has it."""
    own = getattr(intervention, "attend", None)
    if own is not None:
        own(network)


class Hooks:
    """An intervention around each step of a network's first optimizer; `remove()` ends it."""

    def __init__(self, intervention: Intervention, network: Network):
        self._intervention, self._network = intervention, network
        optimizer = network.optimizers[0]
        self._handles = [
            optimizer.register_step_pre_hook(self.before),
            optimizer.register_step_post_hook(self.after),
        ]

    def before(self, *_: object) -> None:
        """Called by the optimizer."""
        _without_gradients(self._intervention.before_step, self._network)

    def after(self, *_: object) -> None:
        """Called by the optimizer."""
        _without_gradients(self._intervention.after_step, self._network)

    def unattended(self) -> Tasks | None:
        """See `unattended`."""
        return unattended(self._intervention, self._network)

    def attend(self, steps: int) -> None:
        """So many steps have been taken without hooks."""
        attend(self._intervention, self._network)

    def remove(self) -> None:
        """Stop calling the intervention."""
        for handle in self._handles:
            handle.remove()


def attach(intervention: Intervention, network: Network) -> Hooks:
    """Call `intervention` around each step of the network's first optimizer; `remove()` of the result ends it.

    Copying an optimizer drops its hooks and copying a model copies neither: attach after copying.
    """
    _check(intervention)
    return Hooks(intervention, network)


def _without_gradients(act: Callable[[Network], None], network: Network) -> None:
    if torch.is_grad_enabled():
        with torch.no_grad():
            act(network)
    else:
        act(network)


class Chain(nn.ModuleList, Intervention):
    """Several interventions, each in turn: `Chain([L2(1e-3), ContinualBackprop(network.layers)])`."""

    def before_step(self, network: Network) -> None:
        for intervention in self._modules.values():
            intervention.before_step(network)  # type: ignore[operator]

    def after_step(self, network: Network) -> None:
        for intervention in self._modules.values():
            intervention.after_step(network)  # type: ignore[operator]

    def unattended(self, network: Network) -> Tasks | None:
        """See `unattended`."""
        found: list[tuple[Any, Table]] = []
        for intervention in self:
            own = unattended(intervention, network)  # type: ignore[arg-type]
            if own is None:
                return None
            found += own
        return found

    def attend(self, network: Network) -> None:
        """See `attend`."""
        for intervention in self:
            attend(intervention, network)  # type: ignore[arg-type]

    def notice_change(self) -> None:
        for intervention in self:
            intervention.notice_change()  # type: ignore[operator]

    def telemetry(self) -> dict[str, float]:
        numbers: dict[str, float] = {}
        for intervention in self:
            for key, value in intervention.telemetry().items():  # type: ignore[operator]
                # two methods may replace units of one layer: what counts is how many were replaced
                numbers[key] = value + numbers.get(key, 0.0) if key.endswith("/replaced") else value
        return numbers

    def histograms(self) -> dict[str, Tensor]:
        return {key: values for intervention in self for key, values in intervention.histograms().items()}  # type: ignore[operator]


class Every(HostCounts, Intervention):
    """Another intervention, at every `period`-th gradient step only (the first time at step `period`)."""

    steps: torch.Tensor

    def __init__(self, period: int, intervention: nn.Module):
        super().__init__()
        if period < 1:
            raise ValueError(f"period must be in [1, inf) gradient steps, got {period}")
        _check(intervention)
        self.period, self.intervention = period, intervention
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def before_step(self, network: Network) -> None:
        if (int(self.steps) + 1) % self.period == 0:
            self.intervention.before_step(network)  # type: ignore[operator]

    def after_step(self, network: Network) -> None:
        self.steps += 1
        if int(self.steps) % self.period == 0:
            self.intervention.after_step(network)  # type: ignore[operator]

    def notice_change(self) -> None:
        self.intervention.notice_change()  # type: ignore[operator]

    def telemetry(self) -> dict[str, float]:
        return self.intervention.telemetry()  # type: ignore[operator, no-any-return]

    def histograms(self) -> dict[str, Tensor]:
        return self.intervention.histograms()  # type: ignore[operator, no-any-return]


class OnChange(HostCounts, Intervention):
    """Another intervention, at the first gradient step after each change of the world only.

    Agents tell of changes themselves (`agents.RegimeClock`); in a loop of one's own call `notice_change()`.
    """

    pending: torch.Tensor

    def __init__(self, intervention: nn.Module):
        super().__init__()
        _check(intervention)
        self.intervention = intervention
        self.register_buffer("pending", torch.zeros((), dtype=torch.bool))

    def before_step(self, network: Network) -> None:
        if self.pending:
            self.intervention.before_step(network)  # type: ignore[operator]

    def after_step(self, network: Network) -> None:
        if self.pending:
            self.pending.fill_(False)
            self.intervention.after_step(network)  # type: ignore[operator]

    def notice_change(self) -> None:
        self.pending.fill_(True)

    def telemetry(self) -> dict[str, float]:
        return self.intervention.telemetry()  # type: ignore[operator, no-any-return]

    def histograms(self) -> dict[str, Tensor]:
        return self.intervention.histograms()  # type: ignore[operator, no-any-return]


Period: TypeAlias = int | Literal["change"]


def schedule(period: Period, intervention: nn.Module) -> Every | OnChange:
    """`intervention` every so many gradient steps, or at every change of the world."""
    return OnChange(intervention) if period == "change" else Every(period, intervention)


def _check(intervention: object) -> None:
    if not isinstance(intervention, Intervention):
        raise TypeError(
            f"an intervention must have before_step, after_step, notice_change, ..., as subclasses of Intervention do; "
            f"got {intervention!r}, and a method's config makes one by build(network, seed)"
        )


class Idle(nn.Module, Intervention):
    """Does nothing: what remains of a method that is all in the architecture or the optimizer."""


class Randomness(nn.Module):
    """A random stream of one's own that is saved and loaded with the module; the same on every device."""

    def __init__(self, seed: int, *names: str):
        """Streams of different names are independent, whatever the seed."""
        super().__init__()
        digest = hashlib.sha256("/".join([str(seed), *names]).encode()).digest()
        self.generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)

    def get_extra_state(self) -> torch.Tensor:
        return self.generator.get_state()  # a plain tensor, so that it loads with weights_only=True

    def set_extra_state(self, state: torch.Tensor) -> None:
        self.generator.set_state(state.cpu())

    def uniform(self, *shape: int, bound: float = 1.0) -> torch.Tensor:
        """Draws from [-bound, bound), float32 on the CPU."""
        return torch.empty(shape).uniform_(-bound, bound, generator=self.generator)

    def unit(self, *shape: int) -> torch.Tensor:
        """Draws from [0, 1), float32 on the CPU."""
        return torch.rand(shape, generator=self.generator)

    def normal(self, *shape: int, std: float = 1.0) -> torch.Tensor:
        """Draws from N(0, std^2), float32 on the CPU."""
        return torch.randn(shape, generator=self.generator) * std
