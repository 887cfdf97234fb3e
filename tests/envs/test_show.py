"""`python -m envs.show`, from outside: what it prints, draws and films, and what it says to bad input."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import yaml
from PIL import Image

from envs import TASKS
from envs.show import main, video
from envs.show.command import next_command
from envs.show.request import Request
from envs.show.timeline import make_track
from experiments.compose import compose
from experiments.environment import make_env
from experiments.schema import Config, validate

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
    assert "No video: MUJOCO_GL is set to disable, which is none of egl, osmesa, glfw. Unset it" in shown.out
    assert (shown.folder / "Hopper-v5.png").exists()
    assert "python train.py" in shown.out


@pytest.mark.parametrize("id", ["Hopper-v5", "CartPole-v1"])
def test_a_renderer_that_mujoco_does_not_know_costs_the_video_alone(id: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "envs.show", id, "--change", "gravity=every:9|uniform:1,2", "--out", str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, env={**os.environ, "MUJOCO_GL": "none"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / f"{id}.png").exists()
    said = "No video: MUJOCO_GL is set to none, which is none of egl, osmesa, glfw. Unset it to try them."
    assert (said in done.stdout) == (id == "Hopper-v5")
    assert (tmp_path / f"{id}.gif").exists() == (id == "CartPole-v1")


def test_a_mask_is_shown_by_the_places_of_its_zeros(show) -> None:
    shown = show("ActuatorFailureAnt-v5", "--steps", "4e6")
    env = gym.make("ActuatorFailureAnt-v5")
    (schedule,) = env.get_wrapper_attr("schedules").values()
    for regime in (1, 2, 3):
        (place,) = np.flatnonzero(schedule.value(regime) == 0)
        assert re.search(rf"{regime},000,000 +{regime} +0\.125  \[0 at {place}\]", shown.out)
    (live,) = env.get_wrapper_attr("lives")
    track = make_track(live, 4_000_000)
    assert track.zeros == ((), *((int(np.argmin(schedule.value(regime))),) for regime in (1, 2, 3)))


def test_a_vector_that_is_no_mask_has_no_zeros_to_show() -> None:
    for id in ("ObservationPermutationCartPole-v1", "NSCartPole-v1", "ActionReversalCartPole-v1"):
        (live,) = gym.make(id).get_wrapper_attr("lives")
        assert make_track(live, 100_000).zeros is None


@pytest.mark.parametrize(("below", "reason"), [("a_file", "it is a file"), ("a_file/folder", "Not a directory")])
def test_a_folder_that_cannot_be_is_refused_in_a_sentence(below: str, reason: str, tmp_path: Path, capsys) -> None:
    (tmp_path / "a_file").write_text("mine")
    assert main(["NSCartPole-v1", "--no-video", "--out", str(tmp_path / below)]) == 2
    out, err = capsys.readouterr()
    assert not out
    assert re.fullmatch(f"error: --out takes a folder, and .* cannot be one: {reason}\n", err)


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
        (["Mine-v0"], "one of your own is module:Mine-v0"),
        (["envs.tasks:SliperyAnt-v5"], 'did you mean "envs.tasks:SlipperyAnt-v5"'),
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
        (["NSPendulum-v1", "--set", "drift='sine:2000,0.5,1.5'", "--set", "period=500"], "leave out period"),
        (["CartPole-v1", "--change", "friction=every:9|uniform:1,2"], "allowed are gravity, .*, reward_scale"),
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


def trained_on(command: str) -> tuple[Config, gym.Env]:
    """What train.py would make of a command that was printed."""
    assert command.startswith("python train.py ")
    composed = compose(shlex.split(command)[2:])
    assert not composed.errors
    config = validate(composed.tree)
    return config, make_env(config.env)


@pytest.mark.parametrize(
    ("id", "words", "boundary", "shape"),
    [
        (
            "Hopper-v5",
            ("--change", "gravity=every:5e4|uniform:0.5,1.5", "--set", "frame_skip=2", "--set", "context=obs"),
            *("episode", (12,)),
        ),
        ("NSAcrobot-v1", ("--set", "drift='sine:20000,0.5,1.5'"), "step", (6,)),
        ("NSCartPole-v1", ("--set", "target=masspole", "--set", "boundary=step"), "step", (4,)),
        ("NSPendulum-v1", ("--set", "to='uniform:0.5,1'", "--set", "first=draw", "--set", "stride=4"), "episode", (3,)),
    ],
)
def test_the_next_command_trains_on_the_world_that_was_shown(
    show, id: str, words: tuple[str, ...], boundary: str, shape: tuple[int, ...]
) -> None:
    shown = show(id, *words, "--schedule-seed", "3", "--steps", "1e5")
    config, env = trained_on(shown.out.strip().splitlines()[-1].strip())
    assert (config.env.id, config.total_steps) == (id, 100_000)
    (live,) = env.get_wrapper_attr("lives")
    assert live.boundary == boundary
    assert env.observation_space.shape == shape
    assert getattr(env.unwrapped, "frame_skip", 2) == 2
    rows = [row for row in shown.rows("t regime") if row[0] != "..."]
    assert len(rows) > 1
    for t, _, value, *_ in rows:
        assert float(value) == pytest.approx(live.due(int(t.replace(",", ""))), rel=1e-3)


@pytest.mark.parametrize("id", TASKS)
def test_the_next_command_calls_each_task_by_its_name_whose_file_says_the_world_that_was_shown(id: str) -> None:
    if TASKS[id].base.startswith("LunarLander"):
        pytest.importorskip("Box2D")
    command = next_command(Request(id, {}), 1000)
    found = re.fullmatch(r"python train\.py env=(\w+) experiment=none agent=ppo total_steps=1000", command)
    assert found
    file = yaml.safe_load((ROOT / "configs" / "env" / f"{found[1]}.yaml").read_text("utf-8"))
    shown, wrapper = Request(id, {}).build()
    trained, same = Request(file["id"], {**file["kwargs"], "schedule_seed": file["schedule_seed"]}).build()
    assert trained.observation_space == shown.observation_space
    assert same.schedules == wrapper.schedules


def test_the_next_command_does_without_the_repository(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("envs.show.command.CHOICES", tmp_path / "none")
    config, _ = trained_on(next_command(Request("NSCartPole-v1", {"period": 500}), 1000))
    assert (config.env.id, config.env.kwargs) == ("NSCartPole-v1", {"period": 500})


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
