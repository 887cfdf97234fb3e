"""The agent of a run as it was at its end or at a checkpoint; nothing is unpickled, and the folder stays as it is."""

from __future__ import annotations

import csv
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from stable_baselines3.common.base_class import BaseAlgorithm

from agents.algorithm import read_states
from experiments import folder as files
from experiments.agent_settings import PPOSettings
from experiments.build import build_model
from experiments.checkpoint.pieces import PIECES, Training
from experiments.checkpoint.replay import Segments
from experiments.checkpoint.store import Checkpoint, Store
from experiments.environment import environment_faults, make_vec_env
from experiments.errors import BadInput, NoCheckpoint
from experiments.inspect import read_config
from experiments.normalization import read_normalization
from experiments.schema import Config


@dataclass(frozen=True)
class Trained:
    """An agent that can play.

    step: environment steps it was trained for; met: the last regime it met; source: where it comes from, in words.
    """

    folder: Path
    config: Config
    model: BaseAlgorithm
    step: int
    met: int
    source: str

    def close(self) -> None:
        """Close the environment that it was built for."""
        if self.model.env is not None:
            self.model.env.close()


def load(folder: Path, step: int | None = None) -> Trained:
    """The agent in a run's folder: that of its end, or of its newest checkpoint if it has not ended.

    step: that of a certain checkpoint. Raises `BadInput` or `NoCheckpoint` where there is nothing to load.
    """
    asked = read_config(folder)
    config = small(asked)
    if faults := environment_faults(config):
        raise BadInput(faults)
    checkpoint, source = _chosen(folder, step)
    try:
        env = make_vec_env(config)
        model = build_model(config, env)
        if checkpoint is None:
            _put_model(folder, model)
            return Trained(folder, asked, model, int(files.result(folder)["steps"]), _last_regime(folder), source)
        tree = checkpoint.read()
        for name in ("policy", "normalization"):
            PIECES[name].put(Training(model, {}, Segments(folder)), tree[name])
        met = max((index for index, *_ in tree["parts"]["recorder"]["regimes"]), default=0)
        return Trained(folder, asked, model, checkpoint.step, met, source)
    except (ValueError, KeyError, TypeError, RuntimeError, AssertionError, OSError) as error:
        raise BadInput(f"{folder} cannot be played: {type(error).__name__}: {error}") from error


def small(config: Config) -> Config:
    """The same agent with one environment and no memory of its own: to act, not to learn."""
    agent = config.agent
    if isinstance(agent, PPOSettings):
        agent = replace(agent, n_steps=agent.n_steps * config.env.n_envs)  # so that SB3 finds nothing to warn of
    else:
        agent = replace(agent, buffer_size=max(agent.batch_size, 1))
    env = replace(config.env, n_envs=1, vectorization="dummy")
    return replace(config, agent=agent, env=env, device="cpu")


def _chosen(folder: Path, step: int | None) -> tuple[Checkpoint | None, str]:
    """The checkpoint to take, None for the model that the run left at its end; and what that is called."""
    store = Store(folder)
    if step is not None:
        return _of_step(store, folder, step)
    result = files.result(folder)
    ended = result.get("status") in ("finished", "stopped") and (folder / files.MODEL).is_file()
    newest, rejected = store.newest()
    if ended and (newest is None or newest.step <= result["steps"]):
        return None, f"{files.MODEL}, {result['status']} after {result['steps']:,} steps"
    if newest is not None:
        return newest, f"the checkpoint of step {newest.step:,}, the newest: the run has not ended"
    if rejected:
        raise NoCheckpoint(f"{one.path} is damaged: {one.reason}" for one in rejected)
    raise BadInput(f"{folder} holds neither {files.MODEL} of a run that ended nor a checkpoint: nothing to play yet")


def _of_step(store: Store, folder: Path, step: int) -> tuple[Checkpoint, str]:
    found = {int(one.path.name): one for one in store.verify()}
    if step not in found:
        known = ", ".join(f"{each:,}" for each in sorted(found)) or "none"
        near = f"; the nearest is {min(found, key=lambda each: abs(each - step))}" if found else ""
        raise BadInput(f"--checkpoint must be the step of one in {folder}: {known}, got {step:,}{near}")
    one = found[step]
    if not isinstance(one, Checkpoint):
        raise NoCheckpoint(f"{one.path} is damaged: {one.reason}")
    return one, f"the checkpoint of step {step:,}"


def _last_regime(folder: Path) -> int:
    with (folder / files.REGIMES).open(newline="", encoding="utf-8") as file:
        return max((int(row["regime"]) for row in csv.DictReader(file)), default=0)


def _put_model(folder: Path, model: BaseAlgorithm) -> None:
    try:
        state: Mapping[str, Any] = read_states(folder / files.MODEL)["policy"]
    except pickle.UnpicklingError as error:  # its own text tells how to load what may do harm
        raise BadInput(f"{folder / files.MODEL} holds other things than tensors, so it was not loaded") from error
    with torch.no_grad():
        model.policy.load_state_dict(state)
    assert model.env is not None
    read_normalization(folder, model.env)
