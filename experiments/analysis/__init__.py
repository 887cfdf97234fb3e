"""What many runs come to: measures of each, methods compared with intervals, nothing left out without a word."""

from experiments.analysis.comparison import Comparison, Difference, Estimate, Method, Options, compare
from experiments.analysis.measures import MEASURES, Measure
from experiments.analysis.runs import RunFolder, Unreadable, find
from experiments.analysis.statistics import (
    interquartile_mean,
    mean,
    paired_difference,
    probability_of_improvement,
    probability_of_improvement_interval,
    slope,
    stratified_bootstrap_interval,
)

__all__ = [
    "MEASURES",
    "Comparison",
    "Difference",
    "Estimate",
    "Measure",
    "Method",
    "Options",
    "RunFolder",
    "Unreadable",
    "compare",
    "find",
    "interquartile_mean",
    "mean",
    "paired_difference",
    "probability_of_improvement",
    "probability_of_improvement_interval",
    "slope",
    "stratified_bootstrap_interval",
]
