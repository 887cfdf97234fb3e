"""`logging.trackers`: W&B and MLflow as they are, offline; Trackio with its signatures; none of them costs a run."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import random
import struct
import subprocess
import sys
import types
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
import yaml

from experiments import folder as files
from experiments.command_line import main as train
from experiments.compose import compose
from experiments.errors import BadInput
from experiments.schema import validate
from experiments.trackers import About, output, to_wandb, tracker_faults
from tests.experiments.conftest import ROOT, Outcome

WORDS = (
    *("env=ns_cartpole", "env.n_envs=2", "env.kwargs.period=300", "total_steps=512", "agent.n_steps=64"),
    *("agent.batch_size=64", "agent.net_arch=[8]", "agent.n_epochs=2", "plasticity=[l2,cbp]", "seed=7"),
    *("run.threads=1", "evaluation.episodes=1", "logging.tensorboard=false"),
)
SQLALCHEMY = pytest.mark.filterwarnings(
    "ignore:The ``noload`` loader strategy is deprecated"  # MLflow 3.17 with SQLAlchemy 2.1, and not ours to mend
)
Command = Callable[..., Outcome]


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No service is reached, no login is looked for, and nothing is written outside the test's folder."""
    for name in ("WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR", "TRACKIO_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_PROJECT", "WANDB_DIR", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    for name in ("WANDB_ERROR_REPORTING", "MLFLOW_DISABLE_TELEMETRY"):  # which a run sets, and leaves set
        monkeypatch.setenv(name, {"W": "false", "M": "true"}[name[0]])
    monkeypatch.setenv("WANDB_SILENT", "true")


def rows(folder: Path) -> list[tuple[int, dict[str, float]]]:
    """(step, values) of `progress.csv`, rows of one step together, without what TensorBoard does not get either."""
    found: dict[int, dict[str, float]] = {}
    with (folder / files.PROGRESS).open(newline="") as file:
        for row in csv.DictReader(file):
            step = int(row.pop("time/total_timesteps"))
            del row["train/n_updates"]
            numbers = {key: float(text) for key, text in row.items() if text}
            found.setdefault(step, {}).update(numbers)
    return sorted(found.items())


def weights(folder: Path) -> dict[str, torch.Tensor]:
    with zipfile.ZipFile(folder / files.MODEL) as archive:
        found: dict[str, torch.Tensor] = torch.load(io.BytesIO(archive.read("policy.pth")), weights_only=True)
    return found


def same(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one) and one.keys() == other.keys()


@pytest.fixture(scope="module")
def untracked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("untracked") / "run"
    assert train([*WORDS, f"run.dir={folder}"]) == 0
    return folder


def wandb_records(path: Path) -> Iterator[Any]:
    """What is in a `.wandb` file, which is one of LevelDB's logs."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, position, piece = path.read_bytes(), 7, b""
    while position + 7 <= len(content):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        _, length, kind = struct.unpack("<IHB", content[position : position + 7])
        piece += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):
            record = Record()
            record.ParseFromString(piece)
            yield record
            piece = b""


def wandb_rows(path: Path) -> list[tuple[int, dict[str, float]]]:
    found = []
    for record in wandb_records(path):
        if record.WhichOneof("record_type") == "history":
            items = {(item.key or item.nested_key[0]): item.value_json for item in record.history.item}
            numbers = {key: float(json.loads(text)) for key, text in items.items() if "/" in key and "." not in key[:1]}
            found.append((record.history.step.num, {k: v for k, v in numbers.items() if not k.startswith("summary")}))
    return found


def without_clock(table: list[tuple[int, dict[str, float]]]) -> list[tuple[int, dict[str, float]]]:
    """Rows without what SB3 says of the time, some of it to some outputs only."""
    return [(step, {k: v for k, v in row.items() if not k.startswith("time/")}) for step, row in table]


def untested(row: tuple[int, dict[str, float]]) -> tuple[int, dict[str, float]]:
    """Without tests on frozen regimes: that at the end of a run is no part of a longer one, and was sent."""
    return row[0], {key: value for key, value in row[1].items() if not key.startswith("evaluation/")}


def test_wandb_offline_has_all_rows_and_goes_on_with_its_run(command: Command, tmp_path: Path, untracked: Path) -> None:
    run = tmp_path / "run"
    outcome = command(*WORDS, "logging.trackers=wandb", f"run.dir={run}")
    assert (outcome.code, outcome.err) == (0, "")
    (path,) = run.glob("wandb/offline-run-*/*.wandb")
    assert f"wandb: offline, in {path.parent}; to upload it later: wandb sync {path.parent}" in outcome.out
    assert without_clock(wandb_rows(path)) == without_clock(rows(run))
    assert same(weights(run), weights(untracked))
    (about,) = [r.run for r in wandb_records(path) if r.WhichOneof("record_type") == "run"]
    assert (about.display_name, about.run_group, about.project) == ("run", "l2+cbp", "pliant")
    assert list(about.tags) == ["ppo", "NSCartPole-v1", "l2", "cbp"]
    config = {item.key: json.loads(item.value_json) for item in about.config.update}
    assert config["agent"]["n_epochs"] == 2
    assert "run" not in config
    assert (path.parent / "files" / "media" / "images").is_dir()
    (end,) = [r.exit for r in wandb_records(path) if r.WhichOneof("record_type") == "exit"]
    assert end.exit_code == 0
    assert not [one for one in psutil.Process().children(recursive=True) if "wandb" in one.name()]

    assert command(*WORDS, "logging.trackers=wandb", f"run.dir={run}", "total_steps=768").code == 0
    (later,) = [each for each in run.glob("wandb/offline-run-*/*.wandb") if each.parent != path.parent]
    assert later.name == path.name  # named after the id
    both = without_clock(wandb_rows(path) + wandb_rows(later))
    assert [untested(row) for row in both] == [untested(row) for row in without_clock(rows(run))]


@SQLALCHEMY
def test_mlflow_has_all_rows_and_goes_on_with_its_run(command: Command, tmp_path: Path, untracked: Path) -> None:
    run = tmp_path / "runs" / "run"
    outcome = command(*WORDS, "logging.trackers=[mlflow]", f"run.dir={run}")
    assert (outcome.code, outcome.err) == (0, "")
    assert same(weights(run), weights(untracked))
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{run.parent / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("pliant")
    assert experiment is not None

    def check(status: str, total: str, tested: bool = True) -> None:
        (found,) = client.search_runs([experiment.experiment_id])
        assert found.info.run_id == json.loads((run / files.TRACKED).read_text())["mlflow"]["id"]
        assert (found.info.run_name, found.info.status) == ("run", status)
        assert found.data.params["agent.n_epochs"] == "2"
        assert found.data.tags["group"] == "l2+cbp"
        assert found.data.tags["total_steps"] == total
        assert [one.path for one in client.list_artifacts(found.info.run_id)] == [files.PICTURE]
        expected = rows(run)
        left_out = ("time/",) if tested else ("time/", "evaluation/")
        for key in sorted({key for _, row in expected for key in row if not key.startswith(left_out)}):
            history = client.get_metric_history(found.info.run_id, key)
            assert [(one.step, one.value) for one in history] == [(s, row[key]) for s, row in expected if key in row]

    check("FINISHED", "512")
    assert command(*WORDS, "logging.trackers=[mlflow]", f"run.dir={run}", "total_steps=768").code == 0
    check("FINISHED", "768", tested=False)  # its test at step 512 is no part of a longer run, and was sent


class FakeTrackio(types.ModuleType):
    """With the signatures of Trackio 0.43.0."""

    def __init__(self) -> None:
        super().__init__("trackio")
        self.said: list[Any] = []

    def init(
        self,
        project: str,
        name: str | None = None,
        group: str | None = None,
        space_id: str | None = None,
        server_url: str | None = None,
        dataset_id: str | None = None,
        bucket_id: str | None = None,
        config: dict[str, Any] | None = None,
        resume: str = "never",
        settings: Any = None,
        private: bool | None = None,
        embed: bool = True,
        auto_log_gpu: bool | None = None,
        gpu_log_interval: float = 10.0,
        auto_log_cpu: bool | None = None,
        cpu_log_interval: float = 10.0,
        webhook_url: str | None = None,
        webhook_min_level: str | None = None,
    ) -> FakeTrackio:
        print("* Trackio project initialized")
        assert not any(key.startswith("_") for key in config or {})
        self.said.append(("init", project, name, group, resume))
        self.id = "a1"
        return self

    def log(self, metrics: dict[str, Any], step: int | None = None) -> None:
        self.said.append((step, metrics))

    def log_artifact(
        self,
        artifact_or_path: str,
        name: str | None = None,
        type: str | None = None,
        aliases: list[str] | None = None,
        overwrite: bool = False,
    ) -> None:
        self.said.append(("artifact", Path(artifact_or_path).name, name, type))

    def finish(self) -> None:
        self.said.append("finish")


def pretend(monkeypatch: pytest.MonkeyPatch, module: types.ModuleType) -> None:
    """Let a package be there."""
    monkeypatch.setitem(sys.modules, module.__name__, module)
    module.__spec__ = importlib.util.spec_from_loader(module.__name__, None)


def test_trackio(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, untracked: Path) -> None:
    fake, run = FakeTrackio(), tmp_path / "run"
    pretend(monkeypatch, fake)
    outcome = command(*WORDS, "logging.trackers=[trackio]", f"run.dir={run}")
    assert (outcome.code, outcome.err) == (0, "")
    assert "trackio: to look at it: trackio show --project pliant" in outcome.out
    assert "* Trackio" not in outcome.out
    assert fake.said[0] == ("init", "pliant", "run", "l2+cbp", "never")
    assert fake.said[-2:] == [("artifact", "summary.png", "run-summary", "picture"), "finish"]
    assert [step for step, _ in fake.said[1:-2]] == sorted(step for step, _ in fake.said[1:-2])
    merged: dict[int, dict[str, float]] = {}
    for step, row in fake.said[1:-2]:
        merged.setdefault(step, {}).update(row)
    assert without_clock(sorted(merged.items())) == without_clock(rows(run))
    assert same(weights(run), weights(untracked))
    fake.said.clear()
    assert command(*WORDS, "logging.trackers=[trackio]", f"run.dir={run}", "total_steps=640").code == 0
    assert fake.said[0][-1] == "allow"
    assert min(step for step, _ in fake.said[1:-2]) > 512


class Wild:
    """A tracker that draws from every global stream, and fails where it is told to."""

    def __init__(self, fails: str = ""):
        self.fails, self.rows = fails, list[int]()

    def _do(self, name: str) -> None:
        random.random()
        np.random.rand()  # noqa: NPY002
        torch.rand(1)
        if name == self.fails:
            raise OSError("no route to host")

    def begin(self, last: str | None) -> tuple[str, str]:
        self._do("begin")
        return last or "w1", "here"

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._do("log")
        self.rows.append(step)

    def picture(self, path: Path, step: int) -> None:
        self._do("picture")

    def end(self, status: str) -> None:
        self._do("end")


@pytest.mark.parametrize("fails", ["", "begin", "log", "picture", "end"])
def test_whatever_a_tracker_does_the_run_is_the_same(
    fails: str, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, untracked: Path
) -> None:
    wild = Wild(fails)
    monkeypatch.setattr(output, "make_tracker", lambda name, about: wild)
    outcome = command(*WORDS, "logging.trackers=[wandb]", f"run.dir={tmp_path / 'run'}")
    assert (outcome.code, outcome.err) == (0, "")
    assert same(weights(tmp_path / "run"), weights(untracked))
    said = [line for line in outcome.out.splitlines() if "switched off" in line]
    assert len(said) == bool(fails)
    for line in said:
        reason = "(OSError: no route to host)"
        assert line == f"  warning: wandb is switched off for the rest of this run, which goes on without it {reason}"


def trackers(folder: Path, wild: Wild, monkeypatch: pytest.MonkeyPatch) -> output.Trackers:
    monkeypatch.setattr(output, "make_tracker", lambda name, about: wild)
    made = output.Trackers(["wandb"], About(folder, "none", (), {}, "abc"), lambda line: None)
    made.begin()
    return made


def test_steps_that_were_sent_before_a_crash_are_not_sent_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third = Wild(), Wild(), Wild()
    killed = trackers(tmp_path, first, monkeypatch)
    for step in (100, 200, 300):
        killed.write({"a": step}, {"a": ()}, step)
    resumed = trackers(tmp_path, second, monkeypatch)  # from a checkpoint of step 150
    for step in (200, 300, 400, 400):
        resumed.write({"a": step}, {"a": ()}, step)
    assert (first.rows, second.rows) == ([100, 200, 300], [400, 400])
    (tmp_path / files.TRACKED).write_text("{")  # half a file
    trackers(tmp_path, third, monkeypatch).write({"a": 1}, {"a": ()}, 100)
    assert third.rows == [100]


def test_only_numbers_that_tensorboard_gets_are_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Mapping[str, float]] = []
    wild = Wild()
    monkeypatch.setattr(wild, "log", lambda values, step: seen.append(values))
    values = {"a": np.float32(1), "b": "text", "c": 2, "d": np.zeros(3), "e": 3.0, "f": True}
    excluded: dict[str, tuple[str, ...]] = {**dict.fromkeys(values, ()), "e": ("tensorboard",)}
    one = trackers(tmp_path, wild, monkeypatch)
    one.write(values, excluded, 5)
    one.write({"b": "text"}, {"b": ()}, 6)
    assert seen == [{"a": 1.0, "c": 2.0, "f": 1.0}]


def test_a_failed_run_is_said_to_have_failed(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ends: list[str] = []
    wild = Wild()
    monkeypatch.setattr(wild, "end", ends.append)
    monkeypatch.setattr(output, "make_tracker", lambda name, about: wild)
    words = ("logging.trackers=[mlflow]", "run.guard.reward_limit=0.5", "run.dir=run")
    assert command(*WORDS, *words).code == 3
    assert ends == ["failed"]


def test_a_missing_package_is_refused_before_anything_is_made(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "wandb" else find(name, *rest))
    outcome = command(*WORDS, "logging.trackers=[wandb]", "run.dir=run")
    assert outcome.code == 2
    assert outcome.errors == [
        "error: logging.trackers=wandb needs wandb, which is not installed: python -m pip install 'pliant-rl[wandb]'"
    ]
    assert not (tmp_path / "run").exists()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None)
    assert [fault.split(",")[0] for fault in tracker_faults(["mlflow"])] == [
        "logging.trackers=mlflow needs mlflow and sqlalchemy and alembic"
    ]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert [fault.split(",")[0] for fault in tracker_faults(["mlflow"])] == ["logging.trackers=mlflow needs mlflow"]


def test_settings() -> None:
    with pytest.raises(BadInput, match=r'logging: unknown tracker "wanbd": allowed are .*; did you mean "wandb"'):
        validate(compose(["logging.trackers=[wanbd]"]).tree)
    with_one, without = (validate(compose(words).tree) for words in (["logging.trackers=wandb"], []))
    assert with_one.logging.trackers == ("wandb",)
    assert files.config_hash(with_one) == files.config_hash(without)
    assert yaml.safe_load(yaml.safe_dump(with_one.as_dict()))["logging"]["trackers"] == ["wandb"]


def test_a_login_is_found_where_wandb_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not to_wandb._logged_in()
    (tmp_path / "netrc").write_text("machine wandb.example login user password secret\n")
    assert not to_wandb._logged_in()
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example")
    assert to_wandb._logged_in()
    (tmp_path / "netrc").write_text("nonsense")
    assert not to_wandb._logged_in()


def test_a_run_without_trackers_imports_none() -> None:
    code = "import sys, experiments.run; print({'wandb', 'mlflow', 'trackio', 'huggingface_hub'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
