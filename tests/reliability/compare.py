"""Whether two runs are the same: their last checkpoints leaf by leaf, their tables and their curves."""

from __future__ import annotations

import csv
import hashlib
import io
import re
import zipfile
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from experiments.checkpoint.store import Checkpoint, Store

# What is of the clock, or of the files' names: seconds in the infos of episodes, the names of event files.
CLOCK = re.compile(r"\.episodes\.infos\[\d+\]\.t|\.files\.events\..*")
STEP = "time/total_timesteps"
Points = list[tuple[int, float]]


def newest(folder: Path) -> Checkpoint:
    """The newest checkpoint, which must be sound."""
    found, rejected = Store(folder).newest()
    assert found is not None, rejected
    assert not rejected
    return found


def leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Path and value of each leaf; containers' types are leaves too."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from leaves(value, f"{path}.{key}")
    elif isinstance(tree, list | tuple | deque):
        yield f"{path} (type)", type(tree).__name__
        for index, value in enumerate(tree):
            yield from leaves(value, f"{path}[{index}]")
    else:
        yield path, tree.numpy() if isinstance(tree, torch.Tensor) else tree


def state(folder: Path) -> dict[str, Any]:
    """The leaves of the newest checkpoint, without those of the clock."""
    return {path: value for path, value in leaves(newest(folder).read()) if not CLOCK.fullmatch(path)}


def differing(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """The paths of leaves that are not equal to the last bit."""
    return [path for path in {**one, **other} if not _same(one.get(path), other.get(path))]


def curves(folder: Path) -> dict[str, Points]:
    """TensorBoard's series by tag, without those of the clock."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    tags = [tag for tag in events.Tags()["scalars"] if not tag.startswith("time/")]
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in tags}


def table(path: Path) -> list[dict[str, str]]:
    """A CSV file's rows, without the columns of the clock."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [{k: v for k, v in row.items() if not k.startswith("time/") or k == STEP} for row in rows]


def weights(folder: Path) -> dict[str, Any]:
    """The networks in `model.zip`, read without anything of ours."""
    with zipfile.ZipFile(folder / "model.zip") as archive:
        states = torch.load(io.BytesIO(archive.read("policy.pth")), "cpu", weights_only=True)
    return {name: value.numpy() for name, value in states.items() if isinstance(value, torch.Tensor)}


def assert_equal_runs(one: Path, other: Path) -> None:
    """To the last bit, in all that a run leaves but the clock's."""
    assert newest(one).step == newest(other).step
    assert differing(state(one), state(other)) == []
    assert differing(weights(one), weights(other)) == []
    first, second = curves(one), curves(other)
    assert first.keys() == second.keys()
    assert [tag for tag in first if first[tag] != second[tag]] == []
    for name in ("progress.csv", "episodes.csv", "regimes.csv"):
        assert table(one / name) == table(other / name), name


def contents(folder: Path) -> dict[str, str]:
    """Checksum by path of all files in a folder: what "nothing was changed" is about."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _same(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, np.ndarray | np.generic):
        return (one.shape, one.dtype, one.tobytes()) == (other.shape, other.dtype, other.tobytes())
    return bool(one == other or (one != one and other != other))
