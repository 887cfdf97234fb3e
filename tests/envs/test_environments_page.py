"""docs/environments.md is up to date, and its numbers are of the tasks there are."""

import importlib
import json
import re
import runpy
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
import torch

from envs import TASKS
from envs.grammar import DRIFT, WHAT, WHEN
from envs.mujoco_targets import MUJOCO
from envs.perturbations import PERTURBATIONS
from envs.target import METHODS
from experiments.compose import compose
from experiments.environment import make_env
from experiments.schema import validate

ROOT = Path(__file__).parents[2]
DATA = ROOT / "docs" / "data"
PAGE = (ROOT / "docs" / "environments.md").read_text("utf-8")


def test_the_page_is_up_to_date() -> None:
    written = runpy.run_path(str(ROOT / "docs" / "make_environments.py"))["page"]()
    assert written == PAGE, "run: python docs/make_environments.py"


def test_the_page_names_every_task_schedule_and_target() -> None:
    assert "<!--" not in PAGE
    for name in (*TASKS, *MUJOCO, *PERTURBATIONS):
        assert f"| `{name}`" in PAGE
    for kind in (*WHEN, *WHAT, *DRIFT):
        assert f"| `{kind}:" in PAGE or f"| `{kind}`" in PAGE


def test_the_returns_are_of_the_tasks_there_are() -> None:
    data = json.loads((DATA / "environment_returns.json").read_text())
    assert list(data["random"]) == list(TASKS), "run: python benchmarks/environment_returns.py"
    assert sorted(id for numbers in data["trained"].values() for id in numbers["tasks"]) == sorted(TASKS)
    for numbers in data["random"].values():
        assert len(numbers["regimes"]) == data["regimes"]
        assert min(numbers["episodes"]) >= data["episodes"]["fewest"]


def test_the_trained_are_those_of_the_benchmark(benchmark: Any) -> None:
    module = benchmark("environment_returns")
    data = json.loads((DATA / "environment_returns.json").read_text())
    assert list(data["trained"]) == list(module.LEARNERS) == list(dict.fromkeys(module.LEARNERS))
    for name, numbers in data["trained"].items():
        assert numbers["tasks"] == [id for id in TASKS if module.world(id) == name]
        assert {key: numbers[key] for key in module.told(module.LEARNERS[name])} == module.told(module.LEARNERS[name])


def test_every_trained_return_is_on_the_page_and_said_to_be_short() -> None:
    rows = {line.split("|")[1].strip(): line.split("|") for line in PAGE.splitlines() if line.startswith("| `")}
    for id in TASKS:
        assert "±" in rows[f"`{id}`"][5], id
    assert "a short training, not a benchmark" in PAGE


def test_the_page_says_how_a_targets_methods_are_called() -> None:
    for name, wanted in METHODS.items():
        assert f"`{name}({', '.join(('self', *wanted))})`" in PAGE


def test_the_pages_environment_of_ones_own_and_its_commands_are_understood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (module,) = re.findall(r"```python\n# my_springs.py\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "my_springs.py").write_text(module)
    for path in (ROOT, tmp_path):
        monkeypatch.syspath_prepend(path)
    blocks = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    commands = [line for block in blocks for line in block.splitlines() if line.startswith("python train.py ")]
    assert len(commands) == 5
    worlds = []
    for line in commands:
        composed = compose(shlex.split(line)[2:])
        assert not composed.errors
        env = make_env(validate(composed.tree).env)
        worlds.append([str(live.schedule) for live in env.get_wrapper_attr("lives")])
        env.close()
    assert worlds[0] == ["every:24576|uniform:0.5,1.5"]  # the period is the quick experiment's
    assert worlds[1] == ["sine:20000,0.5,1.5|resolution:20"]
    assert worlds[2] == ["every:50000|uniform:0.5,1.5"]
    assert worlds[3] == ["every:5000|loguniform:0.2,5.0"]
    assert worlds[4] == ["every:5000|gaussian_vector:0.5"]


def test_the_wrapper_costs_less_than_two_percent_of_an_ant_step() -> None:
    """As measured by the benchmark: a test that measures would fail on a busy machine."""
    cases = json.loads((DATA / "wrapper_cost.json").read_text())["cases"]
    assert all(numbers["share"] < 0.02 for numbers in cases.values())


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Any:
    def load(name: str, **small: Any) -> Any:
        monkeypatch.syspath_prepend(ROOT / "benchmarks")
        module = importlib.import_module(name)
        for key, value in small.items():
            monkeypatch.setattr(module, key, value)
        return module

    return load


def test_the_benchmark_of_the_wrapper_runs(benchmark: Any, tmp_path: Path) -> None:
    module = benchmark("wrapper_cost", REPEATS=2, STEPS=20, WARM_UP=2, RESULT=tmp_path / "cost.json")
    module.main(say=lambda text: None)
    cases = json.loads((tmp_path / "cost.json").read_text())["cases"]
    assert set(cases) == set(module.CASES)
    assert all(numbers["low"] <= numbers["share"] <= numbers["high"] for numbers in cases.values())


def test_the_benchmark_of_returns_runs(benchmark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = benchmark(
        "environment_returns", REGIMES=2, FEWEST=2, MOST=3, STEPS=30, TESTS=1, RESULT=tmp_path / "returns.json"
    )
    learners = {
        "SlipperyHopper-v5": module.Learner(module.PPO, 64, 2, {"n_steps": 32, "batch_size": 32}, normalized=True),
        "CartPole-v1": replace(module.LEARNERS["CartPole-v1"], steps=512),
    }
    monkeypatch.setattr(module, "LEARNERS", learners)
    quick = ("SlipperyHopper-v5", "DriftingAnt-v5", "NSCartPole-v1", "FrozenLakeSequence-v1")
    monkeypatch.setattr(module, "TASKS", {id: TASKS[id] for id in quick})
    threads = torch.get_num_threads()
    try:
        module.main(say=lambda text: None)
    finally:
        torch.set_num_threads(threads)
    found = json.loads((tmp_path / "returns.json").read_text())
    assert list(found["random"]) == list(module.TASKS)
    assert all(2 <= count <= 3 for numbers in found["random"].values() for count in numbers["episodes"])
    assert found["trained"]["CartPole-v1"]["mean"] > 0
    assert list(found["trained"]) == list(learners)
    assert found["trained"]["SlipperyHopper-v5"]["tasks"] == ["SlipperyHopper-v5"]


def test_the_benchmark_of_returns_goes_on_where_it_was_stopped(
    benchmark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = benchmark("environment_returns", RESULT=tmp_path / "returns.json")
    monkeypatch.setattr(module, "TASKS", {id: TASKS[id] for id in ("NSCartPole-v1", "NSPendulum-v1")})
    learners = {name: module.LEARNERS[name] for name in ("CartPole-v1", "Pendulum-v1")}
    monkeypatch.setattr(module, "LEARNERS", learners)
    asked: list[str] = []

    def random(id: str) -> dict[str, Any]:
        asked.append(id)
        return {"mean": 1.0, "regimes": [1.0]}

    def trained(name: str) -> dict[str, Any]:
        asked.append(name)
        if len(asked) == 4:
            raise KeyboardInterrupt
        return {**module.told(learners[name]), "mean": 2.0, "seconds": 0}

    monkeypatch.setattr(module, "random_returns", random)
    monkeypatch.setattr(module, "trained_returns", trained)
    with pytest.raises(KeyboardInterrupt):
        module.main(say=lambda text: None)
    assert asked == ["NSCartPole-v1", "NSPendulum-v1", "CartPole-v1", "Pendulum-v1"]
    module.main(say=lambda text: None)
    assert asked[4:] == ["Pendulum-v1"]
    learners["CartPole-v1"] = replace(learners["CartPole-v1"], steps=7)
    module.main(say=lambda text: None)
    assert asked[5:] == ["CartPole-v1"]


def test_random_actions_that_do_not_feel_the_change_have_the_same_return_in_all_regimes(benchmark: Any) -> None:
    module = benchmark("environment_returns", REGIMES=3, FEWEST=2, MOST=2)
    permuted = module.random_returns("ObservationPermutationCartPole-v1")["regimes"]
    assert len(set(permuted)) == 1
    lengths = module.random_returns("NSCartPole-v1")["regimes"]
    assert len(set(lengths)) > 1


@pytest.mark.parametrize("regime", [0, 3])
def test_a_frozen_regime_is_that_regime_and_stays(benchmark: Any, regime: int) -> None:
    frozen = benchmark("environment_returns").frozen("NSPendulum-v1", regime)
    task: Any = gym.make("NSPendulum-v1")
    due = task.get_wrapper_attr("due")(8000 * regime)["nonstationary/gravity"]
    frozen.reset(seed=0)
    assert frozen.unwrapped.g == 10 * due
    frozen.get_wrapper_attr("set_clock")(10**7)
    frozen.reset()
    assert frozen.unwrapped.g == 10 * due
