"""Training goes on while a checkpoint is being written, and none of the promises is given up for that."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments.checkpoint import saver
from experiments.checkpoint.codec import decode, encode
from experiments.checkpoint.pieces import take
from experiments.checkpoint.store import Checkpoint, Store
from experiments.errors import StorageFailure
from experiments.growing import GrowingFile, Losses, sync
from experiments.session import Session
from tests.experiments.sessions import PPO, SAC, Setup, begin, differences, finish

WAIT = 20.0  # seconds, for what takes milliseconds


class Disk:
    """One that writes when it is let, and fails the first so many times."""

    def __init__(self, store: Store):
        self.write, self.let, self.failures, self.attempts = store.write_encoded, threading.Event(), 0, 0
        self.let.set()
        store.write_encoded = self  # type: ignore[method-assign, assignment]

    def __call__(self, *arguments: Any) -> Any:
        assert self.let.wait(WAIT)
        self.attempts += 1
        if self.attempts <= self.failures:
            raise OSError(28, "No space left on device")
        return self.write(*arguments)


Start = Callable[..., tuple[Session, Disk]]


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Start]:
    """A run with its first checkpoint, and its disk; a rollout is a step forward of its counter."""
    sessions = []

    def start(setup: Setup = PPO, every: int | None = 1) -> tuple[Session, Disk]:
        session = begin(setup, tmp_path / "run", every)
        sessions.append(session)
        session.model._setup_learn(1000)
        disk = Disk(session.saver.store)
        assert session.saver()
        return session, disk

    yield start
    for session in sessions:
        session.saver.close()
        session.model.env.close()


def saved(session: Session) -> list[int]:
    folder = session.saver.store.folder
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())


def step(session: Session, steps: int = 32) -> None:
    model: Any = session.model
    model.num_timesteps += steps
    if hasattr(model, "replay_buffer"):
        model.replay_buffer.pos += steps


def test_the_first_is_on_the_disk_before_the_first_rollout(started: Start) -> None:
    session, _ = started()
    assert saved(session) == [0]
    assert session.saver.saved.step == 0


def test_training_goes_on_while_one_is_written(started: Start) -> None:
    session, disk = started()
    disk.let.clear()
    step(session)
    assert session.saver()
    assert saved(session) == [0]
    assert session.saver.saved.step == 0
    disk.let.set()
    session.saver.wait()
    assert saved(session) == [0, 32]
    assert session.saver.saved.step == 32


def test_what_is_written_is_what_was_there_when_it_was_begun(started: Start) -> None:
    """Though everything changes before the disk takes it: weights, moments, environments, observations, streams."""
    session, disk = started()
    model = session.model
    model.learn(32, reset_num_timesteps=False)
    expected = decode(*encode(take(session.training)))
    disk.let.clear()
    session.saver._thread.submit(disk.let.wait, WAIT)  # nothing is done there until then
    session.saver.begin()
    model.learn(32, reset_num_timesteps=False)
    for tensor in model.policy.state_dict().values():
        if torch.is_tensor(tensor) and tensor.is_floating_point():
            tensor.fill_(7)
    for state in model.policy.optimizer.state.values():
        for value in state.values():
            if torch.is_tensor(value):
                value.fill_(7)
    model._last_obs[...] = 7
    disk.let.set()
    session.saver.wait()
    found = session.saver.saved.read()
    assert list(differences(expected, found)) == []
    assert list(differences(decode(*encode(take(session.training))), found))


def test_the_rows_it_counts_on_are_on_the_disk_before_it(started: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """And training does not wait for them either."""
    session, _ = started(Setup((*PPO.words, "logging.tensorboard=true")))
    session.model.learn(32, reset_num_timesteps=False)
    session.logger.record("rollout/any", 1.0)
    session.logger.dump(32)
    session.recorder._rows.append((32, 0, 0, 1.0, 8))
    done: list[Path] = []
    fsync, rename = os.fsync, Path.rename

    def synced(descriptor: int) -> None:
        assert threading.current_thread() is not threading.main_thread()
        done.append(Path(f"/proc/self/fd/{descriptor}").resolve())
        fsync(descriptor)

    def renamed(path: Path, target: Path) -> Path:
        done.append(target)
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "rename", renamed)
    session.saver.save()
    complete = done.index(session.saver.saved.path)
    folder = session.saver.store.folder.parent
    growing = {folder / "progress.csv", folder / "episodes.csv", *folder.glob("events.out.tfevents.*")}
    assert len(growing) == 3
    assert growing <= set(done[:complete])


def test_rows_that_come_while_others_are_synced_do_no_harm(tmp_path: Path) -> None:
    """Nor does a file that is closed, replaced or gone by then."""
    file = GrowingFile(tmp_path / "rows.csv", Losses())
    file.append(b"one\n", 1)
    file.close()
    sync([file.path, tmp_path / "gone.csv"])
    file.replace(b"other\n", 2)
    sync([file.path])
    file.append(b"two\n", 3)
    assert file.path.read_bytes() == b"other\ntwo\n"


def test_one_at_a_time(started: Start) -> None:
    """The second waits for the first, whose cleaning up must not take the segment that the second puts there."""
    session, disk = started(SAC)
    disk.let.clear()
    step(session, 1)
    assert session.saver()
    step(session, 1)
    second = threading.Thread(target=session.saver)
    second.start()
    second.join(0.3)
    assert second.is_alive()
    disk.let.set()
    second.join(WAIT)
    assert not second.is_alive()
    session.saver.wait()
    found = session.saver.store.verify()
    assert [one.step for one in found if isinstance(one, Checkpoint)] == [1, 2]


def test_what_is_being_written_is_due_no_more(started: Start) -> None:
    session, disk = started(every=32)
    disk.let.clear()
    step(session)
    assert session.saver()
    step(session, 16)
    assert session.saver()  # and does not wait
    disk.let.set()
    session.saver.wait()
    assert (saved(session), disk.attempts) == ([0, 32], 2)


def test_a_stop_waits(started: Start) -> None:
    session, disk = started()
    session.saver.stopping = lambda: True
    disk.let.clear()
    threading.Timer(0.3, disk.let.set).start()
    step(session)
    assert not session.saver()
    assert disk.let.is_set()
    assert saved(session) == [0, 32]
    assert session.saver.saved.step == 32


def test_a_stop_in_the_middle_of_something_waits_for_what_was_begun(
    started: Start,
) -> None:
    session, disk = started()
    disk.let.clear()
    step(session)
    assert session.saver()
    session.saver.stopping, session.saver.complete = (lambda: True), (lambda: False)
    threading.Timer(0.3, disk.let.set).start()
    step(session)
    assert not session.saver()
    assert session.saver.saved.step == 32


def test_a_full_disk_is_tried_again_and_then_ends_the_run_between_rollouts(
    started: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saver, "PAUSE", 0.001)
    session, disk = started(every=32)
    first = disk.attempts
    disk.failures = first + 2
    step(session)
    assert session.saver()
    session.saver.wait()
    assert (saved(session), disk.attempts) == ([0, 32], first + 3)
    disk.failures = first + 100
    step(session)
    assert session.saver()
    with suppress(StorageFailure):
        session.saver._writing.result(WAIT)
    step(session, 1)
    with pytest.raises(StorageFailure, match=r"no checkpoint of step 64 could be written in 3 attempts: ") as caught:
        session.saver()
    assert caught.value.exit_code == 7
    assert (saved(session), session.saver.saved.step) == ([0, 32], 32)
    session.saver.close()  # and says it once


def test_a_run_that_fails_keeps_what_was_being_written(started: Start) -> None:
    session, disk = started()
    disk.let.clear()

    def stopping() -> bool:
        if session.model.num_timesteps < 64:
            return False
        threading.Timer(0.3, disk.let.set).start()
        raise ZeroDivisionError

    session.saver.stopping = stopping
    with pytest.raises(ZeroDivisionError):
        session.learn()
    assert saved(session) == [0, 32]
    assert session.saver.saved.step == 32


def test_a_run_ends_with_its_last_checkpoint_on_the_disk(tmp_path: Path) -> None:
    session = begin(PPO, tmp_path / "run", 32)
    disk = Disk(session.saver.store)
    finish(session, tmp_path / "run")
    assert disk.attempts == 6
    assert saved(session) == [128, 160]
    assert session.saver.saved.step == session.model.num_timesteps == 160
