"""The tasks that are registered: one table. A new task is one row here; registration.py makes environments of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class TaskRow:
    """One registered task.

    base: the environment that changes, an id of Gymnasium's or `module:class`.
    changes: by target, the schedule or drift that it follows unless told otherwise, in short form; one target changes,
        the first unless another is asked for.
    says: the task in one line, after its id.
    quick: whether regimes are short enough for tests and first looks.
    kwargs: for the base, unless told otherwise.
    flags: keyword arguments of ours that stand for others of the base.
    """

    base: str
    changes: Mapping[str, str]
    says: str
    quick: bool = False
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    flags: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def _any_of(targets: Iterable[str], schedule: str) -> dict[str, str]:
    return dict.fromkeys(targets, schedule)


# Drops the contact forces, which leaves 27 numbers: closest to what the published agents of Slippery Ant saw.
_LEGACY = {"legacy_obs": {"include_cfrc_ext_in_observation": False}}
# TRAC's code: ten levels of 200 iterations of two episodes of at most 400 steps; numpy's normal(0, 2), the first zero.
_OFFSET = "every:160000|gaussian_vector:2.0"
_FLIP = "cycle:-1,1"
# Start S, goal G, holes H: the same lake, another goal each.
_LAKES = [
    {"id": "FrozenLake-v1", "desc": desc, "is_slippery": False}
    for desc in (["SFFF", "FHFH", "FFFH", "HFFG"], ["SFFG", "FHFH", "FFFH", "HFFF"], ["SFFF", "FHFH", "GFFH", "HFFF"])
]

TASKS: dict[str, TaskRow] = {
    "SlipperyAnt-v5": TaskRow(
        "Ant-v5",
        {"friction": "every:2e6|loguniform:0.02,2.0|draw"},
        "Slippery Ant of Dohare et al., Loss of plasticity in deep continual learning, Nature 632:768, 2024: the "
        "friction of all geoms",
        flags=_LEGACY,
    ),
    "SlipperyHalfCheetah-v5": TaskRow(
        "HalfCheetah-v5",
        {"friction": "every:2e6|loguniform:0.02,2.0|draw"},
        "the friction of all geoms",
    ),
    "SlipperyHumanoid-v5": TaskRow(
        "Humanoid-v5",
        {"friction": "every:2e6|loguniform:0.02,2.0|draw"},
        "the friction of all geoms",
    ),
    "SlipperyHopper-v5": TaskRow(
        "Hopper-v5",
        {"friction_scale": "every:2e6|loguniform:0.02,1.5|draw"},
        "friction as a multiple of the nominal one, which keeps the contrast between foot (2.0) and floor (1.0)",
    ),
    "SlipperyWalker2d-v5": TaskRow(
        "Walker2d-v5",
        {"friction_scale": "every:2e6|loguniform:0.02,1.5|draw"},
        "friction as a multiple of the nominal one, which keeps the contrast between feet (1.9) and floor (0.7)",
    ),
    "DriftingAnt-v5": TaskRow(
        "Ant-v5",
        {"friction": "random_walk:2e6,1.0,0.6,0.1,2.0", "gravity": "random_walk:2e6,1.0,0.3,0.5,1.5"},
        "friction, or gravity as a multiple of the nominal one, wanders and never jumps",
        flags=_LEGACY,
    ),
    "ObservationOffsetCartPole-v1": TaskRow(
        "CartPole-v1",
        {"observation_offset": _OFFSET},
        "a constant added to each entry of the observation: the protocol of TRAC (arXiv 2405.16642) and C-CHAIN (arXiv "
        "2506.00592), whose ten levels are 1,600,000 steps",
    ),
    "ObservationOffsetAcrobot-v1": TaskRow(
        "Acrobot-v1",
        {"observation_offset": _OFFSET},
        "the same protocol",
    ),
    "ObservationOffsetLunarLander-v3": TaskRow(
        "LunarLander-v3",
        {"observation_offset": _OFFSET},
        "the same protocol",
    ),
    "ObservationPermutationCartPole-v1": TaskRow(
        "CartPole-v1",
        {"observation_permutation": "every:20000|permutation"},
        "the order of the observation's entries",
        quick=True,
    ),
    "ObservationPermutationHalfCheetah-v5": TaskRow(
        "HalfCheetah-v5",
        {"observation_permutation": "every:1e6|permutation"},
        "the order of the observation's entries",
    ),
    "ActionReversalCartPole-v1": TaskRow(
        "CartPole-v1",
        {"action_reversal": f"every:20000|{_FLIP}"},
        "left is right and right is left",
        quick=True,
    ),
    "ActionPermutationAnt-v5": TaskRow(
        "Ant-v5",
        {"action_permutation": "every:1e6|permutation"},
        "which entry of the action drives which of the eight motors",
        flags=_LEGACY,
    ),
    "ActionDelayPendulum-v1": TaskRow(
        "Pendulum-v1",
        {"action_delay": "every:10000|cycle:2,1,3,0"},
        "actions arrive late by so many steps",
        quick=True,
    ),
    "ActuatorFailureAnt-v5": TaskRow(
        "Ant-v5",
        {"actuator_failure": "every:1e6|mask:1"},
        "one of the eight motors fails, another in each regime",
        flags=_LEGACY,
    ),
    "RewardFlipCartPole-v1": TaskRow(
        "CartPole-v1",
        {"reward_scale": f"every:20000|{_FLIP}"},
        "the reward's sign: balance the pole, or drop it at once",
        quick=True,
    ),
    "DirectionFlipHalfCheetah-v5": TaskRow(
        "HalfCheetah-v5",
        {"target_direction": "every:1e6|cycle:180,0"},
        "the direction that running is paid for, in degrees: backwards, forwards",
    ),
    "NSCartPole-v1": TaskRow(
        "CartPole-v1",
        _any_of(("length", "gravity", "masscart", "masspole", "force_mag"), "every:10000|loguniform:0.2,4.0"),
        "the pole's length, or another target, as a multiple of the nominal one",
        quick=True,
    ),
    "NSPendulum-v1": TaskRow(
        "Pendulum-v1",
        _any_of(("gravity", "mass", "length"), "every:8000|uniform:0.2,1.8")
        | {"max_torque": "every:8000|uniform:0.2,1.0"},
        "gravity, or another target, as a multiple of the nominal one",
        quick=True,
    ),
    "NSAcrobot-v1": TaskRow(
        "Acrobot-v1",
        _any_of(("gravity", "mass", "length", "torque"), "every:20000|uniform:0.5,1.5"),
        "gravity, or another target, as a multiple of the nominal one",
        quick=True,
    ),
    "NSMountainCar-v0": TaskRow(
        "MountainCar-v0",
        {"gravity": "every:20000|uniform:0.5,1.2", "force": "every:20000|uniform:0.8,1.5"},
        "gravity, or the motor's force, as a multiple of the nominal one",
        quick=True,
    ),
    "NSLunarLander-v3": TaskRow(
        "LunarLander-v3",
        {
            "gravity": "every:20000|uniform:0.3,1.1",
            "wind_power": "every:20000|uniform:0,20",
            "turbulence_power": "every:20000|uniform:0,2",
        },
        "gravity as a multiple of the nominal one; with `enable_wind=True` also the wind, in Gymnasium's units",
        quick=True,
    ),
    "FrozenLakeSequence-v1": TaskRow(
        "envs.switch:TaskSwitch",
        {"task": "every:10000|cycle:0,1,2|draw"},
        "a sequence of tasks: three frozen lakes with another goal each, and no slipping",
        quick=True,
        kwargs={"tasks": _LAKES},
    ),
}
