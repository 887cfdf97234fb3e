"""The search for settings: what can be searched, what cannot, and a study that is stopped and gone on with."""

from __future__ import annotations

import importlib.util
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from rich.console import Console

from experiments import tune
from experiments.errors import BadInput
from experiments.folder import RESULT
from experiments.stop import StopOnSignal
from experiments.sweep.status import DONE, FAILED, Status
from experiments.sweep.watch import Watch
from experiments.tuning.search import Again, Search, open_study, ranked, score, summary
from experiments.tuning.space import Dimension, Space, parse
from tests.experiments.conftest import ROOT

WORDS = (
    *("experiment=none", "env=ns_cartpole", "agent.n_steps=64", "agent.net_arch=[8,8]", "logging.tensorboard=false"),
    *("plasticity=none", "agent.learning_rate=log(1e-5,1e-2)"),
)


def faults(*words: str) -> tuple[str, ...]:
    with pytest.raises(BadInput) as error:
        parse(words)
    return error.value.lines


def test_words_are_sorted_into_what_is_fixed_and_what_is_searched() -> None:
    space = parse(
        [
            "agent=sac",
            "agent.learning_rate=log(1e-5,1e-2)",
            "agent.gamma=uniform(0.9, 0.99)",
            "agent.batch_size=32,64",
            "env.n_envs=logint(1,8)",
            "agent.train_freq=int(1,4)",
            "seed=5",
        ]
    )
    assert space.words == ("agent=sac",)
    assert space.seed == 5
    assert space.dimensions == (
        Dimension("agent.learning_rate", "log", (1e-5, 1e-2)),
        Dimension("agent.gamma", "uniform", (0.9, 0.99)),
        Dimension("agent.batch_size", "choice", choices=("32", "64")),
        Dimension("env.n_envs", "logint", (1, 8)),
        Dimension("agent.train_freq", "int", (1, 4)),
    )
    given = {"agent.learning_rate": 0.000123456789, "agent.gamma": 0.95, "agent.batch_size": "64", "env.n_envs": 2}
    values = space.suggest(Again(given | {"agent.train_freq": 3}))
    assert space.trial_words(values) == [
        *("agent=sac", "agent.learning_rate=0.000123457", "agent.gamma=0.95", "agent.batch_size=64"),
        *("env.n_envs=2", "agent.train_freq=3"),
    ]


def test_settings_of_a_method_are_searched_where_it_is_chosen() -> None:
    space = parse(["plasticity=none,cbp", "plasticity.cbp.maturity=int(1,9)", "plasticity.cbp.replacement_rate=1e-3"])
    params = {"plasticity.cbp.maturity": 4}
    without = space.suggest(Again({"plasticity": "none"}))  # would raise KeyError if it asked for more
    assert space.trial_words(without) == ["plasticity=none"]
    chosen = space.suggest(Again(params | {"plasticity": "cbp"}))
    assert space.trial_words(chosen) == [
        *("plasticity.cbp.replacement_rate=1e-3", "plasticity=cbp", "plasticity.cbp.maturity=4"),
    ]
    assert list(space.corners()) == [
        {"plasticity": "none"},
        {"plasticity": "cbp", "plasticity.cbp.maturity": "1"},
        {"plasticity": "cbp", "plasticity.cbp.maturity": "9"},
    ]


def test_a_trial_has_a_run_for_each_seed() -> None:
    space = Space(WORDS[:-1], (), seed=3)
    assert [run.values for run in space.runs({"agent.gamma": "0.5"}, 2)] == [{"seed": "3"}, {"seed": "4"}]


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("agent.gamma=0.9", "nothing is searched: give a setting several values"),
        ("agent.gamma=lg(1,2)", 'unknown kind of search "lg": allowed are uniform, log, int, logint, choice, range'),
        ("agent.gamma=unifrm(1,2)", 'did you mean "uniform"?'),
        ("agent.gamma=log(1)", "log takes two numbers, as in agent.gamma=log(1,8), got 1"),
        ("agent.gamma=log(1,b)", "log takes two numbers"),
        ("agent.n_steps=int(1,2.5)", "int takes two whole numbers"),
        ("agent.gamma=uniform(2,1)", "the first must be less than the second"),
        ("agent.gamma=log(0,1)", "ratios need numbers above 0, got 0,1"),
        ("seed=1,2", "a seed is not searched; --seeds N runs each trial with N of them"),
        ("run.threads=1,2", "run.threads changes nothing of what is learned"),
        ("sweep=sac_pendulum", "a search has words of its own"),
    ],
)
def test_what_cannot_be_searched_is_explained(word: str, expected: str) -> None:
    said = faults(word)
    assert expected in said[0]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--trials", "0", "--seeds", "-1"], "error: --trials must be at least 1, got 0"),
        (["agent.gamma=uniform(0.5,1.5)"], "error: agent.gamma must be in [0, 1], got 1.5"),
        (["agent.gama=uniform(0.5,1)"], 'did you mean "gamma"?'),
        (["--measure", "best"], "argument --measure: invalid choice: 'best'"),
    ],
)
def test_the_ends_of_a_search_are_tried_before_it_begins(
    words: list[str], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert tune.main([*WORDS, *words]) == 2
    assert expected in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_without_optuna_one_is_told_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert tune.main([*WORDS]) == 2
    assert "python -m pip install 'pliant-rl[tune]'" in capsys.readouterr().err


def test_a_score_is_that_of_all_episodes_or_of_the_last_tenth(tmp_path: Path) -> None:
    assert score(tmp_path, "mean") is None
    rows = [f"{10 * index},0,0,{index}.0,10" for index in range(1, 21)]
    (tmp_path / "episodes.csv").write_text("\n".join(["step,env,regime,return,length", *rows]) + "\n")
    assert score(tmp_path, "mean") == 10.5
    assert score(tmp_path, "last") == 19.5
    assert score(tmp_path, "mean", upto=30) == 2.0


def begin(cwd: Path, *more: str) -> subprocess.Popen[bytes]:
    with (cwd / "said").open("wb") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "experiments.tune", *WORDS, "run.root=study", "--jobs", "2", *more],
            cwd=cwd,
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "120"},
            start_new_session=True,
        )


def end(process: subprocess.Popen[bytes], cwd: Path) -> tuple[int, str]:
    try:
        process.wait(200)
    finally:
        process.kill()
        process.wait()
    return process.returncode, (cwd / "said").read_text()


@pytest.mark.slow
def test_a_search_that_is_stopped_goes_on_where_it_was_and_says_what_is_best(tmp_path: Path) -> None:
    more = ("total_steps=3_000", "run.checkpoint.every=256", "--trials", "3")
    process = begin(tmp_path, *more)
    deadline = time.monotonic() + 200
    while not list((tmp_path / "study").glob("*/checkpoints/0*")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    code, said = end(process, tmp_path)
    assert code == 130, said
    assert "stopped by SIGINT; go on with: python -m experiments.tune experiment=none" in said
    before = {trial.number: trial.params for trial in open_study(tmp_path / "study", False).trials}
    assert len(before) == 2
    code, said = end(begin(tmp_path, *more), tmp_path)
    assert code == 0, said
    study = open_study(tmp_path / "study", False)
    assert len(study.trials) == len(ranked(study)) == 3
    assert {number: study.trials[number].params for number in before} == before
    assert "3 trials: 3 done" in said
    folders = list((tmp_path / "study").glob("*/" + RESULT))
    assert len(folders) == 3
    assert sorted(round(score(one.parent, "mean") or 0, 6) for one in folders) == sorted(
        round(trial.values[0], 6) for trial in ranked(study)
    )
    best = ranked(study)[0].params["agent.learning_rate"]
    assert f"agent.learning_rate={best:.6g} 'seed=range(1,6)'" in said
    code, said = end(begin(tmp_path, *more), tmp_path)
    assert (code, said.count("running ")) == (0, 0)
    code, said = end(begin(tmp_path, "total_steps=4_000", "--trials", "3"), tmp_path)
    assert code == 2
    assert "study holds another search; choose another folder with run.root=FOLDER" in said


class Pretence:
    """In place of a crew: every cell ends at once."""

    lost = False

    def __init__(self, at_once: int = 1):
        self.engine: Any = SimpleNamespace(workers=lambda: {"here": at_once})
        self.statuses: list[Status] = []
        self.dropped: list[Status] = []
        self.bad = 0  # how many of the next fail

    def add(self, status: Status) -> None:
        self.statuses.append(status)

    def tick(self) -> None:
        for status in self.statuses:
            if status.open and status not in self.dropped:
                self.work(status)

    def work(self, status: Status) -> None:
        if self.bad:
            self.bad, status.state, status.lines = self.bad - 1, FAILED, ("it diverged",)
            return
        status.state, status.step = DONE, status.cell.steps
        episodes(status, range(100, status.cell.steps + 1, 100))

    def drop(self, statuses: Sequence[Status]) -> None:
        self.dropped += statuses


def episodes(status: Status, steps: Iterable[int], reward: float | None = None) -> None:
    """The best learning rate is 1e-3, unless the reward is given."""
    rate = float(status.cell.values["agent.learning_rate"])
    reward = -abs(math.log10(rate) + 3) if reward is None else reward
    status.cell.folder.mkdir(parents=True, exist_ok=True)
    rows = [f"{step},0,0,{reward},10" for step in steps]
    (status.cell.folder / "episodes.csv").write_text("\n".join(["step,env,regime,return,length", *rows]) + "\n")


@pytest.fixture
def search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """`search(crew, trials)` goes on with the study in `tmp_path`, and returns what is said."""
    monkeypatch.chdir(tmp_path)

    def go(crew: Any, trials: int, prune: bool = False) -> str:
        console = Console(file=StringIO(), width=200)
        space = parse([*WORDS, "total_steps=1_000", "run.root=."])
        found = Search(open_study(tmp_path, prune), space, 2, "mean", console)
        with Watch(crew.statuses, "", Console(file=StringIO())) as watch:
            found.run(trials, crew, watch, StopOnSignal())
        for part in summary(found.study, space):
            console.print(part)
        return cast(StringIO, console.file).getvalue()

    return go


def test_a_search_finds_the_best_counts_earlier_trials_and_survives_those_that_fail(
    search: Callable[..., str], tmp_path: Path
) -> None:
    crew = Pretence(at_once=4)
    crew.bad = 1
    said = search(crew, 12)
    assert "trial 0: failed: it diverged" in said
    assert "12 trials: 11 done, 1 failed" in said
    assert len(crew.statuses) == 24
    assert crew.dropped == crew.statuses[:2]  # the other seed of the one that failed
    study = open_study(tmp_path, False)
    first = ranked(study)[0]
    assert first.values[0] == max(trial.values[0] for trial in ranked(study))
    assert abs(math.log10(first.params["agent.learning_rate"]) + 3) < 1
    more = Pretence()
    assert "12 trials: 11 done, 1 failed" in search(more, 12)
    assert more.statuses == []
    search(more, 14)
    assert len(more.statuses) == 4
    rates = [trial.params["agent.learning_rate"] for trial in open_study(tmp_path, False).trials]
    assert len(set(rates)) == 14  # gone on with, it does not repeat itself


def test_trials_under_way_when_a_search_ended_are_gone_on_with(search: Callable[..., str], tmp_path: Path) -> None:
    trial = open_study(tmp_path, False).ask()
    rate = trial.suggest_float("agent.learning_rate", 1e-5, 1e-2, log=True)
    crew = Pretence()
    said = search(crew, 1)
    assert "1 trials: 1 done" in said
    assert {status.cell.values["agent.learning_rate"] for status in crew.statuses} == {f"{rate:.6g}"}
    assert [status.cell.values["seed"] for status in crew.statuses] == ["0", "1"]


def test_trials_below_the_median_are_given_up_if_that_is_asked_for(search: Callable[..., str], tmp_path: Path) -> None:
    class Dull(Pretence):
        def work(self, status: Status) -> None:
            if int(status.cell.values["trial"]) < 6:
                return super().work(status) if status.start else self.half(status, 1.0)
            return self.half(status, -9.0)

        def half(self, status: Status, reward: float) -> None:
            status.start, status.step = 1, status.cell.steps // 2
            episodes(status, range(100, status.step + 1, 100), reward)

    crew = Dull()
    said = search(crew, 7, prune=True)
    assert "trial 6: given up, others were better by then" in said
    assert "7 trials: 6 done, 1 given up" in said
    assert crew.dropped == crew.statuses[-2:]
