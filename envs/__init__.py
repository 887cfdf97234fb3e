"""Environments whose physics change while an agent learns. Importing this package registers its ids.

`gymnasium.make("SlipperyAnt-v5", period=500, schedule_seed=7)`, or wrap any environment of your own in `NonStationary`.
"""

from envs.batched import Batch, why_not_batched
from envs.changes import Change, parse_changes
from envs.checkpointable import Checkpointable
from envs.drift import Drift, Linear, OrnsteinUhlenbeck, RandomWalk, Sine
from envs.grammar import parse_schedule
from envs.nonstationary import NonStationary
from envs.physics import targets_of
from envs.registration import make_nonstationary, make_task_sequence, register
from envs.schedule import Schedule
from envs.stable_physics import StablePhysics, stable_physics
from envs.switch import TaskSwitch
from envs.target import Target
from envs.tasks import TASKS, TaskRow
from envs.values import GaussianVector, Listed, LogUniform, Mask, Permutation, Sign, Uniform
from envs.when import At, Every, Poisson

__all__ = [
    "TASKS",
    "At",
    "Batch",
    "Change",
    "Checkpointable",
    "Drift",
    "Every",
    "GaussianVector",
    "Linear",
    "Listed",
    "LogUniform",
    "Mask",
    "NonStationary",
    "OrnsteinUhlenbeck",
    "Permutation",
    "Poisson",
    "RandomWalk",
    "Schedule",
    "Sign",
    "Sine",
    "StablePhysics",
    "Target",
    "TaskRow",
    "TaskSwitch",
    "Uniform",
    "make_nonstationary",
    "make_task_sequence",
    "parse_changes",
    "parse_schedule",
    "stable_physics",
    "targets_of",
    "why_not_batched",
]

register()
