"""The lock on a run's folder: one process at a time writes there, and one that was killed leaves it free."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import struct
import sys
import warnings
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from experiments.errors import Busy

LOCK = ".lock"
_HELD = (errno.EACCES, errno.EAGAIN)  # POSIX allows either
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


class RunLock:
    """Holds `folder` for this process inside a `with` block; raises `Busy`, naming the holder, where another has it.

    An advisory POSIX lock on `<folder>/.lock`, which says in JSON who holds it. The kernel gives it back when the
    process ends in whatever way, so there is never anything to clean up. The folder is made if need be.

    Such a lock belongs to the process and not to the open file: it is lost as soon as this process closes the file,
    through whichever of its descriptors. So nothing else here may open `.lock`, and one process may not hold one folder
    twice. Workers do not inherit it. On a file system without locks there is a `RuntimeWarning`, and no protection.
    """

    def __init__(self, folder: Path):
        self.folder, self.path = folder, folder / LOCK
        self._file: int | None = None

    def __enter__(self) -> RunLock:
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self._open()
        while not _is(file, self.path):  # its holder ended, and took the name away, after we had opened it
            os.close(file)
            file = self._open()
        self._file = file
        holder = {"pid": os.getpid(), "host": socket.gethostname(), "started": _now()}
        with suppress(OSError):  # a full disk keeps us from saying who we are, not from holding it
            os.ftruncate(file, 0)
            os.pwrite(file, (json.dumps(holder) + "\n").encode(), 0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._file is not None
        with suppress(OSError):  # the folder may be gone, and that is no reason to fail at the end
            self.path.unlink()  # before it is closed, while no other process can hold it
        os.close(self._file)
        self._file = None

    def _open(self) -> int:
        """The file, locked, or not where that is impossible. Python's descriptors are closed on exec (PEP 446)."""
        file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _NO_LOCKS:
                warnings.warn(
                    f"the file system of {self.folder} has no locks: nothing keeps another process from writing there",
                    RuntimeWarning,
                    stacklevel=3,
                )
                return file
            text = os.pread(file, 4096, 0)
            os.close(file)
            if error.errno in _HELD:
                raise Busy(self._busy(text)) from None
            raise
        return file

    def _busy(self, text: bytes) -> str:
        who: dict[str, Any] = {}
        with suppress(ValueError):  # the holder has locked it and not yet written
            who = json.loads(text)
        holder = f"process {who['pid']} on host {who['host']} (started {who['started']})" if who else "another process"
        return (
            f"{self.folder} is being written by {holder}; wait for it, stop it, or choose another folder with "
            "run.dir=FOLDER"
        )


def holder(folder: Path) -> dict[str, Any] | None:
    """Who holds `folder` now, as the holder said (`pid`, `host`, `started`; empty if it has not yet); None: nobody.

    The kernel is asked, nothing is taken: a run that begins at this moment is not disturbed. Not for use by the holder
    itself, which would lose the lock as this closes the file.
    """
    try:
        file = os.open(folder / LOCK, os.O_RDONLY)
    except OSError:
        return None
    try:
        if not _is_locked(file):
            return None
        found = json.loads(os.pread(file, 4096, 0) or b"{}")
    except ValueError:
        return {}
    finally:
        os.close(file)
    return found if isinstance(found, dict) else {}


def _is_locked(file: int) -> bool:
    """Whether another process keeps us from a shared lock. The layouts are those of the C struct flock."""
    mac = sys.platform == "darwin"
    layout, place = ("qqihh", 3) if mac else ("hhqqi0q", 0)
    asked = [0, 0, 0, 0, 0]
    asked[place] = fcntl.F_RDLCK
    try:
        answer = fcntl.fcntl(file, fcntl.F_GETLK, struct.pack(layout, *asked))
    except OSError:  # a file system without locks
        return False
    return bool(struct.unpack(layout, answer)[place] != fcntl.F_UNLCK)


def _is(file: int, path: Path) -> bool:
    """Whether an open file is still the one of that name."""
    try:
        named = path.stat()
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(file), named)


def _now() -> str:
    return datetime.now(UTC).isoformat(sep=" ", timespec="seconds")
