"""docs/reliability.md: what a run promises, and what came of putting it to the test; `make scorecard` writes it."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.reliability.words import ANT, CARTPOLE, PPO, SAC

ROOT = Path(__file__).resolve().parents[2]
PROSE, PAGE = ROOT / "docs" / "parts" / "reliability.md", ROOT / "docs" / "reliability.md"
PLACE = "<!-- scorecard -->"
HEAD = ("#", "what happens", "what must follow", "command", "result")
COMMANDS = 4  # of a case are shown
WORDS = {"CARTPOLE": CARTPOLE, "ANT": ANT, "SAC": SAC, "PPO": PPO}  # variables on the page, for words that are shared
CASE = "case"  # the marker, and the key of user properties
TEXTS = pytest.StashKey[dict[int, list[str]]]()
Texts = dict[int, list[str]]


@dataclass
class Case:
    """What was seen of one row."""

    outcomes: set[str] = field(default_factory=set)
    commands: list[str] = field(default_factory=list)

    @property
    def result(self) -> str:
        """Passed only if all of its tests that ran did."""
        if "failed" in self.outcomes:
            return "failed"
        return "passed" if "passed" in self.outcomes else "not run"


class Scorecard:
    """Plugin of pytest that collects results, from xdist's workers too, and writes the page at the end."""

    def __init__(self, page: Path):
        self.page = page
        self.texts: Texts = {}
        self.cases: dict[int, Case] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Each of setup, call and teardown; the properties are complete in the last."""
        numbers = [value for key, value in report.user_properties if key == CASE]
        for number in numbers:
            case = self.cases.setdefault(int(str(number)), Case())
            if report.when == "call" or not report.passed:
                case.outcomes.add(report.outcome)
            if report.when == "teardown":
                case.commands += [str(value) for key, value in report.user_properties if key == "command"]

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """A worker of xdist has ended: what it collected."""
        self.texts |= {int(number): texts for number, texts in getattr(node, "workeroutput", {}).get(CASE, {}).items()}

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write the page."""
        self.texts |= session.config.stash.get(TEXTS, {})
        self.page.write_text(page(self.texts, self.cases), "utf-8")


def note_cases(config: pytest.Config, items: Iterable[pytest.Item]) -> None:
    """See which cases there are, before any is deselected, and tell each test's number to its reports."""
    texts: Texts = {}
    for item in items:
        for marker in item.iter_markers(CASE):
            number, *words = marker.args
            item.user_properties.append((CASE, number))
            if words:
                assert texts.setdefault(number, words) == words, f"case {number} has two descriptions"
    config.stash[TEXTS] = texts
    if hasattr(config, "workeroutput"):
        config.workeroutput[CASE] = texts


def page(texts: Mapping[int, Sequence[str]], cases: Mapping[int, Case]) -> str:
    """The page as Markdown."""
    rows = [
        (str(number), *texts[number], _commands(cases.get(number, Case())), cases.get(number, Case()).result)
        for number in sorted(texts)
    ]
    lines = [HEAD, ["---"] * len(HEAD), *rows]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    variables = "\n".join(f"{name}=({shlex.join(words)})" for name, words in WORDS.items())
    return PROSE.read_text("utf-8").replace(PLACE, f"```sh\n{variables}\n```\n\n{table}")


def _commands(case: Case) -> str:
    once = dict.fromkeys(_short(command) for command in case.commands)
    # in their order, and a command twice where it was typed again after something was done
    kept = [one for one, before in zip(case.commands, ["", *case.commands], strict=False) if one != before]
    shown = [f"`{_short(command).replace('|', chr(92) + '|')}`" for command in kept[:COMMANDS]]
    more = len(once) - len(set(shown))
    return "<br>".join([*shown, *([f"and {more} more"] if more > 0 else [])])


def _short(command: str) -> str:
    """With the variables in place of the words that many commands share."""
    for name, words in WORDS.items():
        command = command.replace(shlex.join(words), f"${name}")
    return command
