"""docs/reliability.md is whole: all that is promised, and what came of it, as `make scorecard` wrote it."""

from __future__ import annotations

import re
import shlex

import pytest

from tests.reliability.scorecard import HEAD, PAGE, PLACE, PROSE, TEXTS, Case, page
from tests.reliability.words import CARTPOLE

CASES = range(1, 35)


def rows(text: str) -> dict[int, list[str]]:
    """Number -> the other cells."""
    lines = text[text.index(" | ".join(HEAD)) :].splitlines()
    cells = [line.removeprefix("| ").removesuffix(" |").split(" | ") for line in lines if re.match(r"\| \d+ \|", line)]
    return {int(number): rest for number, *rest in cells}


def test_the_page_has_all_cases_and_its_words() -> None:
    text = PAGE.read_text("utf-8")
    found = rows(text)
    assert list(found) == list(CASES), "run: make scorecard"
    assert all(cells[-1] in ("passed", "failed", "not run") for cells in found.values())
    for part in PROSE.read_text("utf-8").split(PLACE):
        assert part.strip() in text, "run: make scorecard"


def test_the_page_describes_the_cases_as_the_tests_do(request: pytest.FixtureRequest) -> None:
    texts = request.config.stash[TEXTS]
    if len(texts) < len(CASES):
        pytest.skip("not all tests of this folder were collected")
    found = rows(PAGE.read_text("utf-8"))
    assert {number: cells[:2] for number, cells in found.items()} == texts, "run: make scorecard"


def test_a_case_has_passed_only_if_all_its_tests_have() -> None:
    texts = {1: ["a", "b"], 2: ["c", "d"], 3: ["e", "f"]}
    cases = {
        1: Case({"passed", "failed"}, ["x | y", "x | y", f"python train.py {shlex.join(CARTPOLE)} seed=1"]),
        2: Case({"passed", "skipped"}),
    }
    found = rows(page(texts, cases))
    assert [cells[-1] for cells in found.values()] == ["failed", "passed", "not run"]
    assert found[1][2] == r"`x \| y`<br>`python train.py $CARTPOLE seed=1`"
