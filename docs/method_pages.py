"""Pages of the methods: one for each name in `plasticity.METHODS`, and a table of all of them."""

from __future__ import annotations

import functools
import json
import re
import tomllib
import typing
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any

import metric_pages
import telemetry
import yaml
from prose import docstring, entries, inline, markdown, table, without_entries

import plasticity
from plasticity import METHODS, Intervention

DOCS = Path(__file__).parent
CONFIGS = DOCS.parent / "configs" / "plasticity"
SIZES = ("64", "256")
UNKNOWN = "not measured"
SPACE = "\u00a0"  # where no line may break
WIDE = "---\nhide: [toc]\n---"  # for tables that need the width


@functools.cache
def facts() -> dict[str, Any]:
    """What docs/methods.toml says of each method: the columns that no code can tell."""
    return tomllib.loads((DOCS / "methods.toml").read_text("utf-8"))


@functools.cache
def measured() -> dict[str, Any]:
    """What benchmarks/method_cost.py wrote."""
    path = DOCS / "data" / "method_cost.json"
    return json.loads(path.read_text("utf-8")) if path.exists() else {"methods": {}}


def pages() -> dict[str, str]:
    """Path below docs/ -> Markdown."""
    return {"methods/index.md": _index(), "methods/cost.md": _cost_page()} | {
        f"methods/{name}.md": _page(name) for name in METHODS
    }


def nav() -> list[dict[str, str]]:
    """Title -> path of every page but the table."""
    return [{_title(name): f"methods/{name}.md"} for name in sorted(METHODS, key=_title)] + [
        {"What they cost": "methods/cost.md"}
    ]


def _title(name: str) -> str:
    return str(_fact(name, "title"))


def _fact(name: str, column: str) -> str:
    return str(facts().get(name, {}).get(column, name if column == "title" else ""))


def _cost(name: str, size: str) -> str:
    """How much longer a gradient step takes, as a share of a plain one."""
    try:
        share = measured()["methods"][name][size]["share"]
    except KeyError:
        return UNKNOWN
    return f"{_percent(share, '+')}{SPACE}%"


def _percent(share: float, sign: str = "-") -> str:
    rounded = round(100 * share)
    return f"{rounded:{sign if rounded else '-'}}".replace("-", "−")


def _memory(name: str) -> str:
    try:
        return f"{measured()['methods'][name]['memory']:.2f}".replace("-", "−")
    except KeyError:
        return UNKNOWN


def _index() -> str:
    rows = [
        [
            f"[{_title(name)}]({name}.md)<br>`{name}`",
            _fact(name, "acts"),
            _fact(name, "needs"),
            _memory(name),
            " / ".join(_cost(name, size) for size in SIZES),
            _fact(name, "steady_state"),
        ]
        for name in sorted(METHODS, key=_title)
    ]
    head = ["method", "acts", "needs", "memory", "cost", "steady state"]
    return "\n\n".join(
        [
            WIDE,
            "# Methods",
            (DOCS / "parts" / "methods.md").read_text("utf-8").strip(),
            table(head, rows),
        ]
    )


def _cost_page() -> str:
    text = (DOCS / "parts" / "cost.md").read_text("utf-8").strip()
    if not measured()["methods"]:
        return f"# What they cost\n\n{text}"
    rows = []
    for name in sorted(METHODS, key=_title):
        row = [f"[{_title(name)}]({name}.md)"]
        for size in SIZES:
            numbers = measured()["methods"].get(name, {}).get(size)
            row += [UNKNOWN, "", ""] if numbers is None else _cost_cells(name, size, numbers)
        rows.append(row)
    head = ["method"] + [f"{column}, {size}" for size in SIZES for column in ("plain", "with it", "more")]
    about = [
        f"{key}: {value}" for part in ("machine", "versions", "problem") for key, value in measured()[part].items()
    ]
    return "\n\n".join(["# What they cost", text, table(head, rows), "Measured with " + inline("; ".join(about)) + "."])


def _cost_cells(name: str, size: str, numbers: dict[str, float]) -> list[str]:
    times = [f"{numbers[key]:.2f}{SPACE}ms" for key in ("plain_ms", "method_ms")]
    spread = " to ".join(_percent(numbers[end]) for end in ("low", "high"))
    return [*times, f"{_cost(name, size)} ({spread})".replace(" ", SPACE)]


def _page(name: str) -> str:
    config = METHODS[name]
    method = _intervention(config)
    described = config if method is None else method
    parts = [
        f"# {_title(name)}",
        f"`plasticity={name}` on the command line, `plasticity.{described.__name__}` in Python.",
        markdown(_without_settings(described, config)),
        _summary(name),
        "## Settings",
        _settings(config, with_docstring=method is not None),
        "## Use it",
        _use(name, config),
        *_variants(name),
        *_logs(name, method),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _intervention(config: type[Any]) -> type[Any] | None:
    """The class that a config builds, by the name they share; None for a choice of architecture or optimizer."""
    found = getattr(plasticity, config.__name__.removesuffix("Config"), None)
    return found if found is not None and issubclass(found, Intervention) else None


def _without_settings(described: type[Any], config: type[Any]) -> str:
    return without_entries(docstring(described), {field.name for field in fields(config)})


def _summary(name: str) -> str:
    rows = [
        ["acts", _fact(name, "acts")],
        ["needs", _fact(name, "needs")],
        ["keeps in memory", f"{_memory(name)} × the network's parameters"],
        [
            "[cost](cost.md)",
            ", ".join(f"{_cost(name, size)} of a gradient step ({size} × {size} units)" for size in SIZES),
        ],
        ["steady state", _fact(name, "steady_state")],
    ]
    return table(["in short", ""], rows)


def _settings(config: type[Any], with_docstring: bool) -> str:
    if not fields(config):
        return "It has none."
    meanings, hints = entries(docstring(config)), typing.get_type_hints(config)
    rows = [
        [
            f"`{field.name}`",
            inline(_type(hints[field.name])),
            f"`{_default(field)}`",
            _allowed(field, hints[field.name]),
            inline(meanings.get(field.name, "")),
        ]
        for field in fields(config)
    ]
    text = _without_settings(config, config) if with_docstring else ""
    about = re.sub(r"^Settings of `\w+`(; (?P<more>.*))?\.", _as_sentence, text)
    columns = ["setting", "type", "default", "allowed", "meaning"]
    return "\n\n".join(part for part in (markdown(about), table(columns, rows)) if part)


def _as_sentence(match: re.Match[str]) -> str:
    more = match["more"] or ""
    return f"{more[:1].upper()}{more[1:]}." if more else ""


def _type(hint: Any) -> str:
    if typing.get_origin(hint) is typing.Literal:
        return " or ".join(f"`{word}`" for word in typing.get_args(hint))
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is tuple:
        return "list of " + ", ".join(_type(argument) for argument in arguments if argument is not ...)
    if arguments:
        return " or ".join(_type(argument) for argument in arguments)
    names = {"NoneType": "none", "str": "text", "bool": "true or false", "int": "whole number", "float": "number"}
    return names.get(hint.__name__, str(hint.__name__))


def _default(field: Field[Any]) -> str:
    return "none: it must be given" if field.default is MISSING else _yaml(field.default)


def _yaml(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_yaml, value)) + "]"
    return str(value)


def _allowed(field: Field[Any], hint: Any) -> str:
    if choices := field.metadata.get("choices"):
        return ", ".join(f"`{choice}`" for choice in choices)
    if within := field.metadata.get("within"):
        return inline(within.replace("inf", "∞"))
    return "both" if hint is bool else "any"


def _use(name: str, config: type[Any]) -> str:
    first = next(iter(fields(config)), None)
    override = f" plasticity.{name}.{first.name}={_default(first)}" if first and first.default is not None else ""
    chosen = f'{{"{first.name}": {first.default!r}}}'.replace("'", '"') if first else "{}"
    return "\n\n".join(
        [
            f"From the command line, with every setting of the table as an override:\n\n"
            f"```sh\npython train.py plasticity={name}{override}\n```",
            f"As YAML, `configs/plasticity/{name}.yaml`:\n\n" + _file(CONFIGS / f"{name}.yaml"),
            f"In Python, for an agent:\n\n```python\nfrom agents import PPO\n\n"
            f'methods = {{"{name}": {chosen}}}\nmodel = PPO("MlpPolicy", "CartPole-v1", plasticity=methods)\n```',
            _torch(name, config),
        ]
    )


def _torch(name: str, config: type[Any]) -> str:
    kind = config.__name__
    if not hasattr(config, "options"):
        return (
            "For any torch loop, with `network` a `plasticity.Network`:\n\n"
            f"```python\nfrom plasticity import {kind}, attach\n\nattach({kind}().build(network, seed=0), network)\n```"
        )
    if not config().options().rebuild:
        return (
            "For any torch loop, before training:\n\n```python\nfrom plasticity import UnitAdam, network_options\n\n"
            f'optimizer = UnitAdam(model.parameters(), betas=network_options("{name}").betas)\n```'
        )
    act = f"\nattach({kind}().build(network, seed=0), network)" if _intervention(config) else ""
    names = f"{kind}, Network, attach, hidden_layers, rebuild" if act else f"{kind}, Network, hidden_layers, rebuild"
    return (
        "For any torch model and its optimizer, before training:\n\n"
        f"```python\nfrom plasticity import {names}\n\n"
        'network = Network("net", hidden_layers(model), [optimizer])\n'
        f"rebuild(model, [network], {kind}().options())\n"
        "network.close()  # it describes the layers as they were\n"
        f'network = Network("net", hidden_layers(model), [optimizer]){act}\n```'
    )


def _variants(name: str) -> list[str]:
    """Other files that set the same method."""
    found = []
    quick = CONFIGS.parent / "experiment" / "quick" / "plasticity" / f"{name}.yaml"
    if quick.exists():
        found.append(f"`experiment=quick`, the short run that `train.py` starts from, changes:\n\n{_file(quick)}")
    for path in sorted(CONFIGS.glob("*.yaml")):
        if path.stem not in METHODS and name in (yaml.safe_load(path.read_text("utf-8")) or {}):
            found.append(f"Another choice with other defaults, `plasticity={path.stem}`:\n\n{_file(path)}")
    return found


def _file(path: Path) -> str:
    return f"```yaml\n{path.read_text('utf-8').strip()}\n```"


def _logs(name: str, method: type[Any] | None) -> list[str]:
    tags = telemetry.of_method(name)
    if not tags:
        return []
    about = vars(method).get("telemetry") if method is not None else None
    links = [f"[`{tag}`](../metrics/{metric_pages.page_of(tag)}.md)" for tag in tags]
    return ["## What it logs", markdown(docstring(about)) if about else "", "Tags: " + ", ".join(links) + "."]
