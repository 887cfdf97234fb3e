"""Checkpoints on disk: whole or not at all, whatever happens while they are written or lie there."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import safetensors.numpy
from stable_baselines3.common.buffers import ReplayBuffer

from experiments.checkpoint.pieces import put
from experiments.checkpoint.replay import Segments
from experiments.checkpoint.store import Checkpoint, Rejected, Store
from experiments.errors import NO_CHECKPOINT, NoCheckpoint

FILES = ("manifest.json", "state.json", "state.safetensors")


def tree(step: int) -> dict[str, Any]:
    return {"step": step, "array": np.arange(float(step))}


def write(store: Store, *steps: int) -> list[Checkpoint]:
    return [store.write(step, tree(step), {"made": "here"}) for step in steps]


def steps(store: Store) -> list[int]:
    """Of the checkpoints there are; fails where one does not verify."""
    found = store.verify()
    assert [one for one in found if isinstance(one, Rejected)] == []
    return [one.step for one in found if isinstance(one, Checkpoint)]


def names(store: Store) -> set[str]:
    return {path.name for path in store.folder.iterdir()}


def flip(path: Path, place: int = -1) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def test_the_newest_is_read_back(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.newest() == (None, [])
    assert store.verify() == []
    assert store.clean() == []
    write(store, 5, 1000)
    newest, rejected = store.newest()
    assert newest is not None
    assert (newest.step, rejected) == (1000, [])
    assert newest.path == tmp_path / "checkpoints" / "000000001000"
    assert newest.manifest["made"] == "here"
    assert newest.read()["step"] == 1000
    assert np.array_equal(newest.read()["array"], tree(1000)["array"])
    assert {path.name for path in newest.path.iterdir()} == set(FILES)


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    store = Store(tmp_path, keep=3)
    for number, step in enumerate((1, 2, 30, 400, 5000), start=1):
        write(store, step)
        assert steps(store) == [1, 2, 30, 400, 5000][max(0, number - 3) : number]
    assert names(store) == {f"{step:012d}" for step in (30, 400, 5000)}


def test_the_same_step_again(tmp_path: Path) -> None:
    store = Store(tmp_path)
    write(store, 1, 2)
    store.write(2, {"other": True}, {})
    newest, _ = store.newest()
    assert newest is not None
    assert newest.read() == {"other": True}
    assert steps(store) == [1, 2]


def test_one_that_was_damaged_does_not_count(tmp_path: Path) -> None:
    write(Store(tmp_path), 1, 2)
    flip(tmp_path / "checkpoints" / "000000000002" / "state.json")
    store = Store(tmp_path)  # of another process
    write(store, 3)
    assert [type(one) for one in store.verify()] == [Checkpoint, Rejected, Checkpoint]
    write(store, 4)
    assert steps(store) == [3, 4]


@pytest.mark.parametrize("name", ["state.json", "state.safetensors"])
@pytest.mark.parametrize("place", [0, 9, -1])
def test_a_flipped_bit_is_found_and_named(name: str, place: int, tmp_path: Path) -> None:
    store = Store(tmp_path)
    write(store, 1, 2)
    flip(tmp_path / "checkpoints" / "000000000002" / name, place)
    newest, (rejected,) = store.newest()
    assert newest is not None
    assert newest.step == 1
    assert rejected.path.name == "000000000002"
    assert rejected.reason.startswith(f"{name} has SHA-256 ")


def test_no_flipped_bit_of_a_manifest_changes_what_is_read(tmp_path: Path) -> None:
    """Whichever it is, the checkpoint is refused, or says the same (a space may become a tab)."""
    store = Store(tmp_path)
    (checkpoint,) = write(store, 4)
    path = checkpoint.path / "manifest.json"
    whole = path.read_bytes()
    for place in range(len(whole)):
        for bit in range(8):
            content = bytearray(whole)
            content[place] ^= 1 << bit
            path.write_bytes(content)
            newest, rejected = store.newest()
            if newest is None:
                assert len(rejected) == 1
            else:
                assert newest.manifest == checkpoint.manifest


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file_is_found_and_named(name: str, tmp_path: Path) -> None:
    store = Store(tmp_path)
    write(store, 1, 2)
    path = tmp_path / "checkpoints" / "000000000002" / name
    content = path.read_bytes()
    for size in (0, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:size])
        newest, (rejected,) = store.newest()
        assert newest is not None
        assert newest.step == 1
        assert rejected.reason.startswith(f"{name} ")
        if name != "manifest.json":
            assert f"has {size:,} bytes, its manifest says {len(content):,}" in rejected.reason
    path.unlink()
    _, (rejected,) = store.newest()
    assert rejected.reason.startswith(f"{name} cannot be read: ")


def test_one_under_the_name_of_another_step_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path)
    (one,) = write(store, 1)
    one.path.rename(one.path.with_name("000000000009"))
    newest, (rejected,) = store.newest()
    assert newest is None
    assert rejected.reason == "manifest.json says that it is of step 1"


def test_leftovers_are_removed_and_nothing_else(tmp_path: Path) -> None:
    store = Store(tmp_path)
    write(store, 1, 2)
    (store.folder / ".000000000003.unfinished").mkdir()
    (store.folder / ".000000000003.unfinished" / "state.json").write_text("{")
    (store.folder / ".file").write_text("")
    (store.folder / "notes").write_text("mine")
    assert [path.name for path in store.clean()] == [".000000000003.unfinished", ".file"]
    assert names(store) == {"000000000001", "000000000002", "notes"}
    assert store.clean() == []
    assert steps(store) == [1, 2]


def test_a_leftover_does_not_keep_from_writing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    (store.folder / ".000000000003.unfinished").mkdir(parents=True)
    (store.folder / ".000000000003.unfinished" / "more").write_text("x")
    (checkpoint,) = write(store, 3)
    assert {path.name for path in checkpoint.path.iterdir()} == set(FILES)


def test_damaged_ones_are_put_aside_until_the_next_is_written(tmp_path: Path) -> None:
    store = Store(tmp_path)
    write(store, 1, 2)
    flip(tmp_path / "checkpoints" / "000000000002" / "state.json")
    store.discard(store.newest()[1])
    assert names(store) == {"000000000001", "000000000002.damaged"}
    assert store.newest()[1] == []
    write(store, 2)
    assert names(store) == {"000000000001", "000000000002"}


def test_a_newer_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    write(store, 1)
    with monkeypatch.context() as patch:
        patch.setattr("experiments.checkpoint.store.FORMAT", 12)
        write(store, 2)
    with pytest.raises(NoCheckpoint, match="has format 12 and this version of Pliant reads up to 1: ") as caught:
        store.newest()
    assert caught.value.exit_code == NO_CHECKPOINT == 5
    assert [type(one) for one in store.verify()] == [Checkpoint, Rejected]


def test_a_manifest_that_was_damaged_since_does_not_keep_from_saving(tmp_path: Path) -> None:
    store = Store(tmp_path)
    write(store, 1, 2)
    (tmp_path / "checkpoints" / "000000000002" / "manifest.json").write_text("{")
    write(store, 3)
    newest, _ = store.newest()
    assert newest is not None
    assert newest.step == 3


def test_what_reads_back_wrong_is_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that loses what it was given."""
    store = Store(tmp_path)
    write(store, 1, 2)
    fsync = os.fsync

    def losing(descriptor: int) -> None:
        fsync(descriptor)
        if (size := os.fstat(descriptor).st_size) and os.readlink(f"/proc/self/fd/{descriptor}").endswith("tensors"):
            os.truncate(descriptor, size - 1)

    monkeypatch.setattr(os, "fsync", losing)
    with pytest.raises(OSError, match=r"what was written reads back wrong: state\.safetensors has "):
        write(store, 3)
    assert steps(store) == [1, 2]


class Killed(BaseException):
    """In place of the end of the process."""


@contextmanager
def killing(monkeypatch: pytest.MonkeyPatch, at: int, error: type[BaseException] = Killed) -> Iterator[list[str]]:
    """End before the `at`-th operation that changes the disk; what had been done by then."""
    done: list[str] = []

    def counted(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> Any:
            if len(done) == at:
                raise error(name)
            done.append(name)
            return original(*arguments, **keywords)

        return call

    with monkeypatch.context() as patch:
        for name in ("fsync", "rename", "replace", "mkdir", "unlink", "rmdir", "open"):
            patch.setattr(os, name, counted(name, getattr(os, name)))
        patch.setattr(Path, "open", counted("Path.open", Path.open))
        with suppress(error):
            yield done


def small_buffer(size: int = 8, n_envs: int = 2) -> ReplayBuffer:
    spaces = gym.spaces.Box(-1, 1, (3,)), gym.spaces.Box(-1, 1, (1,))
    return ReplayBuffer(size * n_envs, *spaces, device="cpu", n_envs=n_envs)


def fill(buffer: ReplayBuffer, rows: int, random: np.random.Generator) -> None:
    for _ in range(rows):
        n = buffer.n_envs
        observations = random.normal(size=(2, n, 3)).astype(np.float32)
        infos = [{"TimeLimit.truncated": bool(random.integers(2))} for _ in range(n)]
        actions, dones = random.normal(size=(n, 1)).astype(np.float32), random.integers(2, size=n)
        buffer.add(observations[0], observations[1], actions, random.normal(size=n), dones, infos)


@pytest.mark.parametrize("present", [0, 1, 2, 3])
def test_killed_between_any_two_operations(present: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was kept before is still there and verifies, or the new one is; segments too; nothing half is taken."""
    at, ended = 0, False
    while not ended:
        run = tmp_path / str(at)
        store, segments, buffer = Store(run), Segments(run), small_buffer()
        random = np.random.default_rng(0)
        before: list[int] = []
        for step in [5, 10, 15][:present]:
            fill(buffer, 5, random)
            found = segments.write(buffer, step)
            store.write(step, tree(step), {}, found)
            before = steps(store)
        fill(buffer, 5, random)
        new = 5 * present + 5
        with killing(monkeypatch, at) as done:
            found = segments.write(buffer, new)
            store.write(new, tree(new), {}, found)
        ended = len(done) < at
        after = steps(store)
        assert len(after) >= min(2, len(before))
        assert set(after) <= {*before, new}
        assert after[-1:] in (before[-1:], [new])
        store.clean()
        assert steps(store) == after
        newest, rejected = store.newest()
        assert rejected == []
        if newest is not None:
            assert newest.read()["step"] == newest.step
            other = small_buffer()
            Segments(run).read(other, newest.step, dict(newest.manifest["segments"]))
            assert other.pos == newest.step % 8
        again = Segments(run)  # and the next process can go on
        again.written = {} if newest is None else dict(newest.manifest["segments"])
        store.write(new, tree(new), {}, again.write(buffer, new))
        assert steps(store)[-1] == new
        assert {path.name for path in again.folder.iterdir()} >= set(again.written)
        at += 1
    assert at > 15


def test_an_error_at_any_operation_leaves_what_there_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk, say; then it is tried again."""
    at, ended = 0, False
    while not ended:
        store = Store(tmp_path / str(at))
        write(store, 1, 2)
        with killing(monkeypatch, at, OSError) as done:
            write(store, 3)
        ended = len(done) < at
        after = steps(store)
        assert len(after) >= 2
        assert after[-1] in (2, 3)
        store.clean()
        write(store, 3)
        assert steps(store) == [2, 3]
        assert names(store) == {"000000000002", "000000000003"}
        at += 1
    assert at > 15


def test_after_an_error_that_came_late_there_are_never_fewer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checkpoint is there, and what was to follow failed; while it is tried again all that there is stays."""
    with killing(monkeypatch, 1000) as operations:
        write(Store(tmp_path / "undisturbed"), 1)
    there = operations.index("rename") + 1
    late, ended = 0, False
    while not ended:
        store = Store(tmp_path / str(late))
        write(store, 1, 2)
        with killing(monkeypatch, there + late, OSError) as done:
            write(store, 3)
        ended = len(done) < there + late
        assert 3 in steps(store)
        with monkeypatch.context() as patch:
            for name in ("fsync", "rename", "unlink", "rmdir"):
                patch.setattr(os, name, looking(getattr(os, name), tmp_path / str(late)))
            write(store, 3)
        assert steps(store) == [2, 3]
        late += 1
    assert late > 3


def looking(original: Callable[..., Any], run: Path) -> Callable[..., Any]:
    """See before and after each call that two checkpoints verify."""

    def call(*arguments: Any, **keywords: Any) -> Any:
        assert len(steps(Store(run))) >= 2
        found = original(*arguments, **keywords)
        assert len(steps(Store(run))) >= 2
        return found

    return call


@pytest.mark.parametrize("n_envs", [1, 3])
@pytest.mark.parametrize("seed", range(8))
def test_a_replay_buffer_comes_back_whatever_is_in_it(seed: int, n_envs: int, tmp_path: Path) -> None:
    """Checkpoints at random times, filled several times over; each reads back as it was, and only new rows are kept."""
    random = np.random.default_rng(seed)
    size = int(random.integers(1, 12))
    buffer, rows = small_buffer(size, n_envs), 0
    store, segments = Store(tmp_path), Segments(tmp_path)
    for _ in range(12):
        more = int(random.integers(0, 2 * size + 2))
        fill(buffer, more, random)
        rows += more
        earlier = set(segments.written)
        found = segments.write(buffer, rows)
        store.write(rows, {}, {}, found)
        new = set(found) - earlier
        assert sum(length(tmp_path, name) for name in new) == min(more, size)
        assert sum(length(tmp_path, name) for name in found) < 2 * size + max(more, size)
        other = small_buffer(size, n_envs)
        again = Segments(tmp_path)
        again.read(other, rows, found)
        assert again.written == segments.written
        assert (other.pos, other.full, other.size()) == (buffer.pos, buffer.full, buffer.size())
        for name in ("observations", "next_observations", "actions", "rewards", "dones", "timeouts"):
            kept = slice(0, buffer.size())
            assert getattr(other, name)[kept].tobytes() == getattr(buffer, name)[kept].tobytes()
        if random.integers(3) == 0:  # resumed: the rest of the run goes on with what was read
            buffer, segments = other, again
    kept_by = {name for one in store.verify() if isinstance(one, Checkpoint) for name in one.manifest["segments"]}
    assert {path.name for path in segments.folder.iterdir()} == kept_by


def test_a_buffer_that_has_just_become_full(tmp_path: Path) -> None:
    buffer, other = small_buffer(), small_buffer()
    fill(buffer, 8, np.random.default_rng(0))
    Segments(tmp_path).read(other, 8, Segments(tmp_path).write(buffer, 8))
    assert (other.pos, other.full, other.size()) == (0, True, 8)


def length(run: Path, name: str) -> int:
    """Rows in a segment."""
    return len(safetensors.numpy.load_file(run / "checkpoints" / "replay" / name)["rewards"])


def test_a_segment_is_as_large_as_its_rows(tmp_path: Path) -> None:
    buffer, segments = small_buffer(1000), Segments(tmp_path)
    random = np.random.default_rng(0)
    sizes = []
    for rows in (500, 501, 511):
        fill(buffer, rows - sum((500, 1, 10)[: len(sizes)]), random)
        found = segments.write(buffer, rows)
        sizes.append(found[max(found)]["size"])
    row = (sizes[0] - sizes[2]) / 490
    assert row == pytest.approx(2 * (3 + 3 + 1 + 1 + 1 + 1) * 4, rel=0.01)


def test_a_buffer_that_stands_elsewhere_is_refused(tmp_path: Path) -> None:
    buffer = small_buffer()
    fill(buffer, 3, np.random.default_rng(0))
    with pytest.raises(ValueError, match="stands at row 3, not at 4"):
        Segments(tmp_path).write(buffer, 4)


def test_a_flipped_bit_in_a_segment_is_named(tmp_path: Path) -> None:
    store, segments, buffer = Store(tmp_path), Segments(tmp_path), small_buffer()
    random = np.random.default_rng(0)
    for rows in (3, 6):
        fill(buffer, 3, random)
        store.write(rows, {}, {}, segments.write(buffer, rows))
    flip(segments.folder / "000000000003-000000000006.safetensors")
    newest, (rejected,) = store.newest()
    assert newest is not None
    assert newest.step == 3
    assert rejected.reason.startswith("000000000003-000000000006.safetensors has SHA-256")


def test_a_tree_of_another_version_is_refused_by_name() -> None:
    training: Any = None
    with pytest.raises(
        NoCheckpoint, match=r'"policy" of the checkpoint does not fit this run: KeyError: .*overwrite=true'
    ):
        put(training, {})
