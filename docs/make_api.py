"""Write docs/api.md, every public name with the first sentence of its docstring: `python docs/make_api.py`."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

PACKAGES = ("plasticity", "agents", "envs")


def page() -> str:
    """The page as Markdown."""
    parts = [
        "# Public names",
        "",
        "Written by `python docs/make_api.py` from the docstrings, which say the rest: `help(name)`.",
    ]
    for package in PACKAGES:
        module = importlib.import_module(package)
        parts += [
            "",
            f"## {package}",
            "",
            str(inspect.getdoc(module)).partition("\n")[0],
            "",
            "| name | what it is |",
            "|---|---|",
        ]
        parts += [
            f"| `{name}{_signature(getattr(module, name))}` | {_sentence(getattr(module, name))} |"
            for name in module.__all__
        ]
    return "\n".join(parts) + "\n"


def _signature(value: object) -> str:
    if not inspect.isfunction(value):
        return ""
    return "(" + ", ".join(inspect.signature(value).parameters) + ")"


def _sentence(value: object) -> str:
    if not (inspect.isclass(value) or inspect.isfunction(value)):
        return f"one of: {', '.join(value)}" if isinstance(value, dict | tuple) else ""
    text = " ".join(str(inspect.getdoc(value)).split("\n\n")[0].split())
    return text.replace("|", "\\|")


if __name__ == "__main__":
    Path(__file__).with_name("api.md").write_text(page(), "utf-8")
