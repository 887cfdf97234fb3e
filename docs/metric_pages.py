"""Pages of the metrics: one for each number in TensorBoard, and a table of all of them."""

from __future__ import annotations

import functools
import inspect
import tomllib
from pathlib import Path
from typing import Any

import telemetry
from prose import docstring, markdown, table

import plasticity

DOCS = Path(__file__).parent
MODULES = ("metrics", "probe", "landscape", "step_metrics")
SECTIONS = (
    "Units",
    "Rank",
    "Weights",
    "Gradient step",
    "Ability to learn",
    "Loss landscape",
    "Agent",
    "What methods did",
)
BATCHES = {
    "both": "the on-policy batch, and the probe batch frozen at the start",
    "probe": "the probe batch frozen at the start",
    "weights": "no batch: the weights themselves",
    "step": "the minibatch of the first gradient step after the measurement before",
    "method": "no batch: a number that the method keeps",
}


@functools.cache
def facts() -> dict[str, dict[str, Any]]:
    """What docs/metrics.toml says, and a bare entry for everything it does not know yet."""
    known: dict[str, dict[str, Any]] = tomllib.loads((DOCS / "metrics.toml").read_text("utf-8"))
    tags = {tag for name, fact in known.items() for tag in _tags(name, fact)}
    functions = {function for fact in known.values() for function in fact.get("functions", ())}
    bare = {name: {"functions": [name], "tags": []} for name in public_functions() if name not in functions}
    return known | bare | {tag: {} for tag in sorted(telemetry.every_name() - tags)}


def public_functions() -> list[str]:
    """The public names of the modules that measure."""
    homes = {f"plasticity.{module}" for module in MODULES}
    values = {name: getattr(plasticity, name) for name in plasticity.__all__}
    return [
        name
        for name, value in values.items()
        if (inspect.isfunction(value) or inspect.isclass(value)) and value.__module__ in homes
    ]


def page_of(tag: str) -> str:
    """The name of the page that tells what `tag` is."""
    return next(name for name, fact in facts().items() if tag in _tags(name, fact))


def pages() -> dict[str, str]:
    """Path below docs/ -> Markdown."""
    return {"metrics/index.md": _index()} | {f"metrics/{name}.md": _page(name) for name in facts()}


def nav() -> list[dict[str, list[dict[str, str]]]]:
    """Section -> title -> path."""
    return [
        {section: [{_title(name): f"metrics/{name}.md"} for name in names]} for section, names in _by_section().items()
    ]


def _by_section() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {section: [] for section in SECTIONS}
    for name, fact in facts().items():
        found.setdefault(fact.get("section", "Others"), []).append(name)
    return {section: names for section, names in found.items() if names}


def _title(name: str) -> str:
    return str(facts()[name].get("title", name.replace("_", " ").capitalize()))


def _tags(name: str, fact: dict[str, Any]) -> list[str]:
    return list(fact.get("tags", [name]))


def _batch(fact: dict[str, Any]) -> str:
    batch = str(fact.get("batch", ""))
    return BATCHES.get(batch, batch)


def _index() -> str:
    parts = ["# Metrics", (DOCS / "parts" / "metrics.md").read_text("utf-8").strip()]
    for section, names in _by_section().items():
        rows = [
            [
                f"[{_title(name)}]({name}.md)",
                "<br>".join(f"`{tag}`" for tag in _tags(name, facts()[name]))
                or "<br>".join(facts()[name].get("places", ())),
                _batch(facts()[name]),
            ]
            for name in names
        ]
        parts += [f"## {section}", table(["metric", "tag", "measured on"], rows)]
    return "\n\n".join(parts) + "\n"


def _names(name: str) -> str:
    """The tags of a page as TensorBoard shows them last, or the whole ones where they are not Pliant's."""
    return "<br>".join([f"`{tag}`" for tag in _tags(name, facts()[name])] or facts()[name].get("places", []))


def _page(name: str) -> str:
    fact = facts()[name]
    parts = [f"# {_title(name)}", str(fact.get("text", "")).strip(), table(["in short", ""], _summary(name, fact))]
    if functions := fact.get("functions", ()):
        parts += ["## How it is computed", *(_function(function) for function in functions)]
    if methods := [
        method for method in plasticity.METHODS if set(_tags(name, fact)) & set(telemetry.of_method(method))
    ]:
        links = ", ".join(f"[`{method}`](../methods/{method}.md)" for method in methods)
        parts += ["## Who logs it", f"The methods {links}." if len(methods) > 1 else f"The method {links}."]
    return "\n\n".join(part for part in parts if part) + "\n"


def _summary(name: str, fact: dict[str, Any]) -> list[list[str]]:
    rows, tags = [["measured on", _batch(fact)]], _tags(name, fact)
    prefixes = ("", "probe_") if fact.get("batch") == "both" else ("",)
    for row, place in {"each layer": "<network>/<layer>", "the whole network": "<network>"}.items():
        names = [f"`plasticity/{place}/{prefix}{tag}`" for tag in tags for prefix in prefixes]
        if names and "places" not in fact and (row == "each layer" or "network" in fact):
            rows.append([f"TensorBoard, {row}", "<br>".join(names)])
    if "places" in fact:
        rows.append(["TensorBoard", "<br>".join(fact["places"])])
    if "network" in fact:
        rows.append(["of the whole network", fact["network"]])
    return rows


def _function(name: str) -> str:
    value = getattr(plasticity, name)
    signature = f"({', '.join(inspect.signature(value).parameters)})" if inspect.isfunction(value) else ""
    return f"**`plasticity.{name}{signature}`**\n\n{markdown(docstring(value))}"
