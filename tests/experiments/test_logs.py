"""What a run writes as it goes, when it is killed and resumed, and when the disk is full."""

from __future__ import annotations

import csv
import resource
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from rich.console import Console
from stable_baselines3.common.logger import Figure, HParam, TensorBoardOutputFormat
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event

from agents import PlasticityMonitor
from experiments import folder as files
from experiments.alarm_log import AlarmLog
from experiments.checkpoint.codec import decode, encode
from experiments.compose import compose
from experiments.episodes import EpisodeRecorder
from experiments.growing import GrowingFile, Losses
from experiments.logs import RunLogger, make_logger
from experiments.progress import ProgressBar
from experiments.schema import validate
from experiments.table import FIRST
from experiments.tensorboard import RunPage

NO_LIMIT = resource.getrlimit(resource.RLIMIT_FSIZE)


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """No file can grow beyond so many bytes; the kernel says so as it does of a full disk, in the midst of a write."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, NO_LIMIT[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, NO_LIMIT)


def log(logger: RunLogger, steps: Sequence[int]) -> None:
    """Rows whose keys and values follow from the step."""
    for step in steps:
        logger.record(FIRST, step, exclude="tensorboard")
        logger.record("b/value", np.float32(step) / 3)
        if step >= 40:
            logger.record("a/late", 1 / step)
        if step >= 70:
            logger.record("a/later", float("nan"))
        logger.dump(step)


def restored(state: Any) -> Any:
    """The state as a checkpoint gives it back."""
    return decode(*encode(state))


def table(folder: Path) -> list[list[str]]:
    with (folder / files.PROGRESS).open(newline="") as file:
        return list(csv.reader(file))


def events(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """tag -> (step, value), all that any file holds: nothing is purged."""
    found: dict[str, list[tuple[int, float]]] = {}
    for path in sorted(folder.glob("events.out.tfevents.*")):
        for record in RawEventFileLoader(str(path)).Load():
            event = Event.FromString(record)
            for value in event.summary.value:
                if value.WhichOneof("value") == "simple_value":
                    found.setdefault(value.tag, []).append((event.step, value.simple_value))
    return found


def test_the_table_is_sorted_widens_and_keeps_numbers_and_text_only(tmp_path: Path) -> None:
    logger = make_logger(tmp_path, tensorboard=False)
    log(logger, [10])
    assert table(tmp_path) == [[FIRST, "b/value"], ["10", "3.3333333"]]
    logger.record(FIRST, 20)
    logger.record("a/text", 'with "quotes", and commas')
    logger.record("hist", torch.arange(9))
    logger.record("array", np.arange(9))
    logger.record("figure", Figure(plt.figure(), close=True))
    logger.record("hparams", HParam({"a": 1}, {"b": 0.0}))
    logger.record("nothing", None)
    logger.record("hidden", 1.0, exclude="csv")
    logger.record("on", True)
    logger.dump(20)
    log(logger, [80])
    assert table(tmp_path) == [
        [FIRST, "a/late", "a/later", "a/text", "b/value", "on"],
        ["10", "", "", "", "3.3333333", ""],
        ["20", "", "", 'with "quotes", and commas', "", "True"],
        ["80", "0.0125", "nan", "", "26.666666", ""],
    ]
    assert logger.table.rows == 3
    assert [path.name for path in tmp_path.iterdir()] == [files.PROGRESS]


def test_a_new_table_replaces_an_old_one(tmp_path: Path) -> None:
    (tmp_path / files.PROGRESS).write_text("some,other\n1,2\n")
    logger = make_logger(tmp_path, tensorboard=False)
    log(logger, [10])
    assert table(tmp_path) == [[FIRST, "b/value"], ["10", "3.3333333"]]


@pytest.mark.parametrize("saved", [0, 1, 3, 5, 9])
@pytest.mark.parametrize("more", [0, 1, 4])
def test_a_run_killed_and_resumed_leaves_the_same_table_and_events(tmp_path: Path, saved: int, more: int) -> None:
    steps = range(10, 110, 10)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir(), broken.mkdir()
    uninterrupted = make_logger(whole, tensorboard=True)
    log(uninterrupted, steps[:saved])
    before = (whole / files.PROGRESS).read_bytes() if saved else None
    log(uninterrupted, steps[saved:])

    killed = make_logger(broken, tensorboard=True)
    log(killed, steps[:saved])
    state = restored(killed.files())
    log(killed, steps[saved : saved + more])
    with (broken / files.PROGRESS).open("a") as file:
        file.write("120,0.1")  # half a line
    (broken / f"{files.PROGRESS}.partial").write_text("half a table")
    for path in broken.glob("events.*"):
        with path.open("ab") as half:
            half.write(b"\x18\0\0\0")

    resumed = make_logger(broken, tensorboard=True)
    resumed.resume(state)
    assert resumed.table.rows == saved
    if before is not None:
        assert (broken / files.PROGRESS).read_bytes() == before
    assert [len(series) for series in events(broken).values()][:1] == [saved][: bool(saved)]
    log(resumed, steps[saved:])
    resumed.close()
    assert (broken / files.PROGRESS).read_bytes() == (whole / files.PROGRESS).read_bytes()
    assert not list(broken.glob("*.partial"))
    assert str(events(broken)) == str(events(whole))
    for series in events(broken).values():
        assert np.all(np.diff([step for step, _ in series]) > 0)


def test_a_run_resumed_twice(tmp_path: Path) -> None:
    first = make_logger(tmp_path, tensorboard=True)
    log(first, [10, 20])
    state = restored(first.files())
    log(first, [30])
    for end in (40, 60):
        logger = make_logger(tmp_path, tensorboard=True)
        logger.resume(state)
        log(logger, [end - 10, end])
        state = restored(logger.files())
        log(logger, [end + 10, end + 20])
    last = make_logger(tmp_path, tensorboard=True)
    last.resume(state)
    assert [step for step, _ in events(tmp_path)["b/value"]] == [10, 20, 30, 40, 50, 60]
    assert [row[0] for row in table(tmp_path)[1:]] == ["10", "20", "30", "40", "50", "60"]


def test_what_comes_at_the_checkpoints_own_step_is_cut_off_as_well(tmp_path: Path) -> None:
    """Such as the test at the end of training, of a run that is then extended."""
    first = make_logger(tmp_path, tensorboard=True)
    log(first, [10, 20])
    state = first.files()
    log(first, [20])
    second = make_logger(tmp_path, tensorboard=True)
    second.resume(state)
    log(second, [20, 30])
    assert [step for step, _ in events(tmp_path)["b/value"]] == [10, 20, 20, 30]
    assert len(table(tmp_path)) == 5


def test_a_tensorboard_that_watches_forgets_what_was_lost(tmp_path: Path) -> None:
    first = make_logger(tmp_path, tensorboard=True)
    log(first, [10, 20])
    state = first.files()
    log(first, [30, 40])
    watching = EventAccumulator(str(tmp_path))
    watching.Reload()
    assert [event.step for event in watching.Scalars("b/value")] == [10, 20, 30, 40]
    second = make_logger(tmp_path, tensorboard=True)
    second.resume(state)
    log(second, [35, 50])
    watching.Reload()
    assert [event.step for event in watching.Scalars("b/value")] == [10, 20, 35, 50]


def test_tensorboard_gets_what_stable_baselines_writes(tmp_path: Path) -> None:
    ours = make_logger(tmp_path / "ours", tensorboard=True).events
    theirs = TensorBoardOutputFormat(str(tmp_path / "sb3"))
    (tmp_path / "ours").mkdir()
    row: dict[str, Any] = {"a": 0.1, "b": np.float64(3), "c": 7, "hist": torch.randn(50), "text": "words", "not": 1.0}
    row["hparams"] = HParam({"x": 1}, {"a": 0.0})
    excluded = {key: ("tensorboard",) if key == "not" else ("",) for key in row}
    for output in (ours, theirs):
        assert output is not None
        for step in (5, 10):
            output.write(row, excluded, step)
        output.close()
    found = []
    for folder in ("ours", "sb3"):
        (path,) = (tmp_path / folder).iterdir()
        read = [Event.FromString(record) for record in RawEventFileLoader(str(path)).Load()]
        assert all(event.wall_time > 1e9 for event in read)
        found.append([(event.step, event.file_version, event.summary.SerializeToString()) for event in read])
    starts = [b"_hparams_/session_start_info" in summary for *_, summary in found[0]]
    assert sum(starts) == 2  # they hold the time at which they were made
    for start, one, other in zip(starts, *found, strict=True):
        assert one[:2] == other[:2]
        assert start or one[2] == other[2]


def test_files_of_one_second_sort_in_the_order_in_which_they_were_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("experiments.events.time.time", lambda: 1_700_000_000.0)
    logger, state = make_logger(tmp_path, tensorboard=True), None
    for pid, step in [(9, 10), (10, 20), (8, 30)]:
        monkeypatch.setattr("experiments.events.os.getpid", lambda pid=pid: pid)
        if state is not None:
            logger = make_logger(tmp_path, tensorboard=True)
            logger.resume(state)
        log(logger, [step])
        state = logger.files()
    assert [step for step, _ in events(tmp_path)["b/value"]] == [10, 20, 30]


def test_a_full_disk_costs_rows_and_one_sentence(tmp_path: Path) -> None:
    said: list[str] = []
    losses = Losses(said.append)
    logger = make_logger(tmp_path, tensorboard=True, losses=losses)
    log(logger, [10, 20])
    sizes = {path: path.stat().st_size for path in tmp_path.iterdir()}
    with full_disk(min(sizes.values()) + 5):
        log(logger, [30, 40, 50])  # the table must also be widened
    assert {path: path.stat().st_size for path in tmp_path.iterdir()} == sizes  # no half of anything
    log(logger, [60, 70])
    with full_disk(5):
        log(logger, [80])
    log(logger, [90])
    logger.close()
    assert [row[0] for row in table(tmp_path)[1:]] == ["10", "20", "60", "70", "90"]
    assert table(tmp_path)[0] == [FIRST, "a/late", "a/later", "b/value"]
    assert [step for step, _ in events(tmp_path)["b/value"]] == [10, 20, 60, 70, 90]
    assert len(said) == 1
    assert "cannot be written (File too large) at step 30: training goes on" in said[0]
    gaps = losses.as_dict()
    expected = [{"first": 30, "last": 50, "rows": 3}, {"first": 80, "last": 80, "rows": 1}]
    assert list(gaps.values()) == [expected, expected]
    assert losses.summary()[0] == f"{files.PROGRESS}: 4 rows could not be written, steps 30-50, at step 80"
    assert logger.table.rows == 5


def test_a_disk_that_is_full_from_the_first_row_on(tmp_path: Path) -> None:
    losses = Losses(lambda sentence: None)
    logger = make_logger(tmp_path, tensorboard=True, losses=losses)
    with full_disk(0):
        log(logger, [10, 20])
    log(logger, [30])
    assert [row[0] for row in table(tmp_path)[1:]] == ["30"]
    assert [step for step, _ in events(tmp_path)["b/value"]] == [30]
    assert [[gap["rows"] for gap in gaps] for gaps in losses.as_dict().values()] == [[2], [2]]


def test_gaps_before_a_checkpoint_are_remembered_and_those_after_it_filled(tmp_path: Path) -> None:
    losses = Losses(lambda sentence: None)
    logger = make_logger(tmp_path, tensorboard=False, losses=losses)
    log(logger, [10])
    with full_disk(0):
        log(logger, [20])
        state = restored((logger.files(), losses.state_dict()))
        log(logger, [30])
    again = Losses(lambda sentence: None)
    again.load_state_dict(state[1])
    resumed = make_logger(tmp_path, tensorboard=False, losses=again)
    resumed.resume(state[0])
    with full_disk(0):
        log(resumed, [25])
    log(resumed, [30])
    assert again.as_dict() == {files.PROGRESS: [{"first": 20, "last": 25, "rows": 2}]}
    assert [row[0] for row in table(tmp_path)[1:]] == ["10", "30"]


def test_a_device_without_space(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "full.csv"
    path.symlink_to("/dev/full")
    file = GrowingFile(path, losses := Losses())
    assert not file.append(b"a row\n", 3)
    assert not file.append(b"another\n", 4, 2, since=4)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert f"{path} cannot be written (No space left on device) at step 3" in caplog.text
    assert losses.as_dict() == {"full.csv": [{"first": 3, "last": 4, "rows": 3}]}
    path.unlink()
    assert file.append(b"a third\n", 5)
    assert path.read_text() == "a third\n"


def test_a_file_that_someone_shortened_is_told_of(tmp_path: Path) -> None:
    logger = make_logger(tmp_path, tensorboard=True)
    log(logger, [10, 20, 30])
    state = logger.files()
    for path in tmp_path.iterdir():
        content = path.read_bytes()
        path.write_bytes(content[: len(content) - 40])
    said: list[str] = []
    resumed = make_logger(tmp_path, tensorboard=True, losses=Losses(said.append))
    resumed.resume(state)
    assert len(said) == 2
    assert all("at the checkpoint" in sentence for sentence in said)
    log(resumed, [40])
    assert table(tmp_path)[-1][0] == "40"


def page(folder: Path, state: Any = None) -> RunLogger:
    config = validate(compose(["env=ns_cartpole"]).tree)
    callback, logger = RunPage(config), make_logger(folder, tensorboard=True)
    if state is not None:
        logger.resume(state)
    model: Any = SimpleNamespace(logger=logger, num_timesteps=0, policy=None, get_env=lambda: None)
    callback.init_callback(model)
    callback.on_training_start({}, {})
    return logger


def test_the_page_is_written_at_once_when_a_run_starts_and_not_again(tmp_path: Path) -> None:
    logger = page(tmp_path)
    assert not logger.name_to_value  # nothing that a checkpoint could not hold
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    log(page(tmp_path, restored(logger.files())), [10])
    plugins = EventAccumulator(str(tmp_path))
    plugins.Reload()
    assert set(plugins.PluginTagToContent("hparams")) > {"_hparams_/session_start_info"}
    assert b"agent.gamma" in plugins.PluginTagToContent("hparams")["_hparams_/session_start_info"]
    assert plugins.PluginTagToContent("custom_scalars")
    assert [event.step for event in plugins.Scalars("b/value")] == [10]
    first, second = sorted(tmp_path.glob("events.*"))
    assert first.stat().st_size == size
    assert b"hparams" not in second.read_bytes()


def episodes(recorder: EpisodeRecorder, steps: Sequence[int]) -> None:
    """Two sub-environments; an episode ends at every tenth step, a regime lasts fifty."""
    for step in steps:
        info: dict[str, Any] = {"nonstationary/regime": step // 50, "nonstationary/gravity": 1 + step // 50}
        ended = {"episode": {"r": step / 7, "l": 5}} if step % 10 == 0 else {}
        recorder.model.num_timesteps = step
        recorder.update_locals({"infos": [info | ended, info]})
        assert recorder.on_step()
        if step % 20 == 0:
            recorder.on_rollout_end()


def recorder(path: Path, state: Any = None, losses: Losses | None = None) -> EpisodeRecorder:
    made = EpisodeRecorder(path, losses)
    made.init_callback(SimpleNamespace(num_timesteps=0, get_env=lambda: None, logger=None))  # type: ignore[arg-type]
    if state is not None:
        made.load_state_dict(restored(state))
    made.on_training_start({}, {})
    return made


@pytest.mark.parametrize("saved", [0, 24, 60, 100])
def test_episodes_and_regimes_of_a_run_killed_and_resumed(tmp_path: Path, saved: int) -> None:
    whole = recorder(tmp_path / "whole.csv")
    episodes(whole, range(2, 201, 2))
    whole.close()
    killed = recorder(tmp_path / "broken.csv")
    episodes(killed, range(2, saved + 1, 2))
    state = killed.state_dict()
    episodes(killed, range(saved + 2, saved + 81, 2))
    killed._write()
    with (tmp_path / "broken.csv").open("a") as file:
        file.write("140,0,")
    resumed = recorder(tmp_path / "broken.csv", state)
    assert resumed.regimes == {r.index: r for r in resumed.regimes.values()}
    episodes(resumed, range(saved + 2, 201, 2))
    resumed.close()
    assert resumed.regimes == whole.regimes
    assert [one.start for one in whole.regimes.values()] == [0, 50, 100, 150, 200]
    assert whole.regimes[1].returns == [step / 7 for step in range(50, 100, 10)]
    assert (tmp_path / "broken.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    rows = (tmp_path / "whole.csv").read_text().splitlines()
    assert rows[:2] == ["step,env,regime,return,length", f"10,0,0,{10 / 7},5"]
    assert len(rows) == 21


def test_episodes_on_a_full_disk(tmp_path: Path) -> None:
    path, losses = tmp_path / "episodes.csv", Losses(lambda sentence: None)
    with full_disk(0):
        made = recorder(path, losses=losses)
        episodes(made, range(2, 51, 2))
        made.close()
    episodes(made, range(52, 101, 2))
    made.close()
    made.close()
    assert [row.split(",")[0] for row in path.read_text().splitlines()] == ["step", *map(str, range(60, 101, 10))]
    assert losses.as_dict() == {"episodes.csv": [{"first": 0, "last": 50, "rows": 5}]}
    assert len(made.regimes[0].returns) == 4  # the picture at the end has them all the same


def test_a_shortened_table_of_episodes_can_be_gone_on_with(tmp_path: Path) -> None:
    path, said = tmp_path / "episodes.csv", []
    made = recorder(path)
    episodes(made, range(2, 61, 2))
    state = made.state_dict()
    path.write_bytes(path.read_bytes()[:-5])
    resumed = recorder(path, state, Losses(said.append))
    episodes(resumed, [70])
    resumed.close()
    assert [row.split(",")[0] for row in path.read_text().splitlines()[1:]] == ["10", "20", "30", "40", "50", "70"]
    assert len(said) == 1


def test_writing_episodes_costs_nothing_where_every_step_is_a_rollout(tmp_path: Path) -> None:
    made = recorder(tmp_path / "episodes.csv")
    writes: list[int] = []
    made._file.append = lambda *args, **kwargs: bool(writes.append(1))  # type: ignore[method-assign]
    for step in range(10, 1000, 10):
        episodes(made, [step])
        made.on_rollout_end()
    assert len(writes) <= 2  # as many as seconds have passed


def test_alarms_are_written_anew_and_not_printed_again(tmp_path: Path) -> None:
    path, monitor, out = tmp_path / files.ALARMS, PlasticityMonitor(), StringIO()
    model: Any = SimpleNamespace(num_timesteps=0, get_env=lambda: None, logger=None)

    def started(monitor: PlasticityMonitor) -> AlarmLog:
        alarms = AlarmLog(monitor, path, Console(file=out))
        alarms.init_callback(model)
        alarms.on_training_start({}, {})
        return alarms

    def raise_one(alarms: AlarmLog, step: int) -> None:
        assert alarms.monitor.alarms is not None
        alarms.monitor.alarms.raised.append((step, "it fell"))
        alarms.on_rollout_end()

    path.write_text("of another run\n")
    log = started(monitor)
    assert not path.exists()
    raise_one(log, 1000)
    state = restored(monitor.state_dict())
    raise_one(log, 2000)
    assert path.read_text() == "step 1,000: it fell\nstep 2,000: it fell\n"
    resumed = PlasticityMonitor()
    resumed.load_state_dict(state)
    log = started(resumed)
    assert path.read_text() == "step 1,000: it fell\n"
    log.on_rollout_end()
    raise_one(log, 3000)
    assert path.read_text() == "step 1,000: it fell\nstep 3,000: it fell\n"
    assert [line.split(":")[0] for line in out.getvalue().splitlines()] == [
        f"plasticity alarm, step {step},000" for step in (1, 2, 3)
    ]
    with full_disk(0):
        raise_one(log, 4000)
    raise_one(log, 5000)
    assert len(path.read_text().splitlines()) == 4  # all are known, so a full disk costs none


def test_rate_and_time_left_of_a_resumed_run_count_from_its_start(monkeypatch: pytest.MonkeyPatch) -> None:
    now, out = [100.0], StringIO()
    monkeypatch.setattr("experiments.progress.time.monotonic", lambda: now[0])
    bar = ProgressBar(1000, Console(file=out, width=200))
    model: Any = SimpleNamespace(num_timesteps=650, get_env=lambda: None, logger=None, ep_info_buffer=None)
    bar.init_callback(model)
    bar.on_training_start({}, {})
    for step in range(660, 1001, 10):
        now[0] += 2.0
        model.num_timesteps = step
        assert bar.on_step()
    bar.close()
    lines = out.getvalue().splitlines()
    assert [line.split("%")[0].strip() for line in lines] == ["70", "80", "90", "100"]
    assert lines[0].endswith("70 %  700/1,000 steps  5/s  1:00 left")
