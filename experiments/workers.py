"""Sub-environments in processes of their own, which die with the main process and never unnoticed."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker, util
from multiprocessing.connection import Connection
from typing import Any

import gymnasium as gym
import psutil
from stable_baselines3.common.vec_env import SubprocVecEnv, VecEnv
from stable_baselines3.common.vec_env.base_vec_env import CloudpickleWrapper
from stable_baselines3.common.vec_env.subproc_vec_env import _worker

from experiments.errors import EnvironmentFailure
from experiments.failure_report import Failure

SIGNALS = (signal.SIGINT, signal.SIGTERM)
PRELOADED = "experiments.environment"  # imported once in the fork server, not once a worker
LOOK = 1.0  # seconds between looks at whether a silent worker still lives
PATIENCE = 5.0  # seconds a worker gets to close its environment, and its exit code to arrive


class Workers(SubprocVecEnv):
    """SB3's SubprocVecEnv, for runs that must end well.

    A worker that died, was killed or could not answer raises `EnvironmentFailure` with its index and how it ended.
    `close` neither hangs nor raises and leaves no worker. Workers go on through SIGINT and SIGTERM, which reach a whole
    process group: stopping is the main process's to do. When that dies, they do, in the middle of a step too.

    Workers are forked from multiprocessing's fork server and never from the main process: that has threads (torch,
    TensorBoard), whose locks a fork copies in whatever state they are, and pipes of other workers, which a fork would
    keep open, so that the end of the main process would not be seen.
    """

    def __init__(self, env_fns: Sequence[Callable[[], gym.Env[Any, Any]]]):
        self.waiting = self.closed = False
        server = multiprocessing.get_context("forkserver")
        server.set_forkserver_preload([PRELOADED])
        pipes = []
        with _signals_blocked():
            for index, env_fn in enumerate(env_fns):
                ours, theirs = server.Pipe()
                payload = pickle.dumps(CloudpickleWrapper(env_fn))
                process = server.Process(target=_work, args=(theirs, ours, payload), daemon=True)
                process.start()
                theirs.close()
                pipes.append(_Pipe(index, ours, process))
        self.remotes: Any = tuple(pipes)
        self.processes: Any = [pipe.process for pipe in pipes]
        # also where nobody calls close; before multiprocessing's own end, which waits for daemons after a SIGTERM
        self._end = util.Finalize(self, _end, (pipes,), exitpriority=0)
        try:
            self.remotes[0].send(("get_spaces", None))
            VecEnv.__init__(self, len(pipes), *self.remotes[0].recv())
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End all workers, however they are. Their environments are closed where they still can be."""
        self.closed = True
        self._end()


class _Pipe:
    """The main process's end of a worker's pipe, as SubprocVecEnv uses one."""

    def __init__(self, index: int, connection: Connection[Any, Any], process: Any):
        self.index, self.connection, self.process = index, connection, process
        self.alive = _Life(process.pid)
        self._ready = select.poll()  # a tenth of the time of Connection.poll
        self._ready.register(connection.fileno(), select.POLLIN)

    def send(self, message: Any) -> None:
        with suppress(OSError):  # a dead worker: recv, which follows, tells how it ended
            self.connection.send(message)

    def recv(self) -> Any:
        name = f"the worker process of sub-environment {self.index}"
        try:
            while not self._ready.poll(LOOK * 1000):
                if not self.alive():  # a child of its own may keep the pipe open
                    raise EOFError
            message = self.connection.recv()
        except (EOFError, OSError):
            raise EnvironmentFailure(f"{name} {_ending(self.process)}") from None
        except Exception as error:
            raise EnvironmentFailure(f"what {name} sent cannot be read: {Failure.of(error).sentence}") from error
        if isinstance(message, Failure):
            raise message.raised(by=name)
        return message

    def drain(self, deadline: float) -> None:
        """Read and forget until the worker closes its end: it may be sending what nobody waits for."""
        with suppress(EOFError, OSError):
            while time.monotonic() < deadline:
                if self._ready.poll(100):
                    self.connection.recv_bytes()
                elif not self.alive():
                    return


class _Life:
    """Whether a process lives. Process.is_alive would say no of all workers once the fork server is gone."""

    def __init__(self, pid: int):
        self.process: psutil.Process | None = None
        with suppress(psutil.NoSuchProcess):
            self.process = psutil.Process(pid)

    def __call__(self) -> bool:
        try:
            return self.process is not None and self.process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False


def _ending(process: Any) -> str:
    process.join(PATIENCE)
    code = process.exitcode
    if code is None:
        return "no longer answers"
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:  # a real-time signal
        name = f"signal {-code}"
    out_of_memory = " (which is also what the system does to a process when memory runs out)"
    return f"was killed by {name}{out_of_memory if name == 'SIGKILL' else ''}"


def _end(pipes: Sequence[_Pipe]) -> None:
    deadline = time.monotonic() + PATIENCE
    processes = [pipe.alive.process for pipe in pipes if pipe.alive.process is not None]
    try:
        for pipe in pipes:
            pipe.send(("close", None))
        for pipe in pipes:
            pipe.drain(deadline)
        psutil.wait_procs(processes, max(0.0, deadline - time.monotonic()))
    finally:
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(processes, PATIENCE)
        for pipe in pipes:
            pipe.process.join(PATIENCE)
            pipe.connection.close()


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """What is started inside has SIGINT and SIGTERM blocked: the fork server for good, workers until `_work`."""
    resource_tracker.ensure_running()  # which unblocks them when it starts, and is started with the fork server
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(remote: Connection[Any, Any], parent_remote: Connection[Any, Any], payload: bytes) -> None:
    """A worker's life: SB3's, told of where it ends too soon."""
    for number in SIGNALS:
        signal.signal(number, _do_nothing)  # a program that an environment starts would inherit SIG_IGN
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    threading.Thread(target=_end_with_the_main_process, daemon=True).start()
    try:
        _worker(remote, parent_remote, pickle.loads(payload))
    except BaseException as error:
        with suppress(OSError):
            remote.send(Failure.of(error))


def _do_nothing(*_: object) -> None:
    return


def _end_with_the_main_process() -> None:
    """Between steps the pipe's end says it too. PR_SET_PDEATHSIG would not: the parent is the fork server."""
    main = multiprocessing.parent_process()
    if main is not None:
        main.join()
        os._exit(1)
