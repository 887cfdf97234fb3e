"""A full disk, and folders that cannot be."""

from __future__ import annotations

import json

import pytest

from experiments.checkpoint import saver
from tests.reliability.compare import assert_equal_runs, differing, newest, weights
from tests.reliability.conftest import Shared
from tests.reliability.faults import full_disk
from tests.reliability.program import Program
from tests.reliability.words import CARTPOLE, TOTAL

WORDS = [*CARTPOLE, f"total_steps={TOTAL}"]


@pytest.mark.case(10, "disk full during a checkpoint", "the previous one intact; retried; then exit 7")
def test_a_full_disk(stopped: Shared, program: Program) -> None:
    folder = stopped.copy(program)
    before = newest(folder)
    outcome = program.run(*WORDS, full_disk="/checkpoints/")
    assert outcome.code == 7
    first, again = outcome.errors
    assert first.startswith("error: no checkpoint of step ")
    assert first.endswith(" could be written in 3 attempts: [Errno 28] No space left on device")
    assert again.startswith("resume with: python train.py ")
    assert again.endswith(f"  # from step {before.step:,}")
    assert newest(folder) == before
    assert not list((folder / "checkpoints").glob(".*"))


@pytest.mark.case(10)
def test_a_disk_that_is_full_for_a_moment(
    whole: Shared, stopped: Shared, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saver, "PAUSE", 0.01)
    folder = stopped.copy(program)
    with full_disk("/checkpoints/", first=4, times=2) as failed:
        outcome = program.main(*WORDS)
    assert len(failed) == 2
    assert (outcome.code, outcome.err) == (0, "")
    assert_equal_runs(whole.folder, folder)


@pytest.mark.case(11, "disk full for metrics only", "training goes on, one warning, the gap recorded")
def test_a_disk_that_is_full_for_metrics(whole: Shared, program: Program) -> None:
    with full_disk("progress.csv", first=2, times=3) as failed:
        outcome = program.main(*WORDS)
    assert failed
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.count("warning: ") == 1
    assert "warning: run/progress.csv cannot be written (No space left on device) at step " in outcome.out
    (gap,) = json.loads((program.folder / "result.json").read_text())["gaps"]["progress.csv"]
    assert f"progress.csv: {gap['rows']} rows could not be written, steps {gap['first']:,}-{gap['last']:,}\n" in (
        outcome.out
    )
    assert differing(weights(whole.folder), weights(program.folder)) == []


@pytest.mark.case(12, "run folder cannot be made", "exit 2 before anything is built")
@pytest.mark.parametrize("path", ["file/run", "/proc/run", "file"])
def test_a_folder_that_cannot_be_made(path: str, program: Program) -> None:
    (program.cwd / "file").write_text("something")
    outcome = program.main(*WORDS, f"run.dir={path}", "total_steps=100_000_000")
    assert (outcome.code, outcome.out) == (2, "")
    (line,) = outcome.errors
    assert line.startswith(f"error: the run folder {path} cannot be made: ")
    assert (program.cwd / "file").read_text() == "something"
