"""Nothing is saved in vain: without any one piece of a checkpoint, or part of one, a resumed run is another run."""

from __future__ import annotations

import copy
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
from stable_baselines3.common.vec_env import DummyVecEnv

from agents import PlasticityMonitor
from experiments import folder as files
from experiments.checkpoint.pieces import COUNTERS, PIECES, Piece, Training
from experiments.session import Session
from tests.experiments.sessions import PPO, SAC, Ended, Setup, begin, differences, finish, killed, uninterrupted
from tests.plasticity.rows import ROWS

Change = Callable[[Training, Any], Any]  # what was saved -> what is put back in its place

CBP = ROWS["cbp"].active
ON_POLICY = PPO.and_(
    *("env=gym", "env.id=Drawing-v0", "env.kwargs={}", "env.normalize_rewards=true", "logging.tensorboard=true"),
    *('env.changes=[{target: gravity, when: "every:40", to: "uniform:0.5,1.5"}]', "evaluation.episodes=1"),
    *("env.normalize_observations=true", "run.guard.reward=clip", "run.guard.reward_limit=1.05"),
    cbp=CBP,
    reset={"period": "change", "layers": 1},
)
OFF_POLICY = SAC.and_("env.n_envs=2", "env.normalize_observations=true", "total_steps=80", cbp=CBP)


class Drawing(gym.Wrapper[Any, Any, Any, Any]):
    """CartPole with rewards from all random streams of the process, as a user's code may use; some episodes succeed."""

    def __init__(self) -> None:
        super().__init__(gym.make("CartPole-v1"))
        self.episodes = 0

    def step(self, action: Any) -> Any:
        observation, _, terminated, truncated, info = self.env.step(action)
        if terminated:
            self.episodes += 1
            info["is_success"] = self.episodes % 3 == 0
        return observation, 1 + 0.1 * random.random(), terminated, truncated, info


@dataclass(frozen=True)
class Case:
    """A run that was not interrupted, and the folder of one that was, with the step of its checkpoint."""

    setup: Setup
    expected: Ended
    folder: Path
    saved: int


@pytest.fixture(scope="module")
def patched() -> Iterator[None]:
    """An environment of the user's, a probe batch small enough, and what takes long."""
    gym.register("Drawing-v0", Drawing)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "package_versions", cache(files.package_versions))
        patch.setattr(files, "_git", lambda *words: None)
        patch.setattr("experiments.session.PlasticityMonitor", partial(PlasticityMonitor, probe_size=20))
        patch.setattr(Session, "__init__", noting_losses(Session.__init__))
        yield
    del gym.registry["Drawing-v0"]


def noting_losses(original: Callable[..., None]) -> Callable[..., None]:
    """A row that could not be written at the start of each new run."""

    def call(session: Session, run: Any, model: Any, console: Any, stop: Any, checkpoint: Any, facts: Any) -> None:
        original(session, run, model, console, stop, checkpoint, facts)
        if checkpoint is None:
            session.losses.note(run.folder / "lost.csv", 0, 0, 1, OSError("no space left"))

    return call


def case(setup: Setup, folder: Path, saved: int, at: int) -> Case:
    expected = uninterrupted(setup, folder / "whole")
    killed(setup, folder / "killed", saved, at)
    return Case(setup, expected, folder / "killed", saved)


@pytest.fixture(scope="module")
def on_policy(patched: None, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return case(ON_POLICY, tmp_path_factory.mktemp("on_policy"), 64, 96)


@pytest.fixture(scope="module")
def off_policy(patched: None, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return case(OFF_POLICY, tmp_path_factory.mktemp("off_policy"), 50, 64)


def without(
    case: Case, folder: Path, monkeypatch: pytest.MonkeyPatch, piece: str, change: Change | None
) -> dict[str, Any] | str:
    """What a user sees of the run when it is resumed with something else, or nothing, put back in place of a piece."""
    monkeypatch.setitem(PIECES, piece, changed(piece, change))
    shutil.copytree(case.folder, folder / "run")
    session = begin(case.setup, folder / "run")
    assert session.saver.saved.step == case.saved
    try:
        return finish(session, folder / "run").visible()
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:  # SB3 misses something
        return f"{type(error).__name__}: {error}"


def changed(name: str, change: Change | None) -> Piece:
    """A piece that is not put back as it was taken, or not at all."""
    piece = PIECES[name]

    def put(training: Training, state: Any) -> None:
        if change is not None:
            piece.put(training, change(training, state))

    return Piece(piece.take, put)


def kept(piece: str, name: str) -> Change:
    """All of a piece but one entry, which stays what it is in a run that was just built."""
    return lambda training, state: {**state, name: PIECES[piece].take(training)[name]}


def left_out(name: str) -> Change:
    return lambda training, state: {key: value for key, value in state.items() if key != name}


def without_unit_counts(training: Training, state: Any) -> Any:
    """What stock Adam would hold: one count a tensor."""
    counts = ("row_step", "column_step", "entry_step")
    return {
        name: optimizer
        | {"state": {key: {k: v for k, v in one.items() if k not in counts} for key, one in optimizer["state"].items()}}
        for name, optimizer in state.items()
    }


def without_buffers(training: Training, state: Any) -> Any:
    """The networks' weights alone, the methods' buffers and random streams as they are at first."""
    fresh = PIECES["policy"].take(training)
    return {key: fresh[key] if key.startswith("plasticity.") else value for key, value in state.items()}


QUICK = ("returns of normalization", "counts of units in the optimizer")  # and all that are pieces as a whole


def quick_first(cases: dict[str, tuple[str, Change | None]]) -> list[Any]:
    """Their names; the others are slow."""
    return [
        name if change is None or name in QUICK else pytest.param(name, marks=pytest.mark.slow)
        for name, (_, change) in cases.items()
    ]


PARTS = ("clock", "monitor", "recorder", "guard", "gradients", "losses", "evaluation")
ON = {
    **{name: (name, None) for name in PIECES if name not in ("entropy", "replay", "observations")},
    **{f"{name} of counters": ("counters", kept("counters", name)) for name in COUNTERS if name != "_episode_num"},
    **{f"{name} of parts": ("parts", left_out(name)) for name in PARTS},
    **{f"{name} of generators": ("generators", kept("generators", name)) for name in ("python", "numpy", "torch")},
    **{f"{name} of files": ("files", kept("files", name)) for name in ("rows", "events")},
    **{f"{name} of episodes": ("episodes", kept("episodes", name)) for name in ("infos", "successes")},
    **{f"{name} of normalization": ("normalization", kept("normalization", name)) for name in ("moments", "returns")},
    "_last_obs": ("observations", kept("observations", "_last_obs")),
    "counts of units in the optimizer": ("optimizers", without_unit_counts),
    "buffers of methods": ("policy", without_buffers),
}
OFF = {
    **{name: (name, None) for name in ("entropy", "replay", "observations")},
    "_episode_num of counters": ("counters", kept("counters", "_episode_num")),
    "_last_original_obs": ("observations", kept("observations", "_last_original_obs")),
    "moments of normalization": ("normalization", kept("normalization", "moments")),
    **{
        f"{name} of optimizers": ("optimizers", kept("optimizers", name))
        for name in ("actor", "critic", "entropy coefficient")
    },
}


@pytest.mark.parametrize("dropped", quick_first(ON))
def test_with_ppo(dropped: str, on_policy: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    piece, change = ON[dropped]
    if piece == "generators":  # workers have streams of their own, which come back with their environments
        monkeypatch.setattr("envs.checkpointable._set_streams", lambda streams: None)
    found = without(on_policy, tmp_path, monkeypatch, piece, change)
    assert list(differences(on_policy.expected.visible(), found))


@pytest.mark.parametrize("dropped", quick_first(OFF))
def test_with_sac(dropped: str, off_policy: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    piece, change = OFF[dropped]
    found = without(off_policy, tmp_path, monkeypatch, piece, change)
    assert list(differences(off_policy.expected.visible(), found))


class Apart(DummyVecEnv):
    """With an action space that is not its environments' own, as that of workers is."""

    def __init__(self, makers: Any):
        super().__init__(makers)
        self.action_space = copy.deepcopy(self.action_space)


@pytest.mark.slow
def test_the_stream_of_random_actions(patched: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SAC draws its first actions from it."""
    monkeypatch.setattr("experiments.environment.DummyVecEnv", Apart)
    early = case(SAC, tmp_path, 8, 12)
    found = without(early, tmp_path, monkeypatch, "generators", kept("generators", "actions"))
    assert list(differences(early.expected.visible(), found))


@pytest.mark.slow
def test_where_episodes_start(patched: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PPO reads this of later steps only, yet puts the first into its rollout too, where recurrent policies read it."""
    setup, longer = PPO.and_("total_steps=96"), PPO.and_("total_steps=128")
    expected = uninterrupted(setup, tmp_path / "whole")
    killed(longer, tmp_path / "killed", 64, 96)
    shutil.copytree(tmp_path / "killed", tmp_path / "without")
    found = finish(begin(setup, tmp_path / "killed"), tmp_path / "killed")
    assert list(differences(expected.buffer, found.buffer)) == []
    monkeypatch.setitem(PIECES, "observations", changed("observations", kept("observations", "_last_episode_starts")))
    found = finish(begin(setup, tmp_path / "without"), tmp_path / "without")
    assert list(differences(expected.buffer, found.buffer))


@pytest.mark.parametrize("agent", ["on_policy", "off_policy"])
def test_with_all_of_it_nothing_differs(
    agent: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = request.getfixturevalue(agent)
    found = without(whole, tmp_path, monkeypatch, "policy", lambda training, state: state)
    assert list(differences(whole.expected.visible(), found)) == []


def test_these_are_all_pieces() -> None:
    assert {piece for piece, change in (ON | OFF).values() if change is None} == PIECES.keys()
