"""Trials of a search: Optuna says what to try, a crew trains it, and its score goes back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from rich.console import Console
from rich.table import Table

from experiments.announce import tell
from experiments.errors import BadInput
from experiments.history import History
from experiments.stop import StopOnSignal
from experiments.summary import number
from experiments.sweep.crew import Crew
from experiments.sweep.engine import slots
from experiments.sweep.status import DONE, FAILED, STOPPED, Status
from experiments.sweep.watch import Watch, headings
from experiments.tuning.space import Space

JOURNAL = "trials.log"
PARTS = 10  # of a run, after each of which a trial can be given up
BEST = 10  # trials in the table at the end
MEASURES = {
    "mean": "the mean return of all episodes, how well it does while it learns",
    "last": "that of the last tenth of the episodes, how well it does in the end",
}


@dataclass
class Attempt:
    """A trial at work. parts: of its runs that have been told to Optuna."""

    trial: optuna.Trial
    values: dict[str, str]
    statuses: list[Status]
    parts: int = 0


def open_study(folder: Path, prune: bool) -> optuna.Study:
    """The study kept in a folder, which is made if need be. It is a file that is only ever appended to."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    backend = JournalFileBackend(str(folder / JOURNAL))
    study = optuna.create_study(
        storage=optuna.storages.JournalStorage(backend),
        study_name="study",
        direction="maximize",
        load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(n_warmup_steps=1) if prune else optuna.pruners.NopPruner(),
    )
    study.sampler = optuna.samplers.TPESampler(seed=len(study.trials))  # or a study gone on with would repeat itself
    return study


class Search:
    """Trials until there are `trials` of them, counting those of earlier times; seeds: runs of each."""

    def __init__(self, study: optuna.Study, space: Space, seeds: int, measure: str, console: Console):
        self.study, self.space, self.seeds, self.measure, self.console = study, space, seeds, measure, console
        self.attempts: list[Attempt] = []

    def run(self, trials: int, crew: Crew, watch: Watch, stop: StopOnSignal) -> None:
        """Do what is missing. Trials that were under way when the last process ended are gone on with first."""
        left_over = [each._trial_id for each in self.study.trials if each.state == TrialState.RUNNING]
        room = slots(crew.engine)
        while not stop.asked() and not crew.lost:
            while sum(status.open for status in crew.statuses) < room:
                if left_over:
                    self._begin(optuna.Trial(self.study, left_over.pop(0)), crew)
                elif len(self.study.trials) < trials:
                    self._begin(self.study.ask(), crew)
                else:
                    break
            if not self.attempts:
                return
            watch.update()
            crew.tick()
            watch.update()
            self.attempts = [attempt for attempt in self.attempts if not self._ended(attempt, crew)]
        if stop.asked():
            watch.say("stopping: runs finish their update and save themselves; once more ends them at once")
            for _ in crew.stop():
                watch.update()

    def _begin(self, trial: optuna.Trial, crew: Crew) -> None:
        values = self.space.suggest(trial)
        try:
            runs = self.space.runs(values, self.seeds)
        except BadInput as error:
            self._tell(trial, None, TrialState.FAIL, error.lines)
            return
        statuses = []
        for run in runs:
            status = Status(replace(run, values={"trial": str(trial.number), **values, **run.values}))
            status.find()
            crew.add(status)
            statuses.append(status)
        self.attempts.append(Attempt(trial, values, statuses))

    def _ended(self, attempt: Attempt, crew: Crew) -> bool:
        """Whether a trial has come to its end, which Optuna is then told."""
        trial, statuses = attempt.trial, attempt.statuses
        if failed := [status for status in statuses if status.state == FAILED]:
            crew.drop(statuses)
            self._tell(trial, None, TrialState.FAIL, failed[0].lines)
            return True
        if all(status.state == DONE for status in statuses):
            scores = [score(status.cell.folder, self.measure) for status in statuses]
            known = [one for one in scores if one is not None]
            if len(known) < len(scores):
                self._tell(trial, None, TrialState.FAIL, ("no episode has come to its end",))
            else:
                self._tell(trial, float(np.mean(known)), TrialState.COMPLETE)
            return True
        part = min(PARTS * status.step // status.cell.steps for status in statuses)
        if part > attempt.parts:
            attempt.parts = part
            upto = [score(s.cell.folder, self.measure, part * s.cell.steps / PARTS) for s in statuses]
            known = [one for one in upto if one is not None]
            if known:
                trial.report(float(np.mean(known)), part)
            if known and trial.should_prune():
                crew.drop(statuses)
                self._tell(trial, None, TrialState.PRUNED)
                return True
        return any(status.state == STOPPED for status in statuses)

    def _tell(self, trial: optuna.Trial, value: float | None, state: TrialState, lines: Sequence[str] = ()) -> None:
        self.study.tell(trial, value, state)
        said = {
            TrialState.COMPLETE: number(value),
            TrialState.PRUNED: "given up, others were better by then",
            TrialState.FAIL: f"failed: {'; '.join(lines) or 'for a reason that it did not tell'}",
        }[state]
        tell([f"trial {trial.number}: {said}"], self.console)


def score(folder: Path, measure: str, upto: float = np.inf) -> float | None:
    """What a search wants to be large, of a run until so many steps; None: no episode has ended."""
    returns = History(folder).returns()
    values = returns.values[returns.steps <= upto]
    if len(values) == 0:
        return None
    return float(np.mean(values if measure == "mean" else values[-max(1, len(values) // 10) :]))


def ranked(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """The trials that have come to their end, the best first."""
    return sorted(study.get_trials(states=[TrialState.COMPLETE]), key=lambda trial: -trial.values[0])


def summary(study: optuna.Study, space: Space) -> Iterator[Table | str]:
    """The best trials, and what the score depends on most."""
    done = ranked(study)
    keys = [one.key for one in space.dimensions]
    table = Table()
    for name in ("trial", *headings(keys).values(), "score"):
        table.add_column(name, justify="right")
    for trial in done[:BEST]:
        values = space.suggest(Again(trial.params))
        table.add_row(str(trial.number), *(values.get(key, "") for key in keys), number(trial.value))
    if done:
        yield table
    states = {"done": TrialState.COMPLETE, "given up": TrialState.PRUNED, "failed": TrialState.FAIL}
    counted = {name: len(study.get_trials(states=[state])) for name, state in states.items()}
    counted["under way"] = len(study.get_trials(states=[TrialState.RUNNING]))
    yield f"{len(study.trials):,} trials: {', '.join(f'{n:,} {name}' for name, n in counted.items() if n)}"
    if len(done) >= BEST and len(keys) > 1:
        shares = optuna.importance.get_param_importances(
            study, evaluator=optuna.importance.PedAnovaImportanceEvaluator()
        )
        yield "what the score depends on: " + ", ".join(f"{key} {share:.0%}" for key, share in shares.items())


class Again:
    """A trial that suggests what it once did."""

    def __init__(self, params: dict[str, Any]):
        self.params = params

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """The number that it had."""
        return float(self.params[name])

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        """The whole number that it had."""
        return int(self.params[name])

    def suggest_categorical(self, name: str, choices: Sequence[str]) -> str:
        """The choice that it had."""
        return str(self.params[name])
