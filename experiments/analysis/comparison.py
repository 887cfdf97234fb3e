"""Methods compared: their runs reduced one at a time, curves and measures aggregated, what was left out named."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from experiments.analysis import naming
from experiments.analysis.grid import Grid, grid_for, on_grid
from experiments.analysis.measures import MEASURES, Measure, binned, measure
from experiments.analysis.reading import METRICS, Stretch, read
from experiments.analysis.remarks import remarks
from experiments.analysis.runs import STATES, RunFolder
from experiments.analysis.statistics import (
    Floats,
    Statistic,
    interquartile_mean,
    mean,
    paired_difference,
    probability_of_improvement,
    probability_of_improvement_interval,
    stratified_bootstrap_interval,
)
from experiments.errors import BadInput

AGGREGATES: dict[str, Statistic] = {"iqm": interquartile_mean, "mean": mean}
ENOUGH = 0.99  # of the common steps: a run that got so far is compared
BEGUN = 0.1  # of the longest run: a method none of whose runs got so far does not shorten what is compared
FEW = 5  # with fewer runs, intervals say little and nothing is concluded from them


@dataclass(frozen=True)
class Options:
    """aggregate: of the curves and of the table, iqm or mean; steps: compare the first so many, None: see `common`.

    baseline: the method that others are compared with; None: the one without plasticity methods, or else the first.
    """

    aggregate: str = "iqm"
    steps: int | None = None
    baseline: str | None = None
    bin_steps: int | None = None


@dataclass(frozen=True, eq=False)
class Reduced:
    """A run as it is compared. returns: on the grid; plasticity: network -> metric -> on the grid.

    regimes: those met within the compared steps; regime_returns: the mean return of each, NaN for one cut short.
    compared: whether it got far enough for the table; seconds: of training.
    """

    run: RunFolder
    returns: Floats
    plasticity: Mapping[str, Mapping[str, Floats]]
    measures: Mapping[str, float]
    regimes: tuple[Stretch, ...]
    regime_returns: Floats
    compared: bool
    seconds: float


@dataclass(frozen=True)
class Estimate:
    """A measure of a method. value, low, high: the chosen aggregate and its interval; runs: how many it is of."""

    value: float
    low: float
    high: float
    mean: float
    mean_low: float
    mean_high: float
    runs: int


@dataclass(frozen=True)
class Difference:
    """A method less the baseline. value, low, high: mean over the pairs that met the same world from the same seed.

    probability: of improvement over the baseline, of all runs; NaN where there is nothing to compare.
    """

    value: float
    low: float
    high: float
    pairs: int
    probability: float
    probability_low: float
    probability_high: float

    @property
    def seen(self) -> bool:
        """Whether the interval excludes 0, over enough pairs to say so."""
        return self.pairs >= FEW and (self.low > 0 or self.high < 0)


@dataclass(frozen=True, eq=False)
class Method:
    """A method's runs, and what they come to. differences: measure -> against the baseline, which has none."""

    name: str
    settings: naming.Flat
    runs: tuple[Reduced, ...]
    estimates: Mapping[str, Estimate]
    differences: Mapping[str, Difference] = field(default_factory=dict)

    @property
    def compared(self) -> list[Reduced]:
        """The runs that got far enough."""
        return [one for one in self.runs if one.compared]


@dataclass(frozen=True, eq=False)
class Comparison:
    """The methods on one environment. steps: how many are compared.

    remarks: what a reader must know before believing a number; left_out: run -> why it is in no number of the table.
    """

    name: str
    world: naming.Flat
    methods: tuple[Method, ...]
    baseline: str | None
    grid: Grid
    steps: int
    options: Options
    remarks: tuple[str, ...]
    left_out: Mapping[str, str]

    @property
    def runs(self) -> list[Reduced]:
        """All runs, method by method."""
        return [one for method in self.methods for one in method.runs]

    @property
    def measures(self) -> list[Measure]:
        """The measures that some method has."""
        return [one for one in MEASURES.values() if any(one.name in method.estimates for method in self.methods)]

    @property
    def networks(self) -> list[str]:
        """The networks that some run has measured."""
        return sorted({name for one in self.runs for name in one.plasticity})


def compare(runs: Sequence[RunFolder], options: Options | None = None) -> Iterator[Comparison]:
    """A comparison for each environment; raises `BadInput` where an option fits none."""
    options = options or Options()
    worlds: dict[str, list[RunFolder]] = {}
    for run in runs:
        worlds.setdefault(naming.key(naming.world(run.config)), []).append(run)
    found = [naming.world(group[0].config) for group in worlds.values()]
    groups = [_methods(group) for group in worlds.values()]
    if options.baseline is not None and not any(options.baseline in group for group in groups):
        known = ", ".join(dict.fromkeys(name for group in groups for name in group))
        raise BadInput(f"--baseline must be one of {known}, got {options.baseline}")
    for name, world, methods in zip(naming.world_names(found), found, groups, strict=True):
        yield _compare(name, world, methods, options)


def common(methods: Mapping[str, Sequence[RunFolder]]) -> int:
    """Steps that are compared: to which some run of every method got. Methods that have hardly begun do not count."""
    reached = [max(run.steps for run in runs) for runs in methods.values()]
    return min(steps for steps in reached if steps >= BEGUN * max(reached))


def _methods(runs: Sequence[RunFolder]) -> dict[str, list[RunFolder]]:
    groups: dict[str, list[RunFolder]] = {}
    for run in runs:
        groups.setdefault(naming.key(naming.settings(run.config)), []).append(run)
    names = naming.method_names([naming.settings(group[0].config) for group in groups.values()])
    by_name = dict(zip(names, (sorted(group, key=lambda run: run.world) for group in groups.values()), strict=True))
    return dict(sorted(by_name.items(), key=lambda item: (item[0] != naming.BARE, item[0])))


def _compare(name: str, world: naming.Flat, methods: Mapping[str, list[RunFolder]], options: Options) -> Comparison:
    steps = min(options.steps or common(methods), max(run.steps for runs in methods.values() for run in runs))
    longest = max(run.steps for runs in methods.values() for run in runs)
    grid = grid_for([run for runs in methods.values() for run in runs], longest, options.bin_steps)
    left_out: dict[str, str] = {}
    reduced = {name: list(_reduced(runs, grid, steps, left_out)) for name, runs in methods.items()}
    baseline = _baseline(list(reduced), options)
    found = [_method(name, found, options) for name, found in reduced.items()]
    against = next((one for one in found if one.name == baseline), None)
    if against is not None:
        found = [one if one is against else _against(one, against) for one in found]
    said = tuple(remarks(found, steps, methods, ENOUGH))
    return Comparison(name, world, tuple(found), baseline, grid, steps, options, said, left_out)


def _reduced(runs: Sequence[RunFolder], grid: Grid, steps: int, left_out: dict[str, str]) -> Iterator[Reduced]:
    for run in runs:
        try:
            tables = read(run)
        except BadInput as error:
            left_out[run.name] = f"{STATES.get(run.state, run.state)} at step {run.steps:,}; {error.lines[0]}"
            continue
        reach = min(run.steps, steps)
        enough = run.steps >= ENOUGH * steps > 0 and len(tables.episodes) > 0
        measures, regime_returns = measure(tables, reach) if len(tables.episodes) else ({}, np.empty(0))
        if not enough:
            left_out[run.name] = _why(run, steps, bool(len(tables.episodes)))
        yield Reduced(
            run,
            _reached(binned(tables.episodes, grid.edges), grid, run.steps),
            {
                network: {name: on_grid(metrics[name], grid) for name in METRICS if name in metrics}
                for network, metrics in tables.scalars.items()
            },
            measures,
            tables.regimes,
            regime_returns,
            enough,
            tables.seconds,
        )


def _reached(values: Floats, grid: Grid, steps: int) -> Floats:
    """Without the bins that the run has not been through."""
    return np.where(grid.edges[1:] <= steps * (1 + 1e-9) + grid.width * 0.01, values, np.nan)


def _why(run: RunFolder, steps: int, episodes: bool) -> str:
    state = STATES.get(run.state, run.state)
    fault = f" ({run.fault})" if run.fault else ""
    if not episodes:
        return f"{state} at step {run.steps:,}{fault}: no episode has ended"
    return f"{state} at step {run.steps:,} of {run.asked:,}{fault}: in the curves up to there, not in the table"


def _baseline(names: Sequence[str], options: Options) -> str | None:
    if options.baseline in names:
        return options.baseline
    if len(names) < 2:
        return None
    return naming.BARE if naming.BARE in names else names[0]


def _method(name: str, runs: Sequence[Reduced], options: Options) -> Method:
    compared = [one for one in runs if one.compared]
    estimates = {}
    for key in MEASURES:
        scores = np.array([one.measures[key] for one in compared if key in one.measures])
        if len(scores):
            estimates[key] = estimate(scores, options.aggregate)
    settings = naming.settings(runs[0].run.config) if runs else {"methods": []}
    return Method(name, settings, tuple(runs), estimates)


def estimate(scores: Floats, aggregate: str = "iqm") -> Estimate:
    """The aggregate of the runs' scores, (runs,), and their mean, each with its interval."""
    statistic = AGGREGATES[aggregate]
    low, high = stratified_bootstrap_interval([scores], statistic)
    mean_low, mean_high = (low, high) if statistic is mean else stratified_bootstrap_interval([scores], mean)
    return Estimate(
        float(statistic(scores, 0)),
        float(low),
        float(high),
        float(scores.mean()),
        float(mean_low),
        float(mean_high),
        len(scores),
    )


def _against(method: Method, baseline: Method) -> Method:
    differences = {}
    for key in method.estimates:
        if key not in baseline.estimates:
            continue
        mine, theirs = (
            {one.run.world: one.measures[key] for one in reversed(m.compared) if key in one.measures}
            for m in (method, baseline)
        )
        pairs = sorted(mine.keys() & theirs.keys())
        value = low = high = np.nan
        if pairs:
            value, low, high = paired_difference([mine[p] for p in pairs], [theirs[p] for p in pairs])
        scores = [[one.measures[key] for one in m.compared if key in one.measures] for m in (method, baseline)]
        sign = -1 if MEASURES[key].better < 0 else 1
        first, second = ([sign * np.array(one)] for one in scores)
        probability = probability_of_improvement(first, second)
        ends = probability_of_improvement_interval(first, second)
        differences[key] = Difference(value, low, high, len(pairs), probability, *ends)
    return Method(method.name, method.settings, method.runs, method.estimates, differences)
