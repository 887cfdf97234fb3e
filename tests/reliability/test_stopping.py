"""Signals, second processes and workers that die: exit codes, one clear line, and nobody left behind."""

from __future__ import annotations

import os
import signal
import socket
import time

import psutil
import pytest

from experiments.checkpoint.store import Checkpoint, Store
from tests.reliability.compare import assert_equal_runs, newest
from tests.reliability.conftest import Shared
from tests.reliability.program import Program, alive, seconds_until_gone, steps
from tests.reliability.words import CARTPOLE, ROLLOUT, TOTAL

ENDLESS = "total_steps=100_000_000"
WORKERS = [*CARTPOLE, "env.vectorization=subproc", ENDLESS]


@pytest.mark.case(4, "SIGTERM", "checkpoint within one rollout, exit 143, says the step and the command to go on")
def test_sigterm(whole: Shared, stopped: Shared, program: Program) -> None:
    before, outcome = stopped.facts["before"], stopped.outcome
    saved = newest(stopped.folder).step
    assert (outcome.code, outcome.err) == (143, "")
    assert before <= saved <= before + 2 * ROLLOUT  # it may have ended one rollout between looking and SIGTERM
    again = f"python train.py {' '.join(CARTPOLE)} total_steps={TOTAL}".replace("[16,16]", "[16,16]'")
    again = again.replace("agent.net_arch", "'agent.net_arch")
    assert f"stopped by SIGTERM, saved at step {saved:,}; go on with: {again}\n" in outcome.out
    stopped.copy(program)
    assert program.main(*CARTPOLE, f"total_steps={TOTAL}").code == 0
    assert_equal_runs(whole.folder, program.folder)


@pytest.mark.case(
    5,
    "SIGINT to the whole process group; a second one",
    "130, checkpoint, no orphan, no traceback; the second ends it at once, old checkpoint intact",
)
def test_sigint_to_the_group(program: Program) -> None:
    running = program.start(*WORKERS)
    running.until_step(ROLLOUT)
    family = running.workers()
    assert len(family) >= 3  # two workers, and their server
    running.send(signal.SIGINT, group=True)
    outcome = running.wait()
    assert seconds_until_gone(family) < 5
    assert (outcome.code, outcome.err) == (130, "")
    saved = newest(program.folder).step
    assert f"stopped by SIGINT, saved at step {saved:,}; go on with: python train.py " in outcome.out


@pytest.mark.case(5)
def test_a_second_sigint(program: Program) -> None:
    running = program.start(*CARTPOLE, "agent.n_steps=500_000", ENDLESS)  # of hours
    running.until_step(0)
    before = newest(program.folder)
    running.send(signal.SIGINT, group=True)
    time.sleep(1)
    began = time.monotonic()
    running.send(signal.SIGINT, group=True)
    outcome = running.wait()
    assert time.monotonic() - began < 20
    assert (outcome.code, outcome.err) == (130, "")
    assert "ended at once, saved at step 0; go on with: python train.py " in outcome.out
    assert newest(program.folder) == before


@pytest.mark.case(
    13,
    "two processes, one run folder",
    "the second: exit 6 naming pid and host of the first; after a SIGKILL of the first no manual cleaning",
)
def test_two_processes_in_one_folder(program: Program) -> None:
    running = program.start(*CARTPOLE, ENDLESS)
    running.until_step(ROLLOUT)
    second = program.main(*CARTPOLE, ENDLESS)
    assert (second.code, second.out) == (6, "")
    (line,) = second.errors
    assert line.startswith(
        f"error: run is being written by process {running.pid} on host {socket.gethostname()} (started "
    )
    running.kill()
    assert all(isinstance(found, Checkpoint) for found in Store(program.folder).verify())
    third = program.main(*CARTPOLE, f"total_steps={max(steps(program.folder)) + ROLLOUT}")
    assert (third.code, third.err) == (0, "")


@pytest.mark.case(
    20,
    "environment raises; a worker is killed",
    "exit 4 within 10 s, one line with its index and exception or signal, traceback in the run's log; no orphans",
)
def test_a_worker_is_killed(program: Program) -> None:
    running = program.start(*WORKERS)
    running.until_step(ROLLOUT)
    family = running.workers()
    (server,) = (process for process in family if process.children())
    workers = sorted(server.children(), key=lambda process: process.pid)
    began = time.monotonic()
    program.commands.append("kill -s KILL PID of a worker")
    workers[1].kill()
    outcome = running.wait()
    assert time.monotonic() - began < 10
    assert seconds_until_gone(family) < 5
    first, again = outcome.errors
    assert outcome.code == 4
    assert first.startswith("error: the worker process of sub-environment 1 was killed by SIGKILL (which is also what ")
    assert again.startswith("resume with: python train.py env=ns_cartpole ")
    assert f"  # from step {newest(program.folder).step:,}" in again
    assert "Traceback" in (program.folder / "error.log").read_text()


@pytest.mark.case(20)
def test_an_environment_raises(program: Program) -> None:
    world = ["env=gym", "env.id=tests.reliability.worlds:Unlucky-v0", "+env.kwargs.trouble=exception"]
    before = set(psutil.Process().children(recursive=True))
    outcome = program.main(*CARTPOLE[2:], *world, "env.vectorization=subproc", "total_steps=1000")
    left = set(psutil.Process().children(recursive=True)) - before
    assert not [process for process in alive(list(left)) if not _helps(process)]
    assert outcome.code == 4
    first, again = outcome.errors
    assert first.startswith("error: sub-environment 1 raised ZeroDivisionError: the world has no floor, after 298 ")
    assert again.endswith("  # from step 256")
    log = (program.folder / "error.log").read_text()
    assert 'raise ZeroDivisionError("the world has\\nno floor")' in log
    assert "worlds.py" in log


def _helps(process: psutil.Process) -> bool:
    """Whether it is multiprocessing's own: the server that forks workers, and the tracker of resources."""
    return process.ppid() == os.getpid() and not process.children()


@pytest.mark.case(21, "main process SIGKILLed", "no worker alive after 5 s (forkserver, never fork)")
def test_workers_end_with_the_main_process(killed_sac: Shared, program: Program) -> None:
    assert len(killed_sac.facts["family"]) >= 4  # two workers, their server, the tracker of resources
    assert killed_sac.facts["gone_after"] < 5
    assert all("forkserver" in command or "resource_tracker" in command for command in killed_sac.facts["family"])
