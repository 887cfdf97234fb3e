"""Damaged, missing, foreign and complete runs: what the program says, and that it loses and changes nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from experiments.checkpoint.store import sealed
from tests.reliability.compare import assert_equal_runs, contents, newest
from tests.reliability.conftest import Shared
from tests.reliability.program import Outcome, Program, steps
from tests.reliability.words import CARTPOLE, ROLLOUT, TOTAL, with_two_threads

WORDS = [*CARTPOLE, f"total_steps={TOTAL}"]


def checkpoint(folder: Path, step: int) -> Path:
    return folder / "checkpoints" / f"{step:012d}"


def flip(path: Path) -> None:
    """One bit, in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def assert_refused(outcome: Outcome, code: int, *lines: str) -> None:
    """With these lines, and nothing else."""
    assert (outcome.code, outcome.out) == (code, "")
    assert outcome.errors == [f"error: {line}" for line in lines]


@pytest.mark.case(
    6,
    "one bit flipped in the newest checkpoint",
    "named with its checksum, the one before is used, lost steps stated",
)
def test_a_flipped_bit(whole: Shared, stopped: Shared, program: Program) -> None:
    folder = stopped.copy(program)
    older, newer = steps(folder)
    flip(checkpoint(folder, newer) / "state.safetensors")
    program.did("one bit flipped in state.safetensors of the newest checkpoint")
    outcome = program.main(*WORDS)
    assert (outcome.code, outcome.err) == (0, "")
    assert f"run/checkpoints/{newer:012d} is damaged and was put aside: state.safetensors has SHA-256 " in outcome.out
    assert "..., its manifest says " in outcome.out
    assert f"going on from step {older:,} instead; {newer - older:,} steps are done again\n" in outcome.out
    assert_equal_runs(whole.folder, folder)


@pytest.mark.case(7, "newest truncated, or a leftover temporary folder", "ignored with a warning, removed")
def test_a_truncated_file_and_a_leftover_folder(whole: Shared, stopped: Shared, program: Program) -> None:
    folder = stopped.copy(program)
    older, newer = steps(folder)
    path = checkpoint(folder, newer) / "state.json"
    path.write_bytes(path.read_bytes()[:-100])
    leftover = folder / "checkpoints" / f".{newer + ROLLOUT:012d}.unfinished"
    shutil.copytree(checkpoint(folder, older), leftover)
    program.did("state.json of the newest checkpoint cut short, and one more begun and left")
    outcome = program.main(*WORDS)
    assert (outcome.code, outcome.err) == (0, "")
    assert f"removed run/checkpoints/{leftover.name}, which was never completed\n" in outcome.out
    assert f"run/checkpoints/{newer:012d} is damaged and was put aside: state.json has " in outcome.out
    assert [path.name for path in sorted((folder / "checkpoints").iterdir())] == [
        f"{TOTAL - ROLLOUT:012d}",
        f"{TOTAL:012d}",
    ]
    assert_equal_runs(whole.folder, folder)


@pytest.mark.case(8, "all checkpoints corrupt", "exit 5 naming each; never starts from 0; nothing deleted")
def test_all_are_corrupt(stopped: Shared, program: Program) -> None:
    folder = stopped.copy(program)
    older, newer = steps(folder)
    flip(checkpoint(folder, older) / "state.safetensors")
    (checkpoint(folder, newer) / "manifest.json").write_text("{")
    program.did("both checkpoints damaged")
    before = contents(folder)
    outcome = program.main(*WORDS)
    assert (outcome.code, outcome.out) == (5, "")
    first, second, third = outcome.errors
    assert first.startswith(f"error: run/checkpoints/{newer:012d} is damaged: manifest.json cannot be read: ")
    assert second.startswith(f"error: run/checkpoints/{older:012d} is damaged: state.safetensors has SHA-256 ")
    assert third == (
        "error: no checkpoint of run can be used, and nothing was changed; to start anew: run.overwrite=true"
    )
    assert contents(folder) == before


@pytest.mark.case(9, "`run.resume=must` where there is nothing", "error naming the path")
def test_nothing_to_go_on_from(stopped: Shared, program: Program) -> None:
    assert_refused(program.main(*WORDS, "run.resume=must"), 2, "run.resume=must: run holds no run to go on from")
    assert not program.folder.exists()
    folder = stopped.copy(program)
    shutil.rmtree(folder / "checkpoints")
    assert_refused(program.main(*WORDS, "run.resume=must"), 2, "run.resume=must: run holds no checkpoint to go on from")


@pytest.mark.case(
    14,
    "a new run into a used folder (`run.dir=`)",
    'the same config resumes or says "already complete"; another config: exit 2 with the differing keys; nothing '
    "changed",
)
def test_a_used_folder(whole: Shared, program: Program) -> None:
    folder = whole.copy(program)
    before = contents(folder)
    outcome = program.main(*WORDS)
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.startswith(f"run is already complete ({TOTAL:,} steps); nothing to do.\n")
    outcome = program.main(*WORDS, "agent.gamma=0.9", "seed=1", "run.resume=never")
    assert_refused(
        outcome,
        2,
        "run holds a run of another configuration: choose another folder with run.dir=FOLDER, or replace the run with "
        "run.overwrite=true",
        "agent.gamma: 0.98 -> 0.9",
        "seed: 0 -> 1",
    )
    assert contents(folder) == before
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "thesis.txt").write_text("ten years")
    assert_refused(
        program.main(*WORDS, "run.overwrite=false"),
        2,
        "run holds something that is not a run; choose another folder with run.dir=FOLDER",
    )
    assert [path.name for path in folder.iterdir()] == ["thesis.txt"]


@pytest.mark.case(
    25,
    "resume with another network, environment, method setting",
    "exit 2, table of key: old -> new; totals and logging may change",
)
def test_going_on_with_other_settings(stopped: Shared, program: Program) -> None:
    folder = stopped.copy(program)
    before = contents(folder)
    changed = ["agent.net_arch=[32]", "env.kwargs.period=700", "plasticity.cbp.maturity=6"]
    assert_refused(
        program.main(*WORDS, *changed),
        2,
        "run holds a run of another configuration: choose another folder with run.dir=FOLDER, or replace the run with "
        "run.overwrite=true",
        "agent.net_arch: [16, 16] -> [32]",
        "env.kwargs.period: 500 -> 700",
        "plasticity.cbp.maturity: 5 -> 6",
    )
    assert contents(folder) == before
    total = max(steps(folder)) + ROLLOUT
    outcome = program.main(*CARTPOLE, f"total_steps={total}", "logging.monitor_every=64", "logging.histograms=true")
    assert (outcome.code, outcome.err) == (0, "")
    assert newest(folder).step == total


@pytest.mark.case(
    28,
    "resume a finished run; with a larger total",
    '"already complete", nothing changed; goes on, and says what the schedules do',
)
def test_a_finished_run(whole: Shared, program: Program) -> None:
    assert program.main(*CARTPOLE, f"total_steps={TOTAL - 3 * ROLLOUT}").code == 0
    before = contents(program.folder)
    outcome = program.main(*CARTPOLE, f"total_steps={TOTAL - 3 * ROLLOUT}")
    assert outcome.code == 0
    assert f"run is already complete ({TOTAL - 3 * ROLLOUT:,} steps); nothing to do.\n" in outcome.out
    assert contents(program.folder) == before
    outcome = program.main(*WORDS)
    assert (outcome.code, outcome.err) == (0, "")
    assert (
        f"this run was finished after {TOTAL - 3 * ROLLOUT:,} steps and goes on to {TOTAL:,}: the world's schedule is "
        "a function of the step and goes on where it was; learning rates are constant, methods count on\n"
    ) in outcome.out
    assert_equal_runs(whole.folder, program.folder)
    assert_refused(
        program.main(*CARTPOLE, f"total_steps={ROLLOUT}"),
        2,
        f"run holds a run of {TOTAL:,} steps already, asked {ROLLOUT:,}: choose another folder with run.dir=FOLDER, or "
        "replace the run with run.overwrite=true",
    )


Edit = Callable[[dict[str, Any]], Any]


def edit_manifests(program: Program, folder: Path, edit: Edit) -> None:
    program.did("the manifests edited")
    for step in steps(folder):
        path = checkpoint(folder, step) / "manifest.json"
        manifest = json.loads(path.read_text())
        edit(manifest)
        path.write_text(json.dumps(sealed(manifest)))


@pytest.mark.case(
    33,
    "checkpoint of a newer format; other torch, mujoco or numpy; other thread count or vector class",
    "exit 5 naming both; exit 5 unless `run.checkpoint.allow_version_change=true`; a warning and `exact_resume: false`",
)
def test_a_newer_format(stopped: Shared, program: Program) -> None:
    folder = stopped.copy(program)
    edit_manifests(program, folder, lambda manifest: manifest.update(format=7))
    before = contents(folder)
    assert_refused(
        program.main(*WORDS),
        5,
        f"run/checkpoints/{max(steps(folder)):012d} has format 7 and this version of Pliant reads up to 1: resume with "
        "the version that wrote it, or a newer one",
    )
    assert contents(folder) == before


@pytest.mark.case(33)
@pytest.mark.parametrize("package", ["torch", "mujoco", "numpy"])
def test_another_version(package: str, stopped: Shared, program: Program) -> None:
    folder = stopped.copy(program)
    edit_manifests(program, folder, lambda manifest: manifest["versions"].update({package: "0.0.1"}))
    outcome = program.main(*WORDS)
    now = {"torch": torch.__version__, "numpy": np.__version__}.get(package, "")
    assert outcome.code == 5
    (line,) = outcome.errors
    assert f" was made with other versions ({package} 0.0.1 -> {now}" in line
    assert line.endswith("go on all the same with run.checkpoint.allow_version_change=true")
    if package == "torch":
        step = max(steps(folder))
        outcome = program.main(*WORDS, "run.checkpoint.allow_version_change=true")
        assert (outcome.code, outcome.err) == (0, "")
        assert f"  versions changed (torch 0.0.1 -> {now}) at step {step:,}\n" in outcome.out
        assert newest(folder).manifest["exact_resume"] is False


@pytest.mark.case(33)
def test_another_thread_count_and_vector_class(stopped: Shared, program: Program) -> None:
    folder = stopped.copy(program)
    step = max(steps(folder))
    outcome = program.main(*with_two_threads(WORDS), "env.vectorization=subproc")
    assert (outcome.code, outcome.err) == (0, "")
    assert (
        "warning: a resumed run will not equal an undisturbed one to the last bit:\n"
        f"  torch threads changed (1 -> 2) at step {step:,}\n"
        f"  vector environment changed (dummy -> subproc) at step {step:,}\n"
    ) in outcome.out
    manifest = newest(folder).manifest
    assert (manifest["exact_resume"], manifest["vector"]) == (False, "subproc")
