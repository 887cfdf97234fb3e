"""Whether the agent's buffers fit into memory: a replay buffer is filled over hours, and its end would come then."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import psutil
from stable_baselines3.common.preprocessing import get_action_dim, get_obs_shape

from agents.replay import keeps_single_precision
from experiments.agent_settings import PPOSettings
from experiments.schema import Config

GB = 1e9
_CGROUPS, _OWN_CGROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
# version 1 and 2: the controller's folder, and its files for the limit, for what is used, and what of it can be freed
_FILES = (
    ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ("", "memory.max", "memory.current", "inactive_file"),
)


def memory_faults(config: Config, observes: gym.Space[Any], acts: gym.Space[Any]) -> Iterator[str]:
    """A sentence if the buffer of this agent in these spaces needs more memory than there is now."""
    agent, copies = config.agent, config.env.n_envs
    if not isinstance(
        observes, gym.spaces.Box | gym.spaces.Discrete | gym.spaces.MultiDiscrete | gym.spaces.MultiBinary
    ):
        return  # refused elsewhere
    row, there = row_bytes(config, observes, acts), available()
    if isinstance(agent, PPOSettings):
        size, name, rows = agent.n_steps, "agent.n_steps", agent.n_steps * copies
        most, kind = int(there / row) // copies, "rollout"
    else:
        size, name, rows = agent.buffer_size, "agent.buffer_size", max(agent.buffer_size // copies, 1) * copies
        most, kind = int(there / row), "replay"
    if rows * row > there:
        yield (
            f"{name}={size:,} needs {rows * row / GB:,.1f} GB of memory for the {kind} buffer, and "
            f"{there / GB:,.1f} GB are available; set it to at most {most:,}, or free memory"
        )


def row_bytes(config: Config, observes: gym.Space[Any], acts: gym.Space[Any]) -> int:
    """Bytes for one environment step of one sub-environment in the buffers, of the spaces' own types.

    Rollout: observation, action, and reward, return, episode start, value, log probability and advantage as float32.
    Replay: observation, the next one (float64 as float32 where nothing reads more), action (float64 as float32), and
    reward, done and timeout as float32.
    """
    shape = get_obs_shape(observes)
    assert isinstance(shape, tuple)
    rollout, number = isinstance(config.agent, PPOSettings), np.dtype(acts.dtype)
    kind = np.dtype(observes.dtype)
    if not rollout and keeps_single_precision(kind, config.env.normalize_observations):
        kind = np.dtype(np.float32)
    observation = int(np.prod(shape)) * kind.itemsize
    if number == np.float64 and not rollout:
        number = np.dtype(np.float32)
    action = get_action_dim(acts) * number.itemsize
    return observation + action + 6 * 4 if rollout else 2 * observation + action + 3 * 4


def available() -> int:
    """Bytes that this process can still get: what the machine has left, or less where its control group has a limit."""
    machine: int = psutil.virtual_memory().available
    return min([machine, *_left_in_cgroups()])


def _left_in_cgroups() -> Iterator[int]:
    """What is left in each control group that this process is in and that has a limit; none but on Linux."""
    if not _OWN_CGROUPS.exists():
        return
    for line in _OWN_CGROUPS.read_text("utf-8").splitlines():
        _, controllers, path = line.split(":", 2)
        folder, *files = _FILES[controllers == ""]
        if controllers and "memory" not in controllers.split(","):
            continue
        inside = Path(path.lstrip("/"))
        for group in (inside, *inside.parents):  # in a container the path may be the host's: then the root is ours
            left = _left(_CGROUPS / folder / group, *files)
            if left is not None:
                yield left


def _left(group: Path, limit: str, used: str, freeable: str) -> int | None:
    try:
        most = (group / limit).read_text("utf-8").strip()
        now = int((group / used).read_text("utf-8"))
        lines = (group / "memory.stat").read_text("utf-8").splitlines()
    except OSError:
        return None
    cached = next((int(line.split()[1]) for line in lines if line.startswith(f"{freeable} ")), 0)
    return None if most == "max" else int(most) - (now - cached)
