"""What a search may choose from: words such as `agent.learning_rate=log(1e-5,1e-2)`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from experiments import compose
from experiments.errors import BadInput
from experiments.sweep.cells import METHODS, SEED, Cell, Plan, cells, concerns
from experiments.sweep.named import key_of
from plasticity import SettingsError
from plasticity.settings import convert, unknown

NUMBERS = {
    "uniform": "uniform(low,high): any number between them",
    "log": "log(low,high): the same, where ratios count, such as learning rates",
    "int": "int(low,high): any whole number from low to high",
    "logint": "logint(low,high): the same, where ratios count, such as sizes",
}
LISTS = ("choice", "range", "glob")  # Hydra's, as in a sweep
DIGITS = 6  # of a number as it is typed


class Trial(Protocol):
    """What is used of Optuna's."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """A number."""

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        """A whole number."""

    def suggest_categorical(self, name: str, choices: Sequence[str]) -> str:
        """One of the choices."""


@dataclass(frozen=True)
class Dimension:
    """One setting that is searched. kind: of `NUMBERS`, or choice; ends: low and high; choices: as one types them."""

    key: str
    kind: str
    ends: tuple[float, float] = (0.0, 0.0)
    choices: tuple[str, ...] = ()

    def suggest(self, trial: Trial) -> str:
        """A value for a trial, as one would type it."""
        if self.kind == "choice":
            return trial.suggest_categorical(self.key, self.choices)
        low, high = self.ends
        if self.kind in ("int", "logint"):
            return str(trial.suggest_int(self.key, int(low), int(high), log=self.kind == "logint"))
        return f"{trial.suggest_float(self.key, low, high, log=self.kind == 'log'):.{DIGITS}g}"

    @property
    def extremes(self) -> tuple[str, ...]:
        """The values that are tried out before a search begins."""
        if self.kind == "choice":
            return self.choices
        form = "d" if "int" in self.kind else f".{DIGITS}g"
        return tuple(f"{int(end) if 'int' in self.kind else end:{form}}" for end in self.ends)


@dataclass(frozen=True)
class Space:
    """words: of every trial; dimensions: what differs between them; seed: the first; directories: of the user's."""

    words: tuple[str, ...]
    dimensions: tuple[Dimension, ...]
    seed: int = 0
    directories: tuple[Path, ...] = ()

    @property
    def _methods(self) -> tuple[str, ...]:
        return next((one.choices for one in self.dimensions if one.key == METHODS), ())

    def suggest(self, trial: Trial) -> dict[str, str]:
        """key -> value for a trial; settings of methods that it does not have are left out."""
        values: dict[str, str] = {}
        for one in sorted(self.dimensions, key=lambda one: one.key != METHODS):
            if concerns(one.key, values.get(METHODS, ""), self._methods):
                values[one.key] = one.suggest(trial)
        return {one.key: values[one.key] for one in self.dimensions if one.key in values}

    def trial_words(self, values: Mapping[str, str]) -> list[str]:
        """What one would type for these values."""
        own = [word for word in self.words if concerns(key_of(word), values.get(METHODS, ""), self._methods)]
        return [*own, *(f"{key}={value}" for key, value in values.items())]

    def runs(self, values: Mapping[str, str], seeds: int) -> list[Cell]:
        """A run for each seed; raises `BadInput` where these values do not go together."""
        numbers = tuple(str(self.seed + index) for index in range(seeds))
        return cells(Plan(tuple(self.trial_words(values)), {SEED: numbers}), self.directories)

    def corners(self) -> Iterator[dict[str, str]]:
        """Values at the ends of each dimension, by which to see before a search that they can be used."""
        for method in self._methods or ("",):
            first = {one.key: one.extremes[0] for one in self.dimensions} | ({METHODS: method} if method else {})
            first = {key: value for key, value in first.items() if concerns(key, method, self._methods)}
            others = [one for one in self.dimensions if one.key in first and one.key != METHODS]
            yield first
            yield from ({**first, one.key: value} for one in others for value in one.extremes[1:])


def parse(words: Sequence[str], directories: Sequence[Path] = ()) -> Space:
    """The words of a command line, sorted into those of every trial and what is searched; raises `BadInput`."""
    known, seed = compose.available(directories), 0
    fixed, found, errors = list[str](), list[Dimension](), list[str]()
    for word in words:
        key = key_of(word)
        try:
            dimension = _dimension(word, known)
        except BadInput as error:
            errors += error.lines
            continue
        if dimension is not None and key == SEED:
            errors.append(f"{word}: a seed is not searched; --seeds N runs each trial with N of them")
        elif dimension is not None and key.partition(".")[0] in ("run", "logging", "evaluation"):
            errors.append(f"{word}: {key} changes nothing of what is learned, so it cannot be searched")
        elif dimension is not None and key in {one.key for one in found}:
            errors.append(f"{key} is searched twice")
        elif dimension is not None:
            found.append(dimension)
        elif key == "sweep":
            errors.append(f"{word}: a search has words of its own; sweeps are for python train.py -m")
        elif re.fullmatch(rf"{SEED}=\d+", word):
            seed = int(word.partition("=")[2])
        else:
            fixed.append(word)
    if not found and not errors:
        errors.append(
            "nothing is searched: give a setting several values, such as agent.learning_rate=log(1e-5,1e-2) or "
            "agent.batch_size=32,64"
        )
    if errors:
        raise BadInput(errors)
    return Space(tuple(fixed), tuple(found), seed, tuple(directories))


def _dimension(word: str, known: Mapping[str, Mapping[str, str]]) -> Dimension | None:
    """What a word lets a search choose; None where it has one value."""
    key, _, text = word.partition("=")
    call = re.fullmatch(r"(\w+)\((.*)\)", text.strip())
    if call is None or call[1] in LISTS:
        values = compose.values_of(word, known)
        if values == []:
            raise BadInput(f"{word}: there is no value in it")
        return None if values is None else Dimension(key_of(word), "choice", choices=tuple(values))
    if call[1] not in NUMBERS:
        raise BadInput(f"{word}: {unknown('kind of search', call[1], [*NUMBERS, *LISTS])}")
    whole = "int" in call[1]
    try:
        low, high = (convert(part.strip(), int if whole else float, "it") for part in call[2].split(","))
    except (SettingsError, ValueError):
        what = "whole numbers" if whole else "numbers"
        raise BadInput(f"{word}: {call[1]} takes two {what}, as in {key}={call[1]}(1,8), got {call[2]}") from None
    if low >= high:
        raise BadInput(f"{word}: the first must be less than the second")
    if "log" in call[1] and low <= 0:
        raise BadInput(f"{word}: ratios need numbers above 0, got {call[2]}")
    return Dimension(key_of(word), call[1], (low, high))
