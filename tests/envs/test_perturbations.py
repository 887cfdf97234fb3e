"""What passes between an environment and the agent, changed: observations, actions, rewards."""

import copy
import pickle
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.classic_control.cartpole import CartPoleEnv
from gymnasium.envs.mujoco.ant_v5 import AntEnv
from gymnasium.envs.mujoco.half_cheetah_v5 import HalfCheetahEnv
from gymnasium.envs.registration import EnvSpec, load_env_creator
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

from envs import NonStationary, make_nonstationary
from envs.perturbations import PERTURBATIONS
from tests.envs.test_physics import trajectory


class Echo(gym.Env[Any, Any]):
    """Says what was done to it: observation and reward are the action it got, shifted by ten, and a count."""

    def __init__(self, action_space: gym.Space[Any] | None = None) -> None:
        self.action_space = action_space or gym.spaces.Box(-1, 1, (3,), np.float32)
        self.observation_space = gym.spaces.Box(-100, 100, (4,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(4, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action if isinstance(action, np.ndarray) else np.int64(action))
        self.steps += 1
        self.got = action
        return np.arange(1, 5, dtype=np.float32) * self.steps, 3.0, False, False, {}


def echo(changes: Any, space: gym.Space[Any] | None = None, **kwargs: Any) -> Any:
    env = NonStationary(Echo(space), changes, **kwargs)
    env.reset(seed=0)
    return env


def pinned(name: str, value: Any, space: gym.Space[Any] | None = None, to: str = "list:0") -> Any:
    env = echo(f"{name}=at:1000000|{to}", space)
    env.pin({name: value})
    return env


ACTION = np.array([0.5, -0.25, 1.0], np.float32)


@pytest.mark.parametrize(
    ("name", "to", "value", "observation", "reading"),
    [
        ("observation_offset", "list:0", [3, 0, -4, 0], [4, 2, -1, 4], 5.0),
        ("observation_permutation", "permutation", [1, 0, 2, 3], [2, 1, 3, 4], 0.5),
        ("observation_permutation", "permutation", [3, 0, 1, 2], [4, 1, 2, 3], 1.0),
        ("observation_mask", "mask:1", [1, 0, 1, 0], [1, 0, 3, 0], 0.5),
    ],
)
def test_observations(name: str, to: str, value: Any, observation: Any, reading: float) -> None:
    env = pinned(name, value, to=to)
    seen, *_, info = env.step(ACTION)
    np.testing.assert_array_equal(seen, observation)
    assert seen.dtype == np.float32
    assert info[f"nonstationary/{name}"] == pytest.approx(reading)
    assert seen in env.observation_space
    expected = np.array(observation) - [1, 2, 3, 4] if name == "observation_offset" else np.zeros(4)
    np.testing.assert_array_equal(env.reset()[0], expected)  # of zeros


@pytest.mark.parametrize(
    ("name", "to", "value", "got", "reading"),
    [
        ("action_permutation", "permutation", [2, 0, 1], [1.0, 0.5, -0.25], 1.0),
        ("action_reversal", "sign", [-1, 1, -1], [-0.5, -0.25, -1.0], -1 / 3),
        ("action_reversal", "sign", -1, [-0.5, 0.25, -1.0], -1.0),
        ("action_gain", "list:1", [1, 2, 3], [0.5, -0.5, 1.0], 2.0),
        ("action_gain", "list:1", -1, [-0.5, 0.25, -1.0], -1.0),
        ("actuator_failure", "mask:1", [1, 1, 0], [0.5, -0.25, 0], 1 / 3),
    ],
)
def test_continuous_actions(name: str, to: str, value: Any, got: Any, reading: float) -> None:
    env = pinned(name, value, to=to)
    given = ACTION.copy()
    *_, info = env.step(given)
    np.testing.assert_array_equal(env.unwrapped.got, got)
    assert env.unwrapped.got.dtype == np.float32
    assert info[f"nonstationary/{name}"] == pytest.approx(reading)
    np.testing.assert_array_equal(given, ACTION)


@pytest.mark.parametrize("kind", [int, np.int64])
def test_discrete_actions(kind: Any) -> None:
    space = gym.spaces.Discrete(3, start=1)
    permuted = pinned("action_permutation", [1, 2, 0], space, "permutation")
    mirrored = pinned("action_reversal", -1, space, "sign")
    for action, after, mirror in ((1, 2, 3), (2, 3, 2), (3, 1, 1)):
        permuted.step(kind(action))
        mirrored.step(kind(action))
        assert (permuted.unwrapped.got, mirrored.unwrapped.got) == (after, mirror)


def test_a_reversal_is_about_the_middle_of_the_bounds_and_a_failure_stays_within_them() -> None:
    space = gym.spaces.Box(np.float32([1, -2]), np.float32([3, 4]), dtype=np.float32)
    env = pinned("action_reversal", -1, space, "sign")
    env.step(np.array([1, 0], np.float32))
    np.testing.assert_array_equal(env.unwrapped.got, [3, 2])
    env = pinned("actuator_failure", [0, 0], space, "mask:1")
    env.step(np.array([3, 4], np.float32))
    np.testing.assert_array_equal(env.unwrapped.got, [1, 0])


@pytest.mark.parametrize("discrete", [False, True])
@pytest.mark.parametrize(
    "how", [lambda env: env, copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))], ids=["same", "deep", "pickle"]
)
def test_actions_arrive_late_through_copies_and_changes_of_the_delay(how: Any, discrete: bool) -> None:
    space = gym.spaces.Discrete(100) if discrete else gym.spaces.Box(-100, 100, (1,), np.float32)
    env = echo("action_delay=at:6,9|list:2,0,3|draw", space, boundary="step")
    got = []
    for step in range(1, 13):
        if step == 4:
            env = how(env)
        env.step(step if discrete else np.array([step], np.float32))
        got.append(int(np.asarray(env.unwrapped.got).item()))
    assert got == [0, 0, 1, 2, 3, 4, 7, 8, 9, 7, 8, 9]
    env.reset()
    env.step(np.int64(5) if discrete else np.array([5], np.float32))
    assert int(np.asarray(env.unwrapped.got).item()) == 0  # nothing of the last episode arrives in this one


def test_rewards_are_scaled_and_flipped() -> None:
    env = echo("reward_scale=every:2|cycle:-1,0.5", boundary="step")
    assert [env.step(ACTION)[1] for _ in range(7)] == [3, 3, -3, -3, 1.5, 1.5, -3]


RUNNERS = ["Ant", "HalfCheetah", "Hopper", "Humanoid", "Swimmer", "Walker2d"]


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("name", RUNNERS)
def test_the_target_direction_changes_the_forward_reward_alone(name: str, version: int) -> None:
    plain = load_env_creator(str(gym.registry[f"{name}-v{version}"].entry_point))
    weight = 1.25 if name == "Humanoid" else 1.0
    for angle, along, across in ((180.0, -1, 0), (90.0, 0, 1), (0.0, 1, 0)):
        bare = plain()
        env = NonStationary(plain(), f"target_direction=every:99|cycle:{angle}|draw")
        for row, turned in zip(trajectory(bare, 10), trajectory(env, 10), strict=True):
            assert row[0] == turned[0]
            assert row[-1] == turned[-1]  # the infos
            if len(row) == 5:
                x, y = row[4]["x_velocity"], row[4].get("y_velocity", 0)
                assert turned[1] == pytest.approx(row[1] - weight * x + weight * (along * x + across * y), abs=1e-9)


def test_running_backwards_pays_as_much_as_running_forwards_did() -> None:
    """Independent of our formula: the environment's own reward terms, by its own names."""
    env = NonStationary(HalfCheetahEnv(), "target_direction=every:99|cycle:180|draw")
    env.reset(seed=0)
    for _ in range(10):
        _, reward, *_, info = env.step(env.action_space.sample())
        assert reward == pytest.approx(-info["reward_forward"] + info["reward_ctrl"], abs=1e-12)


NOISY = "observation_noise=at:1000000|list:0|draw"


def noise(env: Any, steps: int, seed: int | None = None, start: int = 0) -> np.ndarray:
    rows = [env.reset(seed=seed)[0]]
    rows += [env.step(ACTION)[0] - np.arange(1, 5) * (step + 1) for step in range(steps)]
    return np.array(rows)


def test_noise_has_its_deviation_repeats_and_leaves_the_environments_generator_alone() -> None:
    env, twin, other = (echo("observation_noise=at:1000000|list:0.5|draw") for _ in range(3))
    drawn = noise(env, 2000, seed=1)
    assert abs(drawn.std() - 0.5) < 4 * 0.5 / np.sqrt(2 * drawn.size)
    assert np.abs(np.corrcoef(drawn[:-1, 0], drawn[1:, 0])[0, 1]) < 4 / np.sqrt(2000)
    np.testing.assert_array_equal(noise(twin, 2000, seed=1), drawn)
    assert not np.isclose(noise(other, 20, seed=2), drawn[:21]).any()  # sub-environments have seeds of their own
    bare = Echo()
    bare.reset(seed=1)
    assert env.unwrapped.np_random.random() == bare.np_random.random()
    # As a resumed run: the clock set, seeded as before.
    resumed = echo("observation_noise=at:1000000|list:0.5|draw")
    resumed.reset(seed=1)
    resumed.set_clock(2000)
    again = resumed.step(ACTION)[0] - np.arange(1, 5)
    np.testing.assert_allclose(again, env.step(ACTION)[0] - np.arange(1, 5) * 2001, atol=1e-3)
    copied = pickle.loads(pickle.dumps(twin))
    np.testing.assert_array_equal(copied.reset()[0], twin.reset()[0])
    # A reset takes no time, and yet its observation has noise of its own.
    last = twin.step(ACTION)[0] - np.arange(1, 5)
    assert not np.isclose(last, twin.reset()[0]).any()


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_perturbations_are_neutral_at_their_nominal_value(name: str) -> None:
    nominal = {"observation_offset": 0, "observation_noise": 0, "action_delay": 0, "target_direction": 0}.get(name, 1)
    to = "permutation" if name.endswith("permutation") else f"cycle:{nominal}"
    env = NonStationary(AntEnv(), f"{name}=every:20|{to}", boundary="step")
    if to == "permutation":
        env.pin({name: np.arange(env.lives[0].size or 0)})
    assert trajectory(env, 100) == trajectory(AntEnv(), 100)
    assert name.endswith("permutation") or env.applied()["nonstationary/regime"] == 5


TOGETHER = [
    "observation_permutation=every:30|permutation",
    "observation_offset=every:20|gaussian_vector:2.0",
    "observation_noise=sine:100,0,0.5",
    "action_reversal=every:25|cycle:-1,1",
    "action_delay=every:40|cycle:0,2",
    "reward_scale=every:30|cycle:-1,1",
    "length=every:25|cycle:0.5,2",
]


# The checker's advice concerns the wrapper, which is what we check.
@pytest.mark.filterwarnings("ignore:.*is different from the unwrapped version:UserWarning")
@pytest.mark.filterwarnings(
    "ignore:.*Box observation space m.*imum value is .*infinity:UserWarning"
)  # offsets have none
@pytest.mark.parametrize("context", ["hidden", "obs"])
@pytest.mark.parametrize("boundary", ["episode", "step", "truncate"])
def test_several_at_once_pass_the_checker_and_copies_go_on_where_the_original_is(boundary: str, context: str) -> None:
    env: Any = NonStationary(gym.make("CartPole-v1"), TOGETHER, boundary=boundary, context=context)
    assert env.observation_space.shape == (4 + (4 + 4 + 5 if context == "obs" else 0),)
    check_env(env, skip_render_check=True)
    env.reset(seed=3)
    for how in (copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))):
        twin = how(env)
        for step in range(50):
            ours, theirs = (e.step(step // 2 % 2) for e in (env, twin))
            assert ours[0].tobytes() == theirs[0].tobytes()
            assert ours[1:] == theirs[1:] or context == "info"
            if ours[2] or ours[3]:
                assert env.reset()[0].tobytes() == twin.reset()[0].tobytes()


def cartpole(index: int, boundary: str) -> gym.Env[Any, Any]:
    changes = ["observation_offset=every:20|gaussian_vector:2.0", "observation_noise=every:20|cycle:0.5|draw"]
    return NonStationary(gym.make("CartPole-v1"), changes, boundary=boundary, stride=2)


@pytest.mark.parametrize("boundary", ["step", "truncate"])
def test_sub_environments_share_the_offset_and_not_the_noise(boundary: str) -> None:
    makers: list[Callable[[], Any]] = [partial(cartpole, i, boundary) for i in range(2)]
    dummy, forked = DummyVecEnv(makers), SubprocVecEnv(makers, start_method="fork")
    for venv in (dummy, forked):
        venv.seed(5)
    first = [venv.reset() for venv in (dummy, forked)]
    np.testing.assert_array_equal(*first)
    assert not np.isclose(first[0][0], first[0][1], atol=1e-3).all()
    for step in range(40):
        ours, theirs = (venv.step(np.array([step % 2] * 2)) for venv in (dummy, forked))
        np.testing.assert_array_equal(ours[0], theirs[0])
        readings = [info["nonstationary/observation_offset"] for info in ours[3]]
        assert readings[0] == readings[1]
        assert (readings[0] == 0) == (2 * step < 20)
    forked.close()


def test_a_truncated_episodes_last_observation_and_reward_are_of_the_old_regime() -> None:
    changes = ["observation_offset=every:3|list:7", "reward_scale=every:3|list:-1"]
    env = echo(changes, boundary="truncate")
    rows = [env.step(ACTION) for _ in range(3)]
    np.testing.assert_array_equal(rows[-1][0], [3, 6, 9, 12])
    assert rows[-1][1:4] == (3.0, False, True)
    np.testing.assert_array_equal(env.reset()[0], [7, 7, 7, 7])
    assert env.step(ACTION)[1] == -3.0


def test_perturbations_act_in_the_order_of_the_changes() -> None:
    changes = ["observation_offset=at:9|list:0|draw", "observation_mask=at:9|list:1|draw"]
    for order, seen in ((changes, [0, 9, 10, 11]), (changes[::-1], [7, 9, 10, 11])):
        env = echo(order)
        env.pin({"observation_offset": 7, "observation_mask": [0, 1, 1, 1]})
        np.testing.assert_array_equal(env.step(ACTION)[0], seen)


def test_images_can_be_permuted_and_masked_and_not_offset() -> None:
    class Grid(gym.Env[Any, Any]):
        observation_space = gym.spaces.Box(0, 255, (2, 3), np.uint8)
        action_space = gym.spaces.Discrete(2)

        def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
            return np.arange(6, dtype=np.uint8).reshape(2, 3), {}

    env = NonStationary(Grid(), "observation_permutation=every:9|permutation")
    env.pin([5, 4, 3, 2, 1, 0])
    seen = env.reset()[0]
    np.testing.assert_array_equal(seen, [[5, 4, 3], [2, 1, 0]])
    assert seen in env.observation_space
    env = NonStationary(Grid(), "observation_mask=every:9|mask:1")
    env.pin([1, 0, 1, 0, 1, 0])
    assert env.reset()[0].tobytes() == np.array([0, 0, 2, 0, 4, 0], np.uint8).tobytes()
    for name in ("observation_offset", "observation_noise"):
        with pytest.raises(ValueError, match=f"'{name}' needs a Box of floats as the observation space, Grid has Box"):
            NonStationary(Grid(), f"{name}=every:9|cycle:1")


@pytest.mark.parametrize(
    ("change", "space", "message"),
    [
        ("action_gain=every:9|cycle:1", "discrete", "'action_gain' does nothing in Echo: it needs a bounded Box"),
        ("actuator_failure=every:9|mask:1", "discrete", "'actuator_failure' does nothing in Echo: it needs a bounded"),
        ("action_reversal=every:9|sign", "unbounded", "it needs a bounded Box of floats as the action space, got Box"),
        ("action_permutation=every:9|permutation", "uneven", "it needs actions with the same bounds"),
        ("action_permutation=every:9|permutation", "single", "it needs two actions or more"),
        ("action_delay=every:9|cycle:1", "several", "it needs a Box or a Discrete action space"),
        (
            "action_delay=every:9|uniform:1,2",
            None,
            "action_delay takes whole numbers of steps (to: list or cycle), got",
        ),
        ("action_delay=every:9|uniform:1,2", None, " from every:9|uniform:1.0,2.0"),
        ("action_delay=every:9|cycle:101", None, "action_delay must be in [0, 100], got 101"),
        ("action_permutation=every:9|cycle:0", None, "action_permutation takes a permutation (to: permutation), got"),
        (
            "action_permutation=every:9|gaussian_vector:1",
            None,
            "got -inf from every:9|gaussian_vector:1.0",
        ),
        ("observation_mask=every:9|cycle:1,0.5", None, "observation_mask takes zeros and ones (to: mask:1), got [0.5"),
        ("observation_noise=every:9|cycle:-1", None, "observation_noise must be in [0, inf], got -1"),
        ("action_reversal=every:9|uniform:-1,1", None, "action_reversal takes -1 (reversed) and 1 (as is), got"),
        ("target_direction=every:9|cycle:180", None, "does nothing in Echo: its reward pays for no velocity along x"),
        ("observation_ofset=every:9|cycle:1", None, 'did you mean "observation_offset"?'),
    ],
)
def test_what_cannot_be_perturbed_is_refused_with_the_reason(change: str, space: str | None, message: str) -> None:
    spaces: dict[str | None, Any] = {
        "discrete": gym.spaces.Discrete(3),
        "unbounded": gym.spaces.Box(-np.inf, np.inf, (2,), np.float32),
        "uneven": gym.spaces.Box(np.float32([0, 0]), np.float32([1, 2]), dtype=np.float32),
        "single": gym.spaces.Box(0, 1, (1,), np.float32),
        "several": gym.spaces.MultiDiscrete([2, 2]),
    }
    with pytest.raises(ValueError, match=re.escape(message)):
        NonStationary(Echo(spaces.get(space)), change)


class Inverter:
    """A user's own perturbation, complete: reads every observation upside down while its value is 1."""

    nominal, low, high = 0.0, 0.0, 1.0

    def validate(self, env: gym.Env[Any, Any]) -> None:
        self.on = False

    def apply(self, value: float) -> None:
        self.on = value > 0

    def restore(self) -> None:
        self.on = False

    def observation(self, observation: Any, t: int) -> Any:
        return -observation if self.on else observation


def test_a_users_own_perturbation_is_one_small_class() -> None:
    env = echo({"target": Inverter, "when": "every:2", "to": "cycle:1,0"}, boundary="step")
    firsts = [env.step(ACTION)[0][0] for _ in range(6)]
    assert firsts == [1, 2, -3, -4, 5, 6]
    assert "nonstationary/Inverter" in env.applied()


@pytest.mark.parametrize("changes", [TOGETHER, ["mass:torso=every:9|cycle:2", "damping:hip_1=sine:100,0,1"]])
def test_specs_rebuild_perturbations_drifts_and_parts_from_json(changes: list[str]) -> None:
    id = "CartPole-v1" if changes is TOGETHER else "Ant-v5"
    env = make_nonstationary(id, changes, schedule_seed=3, context="obs")
    assert env.spec is not None
    rebuilt: Any = gym.make(EnvSpec.from_json(env.spec.to_json()))
    assert rebuilt.spec == env.spec
    assert rebuilt.observation_space == env.observation_space
    assert rebuilt.due(777) == env.due(777)


def test_the_published_protocol_of_random_offsets() -> None:
    """TRAC and C-CHAIN: an offset drawn from N(0, 2) for each dimension, the first one zero."""
    env = NonStationary(CartPoleEnv(), "observation_offset=every:160000|gaussian_vector:2.0")
    offsets = []
    for level in range(10):
        env.set_clock(level * 160_000)
        offsets.append(env.reset(seed=0)[0])
    plain = CartPoleEnv().reset(seed=0)[0]
    np.testing.assert_array_equal(offsets[0], plain)
    assert 1 < np.std(np.array(offsets[1:]) - plain) < 3
    assert len({offset.tobytes() for offset in offsets}) == 10
