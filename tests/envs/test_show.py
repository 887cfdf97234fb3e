"""`python -m envs.show`, from outside: what it prints, draws and films, and what it says to bad input."""

import os
import re
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from PIL import Image

import envs  # noqa: F401  # registers the ids
from envs.show import main, video

ROOT = Path(__file__).parent.parent.parent

OWN = """
import os, signal, time
import gymnasium as gym
from gymnasium.envs.mujoco.ant_v5 import AntEnv
from envs import NonStationary

class Floor:
    '''The mistake of published benchmarks: the floor's friction alone.'''
    nominal, name = 1.0, "floor_friction"
    def validate(self, env):
        self.model = env.unwrapped.model
    def apply(self, value):
        self.model.geom_friction[self.model.geom("floor").id, 0] = value
    def restore(self):
        self.apply(1.0)

class Nothing:
    def validate(self, env): pass
    def apply(self, value): pass
    def restore(self): pass

class Counter(gym.Env):
    metadata = {"render_modes": ["rgb_array"], "render_fps": 4}
    observation_space, action_space = gym.spaces.Discrete(3), gym.spaces.Discrete(2)
    def __init__(self, render_mode=None, dies="crash"):
        self.dies = dies
    def reset(self, *, seed=None, options=None):
        return 0, {}
    def step(self, action):
        return 1, 0.0, False, False, {}
    def render(self):
        if self.dies == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        time.sleep(60)

class Blind(Counter):
    def __init__(self):
        pass

lowered = {"target": Floor, "when": "every:100", "to": "list:0.1"}
gym.register("FloorAnt-v0", lambda: NonStationary(AntEnv(), lowered))
gym.register("Counter-v0", Counter)
gym.register("Blind-v0", Blind)
gym.register("Nothing-v0", lambda: NonStationary(Blind(), {"target": Nothing, "when": "every:100", "to": "list:2,3"}))
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of a user's own, to be imported by its name."""
    (tmp_path / "my_worlds.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_worlds", raising=False)
    for id in ("FloorAnt-v0", "Counter-v0", "Blind-v0", "Nothing-v0"):
        gym.registry.pop(id, None)
    return "my_worlds"


class Shown:
    """What one call printed and wrote."""

    def __init__(self, code: int, out: str, err: str, folder: Path) -> None:
        self.code, self.out, self.err, self.folder = code, out, err, folder

    def rows(self, header: str) -> list[list[str]]:
        """The rows of the table whose header line begins so, as words."""
        lines = self.out.splitlines()
        start = next(i for i, line in enumerate(lines) if " ".join(line.split()).startswith(header))
        rows = []
        for line in lines[start + 1 :]:
            if not line.strip():
                break
            rows.append(line.split())
        return rows


@pytest.fixture
def show(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    def run(*words: str, film: bool = False) -> Shown:
        code = main([*words, "--out", str(tmp_path / "out"), *([] if film else ["--no-video"])])
        return Shown(code, *capsys.readouterr(), tmp_path / "out")

    return run


def read_frames(picture: Path) -> list[np.ndarray]:
    """All frames of a picture, in grey, each (height, width)."""
    frames = []
    with Image.open(picture) as image:
        for number in range(getattr(image, "n_frames", 1)):
            image.seek(number)
            frames.append(np.asarray(image.convert("L")))
    return frames


def test_prints_ten_regimes_as_the_environment_itself_has_them_due(show) -> None:
    shown = show("NSCartPole-v1", "--schedule-seed", "3", "--set", "period=500", "--set", "target=masspole")
    assert shown.code == 0
    assert not shown.err
    env = gym.make("NSCartPole-v1", period=500, target="masspole", schedule_seed=3)
    rows = shown.rows("t regime masspole")
    assert len(rows) == 10
    for number, (t, regime, value, *_) in enumerate(rows):
        due = env.get_wrapper_attr("due")(500 * number)
        assert (int(t.replace(",", "")), int(regime)) == (500 * number, due["nonstationary/regime"])
        assert float(value) == pytest.approx(due["nonstationary/masspole"], rel=1e-3)
    assert "next reset" in shown.out  # the boundary, in a line


def test_draws_a_picture_with_a_panel_for_each_target(show) -> None:
    one = show("CartPole-v1", "--change", "length=every:100|uniform:1,2")
    (single,) = read_frames(one.folder / "CartPole-v1.png")
    show("CartPole-v1", "--change", "length=every:100|uniform:1,2", "--change", "gravity=ou:1000,1,0.2,0.5,2")
    (double,) = read_frames(one.folder / "CartPole-v1.png")
    assert len(double) > 1.5 * len(single)
    assert len(np.unique(double)) > 10  # something is drawn


def test_steps_say_how_far_to_look(show) -> None:
    shown = show("NSPendulum-v1", "--steps", "2e4")
    assert [row[0] for row in shown.rows("t regime")] == ["0", "8,000", "16,000"]
    assert "total_steps=20000" in shown.out


def test_many_changes_are_cut_with_a_word(show) -> None:
    shown = show("CartPole-v1", "--change", "length=every:1|uniform:1,2", "--steps", "1e9")
    assert shown.code == 0
    assert "5,000" in shown.out
    assert "more changes" in shown.out


def test_a_drift_is_sampled_and_looked_at_where_it_is_lowest_and_highest(show) -> None:
    shown = show("Pendulum-v1", "--change", "gravity=sine:1000,0.5,1.5")
    rows = shown.rows("target")
    assert {row[2] for row in rows} == {"0.5", "1.5"}
    assert "no change points" in shown.out


def test_the_friction_of_real_contacts_is_read_from_the_simulator(show) -> None:
    shown = show("Hopper-v5", "--change", "friction_scale=every:100|cycle:0.25,0.5|draw")
    rows = [line for line in shown.out.splitlines() if line.startswith("floor - foot_geom")]
    assert rows[0].split()[3:] == ["2", "0.5", "1", "0.5"]  # the larger of floor 1.0 and foot 2.0, times the scale
    assert "masked" not in shown.out


def test_a_change_that_contacts_mask_is_found_out(show, own: str) -> None:
    shown = show(f"{own}:FloorAnt-v0")
    assert shown.code == 0
    assert "floor_friction changed nothing" in shown.out
    assert "the change is masked" in shown.out


def test_the_effect_of_one_step_is_measured(show) -> None:
    shown = show(
        "CartPole-v1", "--change", "observation_offset=every:100|list:0.5", "--change", "reward_scale=at:9|list:-1"
    )
    offset, reward = shown.rows("target")
    assert offset[-2:] == ["0.5", "0"]
    assert reward[-2:] == ["0", "2"]  # 1 a step becomes -1


def test_what_shows_later_than_in_one_step_is_told_from_what_does_nothing(show, own: str) -> None:
    assert re.search(r"task shows later: .* part after \d+ steps", show("FrozenLakeSequence-v1").out)
    assert "Nothing changed nothing" in show(f"{own}:Nothing-v0").out


def test_films_the_regimes_under_their_names(show) -> None:
    shown = show("NSPendulum-v1", film=True)
    assert "video: " in shown.out
    frames = read_frames(shown.folder / "NSPendulum-v1.gif")
    band = frames[0].shape[0] - frames[0].shape[1]  # of text, above a square picture
    assert len({(frame[:band] < 128).tobytes() for frame in frames}) == 4
    assert len({(frame[band:] < 128).tobytes() for frame in frames}) > 20


def test_without_a_renderer_all_else_is_done(show, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "disable")
    shown = show("Hopper-v5", "--change", "gravity=every:100|uniform:0.5,1.5", film=True)
    assert shown.code == 0
    assert "No video: MUJOCO_GL is set to disable" in shown.out
    assert (shown.folder / "Hopper-v5.png").exists()
    assert "python train.py" in shown.out


def test_says_what_to_install_where_nothing_renders_mujoco(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.setattr(video, "_attempt", lambda order, renderer: "no display")
    said = video.make_video(video.Request("Ant-v5", {}), True, [0], tmp_path / "film.gif")
    assert said is not None
    assert "apt-get install libegl1" in said
    assert "egl: no display; osmesa: no display" in said


@pytest.mark.parametrize(
    ("words", "patience", "sentence"),
    [
        (("Counter-v0",), 60, "crashed"),
        (("Counter-v0", "--set", "dies=sleep"), 0.2, "more than 0.2 s"),
        (("Blind-v0",), 60, "unexpected keyword argument 'render_mode'"),
    ],
)
def test_a_renderer_that_fails_does_no_harm(show, own: str, monkeypatch, words, patience, sentence) -> None:
    monkeypatch.setattr(video, "PATIENCE", patience)
    id, *settings = words
    shown = show(f"{own}:{id}", *settings, "--change", "reward_scale=every:9|sign", film=True)
    assert shown.code == 0
    assert re.search(f"No video: .*{sentence}.* Everything else is done", shown.out)
    assert "python train.py" in shown.out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["SliperyAnt-v5"], 'did you mean "SlipperyAnt-v5"'),
        (["no_such_module:Any-v0"], "No module named 'no_such_module'"),
        (["Hopper-v5"], "stationary.*--change '.*'.*friction_scale.*SlipperyHopper-v5"),
        (["NSCartPole-v1", "--set", "period"], "--set takes key=value"),
        (["NSCartPole-v1", "--set", "perod=5"], 'did you mean "period"'),
        (["Hopper-v5", "--set", "frameskip=5", "--change", "gravity=at:9|sign"], 'did you mean "frame_skip"'),
        (["NSCartPole-v1", "--steps", "many"], "--steps must be a whole number"),
        (["NSCartPole-v1", "--schedule-seed", "-1"], "--schedule-seed must be an integer >= 0"),
        (["NSCartPole-v1", "--schedule-seed", "1", "--set", "schedule_seed=2"], "not both"),
        (["NSCartPole-v1", "--change", "length=every:9|uniform:1,2"], "non-stationary already"),
        (["CartPole-v1", "--change", "length=evry:9|uniform:1,2"], 'did you mean "every"'),
        (["CartPole-v1", "--change", "lenght=every:9|uniform:1,2"], 'did you mean "length"'),
        (["Swimmer-v5", "--change", "friction=every:9|uniform:1,2"], "no two geoms can touch"),
        (["NSCartPole-v1", "--vdeo"], "--vdeo.*--help"),
        ([], "required: id"),
    ],
)
def test_errors_teach(words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words]) == 2
    out, err = capsys.readouterr()
    assert not out
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert re.search(sentence, err)


def test_the_next_command_is_one_that_train_py_takes(show) -> None:
    words = ("--change", "gravity=every:5e4|uniform:0.5,1.5", "--set", "frame_skip=2", "--set", "boundary=step")
    shown = show("Hopper-v5", *words, "--schedule-seed", "3")
    command = shown.out.strip().splitlines()[-1].strip()
    assert command.startswith("python train.py ")
    resolved = subprocess.run(
        f"{sys.executable} {command.removeprefix('python ')} --cfg job",
        shell=True, cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    for line in ("id: Hopper-v5", "frame_skip: 2", "schedule_seed: 3", "boundary: step", "total_steps: 500000"):
        assert line in resolved
    assert "gravity=every:5e4|uniform:0.5,1.5" in resolved


def test_the_command_line_helps_and_runs_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "envs.show", "--help"], cwd=ROOT, capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONWARNINGS": "error"},
    )  # fmt: skip
    assert "python -m envs.show Hopper-v5 --change 'gravity=every:5e4|uniform:0.5,1.5'" in done.stdout
    assert "SlipperyAnt-v5, " in done.stdout


def test_environments_need_neither_matplotlib_nor_rich() -> None:
    code = "import envs, sys; sys.exit(bool({'matplotlib', 'rich', 'PIL'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
