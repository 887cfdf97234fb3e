"""Between the environments and everything else: nothing that is not a number, or too large a one, gets through."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper

from envs.stable_physics import UNSTABLE
from experiments.errors import EnvironmentFailure, NumericFailure, RunError
from experiments.failure_report import FAILURE, Failure
from experiments.run_settings import GuardSettings


class Guard(VecEnvWrapper):
    """Looks at all that environments return, at each step and reset, and raises before anyone learns from it.

    `EnvironmentFailure`: a sub-environment raised (see `FailureReport`), or episodes were cut for unstable physics more
    often than `settings.unstable_physics`. `NumericFailure`: an observation, the last one of an episode included, or a
    reward is NaN or infinite, or a reward is outside the limit and `settings.reward` is `stop`. With `clip` the agent
    gets the limit; the episode's return, which is summed further inside, keeps what the environment gave.

    Directly around the vector of environments, so that normalisation does not see such numbers either.

    steps: environment steps so far, all sub-environments together. clipped_rewards, unstable_physics: how often.
    """

    def __init__(self, venv: VecEnv, settings: GuardSettings):
        super().__init__(venv)
        self.settings = settings
        self.steps = self.clipped_rewards = self.unstable_physics = 0

    def reset(self) -> Any:
        """First observations of all sub-environments."""
        observations = _answer(self.venv.reset)
        self.reset_infos = self.venv.reset_infos
        for index, info in enumerate(self.reset_infos):
            _check_failure(index, info)
        self._check_observations(observations)
        return observations

    def step_wait(self) -> Any:
        """SB3's observations, rewards, dones and infos."""
        observations, rewards, dones, infos = _answer(self.venv.step_wait)
        self.steps += self.num_envs
        if True in dones.tolist():
            self._check_ends(dones, infos)
        self._check_observations(observations)
        limit = self.settings.reward_limit
        for reward in rewards.tolist():
            if not -limit <= reward <= limit:
                rewards = self._handle(rewards)
                break
        return observations, rewards, dones, infos

    @property
    def counts(self) -> dict[str, int]:
        """For the log: how often something was let through changed, or cut short."""
        return {"guard/clipped_rewards": self.clipped_rewards, "guard/unstable_physics": self.unstable_physics}

    def summary(self) -> list[str]:
        """A sentence for each count above 0."""
        sentences = []
        if self.clipped_rewards:
            limit = self.settings.reward_limit
            sentences.append(
                f"{_count(self.clipped_rewards, 'reward was', 'rewards were')} outside [-{limit:g}, {limit:g}] and "
                "clipped (run.guard.reward=clip)"
            )
        if self.unstable_physics:
            sentences.append(
                f"{_count(self.unstable_physics, 'episode was', 'episodes were')} cut because the simulation became "
                "unstable"
            )
        return sentences

    def state_dict(self) -> dict[str, int]:
        """What a checkpoint must keep."""
        return {"steps": self.steps, "clipped_rewards": self.clipped_rewards, "unstable_physics": self.unstable_physics}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on counting where `state_dict` was taken."""
        self.steps, self.clipped_rewards = state["steps"], state["clipped_rewards"]
        self.unstable_physics = state["unstable_physics"]

    def _check_ends(self, dones: NDArray[np.bool_], infos: list[dict[str, Any]]) -> None:
        """What there is to see where episodes ended, as failures do, in the step or in the reset that follows."""
        self.reset_infos = self.venv.reset_infos
        for index in np.flatnonzero(dones).tolist():
            _check_failure(index, infos[index])
            _check_failure(index, self.reset_infos[index])
            self._check_observations(infos[index]["terminal_observation"], "last observation of an episode", index)
            if infos[index].get(UNSTABLE):
                self.unstable_physics += 1
                if self.unstable_physics > self.settings.unstable_physics:
                    raise EnvironmentFailure(
                        f"the simulation became unstable in {_count(self.unstable_physics, 'episode', 'episodes')}, "
                        f"the last in sub-environment {index} {self._when}, and run.guard.unstable_physics allows "
                        f"{self.settings.unstable_physics:,}"
                    )

    def _check_observations(self, observations: Any, what: str = "observation", index: int | None = None) -> None:
        """index: of the one sub-environment they come from; None: one row from each."""
        for key, array in _arrays(observations):
            if array.dtype.kind != "f" or np.isfinite(array).all():
                continue
            entry = np.argwhere(~np.isfinite(array))[0].tolist()
            value = array[tuple(entry)]
            if index is None:
                index, *entry = entry
            where = f"{key}[{', '.join(map(str, entry))}]" if entry else key
            raise NumericFailure(f"sub-environment {index} returned {value} in {what}{where} {self._when}")

    def _handle(self, rewards: NDArray[Any]) -> NDArray[Any]:
        """Rewards some of which are not within the limit: clipped, if they may be."""
        limit = self.settings.reward_limit
        with np.errstate(over="ignore"):
            known = np.isfinite(rewards.astype(np.float32))  # as the agent gets them, and DummyVecEnv returns them
        outside = ~(np.abs(rewards) <= limit)
        for index in np.flatnonzero(outside).tolist():
            value = rewards[index]
            if not known[index]:
                raise NumericFailure(f"sub-environment {index} returned {value} as reward {self._when}")
            if self.settings.reward == "stop":
                raise NumericFailure(
                    f"sub-environment {index} returned {value:g} as reward {self._when}, and run.guard.reward_limit is "
                    f"{limit:g}; raise it, or set run.guard.reward=clip to clip such rewards and count them"
                )
        self.clipped_rewards += int(outside.sum())
        clipped: NDArray[Any] = np.clip(rewards, -limit, limit)
        return clipped

    @property
    def _when(self) -> str:
        return f"at environment step {self.steps:,}"


def _answer(ask: Callable[[], Any]) -> Any:
    """What the vector returns; it raises itself where answers do not fit the space or each other."""
    try:
        return ask()
    except RunError:
        raise
    except Exception as error:
        sentence = Failure.of(error).sentence
        raise EnvironmentFailure(f"what the sub-environments returned cannot be used: {sentence}") from error


def _check_failure(index: int, info: Mapping[str, Any]) -> None:
    if FAILURE in info:
        raise info[FAILURE].raised(by=f"sub-environment {index}")


def _arrays(observations: Any) -> Iterator[tuple[str, NDArray[Any]]]:
    """The arrays of an observation, each with the text that indexes it."""
    if isinstance(observations, Mapping):
        for key, part in observations.items():
            yield from ((f"[{key!r}]{rest}", array) for rest, array in _arrays(part))
    elif isinstance(observations, tuple):
        for place, part in enumerate(observations):
            yield from ((f"[{place}]{rest}", array) for rest, array in _arrays(part))
    else:
        yield "", np.asarray(observations)


def _count(number: int, one: str, several: str) -> str:
    return f"{number:,} {one if number == 1 else several}"
