"""A full disk for some files: for the tests here, or `python faults.py PART WORDS` for `train.py WORDS` with it."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock


@contextmanager
def full_disk(part: str, first: int = 0, times: int = sys.maxsize) -> Iterator[list[str]]:
    """Writes to files with `part` in their path fail, `times` times after `first` that do not; the paths that did."""
    failed: list[str] = []
    seen = 0

    def failing(write: Callable[..., Any]) -> Callable[..., Any]:
        def instead(descriptor: int, *arguments: Any) -> Any:
            nonlocal seen
            path = os.readlink(f"/proc/self/fd/{descriptor}")
            if part in path:
                seen += 1
                if first < seen <= first + times:
                    failed.append(path)
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return write(descriptor, *arguments)

        return instead

    with mock.patch.object(os, "write", failing(os.write)), mock.patch.object(os, "fsync", failing(os.fsync)):
        yield failed


if __name__ == "__main__":
    import train

    _, disk, *words = sys.argv
    sys.argv = ["train.py", *words]
    with full_disk(disk):
        sys.exit(train.main())
