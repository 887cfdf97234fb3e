"""The cells of a sweep: a run for each combination of what its words name, every one of them checked before any begins.

A cell is an ordinary run, with the words that one would type for it and the folder that it would have then.
"""

from __future__ import annotations

import itertools
import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from experiments import compose
from experiments.build import device_faults, planned_steps
from experiments.environment import environment_faults
from experiments.errors import BadInput
from experiments.folder import run_folder
from experiments.schema import Config, validate
from experiments.sweep import named
from experiments.sweep.named import key_of
from experiments.trackers import tracker_faults

SEED = "seed"
METHODS = "plasticity"


@dataclass(frozen=True)
class Cell:
    """A run of a sweep. values: axis -> its value here; words: what one would type; steps: how many it will take."""

    values: Mapping[str, str]
    words: tuple[str, ...]
    folder: Path
    steps: int

    @property
    def command(self) -> str:
        """The command that does this run alone."""
        return shlex.join(["python", "train.py", *self.words])

    @property
    def label(self) -> str:
        """The cell in a few words."""
        return " ".join(f"{key}={value}" for key, value in self.values.items()) or self.folder.name


@dataclass(frozen=True)
class Plan:
    """What a sweep is made of. words: of every cell; axes: key -> values, in the order in which they were given."""

    words: tuple[str, ...]
    axes: Mapping[str, tuple[str, ...]]


def plan(typed: Sequence[str], directories: Sequence[Path] = ()) -> Plan:
    """The words of a command line, and of the file that `sweep=` names, sorted into words and axes.

    What is typed wins over the file, an axis over a word and a word over an axis. Raises `BadInput`.
    """
    files = [word for word in typed if key_of(word) == "sweep"]
    if len(files) > 1:
        raise BadInput(f"{' '.join(files)}: one sweep at a time")
    typed = [word for word in typed if word not in files]
    file = named.read(files[0].partition("=")[2], directories) if files else None
    mine = {key_of(word) for word in typed}
    words = [word for word in (file.words if file else ()) if key_of(word) not in mine]
    given = [f"{key}={text}" for key, text in (file.axes if file else {}).items() if key not in mine]
    if file and "run.root" not in {key_of(word) for word in (*words, *mine)}:
        words.append(f"run.root=runs/{file.name}")
    known, axes, errors = compose.available(directories), dict[str, tuple[str, ...]](), list[str]()
    for word in [*words, *given, *typed]:
        try:
            values = compose.values_of(word, known)
        except BadInput as error:
            errors += error.lines
            continue
        if values is None:
            words += [word] if word not in words else []
        elif word in words:
            errors.append(f"sweep={file.name if file else ''}: {word} has several values: put it under axes")
        elif key_of(word) in axes:
            errors.append(f"{key_of(word)} is given several values twice")
        elif not values:
            errors.append(f"{word}: there is no value in it")
        elif twice := next((value for value in values if values.count(value) > 1), None):
            errors.append(f"{word}: {twice} is there twice")
        else:
            axes[key_of(word)] = tuple(values)
    if errors:
        raise BadInput(errors)
    return Plan(tuple(words), axes)


def cells(plan: Plan, directories: Sequence[Path] = ()) -> list[Cell]:
    """A cell for each combination, all of one seed before the next; raises `BadInput` with the faults of all of them.

    Each is composed and validated as its run would be, and its environment is built once.
    """
    fixed = list(plan.words)
    if "run.threads" not in {key_of(word) for word in fixed} | set(plan.axes):
        fixed.append("run.threads=1")  # cells side by side
    reader, errors, found = _Reader(directories), dict[str, None](), list[Cell]()
    for values in combinations(plan):
        words = [word for word in fixed if _applies(key_of(word), values, plan)]
        words += [f"{key}={value}" for key, value in values.items()]
        try:
            config, choices = reader.read(words)
        except BadInput as error:
            errors |= dict.fromkeys(error.lines)
            continue
        typed = (*(f"--config-dir={directory}" for directory in directories), *words)
        found.append(Cell(values, typed, run_folder(config, choices), planned_steps(config)))
    errors |= dict.fromkeys(_shared_folders(found))
    if errors:
        raise BadInput(errors)
    return found


def combinations(plan: Plan) -> Iterator[dict[str, str]]:
    """axis -> value for each combination, seeds slowest.

    A setting of a method is left to those whose methods it belongs to, `plasticity.cbp.maturity` to `plasticity=cbp`;
    the others are one cell and not one for each of its values.
    """
    order = sorted(plan.axes, key=lambda key: key != SEED)  # a stable sort
    seen = set()
    for values in itertools.product(*(plan.axes[key] for key in order)):
        all_values = dict(zip(order, values, strict=True))
        kept = {key: all_values[key] for key in plan.axes if _applies(key, all_values, plan)}
        if (text := json.dumps(kept)) not in seen:
            seen.add(text)
            yield kept


def _applies(key: str, values: Mapping[str, str], plan: Plan) -> bool:
    return METHODS not in plan.axes or concerns(key, values[METHODS], plan.axes[METHODS])


def concerns(key: str, chosen: str, choices: Sequence[str]) -> bool:
    """Whether a setting is one for a run with these methods: not of a method that only others of `choices` have."""
    parts = key.split(".")
    if parts[0] != METHODS or len(parts) < 2 or parts[1] in _names(chosen):
        return True
    return not any(parts[1] in _names(choice) for choice in choices)


def _names(choice: str) -> list[str]:
    return re.findall(r"\w+", choice)


class _Reader:
    """Composes and validates words. Composing takes most of a second, so it is done once for all seeds."""

    def __init__(self, directories: Sequence[Path]):
        self.directories = directories
        self._composed: dict[tuple[str, ...], compose.Composed] = {}
        self._judged: dict[str, list[str]] = {}

    def read(self, words: Sequence[str]) -> tuple[Config, Mapping[str, tuple[str, ...]]]:
        seeds = [word for word in words if re.fullmatch(rf"{SEED}=\d+", word)]
        composed = self._compose(tuple(word for word in words if not seeds or key_of(word) != SEED))
        tree = composed.tree | ({SEED: int(seeds[-1].partition("=")[2])} if seeds else {})
        try:
            config = validate(tree)
        except BadInput as error:
            raise BadInput(dict.fromkeys([*composed.errors, *error.lines])) from None
        if faults := [*composed.errors, *_faults(config), *self._world_faults(config)]:
            raise BadInput(faults)
        return config, composed.choices

    def _compose(self, words: tuple[str, ...]) -> compose.Composed:
        if words not in self._composed:
            self._composed[words] = compose.compose(words, self.directories)
        return self._composed[words]

    def _world_faults(self, config: Config) -> list[str]:
        """What building the environment says, which is asked once for all seeds and methods."""
        world = replace(config, env=replace(config.env, schedule_seed=0), seed=0, plasticity={})
        text = json.dumps({**asdict(world), "run": None}, sort_keys=True, default=str)
        if text not in self._judged:
            self._judged[text] = [
                *device_faults(config),
                *environment_faults(config),
                *tracker_faults(config.logging.trackers),
            ]
        return self._judged[text]


def _faults(config: Config) -> Iterator[str]:
    """A cell whose worker is lost begins again, and must find what it has done."""
    wrong = ["run.overwrite=true"] if config.run.overwrite else []
    wrong += [f"run.resume={config.run.resume}"] if config.run.resume != "auto" else []
    for word in wrong:
        yield (
            f"{word}: the runs of a sweep go on with what they have; for new ones remove the folders, or choose others "
            "with run.root=FOLDER"
        )


def _shared_folders(cells: Sequence[Cell]) -> Iterator[str]:
    """A sentence for each folder that two cells would write to."""
    first: dict[Path, Cell] = {}
    for cell in cells:
        other = first.setdefault(cell.folder.absolute(), cell)
        if other is cell:
            continue
        keys = [key for key in cell.values if cell.values[key] != other.values.get(key)]
        differing = " ".join(f"{key}={other.values.get(key)},{cell.values[key]}" for key in keys)
        yield (
            f"two cells would share the folder {cell.folder}, as {differing} is no part of what is learned or comes to "
            "the same: leave one out, or sweep each by itself with another run.root"
        )
