"""What stepping MuJoCo environments at once gains: BatchedVecEnv against SB3's DummyVecEnv, in the wrappers of a run.

python benchmarks/batched_environments.py              # all cases, some 3 minutes
python benchmarks/batched_environments.py SlipperyAnt-v5 8

Both get the same actions and have the same worlds, bit for bit, so that they simulate the same. They take turns every
few steps, and at every other turn the other goes first, so that load on the machine slows both alike. A gain is the
median over the turns of one's time by the other's, with its quartiles; a time is the median over the turns. Episodes
end and begin anew within what is timed. The result is also written to docs/data/batched_environments.json.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from agents import BatchedVecEnv
from experiments.environment import make_env
from experiments.schema import EnvSettings

RESULT = Path(__file__).parent.parent / "docs" / "data" / "batched_environments.json"
TASKS = ("SlipperyAnt-v5", "SlipperyHalfCheetah-v5", "SlipperyHumanoid-v5", "SlipperyHopper-v5", "SlipperyWalker2d-v5")
CASES = [*((TASKS[0], n) for n in (1, 8, 32)), *((task, 8) for task in TASKS[1:])]
TURNS, STEPS, WARM_UP = 200, 4, 20  # turns of STEPS vector steps, the first one untimed; turns that are not counted


def measure(task: str, n_envs: int, threads: Sequence[int] | None = None, turns: int = TURNS) -> dict[str, Any]:
    """Microseconds of an environment step in SB3's DummyVecEnv, and what is gained with each number of threads.

    Args:
        task: a registered id.
        n_envs: sub-environments.
        threads: numbers of threads to try; None: 1, and one for each core.
        turns: how often all take turns.
    """
    threads = sorted({1, os.cpu_count() or 1}) if threads is None else threads
    makers = [lambda: make_env(EnvSettings(id=task, n_envs=n_envs))] * n_envs
    kinds: list[VecEnv] = [DummyVecEnv(makers), *(BatchedVecEnv(makers, count) for count in threads)]
    for kind in kinds:
        kind.seed(0)
        kind.env_method("set_clock", 0, stride=n_envs)
        kind.reset()
    times = _take_turns(kinds, turns)
    found: dict[str, Any] = {"task": task, "n_envs": n_envs, "dummy_us": _us(times[0], n_envs), "threads": {}}
    for count, mine in zip(threads, times[1:], strict=True):
        gains = [other / one for other, one in zip(times[0], mine, strict=True)]
        low, middle, high = statistics.quantiles(gains, n=4)
        numbers = {"us": _us(mine, n_envs), "gain": middle, "low": low, "high": high}
        found["threads"][str(count)] = {name: round(number, 2) for name, number in numbers.items()}
    for kind in kinds:
        kind.close()
    return found


def _take_turns(kinds: Sequence[VecEnv], turns: int) -> list[list[float]]:
    """Seconds of a vector step of each kind at each turn."""
    space: Any = kinds[0].action_space
    rng, times = np.random.default_rng(0), [[0.0] * (WARM_UP + turns) for _ in kinds]
    for turn in range(WARM_UP + turns):
        actions = rng.uniform(space.low, space.high, (STEPS, kinds[0].num_envs, *space.shape)).astype(np.float32)
        for place in range(len(kinds)) if turn % 2 else reversed(range(len(kinds))):
            kinds[place].step(actions[0])  # its memory comes back into the caches
            start = time.perf_counter()
            for row in actions[1:]:
                kinds[place].step(row)
            times[place][turn] = (time.perf_counter() - start) / (STEPS - 1)
    return [mine[WARM_UP:] for mine in times]


def _us(times: Sequence[float], n_envs: int) -> float:
    return round(statistics.median(times) / n_envs * 1e6, 1)


def conditions() -> dict[str, dict[str, Any]]:
    """What the numbers were measured on and with."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text("utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    packages = ("gymnasium", "mujoco", "numpy", "stable-baselines3")
    return {
        "machine": {"processor": names[0] if names else platform.machine(), "cores": os.cpu_count() or 1},
        "versions": {name: importlib.metadata.version(name) for name in packages}
        | {"Python": platform.python_version()},
    }


def main(words: Sequence[str] = (), say: Callable[[str], None] = print) -> None:
    """Measure, and say what came out; write it down if all cases were asked for. words: a task and how many."""
    cases = [(words[0], int(words[1]))] if words else CASES
    rows = []
    for task, n_envs in cases:
        rows.append(measure(task, n_envs))
        gains = ", ".join(
            f"{count} thread{'s' if count != '1' else ''} {numbers['gain']:.2f} x "
            f"({numbers['low']:.2f} to {numbers['high']:.2f}, {numbers['us']:.0f} us)"
            for count, numbers in rows[-1]["threads"].items()
        )
        say(f"{task:24} {n_envs:3} at once, DummyVecEnv {rows[-1]['dummy_us']:6.1f} us a step: {gains}")
    if not words:
        RESULT.parent.mkdir(exist_ok=True)
        RESULT.write_text(json.dumps(conditions() | {"cases": rows}, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
