"""Keep the clock of non-stationary environments on the model's `num_timesteps`, and log the regime."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import BasePolicy

PREFIX = "nonstationary/"


class RegimeClock(BaseCallback):
    """Sets the environments' clock at the start, checks it after every rollout, and logs what is in force.

    The clock counts environment steps of all sub-environments together, as `num_timesteps` does. Logged are
    `nonstationary/<target>` and `nonstationary/regime` as applied in the first sub-environment, and
    `nonstationary/due_regime`, which is ahead of it until that one's episode ends.

    changes: (environment step, {target: value}) for each regime in the order it was first seen in force.
    Tells the methods of each new regime, once, when the first sub-environment enters it (`plasticity.OnChange`).
    Does nothing where the environments are stationary. Raises `RuntimeError` if a clock went wrong.
    """

    def __init__(self) -> None:
        super().__init__()
        self.changes: list[tuple[int, dict[str, float]]] = []
        self._active = False
        self._regime: int | None = None
        self._loaded = False

    def _on_training_start(self) -> None:
        self._active = self.training_env.has_attr("set_clock")
        if not self._active:
            return
        resumed, self._loaded = self._loaded, False
        # environments that were resumed as well stand where they stood, and setting a clock hides a change point
        if not resumed or any(clock != self.model.num_timesteps for clock in self.training_env.get_attr("clock")):
            stride = self.training_env.num_envs
            self.training_env.env_method("set_clock", self.model.num_timesteps, stride=stride)
        if not resumed:
            self._start(self.training_env.env_method("applied", indices=[0])[0])

    def _start(self, applied: dict[str, Any]) -> None:
        """Note the regime that a `learn` begins in, unless the one before ended in it."""
        regime = int(applied[PREFIX + "regime"])
        if self._regime is None or regime > self._regime or (regime < self._regime and self.num_timesteps == 0):
            self._note(applied)

    def _on_step(self) -> bool:
        if self._active:
            for info in self.locals["infos"]:
                if self._regime is None or info[PREFIX + "regime"] > self._regime:
                    self._note(info)
        return True

    def _note(self, info: dict[str, Any]) -> None:
        if self._regime is not None:
            notice_change(self.model.policy)
        self._regime = int(info[PREFIX + "regime"])
        self.changes.append((self.model.num_timesteps, target_values(info)))

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint of a run must keep: plain numbers and text."""
        return {"changes": [(step, dict(values)) for step, values in self.changes], "regime": self._regime}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken; the `learn` to come begins no regime anew."""
        self.changes = [(step, dict(values)) for step, values in state["changes"]]
        self._regime, self._loaded = state["regime"], True

    def _on_rollout_end(self) -> None:
        if not self._active:
            return
        clocks = self.training_env.get_attr("clock")
        if any(clock != self.model.num_timesteps for clock in clocks):
            raise RuntimeError(
                f"the environments' clocks show {sorted(set(clocks))}, the model {self.model.num_timesteps} steps: "
                "something other than training has stepped these environments"
            )
        info = self.locals["infos"][0]
        for name, value in target_values(info).items():
            self.logger.record(PREFIX + name, value)
        self.logger.record(PREFIX + "regime", int(info[PREFIX + "regime"]))
        due = self.training_env.env_method("due", indices=[0])[0]
        self.logger.record(PREFIX + "due_regime", int(due[PREFIX + "regime"]))


def notice_change(policy: BasePolicy) -> None:
    """Tell the policy's methods that the world has changed."""
    for method in getattr(policy, "plasticity", {}).values():
        method.notice_change()


def target_values(info: Mapping[str, Any]) -> dict[str, float]:
    """The values in force, by target, in an info or what `NonStationary.applied` returns; empty if stationary."""
    return {name: float(info[key]) for key, name in _targets(tuple(info))}


@lru_cache(maxsize=64)
def _targets(keys: tuple[str, ...]) -> list[tuple[str, str]]:
    """Those of an info's keys that are of targets, each with the target's name: infos have the same at most steps."""
    rest = {PREFIX + name for name in ("regime", "due_regime", "change_point", "context")}
    return [(key, key.removeprefix(PREFIX)) for key in keys if key.startswith(PREFIX) and key not in rest]
