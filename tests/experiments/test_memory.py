"""The bytes of SB3's buffers, against those that SB3 makes, and the sentence where they do not fit."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import psutil
import pytest
from stable_baselines3.common.buffers import ReplayBuffer, RolloutBuffer

from agents import replay
from experiments import memory
from experiments.compose import compose
from experiments.environment import environment_faults
from experiments.memory import memory_faults, row_bytes
from experiments.schema import Config, validate

SPACES = [
    (gym.spaces.Box(-1, 1, (17,), np.float64), gym.spaces.Box(-1, 1, (6,), np.float64)),
    (gym.spaces.Box(-1, 1, (17,), np.float32), gym.spaces.Box(-1, 1, (6,), np.float32)),
    (gym.spaces.Box(0, 255, (3, 8, 8), np.uint8), gym.spaces.Discrete(4)),
    (gym.spaces.Discrete(5), gym.spaces.MultiDiscrete([3, 4])),
]


def config(*words: str) -> Config:
    return validate(compose(["env=ns_pendulum", *words]).tree)


def held(buffer: Any) -> int:
    return sum(value.nbytes for value in vars(buffer).values() if isinstance(value, np.ndarray))


@pytest.mark.parametrize(("observes", "acts"), SPACES)
@pytest.mark.parametrize("agent", ["ppo", "sac"])
@pytest.mark.parametrize("normalised", [False, True])
def test_a_row_is_as_large_as_in_the_buffers(agent: str, normalised: bool, observes: Any, acts: Any) -> None:
    made: Any = {"ppo": RolloutBuffer, "sac": ReplayBuffer}[agent](30, observes, acts, "cpu", n_envs=3)
    if agent == "sac":
        replay.fit(made, SimpleNamespace(norm_obs=True) if normalised else None)
    rows = 90 if agent == "ppo" else 30
    settings = config(f"agent={agent}", f"env.normalize_observations={str(normalised).lower()}")
    assert row_bytes(settings, observes, acts) * rows == held(made)


def test_a_buffer_that_does_not_fit_is_a_fault_with_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    observes, acts = SPACES[1]  # 2 * 68 + 24 + 12 = 172 bytes a row, 68 + 24 + 24 = 116 in a rollout
    monkeypatch.setattr(memory, "available", lambda: 1_000_000_000)
    assert list(memory_faults(config("agent=sac", "agent.buffer_size=5_000_000"), observes, acts)) == []
    assert list(memory_faults(config("agent=sac", "agent.buffer_size=6_000_000"), observes, acts)) == [
        "agent.buffer_size=6,000,000 needs 1.0 GB of memory for the replay buffer, and 1.0 GB are available; set it to "
        "at most 5,813,953, or free memory"
    ]
    assert list(memory_faults(config("agent.n_steps=4_000_000", "env.n_envs=2"), observes, acts)) == []
    assert list(memory_faults(config("agent.n_steps=8_000_000", "env.n_envs=2"), observes, acts)) == [
        "agent.n_steps=8,000,000 needs 1.9 GB of memory for the rollout buffer, and 1.0 GB are available; set it to at "
        "most 4,310,344, or free memory"
    ]


def test_it_is_found_before_a_run_is_made() -> None:
    (fault,) = environment_faults(config("agent=sac", "agent.buffer_size=1_000_000_000_000"))
    assert fault.startswith("agent.buffer_size=1,000,000,000,000 needs 40,000.0 GB of memory for the replay buffer")


@pytest.mark.parametrize("version", [1, 2])
def test_the_limit_of_a_control_group_counts(version: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "own"
    monkeypatch.setattr(memory, "_OWN_CGROUPS", own)
    monkeypatch.setattr(memory, "_CGROUPS", tmp_path)
    machine = 50 * 10**9
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"available": machine}))
    assert memory.available() == machine
    root = tmp_path / ("memory" if version == 1 else "")
    limit, used = (
        ("memory.limit_in_bytes", "memory.usage_in_bytes") if version == 1 else ("memory.max", "memory.current")
    )
    inactive = "total_inactive_file" if version == 1 else "inactive_file"
    own.write_text("4:cpuset,memory:/job/step\n0::/\n" if version == 1 else "0::/job/step\n")
    for name, most in {"job": str(8 * 10**9), "job/step": "max" if version == 2 else str(2**63 - 4096)}.items():
        (root / name).mkdir(parents=True)
        (root / name / limit).write_text(f"{most}\n")
        (root / name / used).write_text(f"{3 * 10**9}\n")
        (root / name / "memory.stat").write_text(f"anon 5\n{inactive} {10**9}\n")
    assert memory.available() == 6 * 10**9
    own.write_text("4:memory:/of/the/host\n" if version == 1 else "0::/of/the/host\n")
    assert memory.available() == machine
