"""`evaluation.*`: what a run with it leaves behind, and what is refused."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import matplotlib.image
import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import CallbackList

from agents import PPO, ForgettingEvaluation
from experiments import folder as files
from experiments.compose import compose
from experiments.folder import config_hash
from experiments.schema import validate
from tests.experiments.conftest import Outcome
from tests.experiments.test_runs import rows, scalars

WORDS = [
    *("env=ns_cartpole", "env.n_envs=2", "env.kwargs.period=300", "total_steps=700", "seed=3", "plasticity=none"),
    *("agent.n_steps=64", "agent.batch_size=64", "agent.net_arch=[8]", "agent.n_epochs=2", "run.dir=run"),
]
ON = ["evaluation.episodes=2", "evaluation.window=2", "evaluation.fresh=true"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """A folder with a run of three regimes, evaluated; one without; and what the first one printed."""
    from contextlib import redirect_stdout
    from io import StringIO

    from experiments.command_line import main

    folder, said = tmp_path_factory.mktemp("evaluated"), StringIO()
    with redirect_stdout(said):
        assert main([*WORDS, *ON, f"run.dir={folder / 'on'}"]) == 0
    with redirect_stdout(StringIO()):
        assert main([*WORDS, f"run.dir={folder / 'off'}"]) == 0
    return folder / "on", str(folder / "off"), said.getvalue()


def test_the_matrix_and_a_row_a_regime(run: tuple[Path, str, str]) -> None:
    matrix, regimes = rows(run[0] / files.FORGETTING), rows(run[0] / files.ADAPTATION)
    pairs = [(row["trained_on"], row["tested_on"]) for row in matrix]
    assert pairs[:4] == [("-1", "0"), ("-1", "1"), ("-1", "2"), ("-1", "3")]
    assert pairs[4:] == [(str(i), str(j)) for i in range(3) for j in range(i + 2)]
    assert {row["at"] for row in matrix} == {"start", "end"}
    returns = {pair: float(row["mean_return"]) for pair, row in zip(pairs, matrix, strict=True)}
    assert [row["regime"] for row in regimes] == ["0", "1", "2"]
    for row in regimes:
        k = row["regime"]
        assert float(row["return_at_end"]) == returns[k, k]
        assert float(row["return_finally"]) == returns["2", k]
        assert float(row["untrained_return"]) == returns["-1", k]
        assert float(row["gap_to_fresh"]) == pytest.approx(returns[k, k] - float(row["fresh_return"]))
    assert float(regimes[0]["forgetting"]) == pytest.approx(
        max(returns["0", "0"], returns["1", "0"]) - returns["2", "0"]
    )
    assert regimes[0]["forward_transfer"] == regimes[0]["recovery_steps"] == regimes[2]["forgetting"] == ""
    assert float(regimes[1]["forward_transfer"]) == pytest.approx(returns["0", "1"] - returns["-1", "1"])
    met = rows(run[0] / files.REGIMES)
    assert [row["first_step"] for row in regimes] == [row["first_step"] for row in met]


def test_tensorboard_and_the_csv_have_the_curves(run: tuple[Path, str, str]) -> None:
    matrix, events = rows(run[0] / files.FORGETTING), scalars(run[0])
    for regime in range(3):
        column = [(int(row["step"]), float(row["mean_return"])) for row in matrix if row["tested_on"] == str(regime)]
        seen = events[f"evaluation/return_on_regime_{regime}"]
        assert [step for step, _ in seen] == [step for step, _ in column]
        np.testing.assert_allclose([value for _, value in seen], [value for _, value in column])
    for name in ("average_return", "forgetting", "backward_transfer", "forward_transfer", "gap_to_fresh"):
        assert f"evaluation/{name}" in events
    progress = [row for row in rows(run[0] / files.PROGRESS) if row["evaluation/average_return"]]
    assert [int(row["time/total_timesteps"]) for row in progress] == sorted({int(row["step"]) for row in matrix})[1:]


def test_what_is_printed_and_drawn(run: tuple[Path, str, str]) -> None:
    on, off, said = run
    assert (
        "evaluation: 2 episodes on the regimes met so far and the next, at the end of each regime (3 of them)" in said
    )
    assert "a fresh agent is trained on each regime" in said
    assert f"{files.FORGETTING}, {files.ADAPTATION}, " in said
    kept = (on / files.SUMMARY).read_text()
    for text in ("Return on frozen regimes", "recovery", "fresh", "forward transfer: the return before a regime"):
        assert text in kept
    assert "frozen" not in (Path(off) / files.SUMMARY).read_text()
    wide, narrow = (matplotlib.image.imread(Path(one) / files.PICTURE) for one in (on, off))
    assert wide.shape[0] == narrow.shape[0]
    assert wide.shape[1] > 1.5 * narrow.shape[1]


def test_nothing_else_of_the_run_is_different(run: tuple[Path, str, str]) -> None:
    on, off = run[0], Path(run[1])
    assert rows(on / files.EPISODES) == rows(off / files.EPISODES)
    one, other = (PPO.load(folder / files.MODEL).policy.state_dict() for folder in (on, off))
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert not (off / files.FORGETTING).exists()
    assert not any(tag.startswith("evaluation/") for tag in scalars(off))


def test_it_is_no_part_of_what_is_learned() -> None:
    plain, evaluated = (validate(compose(words).tree) for words in (WORDS, [*WORDS, *ON]))
    assert config_hash(plain) == config_hash(evaluated)
    assert evaluated.as_dict()["evaluation"]["episodes"] == 2
    assert not plain.evaluation.episodes


def test_a_world_that_drifts_is_evaluated_as_it_began(command: Callable[..., Outcome], tmp_path: Path) -> None:
    outcome = command(
        *("env=gym", "env.id=Pendulum-v1", "total_steps=256", "agent.n_steps=128", "run.dir=x", "plasticity=none"),
        *("env.changes=[{target: gravity, drift: 'linear:500,0.5,1.5'}]", "evaluation.episodes=1"),
    )
    assert (outcome.code, outcome.err) == (0, "")
    assert "this world has no regimes to go back to (a drift changes it all the time)" in outcome.out
    assert [row["tested_on"] for row in rows(tmp_path / "x" / files.FORGETTING)] == ["0", "0"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["env=gym", "env.id=CartPole-v1"], "evaluation.episodes needs an environment that changes, CartPole-v1 is"),
        (
            [
                *("env=gym", "env.id=CartPole-v1", "evaluation.regimes=9"),
                "env.changes=[{target: length, when: 'every:9', to: 'list:1,2'}]",
            ],
            "evaluation.regimes must be at most the schedule's number of regimes: regime must be in [0, 2]",
        ),
        (
            ["evaluation.episodes=0", "evaluation.fresh=true"],
            "evaluation.fresh needs evaluation.episodes of at least 1",
        ),
        (["evaluation.episodes=-1"], "evaluation.episodes must be in [0, inf), got -1"),
        (["evaluation.fraction=1.1"], "evaluation.fraction must be in (0, 1], got 1.1"),
        (["evaluation.epsodes=3"], 'evaluation: unknown setting "epsodes"'),
    ],
)
def test_what_cannot_be_evaluated_is_refused(
    command: Callable[..., Outcome], tmp_path: Path, words: list[str], said: str
) -> None:
    outcome = command("env=ns_cartpole", "evaluation.episodes=2", *words)
    assert outcome.code == 2
    assert len(outcome.errors) == 1
    assert said in outcome.err
    assert list(tmp_path.iterdir()) == []


def test_a_run_stopped_in_an_evaluation_keeps_what_it_has(
    command: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop_early(callbacks: list[object]) -> CallbackList:
        found = CallbackList([callback for callback in callbacks if callback is not None])
        (evaluation,) = (one for one in found.callbacks if isinstance(one, ForgettingEvaluation))
        evaluation.frozen.stop = lambda: True
        return found

    monkeypatch.setattr("experiments.session.CallbackList", stop_early)
    outcome = command(*WORDS, *ON)
    assert outcome.code == 0
    assert "evaluation: stopped before the first test of a trained agent" in outcome.out
    assert rows(tmp_path / "run" / files.FORGETTING) == []
    assert rows(tmp_path / "run" / files.ADAPTATION) == []


class Shy(gym.Wrapper[Any, Any, Any, Any]):
    """CartPole that breaks where the evaluation tests, which seeds it with numbers that nobody else would choose."""

    def __init__(self, at: int = 3) -> None:
        super().__init__(gym.make("CartPole-v1"))
        self.at, self.left = at, -1

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        if seed is not None and seed > 10**6:
            self.left = self.at
            if self.at == 0:
                raise ZeroDivisionError("not now")
        return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> Any:
        self.left -= 1
        if self.left == 0:
            raise ZeroDivisionError("not\nnow")
        return self.env.step(action)


@pytest.mark.parametrize("at", [0, 3])
def test_an_environment_that_fails_in_a_test(at: int, command: Callable[..., Outcome]) -> None:
    gym.register("Shy-v0", Shy)
    try:
        world = ["env=gym", "env.id=Shy-v0", f"env.kwargs={{at: {at}}}"]
        changes = 'env.changes=[{target: gravity, when: "every:40", to: "uniform:0.5,1.5"}]'
        outcome = command(*WORDS[1:2], *WORDS[3:], *world, changes, "evaluation.episodes=1")
    finally:
        del gym.registry["Shy-v0"]
    assert outcome.code == 4
    assert outcome.errors[0].startswith(
        "error: an environment of the evaluation raised ZeroDivisionError: not now, after 0 steps (traceback in "
    )
    assert 'raise ZeroDivisionError("not' in Path("run/error.log").read_text()


def test_a_stop_in_the_last_test(command: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch) -> None:
    """The run has taken all its steps and is not finished; going on takes the test."""
    words = [*WORDS, "evaluation.episodes=2"]
    assert command(*words, "run.dir=whole").code == 0
    test = ForgettingEvaluation._test

    def stopped(evaluation: ForgettingEvaluation, trained: int, at: str, regimes: list[int]) -> None:
        if evaluation.num_timesteps >= 700:
            signal.raise_signal(signal.SIGTERM)
        test(evaluation, trained, at, regimes)

    with monkeypatch.context() as patch:
        patch.setattr(ForgettingEvaluation, "_test", stopped)
        outcome = command(*words)
    assert (outcome.code, outcome.err) == (143, "")
    assert "stopped by SIGTERM, saved at step 768; go on with: " in outcome.out
    outcome = command(*words)
    assert (outcome.code, outcome.err) == (0, "")
    for name in (files.FORGETTING, files.ADAPTATION, files.PROGRESS):
        whole, found = (rows(Path(folder) / name) for folder in ("whole", "run"))
        timed = {name for name in whole[0] if name.startswith(("time/f", "time/ti"))}
        assert [{k: v for k, v in row.items() if k not in timed} for row in found] == [
            {k: v for k, v in row.items() if k not in timed} for row in whole
        ]
