"""Forgetting and adaptation of a run: what tests the agent, and the two tables it leaves."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from rich.table import Table
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from agents import Adaptation, ForgettingEvaluation, backward_transfer, forgetting, forward_transfer
from experiments import folder as files
from experiments.build import build_model
from experiments.environment import make_env
from experiments.failure_report import FailureRaised
from experiments.normalization import normalized
from experiments.schema import Config
from experiments.summary import number

MOST = 20  # regimes in the summary's table; all are in adaptation.csv
COLUMNS = (
    *("regime", "first_step", "last_step", "untrained_return", "return_before", "return_at_end", "return_finally"),
    *("forward_transfer", "backward_transfer", "forgetting", "recovery_steps", "fresh_return", "gap_to_fresh"),
)
MEANINGS = {
    "average_return": "average return on the regimes met",
    "forgetting": "forgetting: the best return before, less that of now",
    "backward_transfer": "backward transfer: the return of now, less that at the regime's end",
    "forward_transfer": "forward transfer: the return before a regime, less that of the untrained agent",
    "recovery_steps": "environment steps to recover from a change, if ever",
    "recovered": "share of the changes that were recovered from",
    "gap_to_fresh": "gap to fresh: the return at a regime's end, less that of a fresh agent",
}


def forgetting_evaluation(config: Config, stop: Callable[[], bool]) -> ForgettingEvaluation | None:
    """What tests the agent as these settings say, or None if they ask for nothing. stop: whether to give up a test."""
    asked = config.evaluation
    if not asked.episodes:
        return None
    return ForgettingEvaluation(
        lambda: FailureRaised(make_env(config.env), "an environment of the evaluation"),
        asked.episodes,
        asked.regimes,
        asked.every,
        fresh=partial(_fresh_agent, config) if asked.fresh else None,
        fraction=asked.fraction,
        window=asked.window,
        seed=config.seed,
        stop=stop,
    )


def write(folder: Path, evaluation: ForgettingEvaluation) -> None:
    """`forgetting.csv`, the matrix with a row for each entry, and `adaptation.csv`, a row a regime met."""
    with (folder / files.FORGETTING).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["step", "at", "trained_on", "tested_on", "episodes", "mean_return", "std_return"])
        for one in evaluation.evaluations:
            for tested, totals in one.returns.items():
                spread = float(np.std(totals))
                writer.writerow([one.step, one.at, one.trained, tested, len(totals), float(np.mean(totals)), spread])
    with (folder / files.ADAPTATION).open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(COLUMNS)
        for row in _regimes(evaluation):
            rows.writerow(["" if math.isnan(row[name]) else row[name] for name in COLUMNS])


def summary(evaluation: ForgettingEvaluation) -> list[Table | str]:
    """A table with a row a regime, and the means below it."""
    results = evaluation.results
    if results is None:
        return ["evaluation: stopped before the first test of a trained agent"]
    table = Table(title="Return on frozen regimes", title_justify="left", title_style="bold")
    columns = {
        "regime": "regime",
        "untrained": "untrained_return",
        "before": "return_before",
        "at end": "return_at_end",
        "now": "return_finally",
        "forgotten": "forgetting",
        "recovery": "recovery_steps",
    }
    if evaluation.fresh is not None:
        columns["fresh"] = "fresh_return"
    for heading in columns:
        table.add_column(heading, justify="right")
    rows = list(_regimes(evaluation))
    for row in rows[-MOST:]:
        table.add_row(*(number(row[name]) for name in columns.values()))
    more = [f"  the last {MOST} of {len(rows)} regimes; all are in {files.ADAPTATION}"] if len(rows) > MOST else []
    return [table, *more, *(f"  {line}" for line in means(results))]


def means(results: Adaptation) -> list[str]:
    """What the whole run comes to, a line for each number that is known."""
    known = {name: value for name, value in results.numbers().items() if not math.isnan(value)}
    return [f"{number(value):>8}  {MEANINGS[name]}" for name, value in known.items()]


def _regimes(evaluation: ForgettingEvaluation) -> Iterator[dict[str, float]]:
    results = evaluation.results
    if results is None:
        return
    before = np.diagonal(results.returns, offset=1)
    by_name = {
        "untrained_return": results.untrained,
        "return_before": np.concatenate([[math.nan], before]),
        "return_at_end": results.at_end,
        "return_finally": results.returns[-1],
        "forward_transfer": forward_transfer(results.returns, results.untrained),
        "backward_transfer": backward_transfer(results.returns),
        "forgetting": forgetting(results.returns),
        "recovery_steps": results.recovery,
        "fresh_return": results.fresh,
        "gap_to_fresh": results.gap_to_fresh,
    }
    for regime, stretch in sorted(evaluation.stretches.items()):
        if regime < len(results.returns):
            numbers = {name: float(got[regime]) if regime < len(got) else math.nan for name, got in by_name.items()}
            yield {"regime": regime, "first_step": stretch.start, "last_step": stretch.end, **numbers}


def _fresh_agent(config: Config, env: VecEnv, seed: int) -> BaseAlgorithm:
    return build_model(replace(config, seed=seed), normalized(config, env))
