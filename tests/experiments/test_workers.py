"""Worker processes: what happens when one dies, when the main one does, and what is left behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import psutil
import pytest
from stable_baselines3.common.vec_env import DummyVecEnv

from experiments import workers as module
from experiments.errors import EnvironmentFailure
from experiments.failure_report import FailureReport
from experiments.workers import Workers
from tests.experiments.conftest import ROOT


def explode() -> None:
    raise ValueError("the floor  is\nlava")


def stay_behind() -> None:
    """End this process, but not one forked from it, which holds the same pipe."""
    if os.fork():
        os._exit(5)
    time.sleep(4)
    os._exit(0)


TROUBLES: dict[str, Callable[[], Any]] = {
    "none": lambda: None,
    "exception": explode,
    "killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "crashed": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    "exit": lambda: os._exit(7),
    "system exit": lambda: sys.exit(3),
    "unpicklable": threading.Lock,
    "endless": lambda: time.sleep(60),
    "child": stay_behind,
}


class Trouble(gym.Env[Any, Any]):
    """Meets its trouble at its third step."""

    observation_space = gym.spaces.Box(-1.0, 1.0, (3,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, trouble: str = "none"):
        if trouble == "construction":
            raise OSError("no such world")
        self.trouble, self.t = trouble, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> Any:
        self.t += 1
        result = TROUBLES[self.trouble]() if self.t == 3 else None
        return np.full(3, self.t / 10, np.float32), 1.0, False, False, {"result": result}


def build(*troubles: str) -> Workers:
    return Workers([partial(Trouble, trouble) for trouble in troubles])


def pids(venv: Workers) -> list[int]:
    return [process.pid for process in venv.processes]


def alive(*these: int) -> list[int]:
    return [pid for pid in these if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE]


def gone(these: list[int], within: float) -> bool:
    end = time.monotonic() + within
    while alive(*these) and time.monotonic() < end:
        time.sleep(0.02)
    return not alive(*these)


@pytest.fixture(autouse=True)
def no_orphans() -> Iterator[None]:
    yield
    assert not [p for p in psutil.Process().children() if "forkserver" in " ".join(p.cmdline()) and p.children()]


def test_they_step_as_in_one_process_and_leave_nothing() -> None:
    makers = [partial(gym.make, "CartPole-v1")] * 2
    ours, stock = Workers(makers), DummyVecEnv(makers)
    for venv in (ours, stock):
        venv.seed(3)
    np.testing.assert_array_equal(ours.reset(), stock.reset())
    for step in range(40):
        (obs, rewards, dones, _), expected = ours.step(np.array([step % 2, 1])), stock.step(np.array([step % 2, 1]))
        for one, other in zip((obs, rewards, dones), expected, strict=False):
            np.testing.assert_array_equal(one, other)
    assert ours.get_attr("x_threshold") == stock.get_attr("x_threshold")
    assert len(alive(*pids(ours))) == 2
    start = time.monotonic()
    ours.close()
    ours.close()
    assert not alive(*pids(ours))
    assert time.monotonic() - start < 3


@pytest.mark.parametrize(
    ("trouble", "sentence"),
    [
        (
            "killed",
            r"the worker process of sub-environment 1 was killed by SIGKILL \(which is also what .* memory .*\)",
        ),
        ("crashed", "the worker process of sub-environment 1 was killed by SIGSEGV"),
        ("exit", "the worker process of sub-environment 1 ended with exit code 7"),
        ("system exit", "the worker process of sub-environment 1 raised SystemExit: 3"),
        ("unpicklable", "the worker process of sub-environment 1 raised TypeError: cannot pickle .*lock.*"),
        ("exception", "the worker process of sub-environment 1 raised ValueError: the floor is lava"),
        ("child", "the worker process of sub-environment 1 ended with exit code 5"),
    ],
)
def test_a_dead_worker_is_named_at_once(
    trouble: str, sentence: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "LOOK", 0.1)
    venv = build("none", trouble, "none")
    venv.reset()
    for _ in range(2):
        venv.step(np.zeros(3, int))
    start = time.monotonic()
    with pytest.raises(EnvironmentFailure) as caught:
        venv.step(np.zeros(3, int))
    assert re.fullmatch(sentence, str(caught.value))
    assert caught.value.exit_code == 4
    venv.close()
    assert time.monotonic() - start < 4
    assert not alive(*pids(venv))
    assert capfd.readouterr().err == ""
    if trouble == "exception":
        assert "in explode" in "".join(traceback.format_exception(caught.value))


def test_one_killed_between_steps_is_named_too() -> None:
    venv = build("none", "none")
    venv.reset()
    os.kill(pids(venv)[0], signal.SIGKILL)
    assert gone(pids(venv)[:1], within=5)
    with pytest.raises(EnvironmentFailure, match="sub-environment 0 was killed by SIGKILL"):
        venv.step(np.zeros(2, int))
    with pytest.raises(EnvironmentFailure, match="sub-environment 0 was killed by SIGKILL"):
        venv.reset()
    venv.close()
    assert not alive(*pids(venv))


@pytest.mark.parametrize("index", [0, 1])
def test_an_environment_that_cannot_be_built_there(index: int, capfd: pytest.CaptureFixture[str]) -> None:
    troubles = ["none", "none"]
    troubles[index] = "construction"
    with pytest.raises(EnvironmentFailure) as caught:
        build(*troubles)
    assert str(caught.value) == f"the worker process of sub-environment {index} raised OSError: no such world"
    assert "in __init__" in str(caught.value.__cause__)
    assert capfd.readouterr().err == ""


def test_failure_reports_come_through_it() -> None:
    venv = Workers([partial(reporting, "none"), partial(reporting, "exception")])
    venv.reset()
    for _ in range(3):
        _, _, dones, infos = venv.step(np.zeros(2, int))
    assert dones.tolist() == [False, True]
    assert infos[1]["failure"].sentence == "ValueError: the floor is lava"
    venv.close()


def reporting(trouble: str) -> gym.Env[Any, Any]:
    return FailureReport(Trouble(trouble))


def test_closing_does_not_wait_for_an_endless_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.5)
    venv = build("none", "endless")
    venv.reset()
    for _ in range(2):
        venv.step(np.zeros(2, int))
    venv.step_async(np.zeros(2, int))
    start = time.monotonic()
    venv.close()
    assert not alive(*pids(venv))
    assert time.monotonic() - start < 3


SCRIPT = """
import signal, sys, time
from functools import partial
import gymnasium as gym
import numpy as np
from experiments.workers import Workers

class Slow(gym.Env):
    observation_space = action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
    def reset(self, *, seed=None, options=None):
        return np.zeros(1, np.float32), {}
    def step(self, action):
        time.sleep(float(action[0]))
        return np.zeros(1, np.float32), 0.0, False, False, {}

if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    venv = Workers([Slow, Slow])
    venv.reset()
    if "endless" in sys.argv:
        venv.step_async(np.array([[0.0], [60.0]]))
        time.sleep(0.2)
    print(*(process.pid for process in venv.processes), flush=True)
    sys.stdin.readline()
    venv.step(np.zeros((2, 1)))
    print("stepped", flush=True)
"""


@pytest.fixture
def main_process(tmp_path: Path) -> Iterator[Callable[..., tuple[subprocess.Popen[str], list[int]]]]:
    """Starts a process with two workers in a process group of its own."""
    (tmp_path / "script.py").write_text(SCRIPT)
    started: list[tuple[subprocess.Popen[str], list[int]]] = []

    def start(*words: str) -> tuple[subprocess.Popen[str], list[int]]:
        main = subprocess.Popen(
            [sys.executable, str(tmp_path / "script.py"), *words],
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        assert main.stdout is not None
        started.append((main, [int(pid) for pid in main.stdout.readline().split()]))
        assert len(started[-1][1]) == 2
        return started[-1]

    yield start
    for main, workers in started:
        main.kill()
        main.communicate()
        for pid in alive(*workers):
            os.kill(pid, signal.SIGKILL)


def test_workers_die_with_the_main_process_one_idle_and_one_in_a_step(main_process) -> None:
    main, workers = main_process("endless")
    assert len(alive(*workers)) == 2
    helpers = [process.pid for process in psutil.Process(main.pid).children()]
    main.kill()
    assert gone(workers, within=5)
    assert gone(helpers, within=5)


def test_signals_to_the_group_are_the_main_process_s_to_handle_and_its_end_is_theirs(main_process) -> None:
    main, workers = main_process()
    server = psutil.Process(workers[0]).ppid()
    for number in (signal.SIGINT, signal.SIGTERM):
        os.killpg(main.pid, number)
    time.sleep(0.3)
    assert len(alive(server, *workers)) == 3
    out, err = main.communicate("go on\n", timeout=10)  # it ends without close
    assert (out, err, main.returncode) == ("stepped\n", "", 0)
    assert not alive(*workers)
