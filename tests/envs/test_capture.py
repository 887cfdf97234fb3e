"""An environment's state, saved and put back into another one built the same way: the same to the last bit."""

import itertools
import random
from collections import OrderedDict, deque, namedtuple
from collections.abc import Callable
from enum import Enum
from functools import partial
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
import pytest
import torch
from gymnasium.wrappers import FrameStackObservation, NormalizeObservation, NormalizeReward
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

from envs import TASKS, Checkpointable, NonStationary, stable_physics
from envs.capture import SCALARS, Capture
from envs.checkpointable import same
from envs.mujoco_snapshot import Models
from experiments.checkpoint.codec import decode, encode

RECORDS = ("episode_returns", "episode_lengths", "episode_times", "t_start")
MUJOCO = [id for id, spec in gym.registry.items() if "envs.mujoco" in str(spec.entry_point) and id.endswith("-v5")]
# Changes that some of MuJoCo's environments refuse (nothing to slide on, no weight) are left out there.
CHANGES = {
    "friction": "every:12|loguniform:0.1,2.0|draw",
    "gravity": "every:14|uniform:0.5,1.5",
    "mass": "sine:64,0.5,1.5|resolution:4",
    "push": "every:9|uniform:-0.2,0.2",
    "action_delay": "every:10|cycle:2,0,1",
    "observation_noise": "every:20|uniform:0.1,0.2|draw",
    "damping": "random_walk:50,1.0,0.3,0.5,1.5|resolution:5",
}
REFUSED = {
    "Reacher-v5": {"friction", "gravity"},
    "Pusher-v5": {"friction", "gravity"},
    "InvertedPendulum-v5": {"friction"},
    "InvertedDoublePendulum-v5": {"friction"},
    "Swimmer-v5": {"friction", "gravity", "damping"},
}
CLASSIC = {
    "CartPole-v1": ["length=every:9|uniform:0.5,1.5|draw", "observation_offset=every:11|gaussian_vector:2.0"],
    "Pendulum-v1": ["gravity=every:9|uniform:0.5,1.5|draw", "action_delay=every:5|cycle:2,1"],
    "Acrobot-v1": ["gravity=every:9|uniform:0.5,1.5|draw", "observation_permutation=every:11|permutation"],
    "MountainCar-v0": ["gravity=every:9|uniform:0.5,1.5|draw", "reward_scale=every:11|cycle:-1,1"],
    "MountainCarContinuous-v0": ["gravity=every:9|uniform:0.5,1.5|draw", "action_reversal=every:11|cycle:-1,1"],
    "FrozenLake-v1": ["action_permutation=every:9|permutation"],
    "Taxi-v4": ["action_reversal=every:9|cycle:-1,1"],
    "Blackjack-v1": ["reward_scale=every:9|cycle:-1,1"],
}
Make = Callable[[], Checkpointable]


def chain(env: Any) -> Checkpointable:
    return Checkpointable(Monitor(stable_physics(env)), leave=RECORDS)


def changed(id: str, changes: Any, **kwargs: Any) -> Checkpointable:
    env = gym.make(id, max_episode_steps=25, **kwargs)
    return chain(NonStationary(env, changes, schedule_seed=3, boundary="truncate"))


def task(id: str) -> Checkpointable:
    """A registered task in which a regime lasts ten steps."""
    if "Sequence" in id:
        return chain(gym.make(id, period=10, boundary="truncate"))
    return chain(gym.make(id, period=10, max_episode_steps=25, boundary="step"))


def actions_for(env: gym.Env[Any, Any], count: int) -> list[Any]:
    space = env.action_space
    space.seed(7)
    return [space.sample() for _ in range(count)]


def advance(env: gym.Env[Any, Any], actions: list[Any]) -> list[Any]:
    found = []
    for action in actions:
        observation, reward, terminated, truncated, info = env.step(action)
        found.append((np.copy(observation), reward, terminated, truncated, dict(info)))
        if terminated or truncated:
            observation, info = env.reset()
            found.append((np.copy(observation), dict(info)))
    return found


def assert_plain(tree: Any) -> None:
    """What is in the tree can be written to JSON and arrays, and read back as it was."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            assert type(key) in (str, int)
            assert_plain(value)
    elif type(tree) in (list, tuple, deque):
        for value in tree:
            assert_plain(value)
    elif isinstance(tree, np.ndarray | np.generic):
        assert tree.dtype.kind in "biuf"
        assert tree.dtype.itemsize <= 8
    else:
        assert type(tree) in SCALARS, type(tree)


def seed_streams(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.manual_seed(seed)


def streams() -> list[float]:
    """Return a number from each stream of the process."""
    return [random.random(), np.random.normal(), torch.rand(1).item()]  # noqa: NPY002


def continued(make: Make, before: int, after: int, meanwhile: int = 3) -> tuple[list[Any], list[Any], Any]:
    """Return the course of an environment, and that of another with the state the first had in the midst of it.

    meanwhile: steps that the other has taken before.
    """
    seed_streams(1)
    env = make()
    env.reset(seed=5)
    actions = actions_for(env, before + after)
    advance(env, actions[:before])
    state = env.state_dict()
    assert_plain(state)
    state = decode(*encode(state))
    unbroken = advance(env, actions[before:])
    seed_streams(2)
    other = make()
    other.reset(seed=99)
    advance(other, actions[:meanwhile])
    observation = other.load_state_dict(state)
    resumed = advance(other, actions[before:])
    env.close()
    other.close()
    return unbroken, resumed, observation


def assert_exact(make: Make, before: int = 17, after: int = 30, meanwhile: int = 3) -> None:
    unbroken, resumed, observation = continued(make, before, after, meanwhile)
    assert observation is None
    assert len(unbroken) > after, "no episode ended"
    assert same(unbroken, resumed)


@pytest.mark.parametrize("id", [id for id in TASKS if "Lander" not in id])
def test_every_task_goes_on_to_the_last_bit(id: str) -> None:
    assert_exact(partial(task, id))


@pytest.mark.parametrize("id", MUJOCO)
def test_every_mujoco_environment_with_changes_of_all_kinds(id: str) -> None:
    changes = [f"{name}={rest}" for name, rest in CHANGES.items() if name not in REFUSED.get(id, ())]
    assert_exact(partial(changed, id, changes))


@pytest.mark.parametrize("id", CLASSIC)
def test_classic_control_and_toys(id: str) -> None:
    assert_exact(partial(changed, id, CLASSIC[id]))


# The proof that each ingredient is needed: without it the same check fails.


def is_exact(make: Make) -> bool:
    unbroken, resumed, _ = continued(make, 17, 30)
    return same(unbroken, resumed)


@pytest.mark.parametrize("id", ["Ant-v5", "Humanoid-v5"])
def test_mujocos_own_state_and_a_forward_would_not_do(id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make = partial(changed, id, ["friction=every:12|loguniform:0.1,2.0|draw"])
    assert is_exact(make)
    save, load = Models._save_data, Models._load_data

    def and_forward(self: Models, data: Any, state: Any) -> bool:
        loaded = load(self, data, state)
        mujoco.mj_forward(data.model, data)
        return loaded

    monkeypatch.setattr(Models, "_save_data", lambda self, data: {**save(self, data), "arrays": {}})
    monkeypatch.setattr(Models, "_load_data", and_forward)
    assert not is_exact(make)


@pytest.mark.parametrize("lost", ["_np_random", "_elapsed_steps"])
def test_lost_attributes_are_noticed(lost: str, monkeypatch: pytest.MonkeyPatch) -> None:
    attributes = Capture._attributes

    def without(self: Capture, found: Any, path: str, alone: Any = ()) -> Any:
        return attributes(self, {name: value for name, value in found.items() if name != lost}, path, [*alone, lost])

    monkeypatch.setattr(Capture, "_attributes", without)
    assert not is_exact(partial(task, "NSPendulum-v1"))


def test_a_model_that_a_user_edited_is_put_back() -> None:
    def make(edit: bool) -> Checkpointable:
        env = changed("Hopper-v5", ["gravity=every:12|uniform:0.5,1.5|draw"])
        if edit:
            base: Any = env.unwrapped
            base.model.dof_damping[:] *= 3
            base.model.opt.timestep = 0.001
            base.model.opt.wind[:] = 1.0
        env.reset(seed=0)
        return env

    env, other = make(True), make(False)
    actions = actions_for(env, 30)
    assert other.load_state_dict(env.state_dict()) is None
    assert same(advance(env, actions), advance(other, actions))
    plain = make(False)
    assert env.load_state_dict(plain.state_dict()) is None  # a model that was edited by hand before: its edits are gone
    back: Any = env.unwrapped
    assert back.model.opt.timestep == 0.002
    assert same(advance(env, actions), advance(plain, actions))


# Environments of users. The process's own streams, old as they are, are what users' code draws from.


class Toy(gym.Env[Any, Any]):
    """Base of the environments below: their observation is made of their attributes."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (3,), np.float64)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.count = 0
        self.begin()
        return self.observe(), {}

    def step(self, action: Any) -> Any:
        self.count += 1
        self.move(float(action))
        return self.observe(), self.observe().sum(), False, self.count % 13 == 0, {}

    def begin(self) -> None:
        raise NotImplementedError

    def move(self, action: float) -> None:
        raise NotImplementedError

    def observe(self) -> Any:
        raise NotImplementedError


class Spoken(Toy):
    """Says itself what its state is; its simulator could not be captured."""

    def begin(self) -> None:
        self.simulator = iter(range(10**6))
        self.at = 0

    def move(self, action: float) -> None:
        self.at = next(self.simulator)

    def observe(self) -> Any:
        return np.array([self.at, self.count, self.np_random.normal()])

    def state_dict(self) -> dict[str, Any]:
        return {"at": self.at, "count": self.count, "path": (1, {2: deque([3.0], maxlen=4)})}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        assert state["path"] == (1, {2: deque([3.0], maxlen=4)})
        self.at, self.count = state["at"], state["count"]
        self.simulator = iter(range(self.at + 1, 10**6))


Step = namedtuple("Step", "before after")


class Phase(Enum):
    UP = 1
    DOWN = -1


class Slotted:
    __slots__ = ("weight",)

    def __init__(self, weight: float) -> None:
        self.weight = weight


class Ball:
    """A part of an environment; it knows its owner, which is a cycle."""

    def __init__(self, owner: Any) -> None:
        self.owner, self.x = owner, owner.np_random.normal()


class Rich(Toy):
    """Attributes of all kinds, aliases and views among them."""

    START = np.zeros(4)

    def begin(self) -> None:
        self.whole = np.zeros((2, 3), order="F")
        self.state = self.START  # a class's, which nothing may write to
        self.matrix = np.arange(6.0).reshape(2, 3)
        self.row = self.matrix[1]
        self.sparse = self.matrix[:, ::2]
        self.alias = self.matrix
        self.balls: list[Ball] = []
        self.last: Any = None
        self.steps: deque[Step] = deque(maxlen=3)
        self.table: Any = OrderedDict()
        self.seen = {0}
        self.phase = Phase.UP
        self.own, self.old, self.young = (
            np.random.RandomState(3),
            random.Random(4),
            np.random.Generator(np.random.Philox(5)),
        )
        self.score = Slotted(0.0)
        self.text = np.array(["a", "b"])
        self.late: Any = None
        self.act = self.observe
        if "cache" in vars(self):
            del self.cache

    def move(self, action: float) -> None:
        if self.count == 4:  # what the other environment, which has just been reset, does not have
            self.late = self.matrix.T
            self.cache = {"ball": self.balls[0], (1, "x"): b"bytes"}
        self.balls.append(Ball(self))
        self.balls = self.balls[-3:]
        self.last = self.balls[-1]
        self.last.x += 0.1
        self.steps.append(Step(self.count, self.observe()))
        self.table[self.count] = self.old.random()
        self.seen.add(self.count)
        self.phase = Phase(-self.phase.value)
        self.row += self.own.normal() + action
        self.sparse *= 1.01
        self.matrix[0] += self.young.normal() + self.np_random.normal() + sum(streams())
        self.state = self.state + 1
        self.score.weight += self.phase.value * self.alias.sum()
        self.text[0] = str(self.count % 10)
        if self.late is not None:
            self.late[0] += 0.25

    def observe(self) -> Any:
        total = sum(ball.x for ball in self.balls) + sum(self.table.values()) + len(self.steps) + len(self.seen)
        extra = (
            10.0 * ("cache" in vars(self))
            + float(str(self.text[0]) == "a")
            + (0.0 if self.late is None else self.late.sum())
        )
        return np.array([self.matrix.sum() + self.state.sum(), total + extra, self.score.weight])


class Closed(Toy):
    """Has something that cannot be captured."""

    def begin(self) -> None:
        self.numbers = iter(range(100))
        self.drawn = self.np_random.normal()

    def move(self, action: float) -> None:
        self.drawn += next(self.numbers)

    def observe(self) -> Any:
        return np.array([self.drawn, self.count, 0.0])


class Wrapped(gym.Wrapper[Any, Any, Any, Any]):
    """A wrapper with attributes of its own, and a second hold on what is further in."""

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        self.base, self.bonus = env.unwrapped, 0.0

    def step(self, action: Any) -> Any:
        self.bonus += 0.5
        observation, reward, terminated, truncated, info = self.env.step(action)
        return observation, reward + self.bonus + self.base.count, terminated, truncated, info


class Inner(Toy):
    """An environment with other ones in it, one of MuJoCo's among them."""

    def __init__(self) -> None:
        self.inner = gym.make("Hopper-v5")
        self.others = {"lake": gym.make("FrozenLake-v1", is_slippery=True)}

    def begin(self) -> None:
        self.seen = self.inner.reset(seed=int(self.np_random.integers(100)))[0]
        self.place = self.others["lake"].reset(seed=1)[0]

    def move(self, action: float) -> None:
        self.seen = self.inner.step(np.full(3, action - 0.5))[0]
        self.place = self.others["lake"].step(int(action))[0]

    def observe(self) -> Any:
        return np.array([*self.seen[:2], self.place])


@pytest.mark.parametrize("kind", [Spoken, Rich, Inner])
def test_environments_of_users(kind: Any) -> None:
    for before, meanwhile in itertools.product((1, 2, 5, 12), (0, 6)):
        assert_exact(lambda: chain(Wrapped(kind())), before, meanwhile=meanwhile)
    assert chain(Wrapped(kind())).self_test() == []
    assert not Rich.START.any()


@pytest.mark.parametrize("wrap", [NormalizeObservation, NormalizeReward, lambda env: FrameStackObservation(env, 3)])
def test_wrappers_of_gymnasium(wrap: Any) -> None:
    assert_exact(lambda: chain(wrap(gym.make("Pendulum-v1", max_episode_steps=25))))


def test_what_cannot_be_captured_is_named_and_its_episode_begun_anew() -> None:
    make = lambda: chain(NonStationary(Closed(), [{"target": Count, "when": "every:7", "to": "uniform:0,1"}]))  # noqa: E731
    env = make()
    env.reset(seed=0)
    assert env.missing() == ["Closed.numbers (range_iterator)"]
    advance(env, [0] * 20)
    state = env.state_dict()
    assert state["missing"] == env.missing()
    other = make()
    other.reset(seed=9)
    observation = other.load_state_dict(state)
    assert other.get_wrapper_attr("clock") == 20
    assert other.get_wrapper_attr("due")() == env.get_wrapper_attr("due")()
    assert same(observation, env.reset()[0])  # the generator was put back first
    assert same(advance(env, [1] * 20), advance(other, [1] * 20))
    assert env.self_test() == ["Closed.numbers (range_iterator) cannot be captured"]


class Count:
    def validate(self, env: Any) -> None:
        self.env = env.unwrapped

    def apply(self, value: float) -> None:
        self.env.offset = value

    def restore(self) -> None:
        self.env.offset = 0.0


def test_box2d_is_named() -> None:
    pytest.importorskip("Box2D")
    env = chain(gym.make("ObservationOffsetLunarLander-v3"))
    env.reset(seed=0)
    advance(env, [2] * 5)
    assert "LunarLander.lander (b2Body)" in env.missing()
    other = chain(gym.make("ObservationOffsetLunarLander-v3"))
    other.reset(seed=9)
    observation = other.load_state_dict(env.state_dict())
    assert same(observation, env.reset()[0])
    assert same(advance(env, [2] * 5), advance(other, [2] * 5))


class Slippery(Toy):
    """Keeps a part of its state where nobody looks."""

    def begin(self) -> None:
        hidden = [0.0]

        def count() -> float:
            hidden[0] += 1
            return hidden[0]

        self.tick = count

    def move(self, action: float) -> None:
        self.tock = self.tick()

    def observe(self) -> Any:
        return np.array([getattr(self, "tock", 0.0), 0.0, 0.0])


def test_the_self_test_finds_what_differs_and_leaves_no_trace_where_nothing_does() -> None:
    found = chain(Slippery()).self_test()
    assert "the observation of step 1 differs after the state was put back" in found
    for reset in (True, False):
        envs = [
            changed("Ant-v5", ["friction=every:12|loguniform:0.1,2.0|draw", "push=every:9|uniform:-1,1"]) for _ in "ab"
        ]
        courses = []
        for env, tested in zip(envs, (True, False), strict=True):
            seed_streams(3)
            if reset:
                env.reset(seed=1)
                advance(env, actions_for(env, 5))
            assert not tested or env.self_test() == []
            if not reset:
                env.reset(seed=1)
            monitor: Any = env.env
            courses.append([advance(env, actions_for(env, 40)), streams(), monitor.rewards, monitor.episode_returns])
        assert same(*courses)


def test_records_are_left_alone() -> None:
    env = changed("Pendulum-v1", "gravity=every:9|uniform:0.5,1.5")
    env.reset(seed=0)
    advance(env, actions_for(env, 60))
    monitor: Any = env.env
    assert "episode_returns" not in env.state_dict()["layers"][0]["attributes"]
    episodes, started = len(monitor.episode_returns), monitor.t_start
    state = env.state_dict()
    advance(env, actions_for(env, 60))
    env.load_state_dict(state)
    assert len(monitor.episode_returns) > episodes
    assert (monitor.t_start, monitor.total_steps) == (started, 60)


def test_a_state_of_other_layers_is_refused() -> None:
    one, other = task("NSPendulum-v1"), chain(gym.make("Pendulum-v1"))
    with pytest.raises(ValueError, match=r"the state is of the environment .*NonStationary.*; this one is .*"):
        other.load_state_dict(one.state_dict())


@pytest.mark.parametrize("kind", [DummyVecEnv, SubprocVecEnv])
def test_through_vector_environments(kind: Any) -> None:
    makers: Any = [partial(task, "NSPendulum-v1"), partial(task, "NSPendulum-v1")]
    extra = {"start_method": "forkserver"} if kind is SubprocVecEnv else {}
    env, other = kind(makers, **extra), DummyVecEnv(makers)
    try:
        env.seed(1)
        env.reset()
        other.reset()
        action = np.ones((2, 1), np.float32)
        for _ in range(13):
            env.step(action)
        assert env.env_method("missing") == [[], []]
        assert env.env_method("self_test") == [[], []]
        states = env.env_method("state_dict")
        for index, state in enumerate(states):
            assert_plain(state)
            assert other.env_method("load_state_dict", state, indices=index) == [None]
        for _ in range(30):
            ours, theirs = env.step(action), other.step(action)
            assert same((ours[0], ours[2]), (theirs[0], theirs[2]))
            assert (ours[1].astype(np.float32) == theirs[1]).all()  # a Dummy's are of 32 bits
            assert same([strip(info) for info in ours[3]], [strip(info) for info in theirs[3]])
        assert other.env_method("due") == env.env_method("due")
        assert env.get_attr("clock") == other.get_attr("clock") == [43, 43]
    finally:
        env.close()
        other.close()


def strip(info: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in info.items() if key != "terminal_observation"}
