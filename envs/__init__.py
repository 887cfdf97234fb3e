"""Environments whose physics change while an agent learns. Importing this package registers its ids.

`gymnasium.make("SlipperyAnt-v5", period=500, schedule_seed=7)`, or wrap any environment of your own in `NonStationary`.
"""

from envs.changes import Change, parse_changes, parse_schedule
from envs.nonstationary import NonStationary
from envs.physics import targets_of
from envs.schedule import At, Every, Listed, LogUniform, Poisson, Schedule, Uniform
from envs.target import Target
from envs.tasks import TASKS, make_nonstationary, register

__all__ = [
    "TASKS",
    "At",
    "Change",
    "Every",
    "Listed",
    "LogUniform",
    "NonStationary",
    "Poisson",
    "Schedule",
    "Target",
    "Uniform",
    "make_nonstationary",
    "parse_changes",
    "parse_schedule",
    "targets_of",
]

register()
