"""The targets that any environment has: what passes between it and the agent."""

from __future__ import annotations

from collections.abc import Callable

from envs.actions import ActionDelay, ActionGain, ActionPermutation, ActionReversal, ActuatorFailure
from envs.observations import ObservationMask, ObservationNoise, ObservationOffset, ObservationPermutation
from envs.rewards import RewardScale, TargetDirection
from envs.target import Target

PERTURBATIONS: dict[str, Callable[[], Target]] = {
    "observation_offset": ObservationOffset,
    "observation_permutation": ObservationPermutation,
    "observation_noise": ObservationNoise,
    "observation_mask": ObservationMask,
    "action_permutation": ActionPermutation,
    "action_reversal": ActionReversal,
    "action_gain": ActionGain,
    "action_delay": ActionDelay,
    "actuator_failure": ActuatorFailure,
    "reward_scale": RewardScale,
    "target_direction": TargetDirection,
}
