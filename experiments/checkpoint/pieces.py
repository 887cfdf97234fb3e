"""What a checkpoint holds of a training run, piece by piece: each with how it is taken and how it is put back.

Taken between an update and the next rollout, and put back into a run that was built anew from the same configuration
and whose environments have been reset once, a run goes on as if it had never ended, to the last bit. Every piece is
needed for that: a test leaves out each in turn and sees the runs part.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from agents.finite import optimizers
from experiments.checkpoint.replay import Segments
from experiments.errors import NoCheckpoint
from experiments.logs import RunLogger

COUNTERS = ("num_timesteps", "_episode_num", "_n_updates")
OBSERVATIONS = ("_last_obs", "_last_original_obs", "_last_episode_starts")


class Stateful(Protocol):
    """A part of a run that can be saved: a callback, a table, a guard."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@dataclass(frozen=True)
class Training:
    """A run in memory.

    parts: what else than the model and its environments has a state, by name; segments: of a replay buffer.
    """

    model: BaseAlgorithm
    parts: Mapping[str, Stateful]
    segments: Segments


@dataclass(frozen=True)
class Piece:
    """take: the piece as a plain tree; put: back into a run built anew."""

    take: Callable[[Training], Any]
    put: Callable[[Training, Any], None]


def take(training: Training) -> dict[str, Any]:
    """All pieces, as one plain tree."""
    return {name: piece.take(training) for name, piece in PIECES.items()}


def put(training: Training, tree: Mapping[str, Any]) -> None:
    """Put all pieces back, in their order: random streams come last, since building and loading draws from them.

    Raises `NoCheckpoint` where a piece is not as this version takes it.
    """
    for name, piece in PIECES.items():
        try:
            piece.put(training, tree[name])
        except (KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
            raise NoCheckpoint(
                f'"{name}" of the checkpoint does not fit this run: {type(error).__name__}: {error}; it was written by '
                "another version of Pliant: go on with that one, or begin anew with run.overwrite=true"
            ) from error


def _take_policy(training: Training) -> Any:
    return dict(training.model.policy.state_dict())


def _put_policy(training: Training, state: Any) -> None:
    training.model.policy.load_state_dict(state)


def _take_optimizers(training: Training) -> Any:
    return {name: optimizer.state_dict() for name, optimizer in optimizers(training.model).items()}


def _put_optimizers(training: Training, state: Any) -> None:
    for name, optimizer in optimizers(training.model).items():
        optimizer.load_state_dict(state[name])


def _take_entropy(training: Training) -> Any:
    return getattr(training.model, "log_ent_coef", None)


def _put_entropy(training: Training, state: Any) -> None:
    if state is not None:
        with torch.no_grad():
            training.model.log_ent_coef.copy_(state)  # type: ignore[attr-defined]


def _take_attributes(names: tuple[str, ...]) -> Callable[[Training], Any]:
    return lambda training: {name: getattr(training.model, name) for name in names if hasattr(training.model, name)}


def _put_attributes(training: Training, state: Any) -> None:
    vars(training.model).update(state)


def _take_episodes(training: Training) -> Any:
    return {"infos": training.model.ep_info_buffer, "successes": training.model.ep_success_buffer}


def _put_episodes(training: Training, state: Any) -> None:
    training.model.ep_info_buffer, training.model.ep_success_buffer = state["infos"], state["successes"]


def _take_normalization(training: Training) -> Any:
    wrapper = training.model.get_vec_normalize_env()
    if wrapper is None:
        return None
    moments = {name: vars(getattr(wrapper, name)) for name in ("obs_rms", "ret_rms") if hasattr(wrapper, name)}
    return {"moments": moments, "returns": wrapper.returns}


def _put_normalization(training: Training, state: Any) -> None:
    wrapper = training.model.get_vec_normalize_env()
    if wrapper is not None:
        for name, moments in state["moments"].items():
            vars(getattr(wrapper, name)).update(moments)
        wrapper.returns = state["returns"]


def _take_environments(training: Training) -> Any:
    assert training.model.env is not None
    return training.model.env.env_method("state_dict")


def _put_environments(training: Training, state: Any) -> None:
    model: Any = training.model
    for index, one in enumerate(state):
        (observation,) = model.env.env_method("load_state_dict", one, indices=[index])
        if observation is not None:  # its state could not be kept, so it has begun a new episode
            wrapper = model.get_vec_normalize_env()
            if wrapper is not None:
                model._last_original_obs[index] = observation
                observation = wrapper.normalize_obs(observation)
            model._last_obs[index] = observation
            model._last_episode_starts[index] = True


def _take_replay(training: Training) -> Any:
    """Where the rows are; they themselves are written here, those that are new."""
    model = training.model
    if not isinstance(model, OffPolicyAlgorithm):
        return {"rows": 0, "segments": {}}
    assert model.replay_buffer is not None
    rows = model.num_timesteps // model.n_envs
    return {"rows": rows, "segments": training.segments.write(model.replay_buffer, rows)}


def _put_replay(training: Training, state: Any) -> None:
    model = training.model
    if isinstance(model, OffPolicyAlgorithm):
        assert model.replay_buffer is not None
        training.segments.read(model.replay_buffer, state["rows"], state["segments"])


def _take_step_metrics(training: Training) -> Any:
    return {name: metrics.state_dict() for name, metrics in training.model.policy.step_metrics.items()}  # type: ignore[operator, union-attr]


def _put_step_metrics(training: Training, state: Any) -> None:
    for name, metrics in training.model.policy.step_metrics.items():  # type: ignore[operator, union-attr]
        metrics.load_state_dict(state[name])


def _take_parts(training: Training) -> Any:
    return {name: part.state_dict() for name, part in training.parts.items()}


def _put_parts(training: Training, state: Any) -> None:
    for name, part in training.parts.items():
        if name in state:  # what is measured may be more than before
            part.load_state_dict(state[name])


def _put_files(training: Training, state: Any) -> None:
    _logger(training).resume(state)


def _logger(training: Training) -> RunLogger:
    logger = training.model.logger
    assert isinstance(logger, RunLogger)
    return logger


def _take_logger(training: Training) -> Any:
    """What was recorded and waits for the next row."""
    logger = training.model.logger
    return {
        "values": dict(logger.name_to_value),
        "excluded": dict(logger.name_to_excluded),
    }


def _put_logger(training: Training, state: Any) -> None:
    logger = training.model.logger
    logger.name_to_value = defaultdict(float, state["values"])
    logger.name_to_excluded = defaultdict(tuple, state["excluded"])


def _take_generators(training: Training) -> Any:
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(),  # noqa: NPY002
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],  # type: ignore[no-untyped-call]
        "actions": training.model.action_space.np_random.bit_generator.state,
    }


def _put_generators(training: Training, state: Any) -> None:
    training.model.action_space.np_random.bit_generator.state = state["actions"]
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])
    torch.set_rng_state(state["torch"])
    np.random.set_state(state["numpy"])  # noqa: NPY002
    random.setstate(state["python"])


PIECES: dict[str, Piece] = {
    "policy": Piece(_take_policy, _put_policy),
    "optimizers": Piece(_take_optimizers, _put_optimizers),
    "entropy": Piece(_take_entropy, _put_entropy),
    "counters": Piece(_take_attributes(COUNTERS), _put_attributes),
    "episodes": Piece(_take_episodes, _put_episodes),
    "observations": Piece(_take_attributes(OBSERVATIONS), _put_attributes),
    "normalization": Piece(_take_normalization, _put_normalization),
    "environments": Piece(_take_environments, _put_environments),
    "replay": Piece(_take_replay, _put_replay),
    "step_metrics": Piece(_take_step_metrics, _put_step_metrics),
    "parts": Piece(_take_parts, _put_parts),
    "files": Piece(lambda training: _logger(training).files(), _put_files),
    "logger": Piece(_take_logger, _put_logger),
    "generators": Piece(_take_generators, _put_generators),
}
