"""Sweeps on a real scheduler with real workers, on loopback: killed, stopped, repeated."""

from __future__ import annotations

import csv
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from experiments import errors, lock
from experiments.inspect import look
from experiments.lock import RunLock
from experiments.sweep import command, crew
from experiments.sweep import status as states
from experiments.sweep.cell import Outcome, Task, run
from experiments.sweep.cells import Cell, cells, plan
from experiments.sweep.status import Status
from tests.experiments.conftest import ROOT, run_train
from tests.experiments.conftest import Outcome as Said

TINY = (
    *("experiment=none", "env=ns_cartpole", "agent.n_steps=128", "agent.batch_size=64", "agent.net_arch=[8,8]"),
    *("logging.tensorboard=false", "run.checkpoint.every=256"),
)
SHORT, LONG = "total_steps=512", "total_steps=4_000"
PATIENCE = 200.0


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[subprocess.Popen[bytes]]]:
    """A scheduler on loopback, whose address is in the environment, and two workers."""
    address = tmp_path / "scheduler.json"
    dask = [sys.executable, "-m"]
    loopback = ["--host", "127.0.0.1", "--no-dashboard"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    file = ["--scheduler-file", str(address)]
    scheduler = subprocess.Popen(
        [*dask, "distributed.cli.dask_scheduler", *loopback, "--port", "0", *file], cwd=ROOT, **quiet
    )
    started = [scheduler]
    try:
        wait_for(address.is_file, scheduler)
        one = [*dask, "distributed.cli.dask_worker", *loopback, *file, "--no-nanny", "--nthreads", "1"]
        local = ["--local-directory", str(tmp_path / "dask"), "--death-timeout", "60"]
        workers = [subprocess.Popen([*one, *local], cwd=ROOT, **quiet) for _ in range(2)]
        started += workers
        monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", json.loads(address.read_text())["address"])
        monkeypatch.chdir(tmp_path)
        yield workers
    finally:
        for process in started:
            process.kill()
            process.wait()


def wait_for(happened: Callable[[], object], process: subprocess.Popen[bytes] | None = None) -> None:
    deadline = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < deadline, "it does not happen"
        assert process is None or process.poll() is None, "it has ended before that"
        time.sleep(0.05)


def begin(*words: str, cwd: Path) -> subprocess.Popen[bytes]:
    """`python train.py -m TINY WORDS` in a session of its own, whose output goes to `cwd/said`."""
    with (cwd / "said").open("wb") as file:
        return subprocess.Popen(
            [sys.executable, str(ROOT / "train.py"), "-m", *TINY, *words],
            cwd=cwd,
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, "COLUMNS": "120"},
            start_new_session=True,
        )


def end(process: subprocess.Popen[bytes], cwd: Path) -> Said:
    try:
        process.wait(PATIENCE)
    finally:
        process.kill()
        process.wait()
    return Said(process.returncode, (cwd / "said").read_text(), "")


def sweep(*words: str, cwd: Path) -> Said:
    return end(begin(*words, cwd=cwd), cwd)


def folder(cwd: Path, pattern: str) -> Path:
    (found,) = (cwd / "runs").glob(f"*{pattern}*")
    return found


def step(folder: Path) -> int:
    return states.newest_checkpoint(folder)


def starts(folder: Path) -> int:
    """How many processes have trained a run."""
    return len((folder / "command.txt").read_text().splitlines())


def weights(folder: Path) -> str:
    going = look(folder).resume
    assert going is not None
    return going.weights


def test_a_lost_workers_cell_goes_on_elsewhere_and_a_failed_one_stops_nobody(
    cluster: list[subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    words = (LONG, "agent.learning_rate=1e30,3e-4")  # the first diverges at its first update
    bad, good = cells(plan([*TINY, *words]))
    process = begin(*words, cwd=tmp_path)
    try:
        wait_for(lambda: step(good.folder) >= 512, process)
        holder = lock.holder(good.folder)
        assert holder is not None
        run = psutil.Process(holder["pid"])
        (worker,) = [worker for worker in cluster if worker.pid == run.ppid()]
        worker.kill()
        psutil.wait_procs([run], PATIENCE)  # it goes with its worker, and saves itself
        saved = step(good.folder)
        assert 512 <= saved < 4_000
    finally:
        said = end(process, tmp_path)
    assert said.code == 1, said.out
    assert "2 cells: 1 failed, 1 done" in said.out
    assert f"running   {good.label}, from step {saved:,}, on " in said.out
    assert starts(good.folder) == 2
    assert look(good.folder).state == "finished"
    assert f"failed: {bad.label}: " in said.out
    assert f"alone: {bad.command}" in said.out
    assert "error: 1 of 2 cells failed\nresume with: python train.py -m experiment=none" in said.out


@pytest.mark.slow
def test_a_local_sweep_does_what_is_missing_and_only_that(tmp_path: Path) -> None:
    said = run_train(["-m", *TINY, SHORT, "seed=1,2", "--jobs", "2"], tmp_path)
    assert said.code == 0, said.out + said.err
    assert "2 of 2 cells to do, 2 at once on this machine" in said.out
    assert "2 cells: 2 done" in said.out
    assert "python -m experiments.report runs -o runs/report.html" in said.out
    found = folder(tmp_path, "seed1")
    assert starts(found) == 1
    again = run_train(["-m", *TINY, SHORT, "seed=1,2", "--jobs", "2"], tmp_path)
    assert again.code == 0
    assert again.out.startswith("all 2 cells are done already; nothing to do.")
    assert starts(found) == 1


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopping_leaves_all_resumable_and_the_end_is_as_if_nothing_had_happened(
    number: signal.Signals, tmp_path: Path
) -> None:
    words = (LONG, "seed=1,2,3", "--jobs", "2")
    process = begin(*words, cwd=tmp_path)
    wait_for(lambda: len([one for one in (tmp_path / "runs").glob("*") if step(one) >= 512]) == 2, process)
    os.killpg(process.pid, number)  # a terminal sends Ctrl-C to the whole group
    said = end(process, tmp_path)
    assert said.code == 128 + number, said.out
    assert "3 cells: 1 to do, 2 stopped" in said.out
    assert f"stopped by {number.name}; go on with: python train.py -m {shlex.join(TINY)}" in said.out
    first = folder(tmp_path, "seed1")
    assert look(first).state == "stopped"
    assert step(first) < 4_000
    said = sweep(*words, cwd=tmp_path)
    assert said.code == 0, said.out
    assert f"running   seed=1, from step {step_of_start(said, 'seed=1'):,}, on " in said.out
    assert [starts(folder(tmp_path, f"seed{seed}")) for seed in (1, 2, 3)] == [2, 2, 1]
    other = tmp_path / "undisturbed"
    other.mkdir()
    assert run_train([*TINY, LONG, "seed=1", "run.threads=1"], other).code == 0
    assert weights(folder(other, "seed1")) == weights(first)


def step_of_start(said: Said, label: str) -> int:
    line = next(line for line in said.out.splitlines() if f"running   {label}, from step" in line)
    found = int(line.partition("from step ")[2].partition(", on")[0].replace(",", ""))
    assert found > 0
    return found


@pytest.mark.slow
def test_a_sweep_that_is_killed_takes_its_runs_along_and_they_save_themselves(tmp_path: Path) -> None:
    process = begin(LONG, "seed=1,2", "--jobs", "2", cwd=tmp_path)
    wait_for(lambda: len([one for one in (tmp_path / "runs").glob("*") if step(one) >= 512]) == 2, process)
    family = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(family, 30)
    assert alive == []
    assert look(folder(tmp_path, "seed1")).state == "stopped"


@pytest.mark.slow
def test_two_sweeps_share_the_work_and_a_cell_of_somebody_else_is_waited_for(
    cluster: list[subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    alone = subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *TINY, LONG, "seed=1", "run.threads=1"],
        cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_for(lambda: list((tmp_path / "runs").glob("*seed1*/.lock")), alone)
        said = sweep(LONG, "seed=1,2", cwd=tmp_path)
        assert alone.wait(PATIENCE) == 0
    finally:
        alone.kill()
        alone.wait()
    assert said.code == 0, said.out
    assert "1 of 2 cells to do, workers of tcp://127.0.0.1:" in said.out
    assert "2 cells: 2 done" in said.out
    assert starts(folder(tmp_path, "seed1")) == 1
    with RunLock(folder(tmp_path, "seed2")):
        assert run_train(["-m", *TINY, LONG, "seed=1,2", "--cells"], tmp_path).out.count("elsewhere") == 2


@pytest.mark.slow
def test_a_scheduler_that_is_not_there_and_jobs_beside_one_are_explained(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", "tcp://127.0.0.1:9")
    said = run_train(["-m", *TINY, SHORT, "seed=1,2", "--jobs", "2"], tmp_path)
    assert said.code == 2
    assert said.errors == [
        "error: --jobs is for this machine's cores; the workers of tcp://127.0.0.1:9 are as many as were started"
    ]
    said = run_train(["-m", *TINY, SHORT, "seed=1,2"], tmp_path)
    assert said.code == 2
    assert said.err.startswith("error: DASK_SCHEDULER_ADDRESS=tcp://127.0.0.1:9: no scheduler answers there")


def task(folder: Path, *words: str) -> Task:
    return Task(words, str(folder.parent), str(folder))


def test_a_cells_process_tells_why_it_failed(tmp_path: Path) -> None:
    outcome = run(task(tmp_path / "run", "agent.gama=1"), lambda: True)
    assert outcome.code == 2
    assert outcome.lines[0].startswith('agent: unknown setting "gama"')
    with RunLock(tmp_path / "run"):  # held by this process, so that it is asked of another
        held = subprocess.run(
            [sys.executable, "-c", HELD, str(tmp_path / "run")], cwd=ROOT, capture_output=True, text=True, check=True
        )
    assert held.stdout.strip() == str(Outcome(6))


HELD = """
import sys
from pathlib import Path
from experiments.sweep.cell import Task, run
print(run(Task((), ".", sys.argv[1]), lambda: True))
"""


def test_a_cell_that_is_no_longer_wanted_is_stopped(tmp_path: Path) -> None:
    outcome = run(task(tmp_path / "run", *TINY), lambda: False)
    assert outcome.stopped
    assert outcome.lines == ()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("own", "workers", "lost"), [(True, {}, True), (True, {"a": 1}, False), (False, {}, False)])
def test_own_workers_that_all_vanish_are_not_waited_for(
    own: bool, workers: dict[str, int], lost: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    engine = SimpleNamespace(own=own, workers=lambda: workers, news=lambda wait: iter(()), send=lambda *cell: None)
    now = [0.0]
    monkeypatch.setattr(crew.time, "monotonic", lambda: now[0])
    monkeypatch.chdir(tmp_path)
    own_crew = crew.Crew(engine)  # type: ignore[arg-type]
    own_crew.add(Status(Cell({}, (), tmp_path / "run", 100)))
    for now[0] in (10.0, crew.PATIENCE - 1.0):
        own_crew.tick()
        assert own_crew.open
    now[0] += crew.PATIENCE + 2
    own_crew.tick()
    assert own_crew.lost == lost
    assert own_crew.open == (not lost)


def test_a_sweep_whose_workers_are_lost_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "_work", lambda *_: True)
    with pytest.raises(errors.WorkersLost, match="all workers were lost, or the scheduler; runs keep") as lost:
        command.sweep([*TINY, SHORT], [], ["train.py", "-m", "experiment=my own"])
    assert lost.value.resume == "train.py -m 'experiment=my own'"


def test_a_folder_says_where_a_cell_is(tmp_path: Path) -> None:
    run_folder = tmp_path / "run"
    status = Status(Cell({}, (), run_folder, 100))

    def found() -> tuple[str, int, float | None]:
        status.find()
        return status.state, status.step, status.score

    def ended(how: str, steps: int) -> None:
        (run_folder / "result.json").write_text(json.dumps({"status": how, "steps": steps}))

    assert found() == ("to do", 0, None)
    (run_folder / "checkpoints" / "000000000040").mkdir(parents=True)
    with (run_folder / "episodes.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [["step", "env", "regime", "return", "length"], [30, 0, 0, 1.0, 9], [50, 0, 0, 3, 9]]
        )
    assert found() == ("saved", 40, 2.0)
    ended("failed", 60)
    (run_folder / "error.log").write_text("Traceback\nValueError: no\n\n")
    assert found() == ("failed", 40, 2.0)
    assert status.lines == ("ValueError: no",)
    ended("stopped", 40)
    assert found() == ("saved", 40, 2.0)
    ended("finished", 80)  # a longer one is asked for
    assert found() == ("saved", 40, 2.0)
    ended("finished", 100)
    assert found() == ("done", 100, 2.0)
