"""Tiny runs from the command line to the finished folder."""

from __future__ import annotations

import csv
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import chdir, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import gymnasium as gym
import matplotlib.image
import numpy as np
import pytest
import yaml
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from agents import PPO, SAC
from experiments import folder as files
from experiments import summary
from experiments.command_line import main
from tests.experiments.conftest import ROOT, Outcome, run_train

PPO_WORDS = [
    *("env=ns_cartpole", "env.n_envs=2", "env.kwargs.period=500", "total_steps=1100", "seed=3"),
    *("agent.n_steps=128", "agent.batch_size=64", "agent.net_arch=[16,16]", "agent.n_epochs=4"),
    *("plasticity.cbp.maturity=5", "plasticity.cbp.replacement_rate=0.01"),
]
SMALL = ("experiment=none", "plasticity=none", "agent.n_steps=64", "agent.net_arch=[8,8]")
SAC_WORDS = [
    *("agent=sac", "env=ns_pendulum", "env.kwargs.period=500", "total_steps=1300", "agent.net_arch=[16,16]"),
    *("agent.batch_size=32", "agent.learning_starts=1000", "plasticity.cbp.maturity=5"),
]


@pytest.fixture(scope="module")
def ppo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    """A short PPO run on a changing CartPole: the folder it was started in, and what it said."""
    cwd = tmp_path_factory.mktemp("ppo")
    return cwd, run_train(PPO_WORDS, cwd)


@pytest.fixture(scope="module")
def sac(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    """A short SAC run on a changing Pendulum, in this process."""
    cwd, out, err = tmp_path_factory.mktemp("sac"), StringIO(), StringIO()
    with chdir(cwd), redirect_stdout(out), redirect_stderr(err):
        code = main(SAC_WORDS)
    return cwd, Outcome(code, out.getvalue(), err.getvalue())


def only_folder(cwd: Path) -> Path:
    assert [path.name for path in cwd.iterdir()] == ["runs"]
    (folder,) = (cwd / "runs").iterdir()
    return folder


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """tag -> (step, value) from TensorBoard's events."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("name", ["ppo", "sac"])
def test_the_folder_holds_all_of_a_run(name: str, request: pytest.FixtureRequest) -> None:
    cwd, outcome = request.getfixturevalue(name)
    assert (outcome.code, outcome.err) == (0, "")
    folder = only_folder(cwd)
    expected = set(files.FILES) - {files.ERROR_LOG, files.ALARMS, files.FORGETTING, files.ADAPTATION, files.TRACKED}
    found = {p.name for p in folder.iterdir() if not p.name.startswith("events.out.tfevents.")}
    assert found == expected - {files.NORMALIZATION} | {files.CHECKPOINTS}
    assert len(list(folder.glob("events.out.tfevents.*"))) == 1
    result = json.loads((folder / files.RESULT).read_text())
    assert (result["status"], result["steps"]) == ("finished", 1280 if name == "ppo" else 1300)
    assert folder.name.endswith(result["config_hash"])
    versions = json.loads((folder / files.VERSIONS).read_text())
    assert versions["packages"]["stable-baselines3"]
    words = PPO_WORDS if name == "ppo" else SAC_WORDS
    assert shlex.split((folder / files.COMMAND).read_text()) == ["python", "train.py", *words]
    config = yaml.safe_load((folder / files.CONFIG).read_text())
    assert config["plasticity"]["cbp"]["maturity"] == 5
    picture = matplotlib.image.imread(folder / files.PICTURE)
    assert picture.shape[0] > 800
    assert float(np.std(picture)) > 0.05


@pytest.mark.parametrize("name", ["ppo", "sac"])
def test_the_csv_holds_the_same_scalars_as_tensorboard(name: str, request: pytest.FixtureRequest) -> None:
    folder = only_folder(request.getfixturevalue(name)[0])
    table, events = rows(folder / files.PROGRESS), scalars(folder)
    from_csv: dict[str, list[tuple[int, float]]] = {}
    for row in table:
        for tag, text in row.items():
            if text:
                from_csv.setdefault(tag, []).append((int(float(row["time/total_timesteps"])), float(text)))
    not_for_tensorboard = {
        "time/iterations",
        "time/episodes",
        "time/time_elapsed",
        "time/total_timesteps",
        "train/n_updates",
    }
    assert set(from_csv) - not_for_tensorboard == set(events)
    for tag, points in events.items():
        steps, values = zip(*points, strict=True)
        csv_steps, csv_values = zip(*from_csv[tag], strict=True)
        assert steps == csv_steps, tag
        assert np.all(np.diff(steps) > 0), tag
        np.testing.assert_allclose(values, csv_values, rtol=1e-6, atol=1e-30, err_msg=tag)


@pytest.mark.parametrize(("name", "networks"), [("ppo", ["pi", "vf"]), ("sac", ["actor", "qf0", "qf1"])])
def test_plasticity_and_changes_are_logged(name: str, networks: list[str], request: pytest.FixtureRequest) -> None:
    events = scalars(only_folder(request.getfixturevalue(name)[0]))
    for network in networks:
        for metric in ("dead_fraction", "effective_rank", "weight_magnitude", "replaced"):
            assert f"plasticity/{network}/{metric}" in events
        assert f"plasticity/{network}/0/dead_fraction" in events
    assert events["nonstationary/regime"][-1][1] == 2
    assert "rollout/ep_rew_mean" in events


def test_units_are_replaced_and_changes_are_met(ppo: tuple[Path, Outcome]) -> None:
    folder = only_folder(ppo[0])
    assert float(rows(folder / files.PROGRESS)[-1]["plasticity/pi/replaced"]) > 0
    regimes = rows(folder / files.REGIMES)
    assert [int(row["regime"]) for row in regimes] == [0, 1, 2]
    assert all(500 * int(row["regime"]) <= int(row["first_step"]) < 500 * int(row["regime"]) + 500 for row in regimes)
    assert len({row["length"] for row in regimes}) == 3
    episodes = rows(folder / files.EPISODES)
    assert sum(int(row["episodes"]) for row in regimes) == len(episodes)
    steps = [int(row["step"]) for row in episodes]
    assert steps == sorted(steps)
    assert all(float(row["return"]) == float(row["length"]) for row in episodes)  # CartPole pays 1 a step
    first = [float(row["return"]) for row in episodes if row["regime"] == "0"]
    assert float(regimes[0]["mean_return"]) == pytest.approx(np.mean(first))


def test_tensorboard_gets_a_page_and_hyper_parameters(ppo: tuple[Path, Outcome]) -> None:
    events = EventAccumulator(str(only_folder(ppo[0])))
    events.Reload()
    plugins = {
        events.SummaryMetadata(tag).plugin_data.plugin_name
        for tag in [*events.Tags()["tensors"], *events.PluginTagToContent("custom_scalars")]
    }
    assert "custom_scalars" in plugins
    assert "_hparams_/session_start_info" in events.PluginTagToContent("hparams")
    session = events.PluginTagToContent("hparams")["_hparams_/session_start_info"]
    assert b"agent.gamma" in session
    assert b"plasticity.cbp.maturity" in session


def test_what_is_said_before_and_after(ppo: tuple[Path, Outcome]) -> None:
    cwd, outcome = ppo
    folder = only_folder(cwd).relative_to(cwd)
    assert "will run 1,280 (asked 1,100) environment steps" in outcome.out
    assert "cbp.maturity 5 gradient steps, about 80 environment steps (default 10,000)" in outcome.out
    assert "cbp.replacement_rate 0.01 (default 0.0001)" in outcome.out
    assert "Return per regime" in outcome.out
    assert f"finished after 1,280 steps; all of it is in {folder}:" in outcome.out
    assert f"  {files.PICTURE}, " in outcome.out
    assert "python -m tensorboard.main --logdir runs" in outcome.out
    assert "plasticity=none  # the same world with another method" in outcome.out
    assert "seed=4  # the same with another seed" in outcome.out
    bar = [line for line in outcome.out.splitlines() if "steps  " in line and "/s" in line]
    assert 2 <= len(bar) <= 10  # not a terminal: a few plain lines
    assert "length" in bar[-1]
    assert "return" in bar[-1]
    kept = (only_folder(cwd) / files.SUMMARY).read_text()
    assert "Return per regime" in kept
    assert "units replaced" in kept


def test_the_model_loads(ppo: tuple[Path, Outcome], sac: tuple[Path, Outcome]) -> None:
    model = PPO.load(only_folder(ppo[0]) / files.MODEL)
    assert model.num_timesteps == 1280
    action, _ = model.predict(np.zeros(4, dtype=np.float32))
    assert action in (0, 1)
    assert SAC.load(only_folder(sac[0]) / files.MODEL).num_timesteps == 1300


def test_a_finished_run_is_not_run_again(
    ppo: tuple[Path, Outcome], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cwd, first = ppo
    before = {path: path.stat().st_mtime_ns for path in only_folder(cwd).iterdir()}
    monkeypatch.chdir(cwd)
    code, out = main(PPO_WORDS), capsys.readouterr().out
    assert code == 0
    assert "is already complete (1,280 steps)" in out
    assert first.out.splitlines()[-4:] == out.splitlines()[-4:]
    assert {path: path.stat().st_mtime_ns for path in only_folder(cwd).iterdir()} == before


def test_a_used_folder_is_never_overwritten_unasked(
    ppo: tuple[Path, Outcome], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cwd, _ = ppo
    folder = only_folder(cwd)
    monkeypatch.chdir(cwd)
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert main([*PPO_WORDS, f"run.dir={folder}", "agent.gamma=0.5"]) == 2
    said = capsys.readouterr().err
    assert "agent.gamma: 0.98 -> 0.5" in said
    assert "run.dir=FOLDER" in said
    assert "run.overwrite=true" in said
    assert main([*PPO_WORDS, "total_steps=600"]) == 2
    assert "holds a run of 1,280 steps already, asked 768" in capsys.readouterr().err
    assert main([*PPO_WORDS, f"run.dir={cwd}"]) == 2
    assert "holds something that is not a run" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_overwrite_replaces_the_run_and_spares_other_files(command: Callable[..., Outcome], tmp_path: Path) -> None:
    words = [*PPO_WORDS, "total_steps=256", "run.dir=here"]
    assert command(*words).code == 0
    (tmp_path / "here" / "notes.txt").write_text("mine")
    assert command(*words, "seed=9", "run.overwrite=true").code == 0
    assert yaml.safe_load((tmp_path / "here" / files.CONFIG).read_text())["seed"] == 9
    assert (tmp_path / "here" / "notes.txt").read_text() == "mine"
    assert len(list((tmp_path / "here").glob("events.*"))) == 1


class Failing(gym.Env[np.ndarray, int]):
    """Raises at step 30."""

    observation_space = gym.spaces.Box(-1, 1, (2,))
    action_space = gym.spaces.Discrete(2)

    def __init__(self) -> None:
        self.t = 0

    def reset(self, *, seed: int | None = None, options: dict[str, object] | None = None):  # type: ignore[no-untyped-def]
        return np.zeros(2, dtype=np.float32), {}

    def step(self, action: int):  # type: ignore[no-untyped-def]
        self.t += 1
        if self.t == 30:
            raise ZeroDivisionError("the world ended")
        return np.zeros(2, dtype=np.float32), 0.0, False, False, {}


def test_a_failing_environment_is_one_line_and_exit_4(command: Callable[..., Outcome], tmp_path: Path) -> None:
    gym.register("Failing-v0", Failing)
    try:
        outcome = command("env=gym", "env.id=Failing-v0", "total_steps=2048", "run.dir=x", "plasticity=none")
    finally:
        del gym.registry["Failing-v0"]
    assert outcome.code == 4
    error, resume = outcome.errors
    assert error.startswith("error: sub-environment 0 raised ZeroDivisionError: the world ended, after 29 steps")
    assert resume.startswith("resume with: python train.py env=gym env.id=Failing-v0 ")
    assert resume.endswith("  # from step 0")
    assert "Traceback" in (tmp_path / "x" / files.ERROR_LOG).read_text()
    assert json.loads((tmp_path / "x" / files.RESULT).read_text())["status"] == "failed"


def test_networks_that_are_no_longer_finite_are_exit_3(command: Callable[..., Outcome]) -> None:
    outcome = command(
        *("env=gym", "env.id=Pendulum-v1", "plasticity=none", "total_steps=4096", "run.dir=x"),
        *("agent.learning_rate=1e30", "agent.n_steps=64", "agent.n_epochs=2", "agent.net_arch=[8]"),
    )
    assert outcome.code == 3
    assert outcome.err.startswith("error: ")
    assert "no longer finite" in outcome.err
    assert len(outcome.errors) == 2
    assert len(outcome.errors[0]) < 320


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_stopped_by_a_signal_saves_its_model(number: signal.Signals, code: int, tmp_path: Path) -> None:
    words = [*PPO_WORDS, "total_steps=2_000_000", "run.dir=run"]
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *words],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    progress = tmp_path / "run" / files.PROGRESS
    while time.monotonic() < deadline and not (progress.is_file() and progress.read_text().count("\n") > 4):
        time.sleep(0.2)  # in the midst of training, not of its first imports
    process.send_signal(number)
    out, err = process.communicate(timeout=120)
    assert process.returncode == code, err
    assert "Traceback" not in err
    assert "stopped after" in out
    assert json.loads((tmp_path / "run" / files.RESULT).read_text())["status"] == "stopped"
    steps = PPO.load(tmp_path / "run" / files.MODEL).num_timesteps
    assert steps > 0
    again = shlex.join(["python", "train.py", *words])
    assert f"stopped by {number.name}, saved at step {steps:,}; go on with: {again}" in out


@pytest.mark.slow
def test_two_runs_with_one_seed_are_the_same(ppo: tuple[Path, Outcome], tmp_path: Path) -> None:
    assert run_train(PPO_WORDS, tmp_path).code == 0
    first, second = (rows(only_folder(cwd) / files.EPISODES) for cwd in (ppo[0], tmp_path))
    assert first == second


def test_an_environment_made_non_stationary_by_its_settings(command: Callable[..., Outcome], tmp_path: Path) -> None:
    outcome = command(
        *("env=gym", "env.id=Pendulum-v1", "total_steps=1024", "agent.n_steps=256", "run.dir=x"),
        "env.changes=[{target: gravity, when: 'every:300', to: 'uniform:0.5,1.5'}]",
    )
    assert outcome.code == 0
    assert len(rows(tmp_path / "x" / files.REGIMES)) == 4


@pytest.mark.slow
def test_worker_processes_give_the_same_episodes(ppo: tuple[Path, Outcome], tmp_path: Path) -> None:
    assert run_train([*PPO_WORDS, "env.vectorization=subproc"], tmp_path).code == 0
    first, second = (rows(only_folder(cwd) / files.EPISODES) for cwd in (ppo[0], tmp_path))
    assert first == second


def test_brackets_in_the_summary_are_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = "python train.py 'plasticity=[l2,cbp]' seed=1"
    summary.render(tmp_path, [line], Console())
    assert line in capsys.readouterr().out
    assert line in (tmp_path / files.SUMMARY).read_text()


@pytest.mark.parametrize("changes", ['"gravity=sine:200,0.5,1.5"', '["gravity=sine:200,0.5,1.5"]'])
def test_one_change_needs_no_list_and_what_drifts_is_told_by_its_range(
    command: Callable[..., Outcome], changes: str
) -> None:
    words = ["env=gym", "env.id=CartPole-v1", f"env.changes={changes}", "run.dir=here"]
    outcome = command(*SMALL, *words, "total_steps=256")
    assert outcome.code == 0, outcome.err
    (row,) = rows(Path("here") / files.REGIMES)
    low, high = map(float, row["gravity"].split(" to "))
    assert (low, high) == (pytest.approx(0.5, abs=0.01), pytest.approx(1.5, abs=0.01))
    assert "0.5 to 1.5" in " ".join(outcome.out.split())


@pytest.mark.parametrize(("env", "named"), [("slippery_ant", True), ("ns_cartpole", False)])
def test_the_published_experiment_is_named_where_it_is_the_same_task(
    command: Callable[..., Outcome], env: str, named: bool
) -> None:
    shown = command("--cfg", "job", f"env={env}").out
    assert "A first look" in shown
    assert ("slippery_ant_paper" in shown) == named


def test_a_renderer_that_mujoco_does_not_know_is_set_aside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MUJOCO_GL", "none")
    outcome = run_train([*SMALL, "env=slippery_hopper", "total_steps=64"], tmp_path)
    assert outcome.code == 0, outcome.err
    assert "warning: MUJOCO_GL=none is none of egl, osmesa, glfw: set aside, nothing is rendered here" in outcome.err
