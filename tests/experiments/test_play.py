"""`python -m experiments.play`: the table of returns, the film, and what is said where there is nothing to play."""

from __future__ import annotations

import csv
import json
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from stable_baselines3.common.vec_env import unwrap_vec_normalize

from agents import PPO
from agents.frozen import FrozenRegimes
from experiments import folder as files
from experiments import play
from experiments.command_line import main as train
from experiments.environment import make_env
from experiments.inspect import read_config
from experiments.playing import agent, regimes, video
from tests.experiments.conftest import Outcome

Play = Callable[..., Outcome]
WORDS = [
    *("env=ns_cartpole", "env.n_envs=2", "env.kwargs.period=300", "total_steps=1024", "agent.n_steps=128"),
    *("agent.batch_size=64", "agent.net_arch=[8]", "agent.n_epochs=2", "plasticity=[l2,cbp]", "seed=7"),
    *("run.checkpoint.every=256", "run.checkpoint.keep=4", "evaluation.episodes=3", "env.normalize_observations=true"),
    "run.threads=1",
]
SAC = [
    *("agent=sac", "env=gym", "env.id=Pendulum-v1", "experiment=none", "total_steps=60", "agent.net_arch=[8]"),
    *("agent.learning_starts=20", "agent.batch_size=8", "plasticity=none", "run.threads=1"),
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 1,024 steps in four regimes, with checkpoints of steps 256, 512, 768 and 1,024."""
    folder = tmp_path_factory.mktemp("played") / "run"
    assert train([*WORDS, f"run.dir={folder}"]) == 0
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return shutil.copytree(finished, tmp_path / "run")


@pytest.fixture
def played(capsys: pytest.CaptureFixture[str]) -> Play:
    def call(*words: Any) -> Outcome:
        capsys.readouterr()
        code = play.main([str(word) for word in words])
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return call


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_finished_run_has_the_returns_of_its_own_evaluation(finished: Path, played: Play, tmp_path: Path) -> None:
    before = contents(finished)
    outcome = played(finished, "--episodes", 3, "--no-video", "--out", tmp_path)
    assert (outcome.code, outcome.err) == (0, "")
    assert "PPO with l2, cbp on NSCartPole-v1, seed 7: model.zip, finished after 1,024 steps" in outcome.out
    assert "deterministic policy, 3 episodes each" in outcome.out
    rows = table(tmp_path / "play.csv")
    tested = [row for row in table(finished / files.FORGETTING) if row["step"] == "1024" and row["at"] == "end"]
    for row, known in zip(rows, tested[: len(rows)], strict=True):
        assert (row["regime"], row["episodes"], row["step"]) == (known["tested_on"], "3", "1024")
        assert float(row["mean_return"]) == float(known["mean_return"])
        assert float(row["std_return"]) == float(known["std_return"])
        assert row["mean_length"] == row["mean_return"]  # a reward of 1 at each step
        assert float(row["min_return"]) <= float(row["mean_return"]) <= float(row["max_return"])
    known_values = {row["regime"]: row for row in table(finished / files.REGIMES)}
    for row in rows:
        assert row["length"] == known_values[row["regime"]]["length"]
        assert row["training_return"] == known_values[row["regime"]]["last_return"]
    assert [row["regime"] for row in rows] == list(known_values)
    assert contents(finished) == before


def test_a_run_that_was_played_goes_on_and_is_replaced_as_any_other(run: Path, played: Play) -> None:
    before = contents(run)
    outcome = played(run, "--episodes", 1, "--no-video", "--regimes", "0")
    assert outcome.code == 0
    assert {name: content for name, content in contents(run).items() if not name.startswith("play/")} == before
    assert train([*WORDS, f"run.dir={run}", "total_steps=1280"]) == 0
    assert files.result(run)["steps"] == 1280
    assert (run / files.PLAYED).exists()
    assert train([*WORDS, f"run.dir={run}", "total_steps=256", "run.overwrite=true"]) == 0
    assert not (run / files.PLAYED).exists()


@pytest.mark.parametrize(
    ("word", "expected"),
    [("0,2", [0, 2]), ("1-3,1", [1, 2, 3]), ("all", [0, 1, 2, 3]), ("2, 9", [2, 9]), (None, [0, 1, 2, 3])],
)
def test_which_regimes(word: str | None, expected: list[int], finished: Path) -> None:
    frozen = FrozenRegimes(lambda: make_env(read_config(finished).env), 1, 0, lambda: False)
    assert regimes.chosen(word, 3, frozen) == expected
    assert regimes.chosen(None, 14, frozen) == list(range(5, 15))


def test_an_unfinished_run_is_played_at_its_newest_checkpoint(run: Path, played: Play, tmp_path: Path) -> None:
    for name in (files.RESULT, files.MODEL, files.REGIMES, files.NORMALIZATION):
        (run / name).unlink()
    shutil.rmtree(run / "checkpoints" / f"{1024:012d}")
    outcome = played(run, "--episodes", 1, "--no-video")
    assert outcome.code == 0
    assert "the checkpoint of step 768, the newest: the run has not ended" in outcome.out
    rows = table(run / files.PLAYED / "play.csv")
    assert [row["regime"] for row in rows] == ["0", "1", "2"]
    assert {row["step"] for row in rows} == {"768"}


def test_the_model_and_the_checkpoint_of_the_same_step_are_the_same(finished: Path) -> None:
    end, saved = agent.load(finished), agent.load(finished, 1024)
    first = agent.load(finished, 256)
    for one in (end, saved, first):
        assert isinstance(one.model, PPO)
    assert (end.met, saved.met, first.met) == (3, 3, 0)
    states = [one.model.policy.state_dict() for one in (end, saved, first)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not all(torch.equal(states[0][name], states[2][name]) for name in states[0])
    moments: list[Any] = [unwrap_vec_normalize(one.model.env).obs_rms for one in (end, saved)]  # type: ignore[union-attr, arg-type]
    np.testing.assert_array_equal(moments[0].mean, moments[1].mean)
    np.testing.assert_array_equal(moments[0].var, moments[1].var)
    assert moments[0].count == moments[1].count > 1024


def test_stochastic_actions_come_from_the_seed(finished: Path, played: Play, tmp_path: Path) -> None:
    def returns(*words: str) -> list[str]:
        out = tmp_path / "-".join(words)
        assert played(finished, "--episodes", 4, "--regimes", 1, "--no-video", "--out", out, *words).code == 0
        (row,) = table(out / "play.csv")
        return [row["policy"], row["mean_return"], row["std_return"]]

    assert returns("--stochastic", "--seed", "1") == returns("--seed", "1", "--stochastic")
    assert returns("--stochastic", "--seed", "1")[1:] != returns("--deterministic", "--seed", "1")[1:]
    assert returns("--seed", "1")[1:] != returns("--seed", "2")[1:]
    assert returns("--seed", "1")[0] == "deterministic"


def test_sac_in_a_stationary_world(tmp_path: Path, played: Play) -> None:
    run = tmp_path / "run"
    assert train([*SAC, f"run.dir={run}"]) == 0
    outcome = played(run, "--episodes", 2, "--no-video")
    assert (outcome.code, outcome.err) == (0, "")
    assert "this world has no regimes to choose from" in outcome.out
    (row,) = table(run / files.PLAYED / "play.csv")
    assert (row["regime"], row["mean_length"], row["training_return"]) == ("0", "200.0", "")
    assert float(row["mean_return"]) < 0
    assert "--regimes must be within 0-0, all that this world's schedule has, got 1" in played(run, "--regimes", 1).err


def test_a_film_of_the_regimes(finished: Path, played: Play, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "film.gif"
    outcome = played(finished, "--episodes", 1, "--regimes", "0,2", "--video", path, "--out", tmp_path / "out")
    assert (outcome.code, outcome.err) == (0, "")
    assert f"film: {path}" in outcome.out
    with Image.open(path) as film:
        assert film.n_frames == 2 * 60  # type: ignore[attr-defined]  # ten pictures a second, six seconds of each
        assert film.info["duration"] == 100
        band = film.convert("RGB").crop((0, 0, film.width, 50))
        assert len(band.getcolors(1000) or []) > 2  # text
        film.seek(80)
        assert band.tobytes() != film.convert("RGB").crop((0, 0, film.width, 50)).tobytes()
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["film.gif"]


def test_where_nothing_renders_the_table_is_written_all_the_same(
    finished: Path, played: Play, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(video, "_attempt", lambda order, renderer, progress: "no display")
    outcome = played(finished, "--episodes", 1, "--regimes", "0", "--out", tmp_path)
    assert (outcome.code, outcome.err) == (0, "")
    assert "No video: no display. Everything else is done." in outcome.out
    assert [path.name for path in tmp_path.iterdir()] == ["play.csv"]


def test_a_renderer_that_crashes_or_hangs_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order = json.dumps({"folder": str(tmp_path / "nowhere"), "checkpoint": None})
    said = video._attempt(order, "", lambda done, total: None)
    assert said is not None
    assert "holds no run: there is no config.yaml" in said
    monkeypatch.setattr(video, "PATIENCE", 0.01)
    assert video._attempt(order, "", lambda done, total: None) == "there was no picture for 0.01 s"


def test_long_films_show_some_regimes(tmp_path: Path) -> None:
    assert video.filmed(range(12)) == list(range(12))
    assert video.filmed(range(100)) == [0, 9, 18, 27, 36, 45, 54, 63, 72, 81, 90, 99]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--regimes", "0,x"], '--regimes must be numbers and ranges such as 0,3 or 0-9, or "all", got "0,x"'),
        (["--regimes", "3-1"], '--regimes must be numbers and ranges such as 0,3 or 0-9, or "all", got "3-1"'),
        (["--episodes", "0"], "--episodes must be at least 1, got 0"),
        (["--seed", "-1"], "--seed must be at least 0, got -1"),
        (["--video", "a.avi"], "--video must end in .gif or .mp4, got a.avi"),
        (["--checkpoint", "500"], "256, 512, 768, 1,024, got 500; the nearest is 512"),
        (["--stochastic", "--deterministic"], "argument --deterministic: not allowed with argument --stochastic"),
        (["--out", "{run}/config.yaml"], "config.yaml cannot be made: File exists; choose another with --out DIR"),
    ],
)
def test_what_cannot_be_done(words: list[str], said: str, finished: Path, played: Play) -> None:
    outcome = played(finished, *[word.format(run=finished) for word in words])
    assert outcome.code == 2
    (line,) = outcome.errors
    assert line.startswith("error: ")
    assert line.endswith(said)


def test_mp4_needs_ffmpeg(finished: Path, played: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video.importlib.util, "find_spec", lambda name: None)  # type: ignore[attr-defined]
    (line,) = played(finished, "--video", "a.mp4").errors
    assert line == "error: --video a.mp4 needs ffmpeg: python -m pip install 'pliant-rl[video]'; or take --video a.gif"


def test_folders_with_nothing_to_play(run: Path, played: Play, tmp_path: Path) -> None:
    assert "holds no run: there is no config.yaml" in played(tmp_path).err
    kept = (run / files.NORMALIZATION).read_bytes()
    (run / files.NORMALIZATION).unlink()
    assert "holds no normalization.json, and its agent acts on normalised observations" in played(run).err
    (run / files.NORMALIZATION).write_bytes(kept)
    with zipfile.ZipFile(run / files.MODEL, "w") as archive:
        archive.writestr("policy.pth", pickle.dumps({"a": print}, protocol=2))
    outcome = played(run)
    assert outcome.code == 2
    assert len(outcome.errors) == 1
    (run / files.MODEL).unlink()
    shutil.rmtree(run / "checkpoints")
    assert "holds neither model.zip of a run that ended nor a checkpoint: nothing to play yet" in played(run).err
