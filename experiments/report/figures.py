"""The interactive figures: Bokeh models, to be drawn by the library that the page carries along."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from bokeh.core.enums import SizingModeType
from bokeh.models import (
    BasicTicker,
    BoxZoomTool,
    ColumnDataSource,
    CustomJSTickFormatter,
    HoverTool,
    NumeralTickFormatter,
    PanTool,
    Range1d,
    ResetTool,
    SaveTool,
    WheelZoomTool,
)
from bokeh.models.annotations import BoxAnnotation, Span
from bokeh.models.renderers import DataRenderer
from bokeh.plotting import figure

from experiments.analysis import Comparison, Method
from experiments.analysis.changes import Changes
from experiments.analysis.curves import METRIC_TITLES, Curve, by_regime, metric, returns
from experiments.analysis.statistics import Floats
from experiments.report.colours import EDGE, EDGE_WIDTH, MOST_CURVES, fill, styles

MARKS = 200  # changes up to which each is marked
SHADES = 60
NAMES = {"pi": "policy", "vf": "value", "actor": "actor", "qf0": "critic 1", "qf1": "critic 2", "features": "features"}
STEPS = "return tick >= 1e6 ? +(tick / 1e6).toFixed(3) + 'M' : tick >= 1e3 ? +(tick / 1e3).toFixed(3) + 'k' : tick"
STRETCH: SizingModeType = "stretch_width"


@dataclass(frozen=True, eq=False)
class Drawn:
    """A figure and what stands around it. wide: takes the page's whole width."""

    id: str
    title: str
    figure: Any
    wide: bool


def draw(comparison: Comparison, changes: Changes, place: int) -> list[Drawn]:
    """All figures of a comparison, the place-th of the page; their axes of steps move together."""
    steps = float(comparison.grid.edges[-1])
    axis = Range1d(start=0, end=steps, bounds=(0, steps), min_interval=comparison.grid.width * 4)
    drawn = []

    def over_steps(name: str, title: str, wide: bool, curve: Callable[[Method], Curve], percent: bool = False) -> None:
        plot = _figure(axis, 360 if wide else 230, percent)
        plot.xaxis.axis_label = "environment steps"
        plot.xaxis.formatter = CustomJSTickFormatter(code=STEPS)
        plot.xaxis.ticker = BasicTicker(desired_num_ticks=8 if wide else 4)
        _mark(plot, changes)
        if _curves(plot, comparison, curve, place, "0.0%" if percent else "0,0.[00]", changes if wide else None):
            drawn.append(Drawn(f"figure-{place}-{name}", title, plot, wide))

    over_steps("returns", "Return of an episode", True, lambda method: returns(comparison, method))
    if changes.most > 1:
        drawn += _regimes(comparison, changes, place)
    for network in comparison.networks:
        for name, title in METRIC_TITLES.items():
            heading = f"{title[0].upper()}{title[1:]}, {NAMES.get(network, network)}"
            curve = _metric(comparison, network, name)
            over_steps(f"{network}-{name}", heading, False, curve, name == "dead_fraction")
    return drawn


def _metric(comparison: Comparison, network: str, name: str) -> Callable[[Method], Curve]:
    return lambda method: metric(comparison, method, network, name)


def _figure(axis: Range1d, height: int, percent: bool = False) -> Any:
    tools = [PanTool(), BoxZoomTool(), WheelZoomTool(), ResetTool(), SaveTool()]
    plot: Any = figure(x_range=axis, height=height, min_width=120, sizing_mode=STRETCH, tools=tools, tags=["themed"])
    plot.toolbar.logo = None
    plot.toolbar.autohide = True
    plot.toolbar.active_drag = tools[1]
    plot.min_border_right = 12
    plot.background_fill_color = plot.border_fill_color = plot.outline_line_color = None
    plot.xgrid.visible = False
    plot.axis.minor_tick_line_color = None
    plot.axis.major_tick_out = 3
    plot.axis.major_tick_in = 0
    plot.axis.axis_label_text_font_style = "normal"
    plot.axis.axis_label_text_font_size = plot.axis.major_label_text_font_size = "12px"
    plot.yaxis.formatter = NumeralTickFormatter(format="0.[0]%" if percent else "0,0.[00]")
    plot.yaxis.ticker = BasicTicker(desired_num_ticks=5)
    plot.y_range.only_visible = True
    return plot


def _mark(plot: Any, changes: Changes) -> None:
    moments = changes.moments
    if len(moments) > MARKS:
        return
    for moment in moments:
        mark = Span(
            location=moment, dimension="height", line_dash=[4, 3], line_width=1, level="underlay", tags=["mark"]
        )
        plot.add_layout(mark)
    if len(moments) <= SHADES:
        for period in changes.periods[1::2]:
            shade = BoxAnnotation(left=period.start, right=period.end, level="underlay", tags=["shade"])
            shade.line_color = None
            plot.add_layout(shade)


def _curves(
    plot: Any,
    comparison: Comparison,
    curve: Callable[[Method], Curve],
    place: int,
    form: str,
    changes: Changes | None,
) -> int:
    """Draw each method's curve with its band, and return how many there were."""
    look = styles(comparison)
    lines: list[DataRenderer] = []
    for index, method in enumerate(comparison.methods[:MOST_CURVES]):
        found = curve(method)
        if not found:
            continue
        columns: dict[str, Floats | list[str]] = {
            name: getattr(found, name).astype(np.float32) for name in ("x", "value", "low", "high", "runs")
        }
        if changes is not None and changes.periods:
            columns["world"] = list(_world(found.x, changes))
        source, (colour, _, dash) = ColumnDataSource(columns), look[method.name]
        tags = ["method", place, index]
        band: list[DataRenderer] = [plot.varea("x", "low", "high", source=source, color=colour, alpha=fill(comparison))]
        for end in ("low", "high"):
            band.append(plot.line("x", end, source=source, color=colour, alpha=EDGE, line_width=EDGE_WIDTH))
        for renderer in band:
            renderer.level = "underlay"  # below all curves
        line = plot.line("x", "value", source=source, color=colour, line_width=2, line_dash=dash, name=method.name)
        own = [line]
        if np.isfinite(found.value).sum() == 1:
            own.append(plot.scatter("x", "value", source=source, color=colour, size=7, name=method.name))
        lines += own
        for renderer in (*band, *own):
            renderer.tags = tags
    world = [("world", "@world")] if changes is not None and changes.periods else []
    tooltips = [
        ("method", "$name"),
        ("steps", "@x{0,0}"),
        ("value", f"@value{{{form}}}"),
        ("95 %", f"@low{{{form}}} to @high{{{form}}}"),
        ("runs", "@runs"),
        *world,
    ]
    if lines:
        plot.add_tools(HoverTool(renderers=lines, tooltips=tooltips, mode="mouse", point_policy="snap_to_data"))
    return len(lines)


def _world(x: Floats, changes: Changes) -> Iterator[str]:
    starts = [one.start for one in changes.periods]
    for place in np.maximum(np.searchsorted(starts, x, side="right") - 1, 0):
        one = changes.periods[place]
        yield f"regime {one.index}" + (f": {one.values or one.spread}" if one.values or one.spread else "")


def _regimes(comparison: Comparison, changes: Changes, place: int) -> list[Drawn]:
    curves = [(index, method, by_regime(comparison, method)) for index, method in enumerate(comparison.methods)]
    shown = [one for one in curves[:MOST_CURVES] if one[2]]
    if not shown:
        return []
    most = max(len(curve.x) for _, _, curve in shown)
    plot = _figure(Range1d(start=-0.6, end=most - 0.4, bounds="auto"), 260)
    plot.xaxis.axis_label = "regime"
    plot.xaxis.ticker = BasicTicker(min_interval=1, desired_num_ticks=min(most, 12))
    look = styles(comparison)
    points: list[DataRenderer] = []
    width = 0.6 / len(shown)
    for order, (index, method, curve) in enumerate(shown):
        columns = {name: getattr(curve, name) for name in ("value", "low", "high", "runs")}
        place_of_point = curve.x + (order - (len(shown) - 1) / 2) * width  # side by side
        source = ColumnDataSource({**columns, "x": place_of_point, "regime": curve.x})
        tags, colour = ["method", place, index], look[method.name][0]
        line = plot.line("x", "value", source=source, color=colour, line_width=1, alpha=0.5)
        whiskers = plot.segment("x", "low", "x", "high", source=source, color=colour, line_width=2.5, alpha=0.5)
        points.append(plot.scatter("x", "value", source=source, color=colour, size=7, name=method.name))
        for renderer in (line, whiskers, points[-1]):
            renderer.tags = tags
    tooltips = [("method", "$name"), ("regime", "@regime"), ("mean return", "@value{0,0.[00]}")]
    tooltips += [("95 %", "@low{0,0.[00]} to @high{0,0.[00]}"), ("runs", "@runs")]
    plot.add_tools(HoverTool(renderers=points, tooltips=tooltips))
    return [Drawn(f"figure-{place}-regimes", "Mean return of each regime", plot, True)]
