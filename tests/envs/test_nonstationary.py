"""The wrapper: clock, boundaries, infos, context, pins, copies, vector environments."""

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
from gymnasium.vector import AsyncVectorEnv, AutoresetMode
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv

from envs import NonStationary, make_nonstationary
from envs.physics import Target

PERIOD = 37
VALUES = [0.5, 1.0, 2.0]
REGIME, LENGTH, POINT = "nonstationary/regime", "nonstationary/length", "nonstationary/change_point"


def due(t: int) -> tuple[int, float]:
    """The schedule of these tests, by hand: regime and value at time t."""
    return t // PERIOD, VALUES[t // PERIOD % 3]


def cartpole(boundary: str = "episode", stride: int = 1, limit: int = 25, **kwargs: Any) -> NonStationary:
    change = f"length=every:{PERIOD}|cycle:{','.join(map(str, VALUES))}|draw"
    env = gym.make("CartPole-v1", max_episode_steps=limit)
    return NonStationary(env, change, boundary=boundary, stride=stride, **kwargs)


def monitored(boundary: str, stride: int) -> gym.Env:
    return Monitor(cartpole(boundary, stride))


def pairs(readings: list[dict[str, Any]]) -> list[tuple[int, float]]:
    return [(reading[REGIME], reading[LENGTH]) for reading in readings]


def forked(fns: list[Callable[[], gym.Env]]) -> VecEnv:
    return SubprocVecEnv(fns, start_method="fork")  # type: ignore[arg-type]  # forkserver imports torch 16 times


@pytest.mark.parametrize("boundary", ["episode", "step", "truncate"])
@pytest.mark.parametrize("n_envs", [1, 4, 16])
@pytest.mark.parametrize("make", [DummyVecEnv, forked])
def test_due_and_applied_regimes_are_right_at_every_total_step(make: Any, n_envs: int, boundary: str) -> None:
    venv = make([partial(monitored, boundary, n_envs) for _ in range(n_envs)])
    rng = np.random.default_rng(0)
    venv.seed(0)
    venv.reset()
    in_force = [due(0)] * n_envs  # what each sub-environment ought to have, kept by hand
    ends = 0
    for step in range(1, 60 if n_envs < 16 else 30):
        t = step * n_envs
        _, _, dones, infos = venv.step(rng.integers(0, 2, n_envs))
        assert pairs(infos) == in_force  # an info tells of the step it comes with
        ends += sum(dones)
        if boundary == "truncate" and due(t) != due(t - n_envs):
            assert all(dones)
        in_force = [due(t) if done or boundary != "episode" else old for old, done in zip(in_force, dones, strict=True)]
        assert pairs(venv.env_method("due")) == [due(t)] * n_envs
        assert pairs(venv.env_method("applied")) == in_force
        if boundary != "episode":
            assert in_force == [due(t)] * n_envs
        assert venv.get_attr("clock") == [t] * n_envs
        # The simulators themselves: nominal length is 0.5.
        assert venv.get_attr("length") == [0.5 * value for _, value in in_force]
    venv.close()
    assert ends  # episodes did end, by falling and by time


def test_a_process_started_afresh_knows_the_schedule() -> None:
    settings = {"target": "length", "period": PERIOD, "to": "uniform:0.5,2", "schedule_seed": 3, "boundary": "step"}
    make = partial(gym.make, "envs:NSCartPole-v1", **settings)  # pickled as it is: the process imports envs alone
    schedule = make().get_wrapper_attr("due")
    venv = AsyncVectorEnv([make] * 2, context="spawn")
    try:
        venv.reset(seed=0)
        assert venv.call("set_clock", 2 * PERIOD + 1, stride=2) == (None, None)
        assert venv.call("applied") == (schedule(2 * PERIOD),) * 2
        venv.step(np.zeros(2, int))
        assert venv.get_attr("clock") == (2 * PERIOD + 3,) * 2
    finally:
        venv.close()


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
@pytest.mark.parametrize("boundary", ["step", "truncate"])
def test_gymnasium_async_environments_do_not_drift_apart(boundary: str, mode: AutoresetMode) -> None:
    n_envs, count_resets = 4, mode is AutoresetMode.NEXT_STEP
    fns = [partial(cartpole, boundary, n_envs, count_resets=count_resets) for _ in range(n_envs)]
    venv = AsyncVectorEnv(fns, autoreset_mode=mode)
    rng = np.random.default_rng(0)
    venv.reset(seed=0)
    ended, ends = np.zeros(n_envs, bool), 0
    for step in range(1, 80):
        _, _, terminated, truncated, infos = venv.step(rng.integers(0, 2, n_envs))
        t = step * n_envs
        assert venv.get_attr("clock") == (t,) * n_envs
        assert pairs(venv.call("due")) == [due(t)] * n_envs
        if mode is AutoresetMode.NEXT_STEP:
            stepped = ~ended  # the others spent this vector step on their reset
            assert set(infos[REGIME][stepped]) <= {due(t - n_envs)[0]}
        elif boundary == "step":
            assert pairs(venv.call("applied")) == [due(t)] * n_envs
        if boundary == "truncate" and due(t) != due(t - n_envs):
            assert (terminated | truncated | ended).all()
        ended = terminated | truncated
        ends += int(ended.sum())
    venv.close()
    assert ends >= 12  # at different times


def test_truncation_is_no_terminal_and_its_last_observation_is_of_the_old_regime() -> None:
    env, same, fresh = cartpole("truncate", limit=500), cartpole("episode", limit=500), CartPoleEnv()
    for e in (env, same):
        e.reset(seed=5)
        e.set_clock(PERIOD - 10)
    for step in range(10):
        last, _, terminated, truncated, info = env.step(step % 2)
        expected = same.step(step % 2)[0]  # the same world, whose change waits for an end that does not come
        np.testing.assert_array_equal(last, expected)
        assert not terminated
        assert truncated == (step == 9)
        assert pairs([info]) == [due(0)]
    first, info = env.reset(seed=6)
    assert pairs([info]) == [due(PERIOD)]
    assert info[POINT] is True
    fresh.length, fresh.polemass_length = 0.5, 0.05  # VALUES[1] is nominal
    np.testing.assert_array_equal(first, fresh.reset(seed=6)[0])
    np.testing.assert_array_equal(env.step(1)[0], fresh.step(1)[0])


def test_a_fall_at_the_moment_of_truncation_stays_a_fall() -> None:
    env = cartpole("truncate")
    env.reset(seed=0)
    steps = 0
    while True:
        steps += 1
        if env.step(1)[2]:
            break
    env.reset(seed=0)
    env.set_clock(PERIOD - steps)
    rows = [env.step(1) for _ in range(steps)]
    assert [row[2:4] for row in rows] == [(False, False)] * (steps - 1) + [(True, False)]


def test_infos_have_constant_types_and_say_where_the_world_changed() -> None:
    env = cartpole("episode", limit=10)
    rows = [env.reset(seed=0)[1]]
    for _ in range(12):
        for step in range(10):
            rows.append(env.step(step % 2)[4])
        rows.append(env.reset()[1])
    for info in rows:
        added = {key: type(value) for key, value in info.items() if key.startswith("nonstationary/")}
        assert added == {LENGTH: float, REGIME: int, POINT: bool}
    regimes = [info[REGIME] for info in rows]
    # A change is announced twice: by the reset that brings it and by the first step under it. 11 rows an episode.
    expected = [i for i, k in enumerate(regimes) if i and (k != regimes[i - 1] or (i > 1 and k != regimes[i - 2]))]
    assert [i for i, info in enumerate(rows) if info[POINT]] == expected
    assert regimes[-1] == 120 // PERIOD


def test_a_change_at_an_episodes_last_step_is_announced_by_the_reset_and_the_step_that_follow() -> None:
    env = cartpole("step", limit=10)
    env.reset(seed=0)
    env.set_clock(PERIOD - 10)
    points = [env.step(step % 2)[4][POINT] for step in range(10)]
    assert not any(points)
    assert env.reset()[1][POINT] is True
    assert [env.step(0)[4][POINT] for _ in range(2)] == [True, False]


def test_seeding_leaves_the_schedule_alone_and_an_option_rewinds_it() -> None:
    env = cartpole()
    env.reset(seed=0)
    env.set_clock(2 * PERIOD)
    assert pairs([env.reset(seed=0)[1]]) == [due(2 * PERIOD)]
    assert env.clock == 2 * PERIOD
    options = {"schedule_clock": 0, "low": -0.01, "high": 0.01}
    observation, info = env.reset(options=options)
    assert env.clock == 0
    assert pairs([info]) == [due(0)]
    assert info[POINT] is False  # moving the clock is no change of the world
    assert np.abs(observation).max() <= 0.01  # the environment's own options arrive
    assert options["schedule_clock"] == 0  # the caller's dict is his


def test_the_environment_gets_its_own_options_alone() -> None:
    class Picky(CartPoleEnv):
        def reset(
            self, *, seed: int | None = None, options: dict[str, Any] | None = None
        ) -> tuple[Any, dict[str, Any]]:
            self.got = options
            return super().reset(seed=seed)

    env = NonStationary(Picky(), "length=every:5|cycle:2")
    env.reset(options={"schedule_clock": 5, "mine": 1})
    assert env.unwrapped.got == {"mine": 1}  # type: ignore[attr-defined]
    assert env.applied() == {LENGTH: 2.0, REGIME: 1}


def test_two_targets_on_one_schedule_draw_values_of_their_own() -> None:
    env = NonStationary(CartPoleEnv(), [f"{name}=every:5|uniform:0.5,2|draw" for name in ("length", "gravity")])
    (length, gravity, regime), (same, *_) = env.due().values(), cartpole_length_alone().due().values()
    assert regime == 0
    assert length != gravity
    assert length == same  # what one target does, does not depend on its company


def cartpole_length_alone() -> NonStationary:
    return NonStationary(CartPoleEnv(), "length=every:5|uniform:0.5,2|draw")


def test_a_resumed_run_sees_the_regimes_of_the_unbroken_one() -> None:
    def run(env: NonStationary, steps: int) -> list[tuple[int, float]]:
        out = []
        for _ in range(steps):
            *_, terminated, truncated, info = env.step(0)
            out += pairs([info])
            if terminated or truncated:
                env.reset()
        return out

    whole, part = cartpole("step"), cartpole("step")
    whole.reset(seed=0)
    part.reset(seed=0)
    expected = run(whole, 200)
    started = run(part, 90)
    resumed = cartpole("step")
    resumed.reset(seed=1)
    resumed.set_clock(90)
    assert started + run(resumed, 110) == expected


def test_set_clock_acts_at_once_after_a_reset_and_waits_for_the_boundary_within_an_episode() -> None:
    for boundary, at_once in (("episode", False), ("step", True), ("truncate", False)):
        env = cartpole(boundary)
        env.reset(seed=0)
        env.set_clock(PERIOD, stride=4)
        assert pairs([env.applied()]) == [due(PERIOD)]
        *_, truncated, info = env.step(0)
        assert env.clock == PERIOD + 4
        assert pairs([info]) == [due(PERIOD)]
        assert info[POINT] is False
        assert not truncated
        env.set_clock(0)
        assert pairs([env.applied()]) == [due(0) if at_once else due(PERIOD)]
        *_, truncated, info = env.step(0)
        assert truncated == (boundary == "truncate")
        assert pairs([env.reset()[1]]) == [due(0)]


@pytest.mark.parametrize(
    "how", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))], ids=["deepcopy", "pickle"]
)
def test_a_copied_ant_goes_on_where_the_original_is(how: Callable[[Any], Any]) -> None:
    changes = ["friction=every:30|cycle:0.2,0.9,1.5|draw", "mass=every:20|cycle:0.5,2"]
    env = gym.wrappers.TimeLimit(NonStationary(AntEnv(), changes, stride=2, boundary="step"), 60)
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1, 1, (80, 8)).astype(np.float32)
    env.reset(seed=0)
    for action in actions[:17]:
        env.step(action)
    twin = how(env)
    for e in (env, twin):
        assert e.get_wrapper_attr("clock") == 34
        assert e.get_wrapper_attr("applied")() == {"nonstationary/friction": 0.9, "nonstationary/mass": 0.5, REGIME: 2}
        assert set(e.unwrapped.model.geom_friction[:, 0]) == {0.9}
    assert twin.unwrapped is not env.unwrapped
    assert twin.unwrapped.model.body_mass.tobytes() == env.unwrapped.model.body_mass.tobytes()
    for action in actions[17:]:
        ours, theirs = env.step(action), twin.step(action)
        assert ours[0].tobytes() == theirs[0].tobytes()
        assert ours[1:4] == theirs[1:4]
        assert ours[4] == theirs[4]
        if ours[2] or ours[3]:
            assert env.reset()[0].tobytes() == twin.reset()[0].tobytes()  # the random generator goes along too
    assert twin.spec == env.spec


@pytest.mark.parametrize(
    "how", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))], ids=["deepcopy", "pickle"]
)
def test_a_copied_cartpole_does_not_take_changed_for_nominal(how: Callable[[Any], Any]) -> None:
    env = cartpole()
    env.reset(seed=0)
    env.set_clock(2 * PERIOD)
    twin = how(how(env))
    assert twin.unwrapped.length == env.unwrapped.length == 0.5 * due(2 * PERIOD)[1] == 1.0
    twin.set_clock(0)
    assert twin.unwrapped.length == 0.25
    assert env.unwrapped.length == 1.0


def test_a_second_environment_is_not_affected() -> None:
    changed, other = cartpole(), gym.make("CartPole-v1")
    changed.set_clock(2 * PERIOD)
    assert changed.unwrapped.length == 1.0  # type: ignore[attr-defined]
    assert other.unwrapped.length == 0.5  # type: ignore[attr-defined]


def test_pins_freeze_a_value_or_a_regime_until_unpinned() -> None:
    env = cartpole("truncate", limit=500)
    env.reset(seed=0)
    env.pin(np.float32(1.5))
    for step in range(60):
        *_, terminated, truncated, info = env.step(step % 2)
        assert (info[LENGTH], info[REGIME], truncated) == (1.5, -1, False)
        if terminated:
            env.reset()
    assert env.reset()[1][LENGTH] == 1.5
    assert env.clock == 60
    env.pin(regime=2)
    assert pairs([env.applied()]) == [due(2 * PERIOD)]
    env.unpin()
    assert pairs([env.applied()]) == [due(60)]
    env.pin()
    env.set_clock(10 * PERIOD)
    assert pairs([env.reset()[1]]) == [due(60)]


def test_pins_of_several_targets_and_their_errors() -> None:
    env = NonStationary(CartPoleEnv(), ["length=every:10|list:2,3", "gravity=every:15|cycle:0.5"])
    env.pin({"length": 0.7})
    assert env.applied() == {LENGTH: 0.7, "nonstationary/gravity": 1.0, REGIME: -1}
    env.pin(regime=3)  # changes at 10, 15, 20
    assert env.applied() == {LENGTH: 3.0, "nonstationary/gravity": 0.5, REGIME: 3}
    for kwargs, message in [
        ({"value": 0.5}, "pin needs a dict of target -> value for length, gravity, got 0.5"),
        ({"value": {"lenght": 0.5}}, 'did you mean "length"?'),
        ({"value": {"length": 500}}, r"length must be in \[0.01, 100\], got 500"),
        ({"value": {"length": float("nan")}}, "length must be a finite number, got nan"),
        ({"value": {"length": 1}, "regime": 1}, "a value or a regime, got both"),
        ({"regime": -1}, "regime must be an integer >= 0, got -1"),
    ]:
        with pytest.raises(ValueError, match=message.replace("?", r"\?")):
            env.pin(**kwargs)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"regime must be in \[0, 2\], the schedule's last, got 3"):
        NonStationary(CartPoleEnv(), "length=every:10|list:2,3").pin(regime=3)


def test_each_change_may_have_a_boundary_of_its_own() -> None:
    changes = [
        {"target": "length", "when": "every:5", "to": "cycle:2", "boundary": "step"},
        {"target": "gravity", "when": "every:5", "to": "cycle:0.5"},
    ]
    env = NonStationary(CartPoleEnv(), changes)
    env.reset(seed=0)
    for _ in range(5):
        env.step(0)
    assert env.applied() == {LENGTH: 2.0, "nonstationary/gravity": 1.0, REGIME: 1}
    assert env.due() == {LENGTH: 2.0, "nonstationary/gravity": 0.5, REGIME: 2}
    env.reset()
    assert env.applied() == env.due()


def test_context_is_hidden_or_in_infos_or_in_the_observation() -> None:
    hidden, info, obs = (cartpole("step", context=context) for context in ("hidden", "info", "obs"))
    plain = hidden.reset(seed=0)[0]
    assert plain.shape == (4,)
    assert "nonstationary/context" not in hidden.reset(seed=0)[1]
    observation, told = info.reset(seed=0)
    np.testing.assert_array_equal(observation, plain)
    np.testing.assert_array_equal(told["nonstationary/context"], [0.5])
    observation, _ = obs.reset(seed=0)
    np.testing.assert_array_equal(observation, np.append(plain, np.float32(0.5)))
    obs.set_clock(PERIOD - 1)
    observation, *_, last = obs.step(0)
    assert last[LENGTH] == 0.5  # what was in force in this step ...
    assert observation[-1] == 1.0  # ... and what will be in the next
    assert isinstance(obs.observation_space, gym.spaces.Box)
    assert observation.dtype == np.float32
    assert observation in obs.observation_space


def test_a_context_in_the_observation_needs_a_flat_box() -> None:
    class Grid(gym.Env):  # a minimal environment of images
        observation_space = gym.spaces.Box(0, 255, (4, 4, 3), np.uint8)
        action_space = gym.spaces.Discrete(2)

    with pytest.raises(ValueError, match='context "obs" needs a flat Box of floats'):
        NonStationary(Grid(), {"target": Cart, "when": "every:5", "to": "cycle:1"}, context="obs")


class Cart:
    """A user's own target, complete: the mass of CartPole's cart in kg."""

    def validate(self, env: gym.Env) -> None:
        self.env = env.unwrapped
        self.mass = self.env.masscart  # type: ignore[attr-defined]

    def apply(self, value: float) -> None:
        self.env.masscart = value  # type: ignore[attr-defined]
        self.env.total_mass = value + self.env.masspole  # type: ignore[attr-defined]

    def restore(self) -> None:
        self.apply(self.mass)


@pytest.mark.parametrize("target", [Cart, Cart()], ids=["class", "object"])
def test_a_users_own_target_needs_three_methods_and_no_registry(target: Any) -> None:
    change = {"target": target, "when": "every:10", "to": "uniform:2,3"}
    env, other = NonStationary(CartPoleEnv(), change), NonStationary(CartPoleEnv(), change)
    assert isinstance(Cart(), Target)
    assert env.unwrapped.masscart == 1.0  # type: ignore[attr-defined]
    env.reset(seed=0)
    for step in range(10):
        env.step(step % 2)
    info = env.reset()[1]
    assert 2 <= info["nonstationary/Cart"] <= 3
    assert env.unwrapped.masscart == info["nonstationary/Cart"]  # type: ignore[attr-defined]
    assert other.unwrapped.masscart == 1.0  # type: ignore[attr-defined]  # one object, two environments
    twin = pickle.loads(pickle.dumps(env))
    assert twin.unwrapped.masscart == info["nonstationary/Cart"]
    twin.set_clock(0)
    twin.reset()
    assert twin.unwrapped.masscart == 1.0


def test_an_object_that_is_no_target_is_told_what_it_lacks() -> None:
    class Half:
        def apply(self, value: float) -> None: ...

    with pytest.raises(ValueError, match="lacks validate, restore"):
        NonStationary(CartPoleEnv(), {"target": Half, "when": "every:5", "to": "cycle:1"})


@pytest.mark.parametrize(
    ("method", "wrong", "said"),
    [
        ("validate", lambda self: None, "Own.validate is called with 1 argument: write def validate(self, env), got"),
        ("apply", lambda self: None, "Own.apply is called with 1 argument: write def apply(self, value), got"),
        ("restore", lambda self, env: None, "Own.restore is called with no arguments: write def restore(self), got"),
        (
            "action",
            lambda self, a: a,
            "with 2 arguments: write def action(self, action, t), got action(a) beside",
        ),
        (
            "observation",
            lambda self, o: o,
            "write def observation(self, observation, t), got observation(o)",
        ),
        ("observation_space", lambda self: None, "write def observation_space(self, space), got observation_space()"),
        ("reward", lambda self, r: r, "write def reward(self, reward, info), got reward(r) beside self"),
        ("check", lambda self: None, "write def check(self, value), got check()"),
        ("reading", lambda self, v, w: v, "write def reading(self, value), got reading(v, w)"),
        ("begin", lambda self, env: None, "write def begin(self), got begin(env)"),
    ],
)
def test_a_method_of_a_users_target_that_takes_other_arguments_is_refused(method: str, wrong: Any, said: str) -> None:
    methods = {name: lambda self, *given: given for name in ("validate", "apply", "restore")}
    own = type("Own", (), {**methods, method: wrong})
    with pytest.raises(ValueError, match=re.escape(said)):
        NonStationary(CartPoleEnv(), {"target": own, "when": "every:5", "to": "cycle:1"})


def test_arguments_may_have_other_names_and_defaults() -> None:
    class Own:
        def validate(self, anything: Any, more: int = 0) -> None: ...
        def apply(self, *values: float) -> None: ...
        def restore(self) -> None: ...
        def observation(self, o: Any, now: int, **rest: Any) -> Any:
            return o + 1

    env = NonStationary(CartPoleEnv(), {"target": Own, "when": "every:5", "to": "cycle:1"})
    np.testing.assert_array_equal(env.reset(seed=0)[0], CartPoleEnv().reset(seed=0)[0] + 1)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("contxt", 'unknown keyword of CartPole-v1 "contxt": allowed are .*did you mean "context"'),
        ("sutton_reward", 'did you mean "sutton_barto_reward"'),
    ],
)
def test_a_misspelt_keyword_of_a_maker_gets_the_nearest_one(name: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make_nonstationary("CartPole-v1", "length=every:5|cycle:1", **{name: "obs"})


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (
            {"boundary": "epsiode"},
            'unknown \'boundary\' "epsiode": allowed are episode, step, truncate; did you mean "episode"?',
        ),
        ({"context": "observation"}, "unknown 'context' \"observation\": allowed are hidden, info, obs"),
        ({"stride": 0}, "stride must be an integer >= 1, got 0"),
        ({"count_resets": "a"}, "count_resets must be True or False, got 'a'"),
        ({"count_resets": 1}, "count_resets must be True or False, got 1"),
        ({"schedule_seed": 1.5}, "schedule_seed must be an integer >= 0, got 1.5"),
    ],
)
def test_errors_of_the_constructor_teach(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        NonStationary(CartPoleEnv(), "length=every:5|cycle:1", **kwargs)


@pytest.mark.parametrize("step", [-1, 1.5, "10", None])
def test_the_clock_takes_whole_numbers(step: Any) -> None:
    env = cartpole()
    with pytest.raises(ValueError, match="step must be an integer >= 0"):
        env.set_clock(step)
    env.set_clock(np.int64(5))
    assert type(env.clock) is int


def test_two_wrappers_are_refused() -> None:
    with pytest.raises(ValueError, match=r"non-stationary already.*it changes length"):
        NonStationary(gym.wrappers.TimeLimit(cartpole(), 10), "gravity=every:5|cycle:1")


def test_most_steps_do_no_work() -> None:
    """A step that is not at a change asks neither the schedule nor the target anything: its cost is a comparison."""

    env = cartpole("step", limit=500)
    env.reset(seed=0)

    def forbidden(*args: Any) -> Any:
        raise AssertionError("asked")

    env.lives[0].schedule = type("Never", (), {"regime": forbidden, "value": forbidden})()
    for step in range(PERIOD - 1):
        env.step(step % 2)
    with pytest.raises(AssertionError, match="asked"):
        env.step(0)
