"""What the wrapper costs: the time of a step of Ant with `NonStationary` around it and without.

python benchmarks/wrapper_cost.py    # about a minute of one core

Two Ants at nominal physics get the same actions, so that the simulator does the same work in both, bit for bit. They
take turns at every step, and at every other step the other goes first, so that load on the machine slows both alike. A
step's extra time is a difference of two neighbours; a repeat's is the median over its steps, and a case's the median
over its repeats, with their range. docs/environments.md is written from the result, docs/data/wrapper_cost.json.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from envs import NonStationary

Env = gym.Env[Any, Any]

RESULT = Path(__file__).parent.parent / "docs" / "data" / "wrapper_cost.json"
ID, REPEATS, STEPS, WARM_UP = "Ant-v5", 9, 2500, 500  # repeats of STEPS steps, after so many that are not timed
CASES: dict[str, list[str]] = {
    "one change": ["friction=every:2e6|cycle:1.0"],
    "three changes": ["friction=every:2e6|cycle:1.0", "gravity=every:2e6|cycle:1.0", "mass=every:2e6|cycle:1.0"],
    "a drift, renewed every 1000 steps": ["friction=sine:1e6,1.0,1.0"],
}


def measure(changes: list[str]) -> dict[str, float]:
    """Microseconds of a step without and with the wrapper, and the share by which it is longer, with its range."""
    envs: tuple[Env, Env] = (gym.make(ID), NonStationary(gym.make(ID), changes))
    rng = np.random.default_rng(0)
    for env in envs:
        env.reset(seed=0)
    _repeat(envs, rng, WARM_UP)
    results = [_repeat(envs, rng, STEPS) for _ in range(REPEATS)]
    without = statistics.median(plain for plain, _ in results)
    extra = sorted(more for _, more in results)
    middle = statistics.median(extra)
    shares = {"share": middle / without, "low": extra[0] / without, "high": extra[-1] / without}
    return {"step_us": round(without / 1e3, 1), "extra_us": round(middle / 1e3, 2)} | {
        name: round(share, 5) for name, share in shares.items()
    }


def _repeat(envs: tuple[Env, Env], rng: np.random.Generator, steps: int) -> tuple[float, float]:
    """Nanoseconds of a plain step, and how many more one with the wrapper takes; medians."""
    plain, more = [], []
    for step in range(steps):
        action = rng.uniform(-1, 1, 8).astype(np.float32)
        spent, ended = [0, 0], False
        for place in (0, 1) if step % 2 else (1, 0):
            start = time.perf_counter_ns()
            *_, terminated, truncated, _ = envs[place].step(action)
            spent[place] = time.perf_counter_ns() - start
            ended = terminated or truncated
        plain.append(spent[0])
        more.append(spent[1] - spent[0])
        if ended:  # for both at once
            for env in envs:
                env.reset()
    return statistics.median(plain), statistics.median(more)


def conditions() -> dict[str, dict[str, Any]]:
    """What the numbers were measured on and with."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text("utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "machine": {"processor": names[0] if names else platform.machine(), "cores": os.cpu_count() or 1},
        "versions": {name: importlib.metadata.version(name) for name in ("gymnasium", "mujoco")}
        | {"Python": platform.python_version()},
        "problem": {"environment": ID, "steps": REPEATS * STEPS},
    }


def main(say: Callable[[str], None] = print) -> None:
    """Measure, say what came out, and write it down."""
    found: dict[str, Any] = conditions() | {"cases": {}}
    for name, changes in CASES.items():
        numbers = found["cases"][name] = measure(changes)
        say(
            f"{name:36} {numbers['extra_us']:6.2f} us more than {numbers['step_us']:6.1f} us: "
            f"{numbers['share']:+.2%} ({numbers['low']:+.2%} to {numbers['high']:+.2%})"
        )
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(found, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
