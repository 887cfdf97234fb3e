"""Docstrings as Markdown: plain English with formulas, whose stars, bars and brackets must stay what they are."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterable, Sequence

_ENTRY = re.compile(r"(?P<names>\w+(?:, \w+)*): +(?P<text>\S.*)")
_ARXIV = re.compile(r"arXiv (\d{4}\.\d{4,5})")


def docstring(value: object) -> str:
    """The docstring without its indentation; empty where there is none."""
    return inspect.getdoc(value) or ""


def entries(text: str) -> dict[str, str]:
    """Lines of the form `name: text` or `name, name: text`, with the indented lines that go on below each."""
    return {name: meaning for names, meaning in _entries(text) for name in names.split(", ")}


def without_entries(text: str, names: Iterable[str]) -> str:
    """`text` without the entries whose every name is among `names`."""
    known, kept, inside = set(names), [], False
    for line in text.splitlines():
        entry = _ENTRY.fullmatch(line)
        if entry:
            inside = known.issuperset(entry["names"].split(", "))
        elif not line.startswith("    "):
            inside = False
        if not inside:
            kept.append(line)
    return "\n".join(kept).strip()


def markdown(text: str) -> str:
    """A docstring as Markdown: paragraphs, lists of entries, and code where a whole paragraph is indented."""
    blocks = []
    for block in re.split(r"\n\s*\n", text.strip("\n")) if text.strip() else ():
        lines = block.splitlines()
        if all(line.startswith("    ") for line in lines):
            blocks.append("```text\n" + textwrap.dedent(block) + "\n```")
        elif _is_list(lines):
            blocks.append("\n".join(f"- {_code(names)}: {inline(meaning)}" for names, meaning in _entries(block)))
        else:
            blocks.append(inline(" ".join(block.split())))
    return "\n\n".join(blocks)


def inline(text: str) -> str:
    """One line of a docstring as Markdown that shows every character as it is; code stays code, papers become links."""
    parts = re.split(r"(`[^`]*`)", " ".join(text.split()))
    return "".join(part if part.startswith("`") else _escaped(part) for part in parts)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; the cells are Markdown already."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines)


def _entries(text: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    inside = False
    for line in text.splitlines():
        if entry := _ENTRY.fullmatch(line):
            found.append((entry["names"], entry["text"]))
            inside = True
        elif inside := inside and line.startswith("    "):
            found[-1] = (found[-1][0], f"{found[-1][1]} {line.strip()}")
    return found


def _code(names: str) -> str:
    return ", ".join(f"`{name}`" for name in names.split(", "))


def _escaped(text: str) -> str:
    text = text.replace("&", "&amp;").replace("<", "&lt;")
    text = re.sub(r"([\\*_\[\]#])", r"\\\1", text)
    return _ARXIV.sub(r"[arXiv \1](https://arxiv.org/abs/\1)", text)


def _is_list(lines: Sequence[str]) -> bool:
    heads = [line for line in lines if not line.startswith("    ")]
    return bool(heads) and all(_ENTRY.fullmatch(line) for line in heads)
