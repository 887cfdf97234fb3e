"""Continual backpropagation: replace the least useful units, a few at a time, for as long as training goes on."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from plasticity.fused_contribution import FusedContribution
from plasticity.fused_replacement import FusedReplacement
from plasticity.initialisation import INITIALISATIONS, uniform_bound
from plasticity.intervention import Intervention, Randomness
from plasticity.layers import HiddenLayer
from plasticity.native import Tasks
from plasticity.network import Network
from plasticity.replacement import replace_units
from plasticity.settings import SettingsError, check, from_mapping, setting
from plasticity.utility import UTILITIES, UnitStatistics

SMALLEST_RATE = 1e-12


@dataclass(frozen=True)
class ContinualBackpropConfig:
    """Settings of `ContinualBackprop`; the defaults are those of the published RL runs.

    replacement_rate: fraction of the mature units replaced per gradient step.
    maturity: gradient steps for which a new unit is left alone.
    decay: of the running utility and the running mean activation; 0 looks at this minibatch only.
    utility: which units are useful, see `plasticity.utility`.
    init: the distribution of fresh incoming weights, see `plasticity.uniform_bound`.
    mean_transfer: move a replaced unit's mean contribution into its readers' biases. The reference code zeroes the
        mean before using it: `false` is what its published runs really did.
    reset_optimizer: `unit` starts the optimizer's state of a unit afresh; `none` keeps it, as the published RL runs.
    rounding: `carry` replaces floor(budget) units and keeps the rest; `stochastic` replaces floor plus one with the
        probability of the fraction.
    """

    replacement_rate: float = setting(1e-4, within="[0, 1]")
    maturity: int = setting(10_000, within="[0, inf)")
    decay: float = setting(0.99, within="[0, 1)")
    utility: str = setting("contribution", choices=UTILITIES)
    init: str = setting("lecun", choices=INITIALISATIONS)
    mean_transfer: bool = setting(True)
    reset_optimizer: str = setting("unit", choices=("unit", "none"))
    rounding: str = setting("carry", choices=("carry", "stochastic"))

    def __post_init__(self) -> None:
        check(self)
        if 0 < self.replacement_rate < SMALLEST_RATE:
            raise SettingsError(
                [f"replacement_rate must be 0 or at least {SMALLEST_RATE}, got {self.replacement_rate}"]
            )

    def build(self, network: Network, seed: int) -> ContinualBackprop:
        """The intervention for one network."""
        network.wants_sums |= self.in_one_pass
        return ContinualBackprop(network.layers, seed=seed, stream=network.name, **asdict(self))

    @property
    def in_one_pass(self) -> bool:
        """Whether a kernel can count minibatches in and spend the budgets, where the layers are plain."""
        return self.utility == "contribution" and self.rounding == "carry"


class ContinualBackprop(nn.Module, Intervention):
    """Replace the least useful mature units of each hidden layer, a few per gradient step.

    Dohare et al., "Loss of plasticity in deep continual learning", Nature 632:768 (2024), Algorithm 1. After every
    gradient step, for each layer: ages grow by 1; running means of utility and activation take in this minibatch;
    replacement_rate * (number of units older than maturity) is added to a budget; whole units of budget are spent on
    the eligible units of lowest bias-corrected utility (ties broken at random). Each gets fresh incoming weights, bias
    0, outgoing weights 0, age and utility 0.

    Where the reference code differs from the paper, this follows the paper: the mean is transferred before it is
    forgotten, the budget is exact, the optimizer's state and step count of a replaced unit start afresh.

    Settings as in `ContinualBackpropConfig`; `seed` and `stream` decide its own random stream.
    """

    def __init__(
        self, layers: Sequence[HiddenLayer], *, seed: int = 0, stream: str = "continual_backprop", **settings: Any
    ):
        super().__init__()
        self.config = from_mapping(ContinualBackpropConfig, settings)
        self.random = Randomness(seed, stream, "cbp")
        self.layers = nn.ModuleDict(
            {
                layer.name: _UnitState(layer, uniform_bound(layer.linear, self.config.init, layer.activation))
                for layer in layers
            }
        )
        # an exact budget: floats would make a replacement late, or lose one, after 10 additions of 0.1
        rate = Fraction(str(self.config.replacement_rate)).limit_denominator(round(1 / SMALLEST_RATE))
        self._numerator, self._denominator = rate.numerator, rate.denominator
        for state in self.layers.values():
            state.denominator.fill_(self._denominator)  # type: ignore[operator]
        self._states: dict[str, Any] = self.layers._modules  # found sooner than the attribute of a module
        running, resets = (self.config.decay, self.config.maturity), self.config.reset_optimizer == "unit"
        self._in_one_pass = self.config.in_one_pass
        self._contribution = FusedContribution(*running, (self._numerator, self._denominator))
        self._replacement = FusedReplacement(*running, self.config.mean_transfer, resets)
        self._quiet: dict[str, int] = {}  # for so many steps no budget can come to a unit, were all units eligible
        self.register_load_state_dict_post_hook(_rescale_budgets)  # type: ignore[no-untyped-call]
        self._warn_of_inexact_transfer(layers)

    def _warn_of_inexact_transfer(self, layers: Sequence[HiddenLayer]) -> None:
        if not (self.config.mean_transfer and self.config.replacement_rate):
            return
        names = [layer.name for layer in layers if not all(layer.takes_mean(r) for r in layer.readers)]
        if names:
            warnings.warn(
                f"mean transfer is left out for readers of layers {', '.join(names)}: a padded convolution, a layer "
                "without bias or a reader of doubled activations cannot take it exactly; mean_transfer=False says so "
                "without this warning",
                stacklevel=3,
            )

    def after_step(self, network: Network) -> None:
        counts = self._contribution(network, self._states) if self._in_one_pass else None
        if counts is None:
            self._spend_on(network, self._observe_and_spend(network), at_once=False)
            return
        if self._quiet:
            self._quiet.clear()
        if counts:
            self._spend_on(network, counts, at_once=True)

    def unattended(self, network: Network) -> Tasks | None:
        """See `plasticity.intervention.unattended`."""
        is_own = type(self) is ContinualBackprop  # others' hooks may do other things
        return self._contribution.unattended(network) if is_own and self._in_one_pass else None

    def attend(self, network: Network) -> None:
        """Replace the units that the latest minibatch has brought the budgets for."""
        self._spend_on(network, self._contribution.counts(), at_once=True)

    def _spend_on(self, network: Network, counts: Mapping[HiddenLayer, Any], *, at_once: bool) -> None:
        """Replace so many units of these layers. at_once: whether `FusedContribution` has taken them."""
        if at_once and counts and self._replacement.takes(network, self._states, [*counts]):
            self._replacement(network, counts, self.random)  # with the same draws as below
        elif counts:
            self._replace(network, {layer.name: self._pick(self.state(layer), n) for layer, n in counts.items()})

    def _observe_and_spend(self, network: Network) -> dict[HiddenLayer, Any]:
        """The layers that are to replace units and how many, (*replicas,)."""
        counts = {}
        for layer in network.trained_layers:
            self._observe(layer, network.activations[layer.name])
            count = self._spend(layer.name, self.state(layer))
            if count is not None:
                counts[layer] = count.cpu().numpy()
        return counts

    def state(self, layer: HiddenLayer) -> _UnitState:
        """Utility, mean activation and age of a layer's units, and how many were replaced."""
        state = self.layers[layer.name]
        assert isinstance(state, _UnitState)
        return state

    def _observe(self, layer: HiddenLayer, activations: Tensor) -> None:
        state, weight = self.state(layer), 1 - self.config.decay
        rows = layer.rows(activations)
        state.age.add_(1)  # in place: an assignment would go through nn.Module's own, slow one
        state.mean_activation.lerp_(rows.mean(0).to(state.mean_activation), weight)
        mean = state.corrected(state.mean_activation, self.config.decay)
        utility = UTILITIES[self.config.utility](UnitStatistics(layer, rows, mean, self.random.unit))
        state.utility.lerp_(utility.to(state.utility), weight)

    def _order(self, state: _UnitState) -> NDArray[np.int64]:
        """A layer's units, (*replicas, units): the eligible ones from the least useful to the most, then all others."""
        age, utility = state.age.cpu().numpy(), state.utility.cpu().numpy().astype(np.float64)
        young = age <= self.config.maturity
        worth = utility / np.where(young, 1, 1 - self.config.decay**age)
        return np.lexsort((self.random.unit(*worth.shape).numpy(), np.where(young, 0, worth), young))

    def _pick(self, state: _UnitState, count: Any) -> Tensor:
        """A mask of the units to replace now, (*replicas, units): so many, (*replicas,), of those that are eligible."""
        order = self._order(state)
        mask = np.zeros(order.shape, np.bool_)
        np.put_along_axis(mask, order, np.arange(order.shape[-1]) < np.asarray(count)[..., None], -1)
        return torch.from_numpy(mask).to(state.age.device)

    def _spend(self, name: str, state: _UnitState) -> Tensor | None:
        """How many units to replace, (*replicas,), or None if none anywhere."""
        eligible = (state.age > self.config.maturity).sum(-1)
        if self.config.rounding == "stochastic":
            expected = self.config.replacement_rate * eligible.double()
            chance = self.random.unit(*expected.shape).to(expected.device)
            drawn = (expected.floor() + (chance < expected.frac())).long()
            return drawn if drawn.any() else None
        state.budget.add_(eligible, alpha=self._numerator)
        if (quiet := self._quiet.pop(name, 0)) > 0:
            self._quiet[name] = quiet - 1
            return None  # without a look at the budget: on a GPU that would wait for all that is under way
        highest = int(state.budget.max())
        if highest < self._denominator:
            most = max(self._numerator * state.age.shape[-1], 1)
            self._quiet[name] = (self._denominator - highest - 1) // most
            return None
        count = state.budget // self._denominator
        state.budget.sub_(count, alpha=self._denominator)
        return count

    def _replace(self, network: Network, picked: dict[str, Tensor]) -> None:
        states = {layer.name: self.state(layer) for layer in network.layers if layer.name in picked}
        means = {name: s.corrected(s.mean_activation, self.config.decay) for name, s in states.items()}
        changes = replace_units(
            network,
            picked,
            self._fresh,
            mean_activation=means if self.config.mean_transfer else None,
            reset_optimizer=self.config.reset_optimizer == "unit",
        )
        for name, mask in picked.items():
            states[name].start_afresh(mask, changes[name])

    def _fresh(self, layer: HiddenLayer, count: int) -> Tensor:
        state: Any = self._states[layer.name]
        return self.random.uniform(count, layer.incoming().shape[-1], bound=state.bound.item())

    def telemetry(self) -> dict[str, float]:
        """For each layer: `replaced` so far, `eligible_fraction`, `age_p10`, `age_p50`, `age_p90` (gradient steps) and
        `output_change`, the mean absolute change of the readers' outputs at the latest replacement."""
        numbers: dict[str, float] = {}
        for name, state in self.layers.items():
            assert isinstance(state, _UnitState)
            age = state.age.double().flatten()
            numbers[f"{name}/replaced"] = float(state.replaced)
            numbers[f"{name}/eligible_fraction"] = float((age > self.config.maturity).double().mean())
            for percent in (10, 50, 90):
                numbers[f"{name}/age_p{percent}"] = float(age.quantile(percent / 100))
            numbers[f"{name}/output_change"] = float(state.output_change)
        return numbers

    def histograms(self) -> dict[str, Tensor]:
        """For each layer: `age` (gradient steps) and `utility` (bias-corrected) of every unit."""
        found: dict[str, Tensor] = {}
        for name, state in self.layers.items():
            assert isinstance(state, _UnitState)
            old_enough = state.age > 0  # without a step there is nothing to correct
            found[f"{name}/age"] = state.age.clone()
            found[f"{name}/utility"] = state.corrected(state.utility, self.config.decay).where(old_enough, 0)
        return found


class _UnitState(nn.Module):
    """What continual backprop remembers of a layer's units; all tensors are (*replicas, units) or scalars."""

    utility: Tensor
    mean_activation: Tensor
    age: Tensor
    budget: Tensor  # in units of 1 / denominator
    denominator: Tensor
    replaced: Tensor
    output_change: Tensor
    bound: Tensor

    def __init__(self, layer: HiddenLayer, bound: float):
        super().__init__()
        shape, device = layer.unit_shape, layer.weight.device
        for name in ("utility", "mean_activation"):
            self.register_buffer(name, torch.zeros(shape, dtype=layer.weight.dtype, device=device))
        self.register_buffer("age", torch.zeros(shape, dtype=torch.int64, device=device))
        self.register_buffer("budget", torch.zeros(shape[:-1], dtype=torch.int64, device=device))
        self.register_buffer("denominator", torch.ones((), dtype=torch.int64, device=device))
        self.register_buffer("replaced", torch.zeros((), dtype=torch.int64, device=device))
        self.register_buffer("output_change", torch.zeros((), dtype=torch.float64, device=device))
        self.register_buffer("bound", torch.tensor(bound, dtype=torch.float64, device=device))

    def corrected(self, running: Tensor, decay: float) -> Tensor:
        """A running mean divided by 1 - decay^age: without it, young units would look useless. Needs age >= 1."""
        return running / (1 - decay ** self.age.to(running))

    def start_afresh(self, mask: Tensor, output_change: Tensor) -> None:
        self.utility[mask] = 0
        self.mean_activation[mask] = 0
        self.age[mask] = 0
        self.replaced.add_(mask.sum())
        self.output_change.fill_(output_change)


def _rescale_budgets(module: nn.Module, incompatible_keys: Any) -> None:
    """A budget saved under another replacement rate counts in other units."""
    assert isinstance(module, ContinualBackprop)
    module._quiet.clear()
    for state in module.layers.values():
        assert isinstance(state, _UnitState)
        saved, own = int(state.denominator), module._denominator
        if saved != own:
            state.budget.copy_(torch.floor(state.budget.double() / saved * own))
            state.denominator.fill_(own)
