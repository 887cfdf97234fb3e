"""What scripts that compare methods share: counts on the command line, and a process for each of several methods."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from typing import Any, TypeAlias, TypeVar

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from experiments.errors import DONE, INTERRUPTED, RunError
from plasticity import SettingsError
from plasticity.settings import convert

Result = TypeVar("Result")
Advance: TypeAlias = Callable[[int], object]
LOOK = 0.2  # seconds between two looks at what the processes report


def number(text: str) -> int:
    """A count such as 1000000, 1_000_000 or 1e6."""
    try:
        count: int = convert(text.replace("_", ""), int, "it")
    except SettingsError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return count


def add_jobs(parser: argparse.ArgumentParser) -> None:
    """The option `--jobs`."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    parser.add_argument("--jobs", type=number, default=cores, help="methods trained at once, each by one process")


def exit_code(work: Callable[[], object], kept: str) -> int:
    """Run a command; returns the process's exit code. kept: what remains of it when it is interrupted."""
    try:
        work()
    except RunError as error:
        for line in error.lines:
            print(f"error: {line}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"interrupted: {kept}", file=sys.stderr)
        return INTERRUPTED
    return DONE


def each(
    names: Sequence[str], work: Callable[[str, Advance], Result], jobs: int, total: int, console: Console
) -> Iterator[tuple[str, Result, float]]:
    """`work(name, advance)` for every name, `jobs` at a time; yields (name, result, seconds) as they are ready.

    work: must be picklable where there are several jobs; it calls advance(n) as n more of `total` are done. With one
        job everything happens in this process.
    """
    columns = (TextColumn("{task.description:<20}"), BarColumn(24), TextColumn("{task.percentage:>3.0f} %"))
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal) as bar:
        whole = bar.add_task("all methods", total=total * len(names))
        tasks: dict[str, TaskID] = {}

        def advance(name: str, done: int) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(name, total=total)
            bar.advance(tasks[name], done)
            bar.advance(whole, done)

        run = _here if jobs == 1 or len(names) == 1 else _elsewhere
        for name, result, seconds in run(names, work, jobs, advance):
            console.print(f"{name}: {seconds:.0f} s", highlight=False)
            if name in tasks:
                bar.remove_task(tasks[name])
            yield name, result, seconds


def _here(
    names: Sequence[str], work: Callable[[str, Advance], Result], jobs: int, advance: Callable[[str, int], None]
) -> Iterator[tuple[str, Result, float]]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the tensors are tiny: more threads only wait for each other
    try:
        for name in names:
            started = time.monotonic()
            yield name, work(name, lambda done, name=name: advance(name, done)), time.monotonic() - started  # type: ignore[misc]
    finally:
        torch.set_num_threads(threads)


def _elsewhere(
    names: Sequence[str], work: Callable[[str, Advance], Result], jobs: int, advance: Callable[[str, int], None]
) -> Iterator[tuple[str, Result, float]]:
    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    # they inherit that they ignore Ctrl-C: this process is interrupted and ends them
    interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)
    reports = context.SimpleQueue()
    with ProcessPoolExecutor(min(jobs, len(names)), context, _prepare, (reports,)) as pool:
        pending: dict[Future[tuple[Result, float]], str] = {pool.submit(_timed, work, name): name for name in names}
        signal.signal(signal.SIGINT, interrupt)
        try:
            while pending:
                ready, _ = wait(pending, LOOK, FIRST_COMPLETED)
                while not reports.empty():
                    advance(*reports.get())
                for future in ready:
                    name = pending.pop(future)
                    yield name, *future.result()
        finally:
            if pending:  # interrupted, or one failed: nobody waits for the others
                for process in list(pool._processes.values()):
                    process.terminate()
            pool.shutdown(cancel_futures=True)


def _prepare(reports: Any) -> None:
    torch.set_num_threads(1)
    _timed.reports = reports  # type: ignore[attr-defined]  # a queue can be handed over at a process's start only


def _timed(work: Callable[[str, Advance], Result], name: str) -> tuple[Result, float]:
    reports, started = _timed.reports, time.monotonic()  # type: ignore[attr-defined]
    return work(name, lambda done: reports.put((name, done))), time.monotonic() - started
