"""`python train.py -m WORDS`: what is missing of a sweep is done, and nothing else."""

from __future__ import annotations

import shlex
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console

from experiments import errors
from experiments.announce import tell
from experiments.folder import make
from experiments.stop import StopOnSignal
from experiments.sweep.cells import Cell, cells, plan
from experiments.sweep.status import DONE, ELSEWHERE, FAILED, Status
from experiments.sweep.watch import Watch, counts, ending, show, table


def sweep(
    words: Sequence[str],
    directories: Sequence[Path],
    command: Sequence[str],
    jobs: int | None = None,
    only_list: bool = False,
    dashboard: bool = False,
) -> int:
    """Do a sweep; the exit code. command: the whole command line; only_list: show its cells and do nothing.

    Raises `BadInput` with the faults of all cells before any of them begins.
    """
    console = Console()
    todo = cells(plan(words, directories), directories)
    statuses = [_found(cell) for cell in todo]
    if only_list:
        show(iter([table(statuses), counts(statuses)]), console)
        return errors.DONE
    roots = list(dict.fromkeys(str(cell.folder.parent) for cell in todo))
    if all(status.state == DONE for status in statuses):
        tell([f"all {len(statuses):,} cells are done already; nothing to do."], console)
        tell(_next(roots), console)
        return errors.DONE
    again, at_once, lost = shlex.join(command), False, False
    with StopOnSignal() as stop:
        try:
            lost = _work(statuses, stop, jobs, dashboard, console)
        except KeyboardInterrupt:
            at_once = True
    if at_once and stop.signal is not None:
        tell([f"ended at once; runs keep what they had saved; go on with: {again}"], console)
        return 128 + stop.signal
    show(ending(statuses), console)
    if stop.signal is not None:
        tell([f"stopped by {signal.Signals(stop.signal).name}; go on with: {again}"], console)
        return 128 + stop.signal
    if lost:
        raise errors.WorkersLost(again)
    tell(_next(roots), console)
    if failed := sum(status.state == FAILED for status in statuses):
        raise errors.RunError(f"{failed:,} of {len(statuses):,} cells failed", resume=again)
    return errors.DONE


def _found(cell: Cell) -> Status:
    status = Status(cell)
    status.find()
    return status


def _work(statuses: Sequence[Status], stop: StopOnSignal, jobs: int | None, dashboard: bool, console: Console) -> bool:
    """Do what is missing; whether workers or scheduler were lost on the way."""
    from experiments.sweep.crew import Crew  # not earlier: Dask takes a while to import
    from experiments.sweep.engine import engine

    for folder in {status.cell.folder.parent for status in statuses}:
        make(folder)
    missing = [status for status in statuses if status.state not in (DONE, ELSEWHERE)]
    with engine(jobs, max(1, len(missing)), dashboard) as workers:
        crew = Crew(workers)
        with Watch(statuses, f"{len(missing):,} of {len(statuses):,} cells to do, {workers.where}", console) as watch:
            for status in statuses:
                crew.add(status)
            watch.update()
            while crew.open and not stop.asked():
                crew.tick()
                watch.update()
            if stop.asked():
                watch.say("stopping: runs finish their update and save themselves; once more ends them at once")
                for _ in crew.stop():
                    watch.update()
            watch.update()
    return crew.lost


def _next(roots: Sequence[str]) -> Iterator[str]:
    """What to type when a sweep is done."""
    yield ""
    yield "what to type next"
    for root in roots:
        report = ["python", "-m", "experiments.report", root, "-o", f"{root}/report.html"]
        yield f"  {shlex.join(report)}  # what came of it"
        yield f"  {shlex.join(['python', '-m', 'tensorboard.main', '--logdir', root])}  # all curves"
