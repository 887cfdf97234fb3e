"""The wrapper through which a run saves an environment, and goes on with another one built the same way."""

from __future__ import annotations

import copy
import random
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import gymnasium as gym
import numpy as np

from envs.capture import Capture, plain, python_state
from envs.restore import Restore, set_python_state

# Steps of the self-test before the state is saved, and after it before and after a reset: not as many.
BEFORE, AFTER = 5, 8


class Checkpointable(gym.Wrapper[Any, Any, Any, Any]):
    """An environment whose state can be saved, and put back into another one that was built and reset the same way.

    It goes outermost; SB3's vector environments reach its methods through `env_method`, in workers too. What is
    captured of each layer, and how an environment of one's own says what its state is, is in `envs/capture.py`.

    Args:
        env: any Gymnasium environment.
        leave: names of attributes of wrappers that are records without effect; they are not captured and left as they
            are, such as the returns of all episodes that SB3's `Monitor` keeps.
    """

    def __init__(self, env: gym.Env[Any, Any], leave: Iterable[str] = ()) -> None:
        super().__init__(env)
        self._leave = tuple(leave)
        self._models: Any = None
        if "mujoco" in sys.modules:
            from envs.mujoco_snapshot import Models

            self._models = Models()
        Capture(self._models, ask=False).chain(env)  # so that the models are known as they were built

    def state_dict(self) -> dict[str, Any]:
        """Return the states of all layers and of the process's random streams, as a plain tree, and what is missing."""
        layers, missing = self._capture(self._leave)
        return {"layers": layers, "streams": _streams(), "missing": missing}

    def load_state_dict(self, state: Mapping[str, Any]) -> Any:
        """Put a state back; the environment must have been built the same way, and reset.

        Returns:
            None where all was put back. Where something was missing, the rest is put back and the episode begun anew,
            by a reset: its first observation.

        Raises:
            ValueError: the state is of other wrappers or of another environment.
        """
        missing = [*state["missing"], *self._restore(state)]
        return self.env.reset()[0] if missing else None

    def missing(self) -> list[str]:
        """Return what cannot be captured, such as `LunarLander.lander (b2Body)`; asked after a reset."""
        return self._capture(self._leave)[1]

    def self_test(self) -> list[str]:
        """Try out whether the state is all there is: go on twice from one state, with equal actions, and compare.

        Afterwards the environment is as before, reset or not, and so are the random streams; unless something differs,
        or is missing: then reset it.

        Returns:
            One sentence for each thing that is missing or differs; none where saving and restoring are exact.
        """
        try:
            before, missing = self._everything()
        except Exception:  # a class that can be asked for its state after a reset only
            self.env.reset(seed=0)
            before, missing = self._everything()
        if not missing:
            self.env.reset(seed=0)
            actions = self._actions()
            for action in actions[:BEFORE]:
                self._advance(action)
            middle, missing = self._everything()
            if not missing:
                first = [self._advance(action) for action in actions]
                missing = self._restore(middle)
                second = [self._advance(action) for action in actions]
                missing += _differences(first, second)
            missing += [name for name in self._restore(before) if name not in missing]
        return missing

    def _everything(self) -> tuple[dict[str, Any], list[str]]:
        layers, missing = self._capture(())
        sentences = [f"{name} cannot be captured" for name in missing]
        return {"layers": layers, "streams": _streams()}, sentences

    def _actions(self) -> list[Any]:
        space = copy.deepcopy(self.action_space)
        space.seed(0)
        return [space.sample() for _ in range(AFTER)] + [None] + [space.sample() for _ in range(AFTER)]

    def _advance(self, action: Any) -> dict[str, Any]:
        """Take a step, or reset where there is no action or the episode is over; return what came of it."""
        if action is not None:
            observation, reward, terminated, truncated, info = self.env.step(action)
            found = {"observation": observation, "reward": reward, "end": (terminated, truncated), "info": info}
        if action is None or terminated or truncated:
            first, info = self.env.reset()
            found = {} if action is None else found
            found |= {"first observation": first, "first info": info}
        return copy.deepcopy(found)

    def _capture(self, leave: tuple[str, ...]) -> tuple[list[Any], list[str]]:
        capture = Capture(self._models, leave)
        return capture.chain(self.env), capture.missing

    def _restore(self, state: Mapping[str, Any]) -> list[str]:
        restore = Restore(self._models)
        restore.chain(state["layers"], self.env)
        restore.finish()
        _set_streams(state["streams"])
        return restore.missing


def _streams() -> dict[str, Any]:
    """Return the states of the random streams that a process has, which an environment may draw from."""
    streams = {"python": python_state(random), "numpy": plain(np.random.get_state(legacy=False))}  # noqa: NPY002
    torch = sys.modules.get("torch")
    return streams if torch is None else {**streams, "torch": torch.get_rng_state().numpy()}


def _set_streams(streams: Mapping[str, Any]) -> None:
    set_python_state(random, streams["python"])
    np.random.set_state(plain(streams["numpy"]))  # noqa: NPY002
    torch = sys.modules.get("torch")
    if torch is not None and "torch" in streams:
        torch.set_rng_state(torch.from_numpy(streams["torch"].copy()))


def _differences(first: list[dict[str, Any]], second: list[dict[str, Any]]) -> list[str]:
    """Name the first place of each kind where two courses differ."""
    found: dict[str, str] = {}
    for step, (one, other) in enumerate(zip(first, second, strict=True), start=1):
        for name in {**one, **other}:
            if name not in found and not same(one.get(name), other.get(name)):
                found[name] = f"the {name} of step {step} differs after the state was put back"
    return list(found.values())


def same(one: Any, other: Any) -> bool:
    """Whether two observations, rewards or infos are equal bit for bit; times of day in infos aside."""
    if type(one) is not type(other):
        return False
    if isinstance(one, Mapping):
        timed = (
            "t" if "r" in one and "l" in one else None
        )  # info["episode"]: return, length, and seconds since the start
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one if key != timed)
    if isinstance(one, tuple | list):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    if isinstance(one, np.ndarray | np.generic) and not one.dtype.hasobject:
        return (one.shape, one.dtype, one.tobytes()) == (other.shape, other.dtype, other.tobytes())
    if isinstance(one, bool | int | str | bytes | None):
        return bool(one == other)
    return not isinstance(one, float) or np.float64(one).tobytes() == np.float64(other).tobytes()
