"""What it costs to be able to resume: the time and size of a checkpoint, and the speed a run loses to them.

python benchmarks/checkpoint_cost.py    # about five minutes of one core, 2 GB of disk

PPO on Slippery Ant as `python train.py` runs it (two networks of 2 x 256 units, continual backprop, eight environments)
is run twice, in turns of one rollout and its update: once saving before each rollout, once not at all. So load on the
machine slows both alike; the difference of two neighbours is what saving cost, and beside it each save is timed by
itself: how long it holds up training, and how long it takes until it is on the disk, which a thread sees to meanwhile.
The loss of a run by default settings follows from the former and the minutes between two.

SAC has a replay buffer of a million transitions, filled directly. A save after 10,000 new transitions, which writes
those, is compared with one that writes the whole buffer. docs/reliability.md is written from the result,
docs/data/checkpoint_cost.json.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Semaphore
from typing import Any

import numpy as np
from rich.console import Console

from experiments.checkpoint.store import Checkpoint
from experiments.command_line import configuration
from experiments.resume import Found
from experiments.run import Run, assembled, occupied
from experiments.run_settings import CheckpointSettings
from experiments.session import Session

RESULT = Path(__file__).parent.parent / "docs" / "data" / "checkpoint_cost.json"
ROLLOUTS, FEW = 20, 10  # turns of each PPO run; saves of SAC
NEW = 10_000  # transitions between two saves of SAC
ENDLESS = "total_steps=1_000_000_000"
Numbers = dict[str, Any]


@contextmanager
def session(folder: Path, *words: str) -> Iterator[Session]:
    """A run as train.py makes it, ready to learn; it says nothing."""
    words = (*words, ENDLESS, f"run.dir={folder}")
    config, choices = configuration(words, [])
    run = Run(config, choices, words, ["python", "benchmarks/checkpoint_cost.py"])
    with occupied(run) as stop, assembled(run, Found(), stop, Console(quiet=True)) as one:
        yield one


class Turns:
    """Seconds of one session's turns; it waits for `mine` before each and leaves the next to `other`."""

    def __init__(self, one: Session, mine: Semaphore, other: Semaphore):
        self.one, self.mine, self.other = one, mine, other
        self.seconds: list[float] = []
        self._began: float | None = None
        one.saver.stopping = self.over  # asked between an update and the next rollout, just before saving

    def over(self) -> bool:
        """End a turn and wait for the next; whether that was the last."""
        if self._began is not None:
            self.seconds.append(time.perf_counter() - self._began)
            self.other.release()
        if len(self.seconds) > ROLLOUTS:
            return True
        self.mine.acquire()
        self._began = time.perf_counter()
        return False

    def learn(self) -> None:
        try:
            self.one.learn()
        finally:
            self.other.release()


def ppo(folder: Path) -> Numbers:
    """A save of PPO, and what saving before each rollout adds to a rollout and its update."""
    saving = ("run.checkpoint.every=1", "run.checkpoint.minutes=null")
    with session(folder / "with", *saving) as one, session(folder / "without", "run.checkpoint.minutes=1e9") as two:
        saves = Saves(one)
        first, second = Semaphore(1), Semaphore(0)
        turns = [Turns(one, first, second), Turns(two, second, first)]
        with ThreadPoolExecutor() as pool:
            for done in [pool.submit(turn.learn) for turn in turns]:
                done.result()
        with_, without = (turn.seconds[1:ROLLOUTS] for turn in turns)  # both save in their first
        steps, saved = one.model.n_steps * one.model.n_envs, one.saver.saved
    assert saved is not None
    held = statistics.median(saves.held)
    extra = sorted(more - less for more, less in zip(with_, without, strict=True))
    rollout, minutes = statistics.median(without), CheckpointSettings().minutes
    assert minutes is not None
    return {
        "saves": len(saves.held),
        "held_up_ms": round(1e3 * held, 1),
        "held_up_ms_low_high": [round(1e3 * bound, 1) for bound in quartiles(saves.held)],
        "held_up_cpu_ms": round(1e3 * statistics.median(saves.busy), 1),
        "on_disk_ms": round(1e3 * statistics.median(saves.whole), 1),
        "on_disk_ms_low_high": [round(1e3 * bound, 1) for bound in quartiles(saves.whole)],
        "bytes": size(saved),
        "rollout_steps": steps,
        "rollout_seconds": round(rollout, 3),
        "extra_ms_each_rollout": round(1e3 * statistics.median(extra), 1),
        "extra_ms_low_high": [round(1e3 * bound, 1) for bound in quartiles(extra)],
        "minutes_between_saves": minutes,
        "share_lost": held / (60 * minutes),
        "share_lost_saving_each_rollout": round(held / rollout, 4),
    }


def sac(folder: Path) -> Numbers:
    """Saves of SAC with a full replay buffer."""
    with session(folder / "sac", "agent=sac", "run.checkpoint.minutes=1e9") as one:
        model, saver, saves = one.model, one.saver, Saves(one)
        buffer, copies = model.replay_buffer, model.n_envs
        rng = np.random.default_rng(0)
        for name in ("observations", "next_observations", "actions", "rewards"):
            array = getattr(buffer, name)
            for rows in np.array_split(np.arange(len(array)), 100):
                array[rows] = rng.normal(size=array[rows].shape)
        buffer.full = True
        model._setup_learn(10)
        model.num_timesteps = buffer.buffer_size * copies
        found = {"transitions": buffer.buffer_size * copies, "copies": copies, "new": NEW}
        for name, repeats in (("all", 3), ("new", FEW)):
            written = 0
            for _ in range(repeats):
                model.num_timesteps += NEW
                buffer.pos = (buffer.pos + NEW // copies) % buffer.buffer_size
                if name == "all":
                    one.training.segments.written = {}
                before = set(one.training.segments.written)
                saved = saver.save()
                assert saved is not None
                segments = one.training.segments.written
                written = size(saved) + sum(segments[key]["size"] for key in segments.keys() - before)
            found[name] = {
                "saves": repeats,
                "held_up_ms": round(1e3 * statistics.median(saves.held[-repeats:]), 1),
                "on_disk_ms": round(1e3 * statistics.median(saves.whole[-repeats:]), 1),
                "on_disk_ms_low_high": [round(1e3 * edge(saves.whole[-repeats:]), 1) for edge in (min, max)],
                "bytes": written,
            }
        one.bar.close()
        model.logger.close()
    return found


class Saves:
    """Seconds of each save of a session, from now on.

    held: that training waited, on the clock; busy: of its thread's processor time; whole: until it was on the disk.
    """

    def __init__(self, one: Session):
        self.held: list[float] = []
        self.busy: list[float] = []
        self.whole: list[float] = []
        self._saver, self._begin, self._write = one.saver, one.saver.begin, one.saver.store.write_encoded
        self._began = 0.0
        one.saver.begin = self.begin  # type: ignore[method-assign]
        one.saver.store.write_encoded = self.write  # type: ignore[method-assign, assignment]

    def begin(self) -> None:
        self._saver.wait()  # for the one before, whose end is none of this one's
        start, busy = time.perf_counter(), time.thread_time()
        self._began = start
        self._begin()
        self.held.append(time.perf_counter() - start)
        self.busy.append(time.thread_time() - busy)

    def write(self, *arguments: Any) -> Checkpoint:
        written = self._write(*arguments)
        self.whole.append(time.perf_counter() - self._began)
        return written


def quartiles(values: list[float]) -> tuple[float, float]:
    low, _, high = statistics.quantiles(values, n=4)
    return low, high


def size(saved: Checkpoint) -> int:
    """Bytes of a checkpoint without its replay segments."""
    return sum(digest["size"] for digest in saved.manifest["files"].values())


def conditions() -> dict[str, dict[str, Any]]:
    """What the numbers were measured on and with."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text("utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "machine": {"processor": names[0] if names else platform.machine(), "cores": os.cpu_count() or 1},
        "versions": {name: importlib.metadata.version(name) for name in ("torch", "safetensors", "mujoco")}
        | {"Python": platform.python_version()},
    }


def main(say: Callable[[str], None] = print) -> None:
    """Measure, say what came out, and write it down."""
    found: dict[str, Any] = conditions()
    with tempfile.TemporaryDirectory() as folder:
        one = found["ppo"] = ppo(Path(folder))
        say(
            f"PPO on Slippery Ant: a save of {one['bytes'] / 1e6:.1f} MB holds up training for {one['held_up_ms']} ms "
            f"({one['held_up_cpu_ms']} of processor time), is on the disk after {one['on_disk_ms']} ms; before each "
            f"rollout of {one['rollout_seconds']} s adds {one['extra_ms_each_rollout']} ms; a save each "
            f"{one['minutes_between_saves']:g} minutes, as by default, costs {one['share_lost']:.4%}"
        )
        two = found["sac"] = sac(Path(folder))
        for name in ("new", "all"):
            numbers = two[name]
            say(
                f"SAC with {two['transitions']:,} transitions, {'all' if name == 'all' else NEW} of them new: "
                f"held up for {numbers['held_up_ms']:,} ms, {numbers['bytes'] / 1e6:,.1f} MB on the disk after "
                f"{numbers['on_disk_ms']:,} ms"
            )
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(found, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
