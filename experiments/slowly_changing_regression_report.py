"""Tables and figures of the slowly-changing regression experiment.

Errors everywhere are mean squared errors of one bin of examples: a dict of method -> (seeds, bins), float64. Seed k of
every method saw the same data and began with the same weights, so methods are compared seed by seed. Uncertainty is a
bootstrap over seeds with its own fixed random stream: the same errors always give the same numbers.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
from matplotlib.ticker import FuncFormatter
from rich import box
from rich.table import Table

Errors = npt.NDArray[np.float64]
RESAMPLES = 10_000
# Okabe and Ito's colours, told apart by colour-blind readers too; line styles repeat the distinction in print
STYLES = {
    "backprop": ("Backpropagation", "#D55E00", "-"),
    "linear": ("Linear learner", "#000000", ":"),
    "tanh": ("Backpropagation, tanh", "#E69F00", "--"),
    "l2": ("L2 regularisation", "#009E73", "--"),
    "l2_init": ("L2-Init", "#56B4E9", "--"),
    "shrink_and_perturb": ("Shrink and Perturb", "#CC79A7", "-."),
    "redo": ("ReDo", "#7A5230", "-."),
    "cbp": ("Continual backpropagation", "#0072B2", "-"),
}


def windows(errors: Errors) -> tuple[Errors, Errors]:
    """Each seed's error over the first and over the last tenth of the run, (seeds,) each."""
    tenth = max(1, errors.shape[1] // 10)
    return errors[:, :tenth].mean(1), errors[:, -tenth:].mean(1)


def standard_error(statistic: Callable[[npt.NDArray[np.int64]], Errors], seeds: int) -> float:
    """Of a function of which seeds were drawn: indices (resamples, seeds) -> values (resamples,)."""
    return float(statistic(_resample(seeds, RESAMPLES)).std(ddof=1))


def ratio(above: Errors, below: Errors) -> tuple[float, float]:
    """The ratio of two means over the same seeds, and its standard error; (seeds,) each."""
    error = standard_error(lambda drawn: above[drawn].mean(1) / below[drawn].mean(1), len(above))
    return float(above.mean() / below.mean()), error


def band(errors: Errors) -> Errors:
    """A 95 % confidence interval of the mean over seeds, for each bin: (2, bins), bootstrap percentiles."""
    means = errors[_resample(len(errors), 2000)].mean(1)
    interval: Errors = np.percentile(means, (2.5, 97.5), axis=0)
    return interval


def write_errors(path: Path, errors: Mapping[str, Errors], bin_size: int) -> Path:
    """One line for each method, seed and bin: method, seed, examples seen by the bin's end, mean squared error."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["method", "seed", "examples", "mean_squared_error"])
        for method, rows in errors.items():
            for (seed, position), error in np.ndenumerate(rows):
                writer.writerow([method, seed, (position + 1) * bin_size, f"{error:.6g}"])
    return path


def write_figure(path: Path, errors: Mapping[str, Errors], bin_size: int) -> Path:
    """Error over time, mean and 95 % confidence band over seeds, one curve a method."""
    figure, axes = plt.subplots(figsize=(8, 4.8), layout="constrained")
    for method, rows in errors.items():
        label, colour, style = STYLES[method]
        seen = bin_size * (np.arange(rows.shape[1]) + 0.5)
        axes.plot(seen, rows.mean(0), style, color=colour, label=label, linewidth=1.6)
        axes.fill_between(seen, *band(rows), color=colour, alpha=0.1, linewidth=0)
    seeds = {len(rows) for rows in errors.values()}
    axes.set_xlabel("Examples seen")
    axes.set_ylabel(f"Mean squared error\n(bins of {bin_size:,} examples)")
    axes.set_title(f"Slowly-changing regression: mean of {max(seeds)} seeds, 95 % confidence", fontsize=11)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda examples, _: _count(examples)))
    axes.set_xlim(0, None)
    axes.set_ylim(0, None)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.25)
    axes.legend(frameon=False, fontsize=9, ncols=3, loc="lower left")
    figure.savefig(path, dpi=130)
    plt.close(figure)
    return path


def summary(errors: Mapping[str, Errors], bin_size: int) -> Table:
    """Error at the start and at the end, and what became of it; each with its standard error over seeds."""
    rows = next(iter(errors.values()))
    window = max(1, rows.shape[1] // 10) * bin_size
    title = f"Mean squared error, mean ± standard error of {len(rows)} seeds"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("method", no_wrap=True)
    for column in (f"first {window:,}", f"last {window:,}", "last / first", "last / backprop's"):
        table.add_column(column, justify="right")
    for method, values in errors.items():
        first, last = windows(values)
        cells = [_mean(first), _mean(last), _ratio(last, first)]
        cells.append(_ratio(last, windows(errors["backprop"])[1]) if "backprop" in errors else "-")
        table.add_row(method, *cells)
    return table


def _mean(values: Errors) -> str:
    return f"{values.mean():.3f} ± {values.std(ddof=1) / np.sqrt(len(values)):.3f}"


def _ratio(above: Errors, below: Errors) -> str:
    if above is below or np.array_equal(above, below):
        return "1"
    value, error = ratio(above, below)
    return f"{value:.2f} ± {error:.2f}"


def _resample(seeds: int, resamples: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng(0).integers(seeds, size=(resamples, seeds))


def _count(examples: float) -> str:
    return f"{examples / 1e6:g}M" if examples >= 1e6 else f"{examples / 1e3:g}k" if examples else "0"
