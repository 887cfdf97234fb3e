"""The side of a child process: it builds one contestant, which computes whenever it is called.

python -m benchmarks.contestant MODULE.NAME OPTIONS    # OPTIONS: a JSON object

It answers with one line of JSON when it is ready, and with one after each line `turn` on its input; it ends where the
input does. What libraries print goes to stderr.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

AS_TRAIN_PY = ("ours.train", "ours.updates", "ours.whole_run")  # which begin as train.py does


class Caller:
    """The parent, as a contestant sees it."""

    def __init__(self, words: IO[str], answers: IO[str]):
        self._words, self._answers = words, answers
        self._ready = False

    def calls(self) -> bool:
        """Wait until it calls for a turn; False when no more are wanted."""
        if not self._ready:
            self._ready = True
            self._say({"ready": True})
        return self._words.readline().strip() == "turn"

    def tell(self, **facts: float) -> None:
        """What there is to be said of a turn: its seconds, how many steps it had, and more."""
        self._say({**facts, "peak_mib": peak_mib()})

    def _say(self, facts: dict[str, Any]) -> None:
        print(json.dumps(facts), file=self._answers, flush=True)


class Stopwatch:
    """Seconds spent in what it was put around."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def around(self, owner: Any, *names: str) -> None:
        """Time these methods of an object or a class from now on."""
        for name in names:
            setattr(owner, name, self._timed(getattr(owner, name)))

    def take(self) -> float:
        """The seconds since it was asked last."""
        seconds, self.seconds = self.seconds, 0.0
        return seconds

    def _timed(self, act: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **keywords: Any) -> Any:
            start = time.perf_counter()
            try:
                return act(*arguments, **keywords)
            finally:
                self.seconds += time.perf_counter() - start

        return timed


def serve(caller: Caller, play: Callable[[], dict[str, float]]) -> None:
    """Do the same in every turn; play: returns what there is to say of it beside its seconds."""
    while caller.calls():
        start = time.perf_counter()
        facts = play()
        caller.tell(**{"seconds": time.perf_counter() - start} | facts)


def peak_mib() -> float:
    """Most memory that this process had at once, in MiB; 0 where the system does not say."""
    status = Path("/proc/self/status")
    lines = status.read_text("utf-8").splitlines() if status.exists() else []
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)


def main() -> None:
    """Serve turns until the input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    if sys.argv[1] in AS_TRAIN_PY:
        importlib.import_module("experiments")  # which tells OpenMP what to do, before torch loads it
    module, _, name = sys.argv[1].rpartition(".")
    contestant = getattr(importlib.import_module(f"benchmarks.{module}"), name)
    contestant(Caller(sys.stdin, answers), **json.loads(sys.argv[2]))


if __name__ == "__main__":
    main()
