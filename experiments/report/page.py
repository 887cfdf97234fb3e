"""The page as one HTML file: texts, tables and figures put into the template, with all that they need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import bokeh
from bokeh.embed import components
from bokeh.resources import Resources
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from experiments import folder as files
from experiments.analysis import Comparison, Unreadable
from experiments.analysis.across import across
from experiments.analysis.changes import changes
from experiments.analysis.comparison import FEW
from experiments.analysis.measures import LAST
from experiments.report import figures, provenance, rows, sentences
from experiments.report.colours import MOST_CURVES, styles
from experiments.report.numbers import count

HERE = Path(__file__).parent
OPEN_MEASURES = 2  # blocks that are not folded


@dataclass(frozen=True)
class Page:
    """What is said on the page beyond the comparisons. command: that made it, as it would be typed again."""

    title: str
    question: str | None
    command: str
    folders: Sequence[str]
    unreadable: Sequence[Unreadable] = ()


def render(page: Page, comparisons: Sequence[Comparison]) -> str:
    """The whole file."""
    drawn = [figures.draw(one, changes([*one.runs]), place) for place, one in enumerate(comparisons)]
    models = {one.id: one.figure for section in drawn for one in section}
    script, places = components(models) if models else ("", {})
    names: dict[str, str] = dict(places)
    sections = [
        _section(comparison, found, names, place)
        for place, (comparison, found) in enumerate(zip(comparisons, drawn, strict=True))
    ]
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    library = Resources(mode="inline", components=["bokeh"], minified=True)
    return environment.get_template("page.html").render(
        page=page,
        sections=sections,
        chances=list(across(comparisons)),
        palettes=[styles(one) for one in comparisons],
        style=Markup((HERE / "style.css").read_text("utf-8")),
        library=Markup(library.render_js() if models else ""),
        figures=Markup(script),
        script=Markup((HERE / "script.js").read_text("utf-8")),
        effort=provenance.effort(comparisons),
        versions=provenance.versions(comparisons),
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        pliant=files.package_versions(["pliant-rl"])["pliant-rl"],
        bokeh_version=bokeh.__version__,
        few=FEW,
        last=LAST,
    )


def _section(
    comparison: Comparison, drawn: Sequence[figures.Drawn], names: dict[str, str], place: int
) -> dict[str, Any]:
    """What the template says of a comparison."""
    found = changes([*comparison.runs])
    lines = list(provenance.run_lines(comparison))
    read = {line.name for line in lines}
    return {
        "id": f"env-{place}",
        "place": place,
        "comparison": comparison,
        "question": sentences.question(comparison, found),
        "facts": _facts(comparison),
        "findings": list(sentences.findings(comparison)),
        "remarks": [*comparison.remarks, *sentences.cautions(comparison)],
        "left_out": sorted(comparison.left_out.items()),
        "unread": sorted(set(comparison.left_out) - read),
        "changes": found,
        "about_changes": sentences.about_changes(found),
        "wide": [(one, Markup(names[one.id])) for one in drawn if one.wide],
        "small": [(one, Markup(names[one.id])) for one in drawn if not one.wide],
        "not_drawn": max(0, len(comparison.methods) - MOST_CURVES),
        "cells": [
            (index, method, [rows.cell(method, measure, comparison.baseline) for measure in comparison.measures])
            for index, method in enumerate(comparison.methods)
        ],
        "blocks": list(rows.blocks(comparison)),
        "open_measures": OPEN_MEASURES,
        "bar": (rows.WIDTH, rows.HEIGHT),
        "differing": provenance.differing_settings(comparison),
        "common": provenance.common_settings(comparison),
        "lines": lines,
        "aggregate": {"iqm": "interquartile mean", "mean": "mean"}[comparison.options.aggregate],
    }


def _facts(comparison: Comparison) -> str:
    states = [one.run.state for one in comparison.runs]
    seeds = sorted({one.run.seed for one in comparison.runs})
    words = [
        count(len(comparison.methods), "method"),
        f"{count(len(states), 'run')} ({sentences.state_counts(states)})",
        f"seed {seeds[0]}" if len(seeds) == 1 else f"{len(seeds)} seeds",
        f"{comparison.steps:,} steps compared",
    ]
    return " · ".join(words)
