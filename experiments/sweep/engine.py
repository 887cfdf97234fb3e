"""Who works on cells: Dask workers, on this machine's cores or wherever `DASK_SCHEDULER_ADDRESS` leads.

Everything that Dask is asked for is here. Folders are how progress is seen, so all workers must share a file system.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import queue
import signal
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from typing import Any

import dask
from distributed import Client, Future, KilledWorker, LocalCluster, Security

from experiments.errors import BUG, BadInput
from experiments.sweep.cell import Outcome, Task, work
from experiments.threads import usable_cores

ADDRESS = "scheduler-address"  # of Dask's configuration; DASK_SCHEDULER_ADDRESS sets it
TIMEOUT = 20.0  # seconds for a scheduler to answer
LOST = -1_000  # in place of an exit code: the worker died with the cell


@dataclass(frozen=True)
class News:
    """What became of a cell. host: where it has begun; outcome: how it ended; neither: Dask has lost it."""

    number: int
    host: str | None = None
    outcome: Outcome | None = None


class Engine:
    """Cells sent to workers, and news of them. where: the workers, in words; own: whether nobody else starts more."""

    def __init__(self, client: Client, where: str, own: bool = False):
        self.client, self.where, self.own = client, where, own
        self._name = f"pliant-{uuid.uuid4().hex[:12]}"  # a cell's key is this sweep's own: the lock keeps others out
        self._queue: queue.SimpleQueue[News] = queue.SimpleQueue()
        self._futures: dict[int, Future] = {}
        self._workers: dict[int, str] = {}  # cells that have begun and not ended -> worker
        self._dropped: set[int] = set()
        self._sent = 0
        client.subscribe_topic(self._name, self._hear)

    def send(self, number: int, task: Task) -> None:
        """Have a cell worked on; those sent first come first."""
        self._sent += 1
        self._dropped.discard(number)
        key = f"{self._name}-{number}-{self._sent}"
        future = self.client.submit(work, number, task, self._name, key=key, pure=False, priority=-self._sent)
        self._futures[number] = future
        future.add_done_callback(lambda future: self._ended(number, future))

    def drop(self, number: int) -> bool:
        """Have a cell stopped and saved, or not begun; whether there will be news of its end."""
        self._dropped.add(number)
        future = self._futures.pop(number, None)
        if future is not None:
            self.client.cancel([future], force=True)
        return number in self._workers

    def news(self, wait: float) -> Iterator[News]:
        """What has become known, after at most so many seconds."""
        with suppress(queue.Empty):
            yield self._queue.get(timeout=wait)
            while True:
                yield self._queue.get_nowait()

    def workers(self) -> Mapping[str, int]:
        """Address -> cells at once, of the workers there are now."""
        with suppress(OSError, CancelledError):
            return dict(self.client.nthreads())
        return {}

    def forget_dead(self) -> list[int]:
        """Cells whose worker is gone, so that nobody will tell how they ended."""
        there = self.workers()
        dead = [number for number, worker in self._workers.items() if worker not in there]
        for number in dead:
            del self._workers[number]
        return dead

    def _hear(self, event: tuple[float, dict[str, Any]]) -> None:
        """An event of `work`; its end is news only of what is not waited for, as futures tell it of the others."""
        said = event[1]
        number = said["cell"]
        if "ended" not in said:
            self._workers[number] = said["worker"]
            self._queue.put(News(number, host=said["host"]))
        elif self._workers.pop(number, None) and number in self._dropped:
            ended = said["ended"]
            self._queue.put(News(number, outcome=Outcome(ended["code"], tuple(ended["lines"]))))

    def _ended(self, number: int, future: Future) -> None:
        if number not in self._futures or self._futures[number] is not future:
            return  # dropped
        del self._futures[number]
        if future.cancelled():
            self._queue.put(News(number))
            return
        error = future.exception()
        if error is None:
            outcome: Outcome = future.result()
        elif isinstance(error, KilledWorker):
            outcome = Outcome(LOST, (f"{error.allowed_failures + 1} workers died while they worked on it",))
        else:
            outcome = Outcome(BUG, (f"the worker could not run it: {type(error).__name__}: {error}",))
        self._queue.put(News(number, outcome=outcome))


@contextmanager
def engine(jobs: int | None, most: int, dashboard: bool = False) -> Iterator[Engine]:
    """Workers of this machine, or those of the scheduler whose address Dask knows; they are left as they were.

    jobs: cells at once on this machine, None: one a core; most: that there are to do; dashboard: Dask's own page.
    """
    address = dask.config.get(ADDRESS, None)
    if address and jobs is not None:
        raise BadInput(f"--jobs is for this machine's cores; the workers of {address} are as many as were started")
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what is worth telling is told by the table
    if address:
        with _client(address) as client:
            yield Engine(client, f"workers of {address}")
        return
    number = min(jobs or usable_cores(), most)
    with _cluster(number, dashboard) as cluster:
        page = f"; Dask's page: {cluster.dashboard_link}" if dashboard else ""
        with Client(cluster, set_as_default=False) as client:
            yield Engine(client, f"{number} at once on this machine{page}", own=True)


@contextmanager
def _client(address: str) -> Iterator[Client]:
    try:
        client = Client(address, timeout=TIMEOUT, set_as_default=False)
    except (OSError, ValueError) as error:
        raise BadInput(
            f"DASK_SCHEDULER_ADDRESS={address}: no scheduler answers there ({type(error).__name__}: {error}); unset it "
            "to run on this machine"
        ) from None
    with client:
        yield client


@contextmanager
def _cluster(workers: int, dashboard: bool) -> Iterator[LocalCluster]:
    """A process for each worker, which Ctrl-C does not reach: stopping is the sweep's to do.

    Where there is `cryptography`, only this process has the key to them: otherwise whoever has an account on this
    machine could send them work.
    """
    secure = Security.temporary() if importlib.util.find_spec("cryptography") else None
    resource_tracker.ensure_running()  # which unblocks signals when it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:  # the threads that start here, and the processes that these start, inherit it
        cluster = _local(workers, dashboard, secure)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    with cluster:
        yield cluster


def _local(workers: int, dashboard: bool, secure: Security | None) -> LocalCluster:
    return LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        memory_limit=None,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0" if dashboard else None,
        silence_logs=logging.CRITICAL,
        security=secure,
    )


def slots(engine: Engine) -> int:
    """How many cells can be worked on at once."""
    return sum(engine.workers().values()) or os.cpu_count() or 1
