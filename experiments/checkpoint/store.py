"""Checkpoint folders: written whole or not at all, verified by checksums, the newest few kept.

A checkpoint is a folder `<run>/checkpoints/<step, twelve digits>` of

* `state.json` and `state.safetensors`: the plain tree (see codec.py);
* `manifest.json`: the format's number, the step, what it was made with, and each file's size and SHA-256,
  and its own.

A replay buffer lies beside them in segments that several checkpoints share (see replay.py), their checksums in each
manifest. What is being written has a name that starts with a dot until it is complete and on the disk.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from experiments.checkpoint.codec import decode, encode
from experiments.errors import NoCheckpoint

FORMAT = 1
FOLDER, SEGMENTS = "checkpoints", "replay"
STRUCTURE, ARRAYS, MANIFEST = "state.json", "state.safetensors", "manifest.json"

Digest = dict[str, Any]  # {"size": bytes, "sha256": hexadecimal}


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose files agree with its manifest."""

    path: Path
    manifest: Mapping[str, Any]

    @property
    def step(self) -> int:
        """Environment steps taken when it was made."""
        return int(self.manifest["step"])

    def read(self) -> Any:
        """The tree it holds; raises `NoCheckpoint` where the files are what the manifest says, and none of ours."""
        try:
            return decode((self.path / STRUCTURE).read_bytes(), (self.path / ARRAYS).read_bytes())
        except (ValueError, KeyError, TypeError, SafetensorError) as error:
            raise NoCheckpoint(
                f"{self.path} agrees with its checksums and holds no state of a run: {type(error).__name__}: {error}"
            ) from error


@dataclass(frozen=True)
class Rejected:
    """A checkpoint that cannot be used, and why."""

    path: Path
    reason: str


class Store:
    """The checkpoints of one run folder. keep: how many that verify stay there when another is written."""

    def __init__(self, run: Path, keep: int = 2):
        self.folder, self.keep = run / FOLDER, keep
        self._good: set[Path] = set()  # those that this process has written or verified

    def write(
        self, step: int, tree: Any, facts: Mapping[str, Any], segments: Mapping[str, Digest] | None = None
    ) -> Checkpoint:
        """Write a checkpoint, verify it, and let the oldest go. Raises `OSError`; what was there is then as it was.

        facts: what else the manifest says; segments: file name -> digest of the replay segments it needs.
        """
        return self.write_encoded(step, encode(tree), facts, segments)

    def write_encoded(
        self,
        step: int,
        contents: tuple[bytes, bytes],
        facts: Mapping[str, Any],
        segments: Mapping[str, Digest] | None = None,
    ) -> Checkpoint:
        """The same of a tree that `encode` has been given."""
        target = self.folder / f"{step:012d}"
        unfinished = target.with_name(f".{target.name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        named = zip((STRUCTURE, ARRAYS), contents, strict=True)
        digests = {name: write_file(unfinished / name, content) for name, content in named}
        manifest = sealed({"format": FORMAT, "step": step, **facts, "files": digests, "segments": dict(segments or {})})
        write_file(unfinished / MANIFEST, json.dumps(manifest, indent=1).encode())
        if reason := self._fault(Checkpoint(unfinished, manifest), segments=False):
            raise OSError(f"what was written reads back wrong: {reason}")
        _sync(unfinished)
        checkpoint = Checkpoint(target, manifest)
        if target.exists() and self._verified(target) == checkpoint:  # an error came after it had been written
            shutil.rmtree(unfinished)
        else:
            if target.exists():
                self._remove(target)
            unfinished.rename(target)
        self._good.add(target)
        _sync(self.folder)
        self._prune()
        return checkpoint

    def newest(self) -> tuple[Checkpoint | None, list[Rejected]]:
        """The newest checkpoint that verifies, or None, and the newer ones that do not."""
        rejected: list[Rejected] = []
        for path in reversed(self._complete()):
            found = self._verified(path)
            if isinstance(found, Checkpoint):
                return found, rejected
            rejected.append(found)
        return None, rejected

    def verify(self) -> list[Checkpoint | Rejected]:
        """Every checkpoint there is, oldest first; also those of a newer format, as such."""
        found: list[Checkpoint | Rejected] = []
        for path in self._complete():
            try:
                found.append(self._verified(path))
            except NoCheckpoint as error:
                found.append(Rejected(path, error.lines[0]))
        return found

    def clean(self) -> list[Path]:
        """Remove what was never completed; what it was."""
        leftovers = sorted(self.folder.glob(".*")) if self.folder.is_dir() else []
        for path in leftovers:
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
        return leftovers

    def discard(self, rejected: list[Rejected]) -> None:
        """Put damaged checkpoints aside, under a name that is never used again."""
        for one in rejected:
            one.path.rename(one.path.with_name(f"{one.path.name}.damaged"))

    def _complete(self) -> list[Path]:
        found = self.folder.glob("[0-9]*") if self.folder.is_dir() else ()
        return sorted(path for path in found if path.name.isdigit())

    def _verified(self, path: Path) -> Checkpoint | Rejected:
        try:
            manifest = json.loads((path / MANIFEST).read_text("utf-8"))
            if manifest != sealed(manifest):
                return Rejected(path, f"{MANIFEST} does not agree with its own SHA-256")
            if manifest["format"] > FORMAT:
                raise NoCheckpoint(
                    f"{path} has format {manifest['format']} and this version of Pliant reads up to {FORMAT}: "
                    "resume with the version that wrote it, or a newer one"
                )
            checkpoint = Checkpoint(path, manifest)
            if checkpoint.step != int(path.name):
                return Rejected(path, f"{MANIFEST} says that it is of step {checkpoint.step:,}")
            fault = self._fault(checkpoint)
        except (OSError, ValueError, KeyError, TypeError) as error:
            return Rejected(path, f"{MANIFEST} cannot be read: {type(error).__name__}: {error}")
        return checkpoint if fault is None else Rejected(path, fault)

    def _fault(self, checkpoint: Checkpoint, segments: bool = True) -> str | None:
        wanted = {checkpoint.path / name: digest for name, digest in checkpoint.manifest["files"].items()}
        if segments:
            folder = self.folder / SEGMENTS
            wanted |= {folder / name: digest for name, digest in checkpoint.manifest["segments"].items()}
        return next((fault for path, digest in wanted.items() for fault in _difference(path, digest)), None)

    def _prune(self) -> None:
        """Keep the newest that verify, and of the replay segments those that they need."""
        kept: list[Path] = []
        for path in reversed(self._complete()):
            if len(kept) == self.keep:
                self._remove(path)
            elif self._is_good(path):
                kept.append(path)
        for path in self.folder.glob("*.damaged"):
            shutil.rmtree(path, ignore_errors=True)
        needed = set()
        for path in kept:
            with suppress(OSError, ValueError, KeyError, TypeError):  # one that was damaged since has no use for any
                needed |= set(json.loads((path / MANIFEST).read_text("utf-8"))["segments"])
        for path in (self.folder / SEGMENTS).glob("*"):
            if path.name not in needed:
                path.unlink(missing_ok=True)

    def _is_good(self, path: Path) -> bool:
        """Whether a checkpoint verifies, or did so once, since all bytes of it and of its segments have to be read."""
        if path not in self._good:
            with suppress(NoCheckpoint):
                if isinstance(self._verified(path), Checkpoint):
                    self._good.add(path)
        return path in self._good

    def _remove(self, path: Path) -> None:
        """Gone at once under its own name, even if the process ends while its files are being removed."""
        self._good.discard(path)
        doomed = path.with_name(f".{path.name}.removed")
        shutil.rmtree(doomed, ignore_errors=True)
        path.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)


def sealed(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """A manifest with the checksum of all else that it says."""
    rest = {key: value for key, value in manifest.items() if key != "sha256"}
    return {**rest, "sha256": hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()}


def write_file(path: Path, content: bytes) -> Digest:
    """Write a file through to the disk; its size and checksum."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def replace_file(path: Path, content: bytes) -> Digest:
    """The same, in place of what was there, whole or not at all."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    digest = write_file(unfinished, content)
    unfinished.replace(path)
    _sync(path.parent)
    return digest


def _difference(path: Path, digest: Digest) -> Iterator[str]:
    try:
        content = path.read_bytes()
    except OSError as error:
        yield f"{path.name} cannot be read: {error.strerror}"
        return
    if len(content) != digest["size"]:
        yield f"{path.name} has {len(content):,} bytes, its manifest says {digest['size']:,}"
    elif (found := hashlib.sha256(content).hexdigest()) != digest["sha256"]:
        yield f"{path.name} has SHA-256 {found[:12]}..., its manifest says {digest['sha256'][:12]}..."


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
