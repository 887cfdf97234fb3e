"""Probing finished runs, and what runs keep and say for it."""

from __future__ import annotations

import csv
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from rich.console import Console

from agents import PlasticityMonitor
from experiments import folder as files
from experiments import probe
from experiments.alarm_log import MOST, AlarmLog
from experiments.command_line import main
from tests.experiments.conftest import Outcome

WORDS = [
    *("env=ns_cartpole", "env.n_envs=2", "env.kwargs.period=600", "total_steps=1500", "agent.n_steps=256"),
    *("agent.batch_size=64", "agent.net_arch=[16,16]", "agent.n_epochs=2", "run.dir=run", "plasticity=none"),
    *("logging.probe_every=1", "logging.landscape=true", "logging.histograms=true"),
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a short run that was probed while it trained."""
    cwd = tmp_path_factory.mktemp("probed")
    assert main([*WORDS, f"run.dir={cwd / 'run'}"]) == 0
    return cwd / "run"


def probed(folder: Path, capsys: pytest.CaptureFixture[str]) -> Outcome:
    code = probe.main([str(folder)])
    captured = capsys.readouterr()
    return Outcome(code, captured.out, captured.err)


def test_the_run_s_own_probe_and_that_of_its_folder_agree(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (finished / files.PROGRESS).open(newline="") as file:
        rows = list(csv.DictReader(file))
    gaps = [float(row["plasticity/pi/plasticity_gap"]) for row in rows if row["plasticity/pi/plasticity_gap"]]
    assert len(gaps) == 2  # the batch is full after 1024 of 1536 steps
    assert all(float(row["plasticity/vf/ntk_rank"]) > 0 for row in rows[1:])
    first, now = probe.probe_run(finished, probe.load_config(finished))
    fresh = float(rows[-1]["plasticity/pi/fresh_fit_loss"])
    assert now["pi/fresh_fit_loss"] == pytest.approx(fresh, rel=1e-5)  # the very weights the run began with
    assert now["pi/fit_loss"] != now["pi/fresh_fit_loss"]
    assert first.keys() <= now.keys()
    outcome = probed(finished, capsys)
    assert outcome.code == 0
    (row,) = [line for line in outcome.out.splitlines() if line.startswith("│ pi ")]
    numbers = re.findall(r"[-+]?\d+\.?\d*", row)
    assert [float(number) for number in numbers[:3]] == pytest.approx(
        [now["pi/fresh_fit_loss"], now["pi/fit_loss"], now["pi/plasticity_gap"]], abs=6e-3
    )
    assert "seed=1 logging.probe_every=10  # another seed" in outcome.out
    assert "python -m tensorboard.main --logdir" in outcome.out


def test_the_kept_batch_is_tensors_only(finished: Path) -> None:
    observations, actions = files.read_probe(finished)
    assert observations.shape == (1024, 4)
    assert actions is None


def test_sac_is_probed_with_its_actions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["agent=sac", "env=ns_pendulum", "total_steps=1300", "agent.net_arch=[16,16]", "agent.batch_size=32"]
    assert main([*words, "agent.learning_starts=1000", "plasticity=none", f"run.dir={tmp_path / 'run'}"]) == 0
    assert files.read_probe(tmp_path / "run")[1].shape == (1024, 1)
    capsys.readouterr()
    outcome = probed(tmp_path / "run", capsys)
    assert outcome.code == 0
    assert [name for name in ("actor", "qf0", "qf1") if f"│ {name} " in outcome.out] == ["actor", "qf0", "qf1"]


@pytest.mark.parametrize("missing", [files.CONFIG, files.MODEL, files.PROBE])
def test_what_is_missing_is_named(
    missing: str, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(finished, tmp_path / "run")
    (folder / missing).unlink()
    outcome = probed(folder, capsys)
    assert outcome.code == 2
    assert len(outcome.errors) == 1
    assert outcome.err.startswith(f"error: {folder} holds no ")
    assert missing in outcome.err


def test_weights_that_do_not_fit_and_broken_files_are_one_line(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(finished, tmp_path / "run")
    tree = yaml.safe_load((folder / files.CONFIG).read_text())
    tree["agent"]["net_arch"] = [8]
    (folder / files.CONFIG).write_text(yaml.safe_dump(tree))
    outcome = probed(folder, capsys)
    assert outcome.code == 2
    assert "does not fit this agent's networks" in outcome.err
    (folder / files.CONFIG).write_text("[")
    outcome = probed(folder, capsys)
    assert outcome.code == 2
    assert "cannot be read" in outcome.err


def test_nothing_is_unpickled(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = shutil.copytree(finished, tmp_path / "run")
    torch.save({"observations": Harmful(tmp_path), "actions": None}, folder / files.PROBE)
    outcome = probed(folder, capsys)
    assert outcome.code == 2
    assert outcome.err == f"error: {folder} cannot be probed: probe.pt or model.zip holds other things than tensors\n"
    assert not (tmp_path / "harm").exists()


class Harmful:
    """Makes a folder when it is unpickled."""

    def __init__(self, where: Path):
        self.where = where

    def __reduce__(self) -> tuple[object, ...]:
        return Path.mkdir, (self.where / "harm",)


def test_histograms_need_tensorboard(command: Callable[..., Outcome]) -> None:
    outcome = command("logging.histograms=true", "logging.tensorboard=false")
    assert outcome.code == 2
    assert "logging.histograms can only be seen in TensorBoard" in outcome.err


def test_the_new_settings_are_known(command: Callable[..., Outcome]) -> None:
    assert "logging.probe_every must be in [1, inf), got 0" in command("logging.probe_every=0").err
    shown = yaml.safe_load(command("--cfg", "job").out)["logging"]
    assert shown["probe_every"] is None
    assert (shown["landscape"], shown["histograms"], shown["alarms"]) == (False, False, True)
    assert "logging.probe_every=10" in command("--help").out


def test_alarms_are_printed_kept_and_summed_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    monitor = PlasticityMonitor()
    log = AlarmLog(monitor, tmp_path / files.ALARMS, Console())
    log.on_rollout_end()
    assert log.summary() == []
    assert not (tmp_path / files.ALARMS).exists()
    assert monitor.alarms is not None
    for step in range(MOST + 2):
        monitor.alarms.raised.append((1000 * step, f"pi/{step}: it [fell]"))
        log.on_rollout_end()
    said = capsys.readouterr().out.splitlines()
    assert said[1] == "plasticity alarm, step 1,000: pi/1: it [fell]"
    assert len(said) == MOST + 2
    kept = (tmp_path / files.ALARMS).read_text().splitlines()
    assert kept[1] == "step 1,000: pi/1: it [fell]"
    assert len(kept) == MOST + 2
    summary = log.summary()
    assert summary[1] == "Alarms: signs of lost plasticity"
    assert summary[-1] == f"  ... and 2 more in {files.ALARMS}"


def test_a_run_that_loses_plasticity_says_so(command: Callable[..., Outcome], tmp_path: Path) -> None:
    outcome = command(
        *("env=gym", "env.id=Pendulum-v1", "plasticity=none", "total_steps=2560", "run.dir=x", "agent.net_arch=[16]"),
        *("agent.n_steps=256", "agent.learning_rate=0.5", "agent.activation=relu"),
    )
    assert outcome.code == 0
    kept = (tmp_path / "x" / files.ALARMS).read_text()
    assert re.search(r"step [\d,]+: (pi|vf)/0: ", kept)
    assert "plasticity alarm, step" in outcome.out
    assert "Alarms: signs of lost plasticity" in outcome.out
    assert "Alarms: signs of lost plasticity" in (tmp_path / "x" / files.SUMMARY).read_text()
    assert np.all([line in kept for line in re.findall(r"plasticity alarm, (.*)", outcome.out)])
