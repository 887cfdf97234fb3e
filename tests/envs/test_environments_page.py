"""docs/environments.md is up to date, and its numbers are of the tasks there are."""

import importlib
import json
import runpy
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
import torch

from envs import TASKS
from envs.grammar import DRIFT, WHAT, WHEN
from envs.mujoco_targets import MUJOCO
from envs.perturbations import PERTURBATIONS

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
    assert set(data["trained"]) == {row.base for row in TASKS.values() if row.quick}
    for numbers in data["random"].values():
        assert len(numbers["regimes"]) == data["regimes"]


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
    module = benchmark("environment_returns", REGIMES=2, EPISODES=1, TESTS=1, RESULT=tmp_path / "returns.json")
    algorithm, _, copies, settings = module.LEARNERS["CartPole-v1"]
    monkeypatch.setattr(module, "LEARNERS", {"CartPole-v1": (algorithm, 512, copies, settings)})
    quick = ("NSCartPole-v1", "DriftingAnt-v5", "FrozenLakeSequence-v1")
    monkeypatch.setattr(module, "TASKS", {id: TASKS[id] for id in quick})
    threads = torch.get_num_threads()
    try:
        module.main(say=lambda text: None)
    finally:
        torch.set_num_threads(threads)
    found = json.loads((tmp_path / "returns.json").read_text())
    assert set(found["random"]) == set(quick)
    assert found["trained"]["CartPole-v1"]["mean"] > 0


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
