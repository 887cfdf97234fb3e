"""A run that was killed and gone on with is the one that nothing happened to."""

from __future__ import annotations

import json
import random
import signal
import time
from itertools import pairwise
from pathlib import Path

import pytest

from experiments.checkpoint.store import Checkpoint, Store
from tests.reliability.compare import assert_equal_runs, curves, differing, newest, state, table
from tests.reliability.conftest import Shared
from tests.reliability.program import Program, steps
from tests.reliability.words import ANT, CARTPOLE, ROLLOUT, SAC, TOTAL, with_two_threads


@pytest.mark.case(
    1,
    "SIGKILL at a random moment of PPO on Slippery Ant, resume",
    "final weights, ages, utilities, per-unit steps and every TensorBoard series but wall-clock ones (`time/*`) equal "
    "the uninterrupted run",
)
def test_ppo_killed_on_its_way(ant: Shared, killed_ant: Shared, program: Program) -> None:
    assert (killed_ant.outcome.code, killed_ant.outcome.err) == (0, "")
    assert f"going on from step {killed_ant.facts['saved']:,} of {TOTAL:,}\n" in killed_ant.outcome.out
    assert_equal_runs(ant.folder, killed_ant.folder)
    compared = state(ant.folder)
    for what in (".age", ".utility", ".exp_avg", "row_step", ".qvel", ".generators.torch"):
        assert any(what in path for path in compared), what
    assert float(table(ant.folder / "progress.csv")[-1]["plasticity/pi/replaced"]) > 0


@pytest.mark.case(2, "the same for SAC with replay buffer, VecNormalize, SubprocVecEnv", "equal")
def test_sac_killed_on_its_way(sac: Shared, killed_sac: Shared, program: Program) -> None:
    assert (killed_sac.outcome.code, killed_sac.outcome.err) == (0, "")
    assert f"going on from step {killed_sac.facts['saved']:,} of 500\n" in killed_sac.outcome.out
    assert_equal_runs(sac.folder, killed_sac.folder)
    assert newest(sac.folder).manifest["segments"]


@pytest.mark.slow
@pytest.mark.case(1)
@pytest.mark.case(2)
@pytest.mark.parametrize("words", [[*ANT, f"total_steps={30 * ROLLOUT}"], [*SAC, "total_steps=1500"]])
def test_five_kills_in_one_run(words: list[str], program: Program, tmp_path: Path) -> None:
    first = program.folder.rename(tmp_path / "first") if program.main(*words).code == 0 else None
    assert first is not None
    last = 0
    for _ in range(5):
        program.start(*words).kill_after(last + 1, within=0.5)
        last = max(steps(program.folder))
    assert program.run(*words).code == 0
    assert_equal_runs(first, program.folder)


@pytest.mark.slow
@pytest.mark.case(3, "20 SIGKILLs, some during a save", "always a verified checkpoint; 20 of 20 resume")
def test_twenty_kills(program: Program) -> None:
    words = [*CARTPOLE, "total_steps=1_000_000"]
    torn = 0
    for life in range(20):
        before = max(steps(program.folder), default=-1)
        running = program.start(*words)
        after = before + random.randint(1, 3) * ROLLOUT
        if life % 2:
            running.kill_in_save(after)
        else:
            running.kill_after(after, within=0.5)
        torn += any(path.name.endswith(".unfinished") for path in (program.folder / "checkpoints").iterdir())
        assert all(isinstance(found, Checkpoint) for found in Store(program.folder).verify())
        assert newest(program.folder).step >= after
        if life:
            assert f"going on from step {before:,} of " in running.wait().out
    assert torn > 0
    words[-1] = f"total_steps={newest(program.folder).step + ROLLOUT}"
    whole = program.main(*words)
    assert (whole.code, whole.err) == (0, "")
    once = newest(program.folder)
    resumed = state(program.folder)
    assert program.main(*words, "run.overwrite=true").code == 0
    assert newest(program.folder).step == once.step
    assert differing(resumed, state(program.folder)) == []


@pytest.mark.case(
    27,
    "TensorBoard after crash and resume",
    "every tag strictly increasing, equal to the uninterrupted run",
)
@pytest.mark.parametrize("name", ["ant", "sac"])
def test_curves_go_on(name: str, request: pytest.FixtureRequest, program: Program) -> None:
    one, other = (curves(request.getfixturevalue(each).folder) for each in (name, f"killed_{name}"))
    request.node.user_properties += [
        ("command", command) for command in request.getfixturevalue(f"killed_{name}").commands
    ]
    assert one == other
    assert len(one) >= 10
    for tag, points in other.items():
        assert all(before[0] < after[0] for before, after in pairwise(points)), tag


@pytest.mark.case(29, "ten checkpoints kept at two, under SIGKILL", "two valid at any instant")
def test_two_are_valid_at_any_instant(program: Program) -> None:
    running = program.start(*CARTPOLE, "total_steps=1_000_000")
    running.until_step(ROLLOUT)
    seen: set[int] = set()
    while len(seen) < 10:
        running.until_step(max(seen, default=0) + ROLLOUT)
        time.sleep(random.uniform(0, 0.05))
        running.process.send_signal(signal.SIGSTOP)  # an instant to look at
        found = Store(running.folder).verify()
        running.process.send_signal(signal.SIGCONT)
        assert sum(isinstance(one, Checkpoint) for one in found) >= 2, found
        seen |= {int(one.path.name) for one in found}
    running.kill()
    found = Store(running.folder).verify()
    assert all(isinstance(one, Checkpoint) for one in found)
    assert len(found) in (2, 3)  # the third was about to go


@pytest.mark.slow
@pytest.mark.case(29)
def test_two_are_valid_after_ten_kills(program: Program) -> None:
    for _ in range(10):
        program.start(*CARTPOLE, "total_steps=1_000_000").kill_in_save(max(steps(program.folder), default=0) + ROLLOUT)
        assert sum(isinstance(one, Checkpoint) for one in Store(program.folder).verify()) >= 2


@pytest.mark.case(31, "same seed twice; another thread count", "identical; warned")
def test_the_same_seed_twice(whole: Shared, stopped: Shared, program: Program) -> None:
    assert program.main(*CARTPOLE, f"total_steps={TOTAL}").code == 0
    assert_equal_runs(whole.folder, program.folder)
    program.folder.rename(program.cwd / "other")
    stopped.copy(program)
    outcome = program.main(*with_two_threads(CARTPOLE), f"total_steps={TOTAL}")
    assert (outcome.code, outcome.err) == (0, "")
    step = f"{newest(stopped.folder).step:,}"
    assert (
        "warning: a resumed run will not equal an undisturbed one to the last bit:\n"
        f"  torch threads changed (1 -> 2) at step {step}\n"
    ) in outcome.out
    assert newest(program.folder).manifest["exact_resume"] is False


@pytest.mark.case(34, "evaluation history across resume", "appended; best not replaced by worse")
def test_the_evaluation_goes_on(program: Program, tmp_path: Path) -> None:
    words = [
        *CARTPOLE,
        f"total_steps={4 * TOTAL}",
        "evaluation.episodes=2",
        "evaluation.regimes=2",
        "evaluation.every=200",
    ]
    assert program.main(*words).code == 0
    first = program.folder.rename(tmp_path / "first")
    program.start(*words).kill_after(6 * ROLLOUT)
    before = newest(program.folder).read()["parts"]["evaluation"]
    assert before["best"] is not None
    assert program.main(*words).code == 0
    assert_equal_runs(first, program.folder)
    for name in ("forgetting.csv", "adaptation.csv"):
        assert (first / name).read_text() == (program.folder / name).read_text()
    after = newest(program.folder).read()["parts"]["evaluation"]
    assert len(after["evaluations"]) > len(before["evaluations"])
    assert after["evaluations"][: len(before["evaluations"])] == before["evaluations"]
    assert after["best"][1] >= before["best"][1]
    best = [float(row["evaluation/best_average_return"]) for row in table(program.folder / "progress.csv")
            if row["evaluation/best_average_return"]]  # fmt: skip
    assert best == sorted(best)
    assert json.loads((program.folder / "result.json").read_text())["status"] == "finished"
