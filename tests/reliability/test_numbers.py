"""Worlds and settings whose numbers go wrong: stopped, named, and never saved."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.reliability.compare import leaves, newest
from tests.reliability.program import Program
from tests.reliability.words import PPO, ROLLOUT

UNLUCKY = ["env=gym", "env.id=tests.reliability.worlds:Unlucky-v0", *PPO, "total_steps=1000"]


def assert_finite(folder: Path, *without: str) -> None:
    tree = {name: piece for name, piece in newest(folder).read().items() if name not in without}
    numbers = [np.asarray(value) for _, value in leaves(tree) if not isinstance(value, str | None)]
    assert len(numbers) > 100
    assert all(np.isfinite(number).all() for number in numbers if number.dtype.kind == "f")


@pytest.mark.case(
    15,
    "NaN or Inf in an observation or reward",
    "exit 3 naming environment, step, field; the newest checkpoint is finite",
)
@pytest.mark.parametrize(
    ("trouble", "what"),
    [
        ("nan_observation", "nan in observation[2]"),
        ("infinite_observation", "inf in observation[2]"),
        ("nan_reward", "nan as reward"),
        ("infinite_reward", "inf as reward"),
    ],
)
def test_what_is_not_a_number(trouble: str, what: str, program: Program) -> None:
    outcome = program.main(*UNLUCKY, f"+env.kwargs.trouble={trouble}", "run.guard.reward=clip")
    assert outcome.code == 3
    first, again = outcome.errors
    assert first.startswith(f"error: sub-environment 1 returned {what} at environment step 300")
    assert again.endswith("  # from step 256")
    assert newest(program.folder).step == 2 * ROLLOUT
    assert_finite(program.folder)
    assert "Traceback" in (program.folder / "error.log").read_text()


@pytest.mark.case(16, "one reward of 1e30", "`run.guard.reward=stop` (default, exit 3) or `clip`, counted")
def test_a_huge_reward(program: Program) -> None:
    outcome = program.main(*UNLUCKY, "+env.kwargs.trouble=huge_reward")
    assert outcome.code == 3
    assert outcome.errors[0].startswith(
        "error: sub-environment 1 returned 1e+30 as reward at environment step 300, and run.guard.reward_limit is "
        "1e+06; raise it, or set run.guard.reward=clip to clip such rewards and count them"
    )
    outcome = program.main(*UNLUCKY, "+env.kwargs.trouble=huge_reward", "run.guard.reward=clip", "total_steps=400")
    assert (outcome.code, outcome.err) == (0, "")
    assert "1 reward was outside [-1e+06, 1e+06] and clipped (run.guard.reward=clip)\n" in outcome.out
    assert json.loads((program.folder / "result.json").read_text())["guard/clipped_rewards"] == 1


@pytest.mark.case(17, "learning rate 1e3, NaN gradient", "stops before the step, exit 3")
@pytest.mark.parametrize(("backend", "at", "saved"), [("stock", 2, 0), ("auto", 5, ROLLOUT)])
def test_a_learning_rate_too_high(backend: str, at: int, saved: int, program: Program) -> None:
    words = ["agent.learning_rate=1e3", "total_steps=1000", f"agent.backend={backend}"]
    outcome = program.main("env=ns_pendulum", *PPO, *words)
    assert outcome.code == 3
    where = f"at gradient step {at}, before the step was taken: that of "
    assert outcome.errors[0].startswith(f"error: gradients of the policy are no longer finite {where}")
    assert newest(program.folder).step == saved
    # by hand, steps are taken while numbers are finite; the standard deviation that waits to be logged is infinite
    assert_finite(program.folder, *(["logger"] if backend == "auto" else []))


@pytest.mark.case(
    18,
    "physics made unstable",
    "counted, episode cut, no MUJOCO_LOG.TXT, quiet stderr, exit 4 past a limit",
)
def test_unstable_physics(program: Program, capfd: pytest.CaptureFixture[str]) -> None:
    words = ["env=gym", "env.id=tests.reliability.worlds:Shaky-v0", *PPO, f"total_steps={ROLLOUT}"]
    outcome = program.main(*words)
    assert (outcome.code, outcome.err) == (0, "")
    counted = json.loads((program.folder / "result.json").read_text())["guard/unstable_physics"]
    assert counted > 0
    assert f"{counted} episodes were cut because the simulation became unstable\n" in outcome.out
    outcome = program.main(*words, "run.guard.unstable_physics=2", "run.overwrite=true")
    assert outcome.code == 4
    assert outcome.errors[0].startswith("error: the simulation became unstable in 3 episodes, the last in sub-env")
    assert "and run.guard.unstable_physics allows 2" in outcome.errors[0]
    assert [path.name for path in program.cwd.iterdir()] == ["run"]
    assert capfd.readouterr().err == ""


@pytest.mark.case(
    30,
    "environment whose state cannot be captured",
    "warned at start, `exact_resume: false`, an option makes it an error",
)
def test_a_state_that_cannot_be_captured(program: Program) -> None:
    words = [*UNLUCKY[:-1], f"total_steps={ROLLOUT}", "+env.kwargs.trouble=generator"]
    outcome = program.main(*words, "run.checkpoint.require_exact=true")
    assert (outcome.code, outcome.out) == (2, "")
    (line,) = outcome.errors
    assert line.startswith("error: run.checkpoint.require_exact=true, and resuming would not be exact: ")
    assert "Unlucky.numbers (generator) cannot be captured" in line
    assert not program.folder.exists()
    outcome = program.main(*words)
    assert (outcome.code, outcome.err) == (0, "")
    assert "warning: a resumed run will not equal an undisturbed one to the last bit:\n" in outcome.out
    assert "Unlucky.numbers (generator) cannot be captured\n" in outcome.out
    manifest = newest(program.folder).manifest
    assert manifest["exact_resume"] is False
    assert "Unlucky.numbers" in manifest["inexact"][0]
    words[-2] = f"total_steps={2 * ROLLOUT}"
    assert program.main(*words).code == 0
