"""A batch of environments does what each would have done alone: number for number, type for type, key for key."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.wrappers import RescaleAction, TimeLimit

from envs import Batch, NonStationary, StablePhysics, stable_physics, why_not_batched
from envs.checkpointable import same
from envs.crew import Crew, cores
from envs.stable_physics import UNSTABLE

Env = gym.Env[Any, Any]
N = 3
TASKS = ["Ant-v5", "HalfCheetah-v5", "Humanoid-v5", "Hopper-v5", "Walker2d-v5"]


class Pair:
    """Environments stepped one by one, and copies of them stepped as a batch; what comes of both must be the same."""

    def __init__(self, make: Callable[[], Env], n: int = N, threads: int | None = None, seed: int = 0) -> None:
        self.alone, self.together = [make() for _ in range(n)], [make() for _ in range(n)]
        self.batch = Batch(self.together, threads=threads)
        self.rng = np.random.default_rng(seed)
        self.ends: list[tuple[bool, bool]] = []
        self.infos: list[dict[str, Any]] = []
        for index in range(n):
            self._reset(index, seed=index)

    def step(self, steps: int) -> None:
        space: Any = self.alone[0].action_space
        for _ in range(steps):
            actions = self.rng.uniform(space.low, space.high, (len(self.alone), *space.shape)).astype(np.float32)
            expected = [env.step(action) for env, action in zip(self.alone, actions, strict=True)]
            for index, (one, other) in enumerate(zip(expected, self.batch.step(actions), strict=True)):
                assert_same(one, other)
                self.ends.append((one[2], one[3]))
                self.infos.append(one[4])
                if one[2] or one[3]:
                    self._reset(index)

    def each(self, do: Callable[[Any], object]) -> None:
        for env in (*self.alone, *self.together):
            do(env)

    def _reset(self, index: int, **kwargs: Any) -> None:
        assert_same(self.alone[index].reset(**kwargs), self.together[index].reset(**kwargs))


def assert_same(one: Any, other: Any) -> None:
    assert same(one, other), f"{one}\n{other}"
    assert list(one[-1]) == list(other[-1])


def make(name: str, changes: Any = (), *, steps: int | None = 60, **kwargs: Any) -> Env:
    options = {key: kwargs.pop(key) for key in ("boundary", "context", "schedule_seed", "stride") if key in kwargs}
    env = gym.make(name, max_episode_steps=steps, **kwargs)
    return stable_physics(NonStationary(env, changes, **options) if changes else env)


@pytest.mark.parametrize("name", TASKS)
def test_a_batch_does_what_the_environments_do(name: str) -> None:
    pair = Pair(lambda: make(name))
    pair.step(130)
    assert (False, True) in pair.ends or name in ("Humanoid-v5", "Hopper-v5", "Walker2d-v5")
    assert (True, False) in pair.ends or name in ("Ant-v5", "HalfCheetah-v5")


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("Ant-v5", {"exclude_current_positions_from_observation": False, "main_body": "torso", "healthy_reward": 2}),
        ("Ant-v5", {"include_cfrc_ext_in_observation": False, "contact_force_range": (-0.3, 0.2), "frame_skip": 2}),
        ("Ant-v5", {"terminate_when_unhealthy": False, "healthy_z_range": [0.5, 0.6], "contact_cost_weight": 1}),
        ("HalfCheetah-v5", {"exclude_current_positions_from_observation": False, "ctrl_cost_weight": 2}),
        ("Humanoid-v5", {"include_cinert_in_observation": False, "include_cfrc_ext_in_observation": False}),
        ("Humanoid-v5", {"include_cvel_in_observation": 1, "include_qfrc_actuator_in_observation": False}),
        ("Humanoid-v5", {"exclude_current_positions_from_observation": False, "contact_cost_range": (0.001, 0.002)}),
        ("Hopper-v5", {"exclude_current_positions_from_observation": False, "healthy_state_range": (-3, 3)}),
        ("Walker2d-v5", {"terminate_when_unhealthy": False, "healthy_reward": 3, "forward_reward_weight": 0.3}),
    ],
)
def test_options_of_the_robots(name: str, kwargs: dict[str, Any]) -> None:
    if kwargs.get("include_cvel_in_observation") == 1:  # not True: Gymnasium leaves it out, and its space is wrong
        kwargs = kwargs | {"disable_env_checker": True}
    Pair(lambda: make(name, **kwargs)).step(40)


def test_settings_that_change_are_followed() -> None:
    pair = Pair(lambda: make("Hopper-v5"))
    pair.step(5)
    for name, value in {
        "_ctrl_cost_weight": 0.7,
        "_healthy_reward": 4,
        "_forward_reward_weight": -2.0,
        "frame_skip": 2,
        "_healthy_z_range": (1.2, 1.25),
        "init_qpos": np.arange(6.0),
    }.items():
        pair.each(lambda env, name=name, value=value: setattr(env.unwrapped, name, value))
        pair.step(5)
    pair.each(lambda env: setattr(env.unwrapped.model.opt, "timestep", 0.001))
    pair.step(5)


def test_a_simulation_that_is_exchanged_is_followed() -> None:
    import mujoco

    def exchange(env: Any) -> None:
        base = env.unwrapped
        base.data = mujoco.MjData(base.model)
        base.data.qpos[:] = base.init_qpos

    pair = Pair(lambda: gym.make("Walker2d-v5"))
    pair.step(5)
    pair.each(exchange)
    pair.step(20)


FRICTION = "friction=every:90|loguniform:0.05,2.0|draw"
TARGETS: dict[str, tuple[list[str], dict[str, Any]]] = {
    "episode": ([FRICTION], {"boundary": "episode"}),
    "step": ([FRICTION], {"boundary": "step"}),
    "truncate": ([FRICTION], {"boundary": "truncate"}),
    "observations": (["observation_permutation=every:60|permutation|draw"], {"boundary": "step"}),
    "actuators": (["actuator_failure=every:60|mask:2|draw"], {"boundary": "step"}),
    "delay": (["action_delay=every:60|cycle:2,0,1|draw"], {"boundary": "episode"}),
    "reward": (
        ["reward_scale=every:60|cycle:-1,1|draw", "target_direction=every:45|cycle:180,0"],
        {"boundary": "step"},
    ),
    "physics": (["gravity=every:60|uniform:0.5,1.5", "mass=every:45|uniform:0.5,2.0", "push=every:30|cycle:0.5,0"], {}),
    "noise": (["observation_noise=every:60|cycle:0.1,0.2", "action_reversal=every:60|sign|draw"], {"boundary": "step"}),
    "told in infos": ([FRICTION], {"boundary": "step", "context": "info"}),
    "told in observations": ([FRICTION, "gravity=sine:200,0.5,1.5"], {"boundary": "step", "context": "obs"}),
}


@pytest.mark.parametrize("case", TARGETS)
def test_worlds_that_change(case: str) -> None:
    changes, options = TARGETS[case]
    pair = Pair(lambda: make("Ant-v5", changes, steps=25, stride=N, **options))
    pair.step(70)
    assert len({info["nonstationary/regime"] for info in pair.infos}) > 1
    assert any(info["nonstationary/change_point"] for info in pair.infos)


@pytest.mark.parametrize("name", ["SlipperyHumanoid-v5", "SlipperyWalker2d-v5"])
def test_registered_tasks_have_the_wrapper_inside(name: str) -> None:
    Pair(lambda: stable_physics(gym.make(name, period=50, stride=N))).step(60)


def test_pins_and_clocks_in_the_middle() -> None:
    pair = Pair(lambda: make("Ant-v5", [FRICTION], stride=N, boundary="step"))
    pair.step(10)
    pair.each(lambda env: env.get_wrapper_attr("pin")(0.1))
    pair.step(10)
    assert pair.infos[-1]["nonstationary/regime"] == -1
    pair.each(lambda env: env.get_wrapper_attr("unpin")())
    pair.each(lambda env: env.get_wrapper_attr("set_clock")(1_000))
    pair.step(10)
    assert pair.infos[-1]["nonstationary/regime"] == 1_000 // 90


def test_batch_and_single_steps_alternate() -> None:
    pair = Pair(lambda: make("Humanoid-v5"))
    for _ in range(6):
        pair.step(2)
        action = pair.rng.uniform(-0.4, 0.4, 17).astype(np.float32)
        results = [[env.step(action) for env in envs] for envs in (pair.alone, pair.together)]
        assert same(*results)


def test_threads_make_no_difference() -> None:
    for threads in (1, 2, 7):
        Pair(lambda: make("Ant-v5", [FRICTION]), n=4, threads=threads).step(25)


def test_physics_that_break_down_are_cut_as_in_one(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pair = Pair(lambda: make("Hopper-v5", disable_env_checker=True))
    pair.step(3)
    for envs in (pair.alone, pair.together):
        envs[1].unwrapped.data.qvel[:] = 1e11  # type: ignore[attr-defined]
    pair.step(3)
    assert [UNSTABLE in info for info in pair.infos].count(True) == 1
    assert (False, True) in pair.ends


def test_the_order_of_calls_is_enforced_before_anything_moves() -> None:
    envs = [gym.make("Hopper-v5") for _ in range(2)]
    before = envs[0].unwrapped.data.qpos.copy()  # type: ignore[attr-defined]
    with pytest.raises(ResetNeeded, match=r"Cannot call env\.step"):
        Batch(envs).step(np.zeros((2, 3), np.float32))
    assert (envs[0].unwrapped.data.qpos == before).all()  # type: ignore[attr-defined]


def test_actions_of_the_wrong_shape_are_refused_as_by_one() -> None:
    pair = Pair(lambda: make("Hopper-v5", disable_env_checker=True))
    with pytest.raises(ValueError, match="Action dimension mismatch") as alone:
        pair.alone[0].step(np.zeros(4, np.float32))
    with pytest.raises(ValueError, match="Action dimension mismatch") as together:
        pair.batch.step(np.zeros((N, 4), np.float32))
    assert str(alone.value) == str(together.value)
    with pytest.raises(ValueError, match="zip"):
        pair.batch.step(np.zeros((N + 1, 3), np.float32))


def test_observations_belong_to_whoever_got_them() -> None:
    pair = Pair(lambda: make("Ant-v5"))
    actions = np.zeros((N, 8), np.float32)
    first = [result[0] for result in pair.batch.step(actions)]
    kept = [row.copy() for row in first]
    pair.batch.step(actions)
    assert same(first, kept)
    assert all(row.base is None and row.flags.owndata for row in first)


# Which environments can be in a batch.


class Mine(gym.Wrapper[Any, Any, Any, Any]):
    def step(self, action: Any) -> Any:
        return self.env.step(action)


class Halved(gym.Wrapper[Any, Any, Any, Any]):
    """A wrapper that says its halves, and takes what is raised inside."""

    def step(self, action: Any) -> Any:
        try:
            return self.after_step(*self.env.step(self.before_step(action)))
        except (ZeroDivisionError, ValueError) as error:
            return self.failed_step(error)

    def before_step(self, action: Any) -> Any:
        return -action

    def after_step(self, observation: Any, reward: Any, *rest: Any) -> Any:
        return observation, 2 * reward, *rest

    def failed_step(self, error: Exception) -> Any:
        if not isinstance(error, ZeroDivisionError | ValueError):
            raise error
        return np.zeros(11), -1.0, False, True, {"raised": str(error)}


class Overruled(Halved):
    def step(self, action: Any) -> Any:
        return super().step(action)


class Extended(Halved):
    def before_step(self, action: Any) -> Any:
        return 0.5 * action


class Dividing(Halved):
    def after_step(self, observation: Any, reward: Any, *rest: Any) -> Any:
        1 / bool(observation[0] > 1.24)
        return super().after_step(observation, reward, *rest)


def patched() -> Env:
    env = gym.make("Hopper-v5")
    env.step = env.step  # type: ignore[method-assign]
    return env


def twice() -> list[Env]:
    envs = [gym.make("Hopper-v5") for _ in range(2)]
    envs[1].unwrapped.data = envs[0].unwrapped.data  # type: ignore[attr-defined]
    return envs


@pytest.mark.parametrize(
    ("envs", "reason"),
    [
        (lambda: [gym.make("CartPole-v1")], "CartPoleEnv is none of Gymnasium's AntEnv, HalfCheetahEnv, HumanoidEnv"),
        (lambda: [gym.make("Swimmer-v5")], "SwimmerEnv is none of"),
        (lambda: [Mine(gym.make("Hopper-v5"))], "what the wrapper Mine does in a step is not known"),
        (lambda: [Overruled(gym.make("Hopper-v5"))], "what the wrapper Overruled does in a step is not known"),
        (lambda: [RescaleAction(gym.make("Hopper-v5"), 0, 1)], "the wrapper RescaleAction"),
        (lambda: [patched()], "what the wrapper TimeLimit does in a step is not known"),
        (lambda: [gym.make("Hopper-v5"), gym.make("Walker2d-v5")], "several classes: HopperEnv, Walker2dEnv"),
        (
            lambda: [gym.make("Ant-v5"), gym.make("Ant-v5", include_cfrc_ext_in_observation=False)],
            "their models or observations differ in size",
        ),
        (twice, "two of them share one simulation"),
    ],
)
def test_why_not(envs: Callable[[], Sequence[Env]], reason: str) -> None:
    made = envs()
    assert reason in str(why_not_batched(made))
    with pytest.raises(ValueError, match=r"cannot be stepped as a batch: .*" + reason.replace("(", r"\(")):
        Batch(made)


def test_a_robot_of_ones_own_is_no_robot_of_gymnasiums() -> None:
    from gymnasium.envs.mujoco.hopper_v5 import HopperEnv

    class Leaper(HopperEnv):
        pass

    assert "Leaper is none of" in str(why_not_batched([Leaper()]))
    assert why_not_batched([HopperEnv()]) is None  # without any wrapper


def test_arguments() -> None:
    with pytest.raises(ValueError, match="envs must be one environment or more, got none"):
        Batch([])
    with pytest.raises(ValueError, match="threads must be an integer >= 1, got 0"):
        Batch([gym.make("Hopper-v5")], threads=0)


@pytest.mark.parametrize("kind", [Halved, Extended, Dividing])
def test_wrappers_that_say_their_halves(kind: Any) -> None:
    pair = Pair(lambda: TimeLimit(kind(make("Hopper-v5")), 20))
    pair.step(30)
    assert any("raised" in info for info in pair.infos) == (kind is Dividing)


class Failing:
    """A target that fails, in one of its methods and at one time."""

    name = "failing"

    def __init__(self, where: str) -> None:
        self.where = where

    def validate(self, env: Any) -> None:
        self._seed = None
        self._env = env.unwrapped

    def apply(self, value: float) -> None: ...

    def restore(self) -> None: ...

    def _pass(self, thing: Any, where: str) -> Any:
        if self._env.np_random_seed == 1 and self._env.data.time > 0.05:
            if where == self.where:
                raise ZeroDivisionError(where)
            if (where, self.where) == ("action", "nonsense"):
                return "nonsense"
        return thing

    def action(self, action: Any, t: int) -> Any:
        return self._pass(action, "action")

    def observation(self, observation: Any, t: int) -> Any:
        return self._pass(observation, "observation")

    def reward(self, reward: Any, info: Any) -> Any:
        return self._pass(reward, "reward")


@pytest.mark.parametrize("where", ["action", "observation", "reward"])
def test_what_fails_inside_is_taken_by_the_wrapper_that_takes_it(where: str) -> None:
    change = {"target": Failing(where), "when": "every:10", "to": "cycle:1,2"}
    pair = Pair(lambda: TimeLimit(Halved(make("Hopper-v5", [change])), 30))
    pair.step(20)
    assert {"raised": where} in pair.infos
    with pytest.raises(ZeroDivisionError, match=where):
        Pair(lambda: make("Hopper-v5", [change])).step(20)


def test_an_action_that_is_none_fails_alone() -> None:
    change = {"target": Failing("nonsense"), "when": "every:10", "to": "cycle:1,2"}
    pair = Pair(lambda: TimeLimit(Halved(make("Hopper-v5", [change])), 30))
    pair.step(20)
    assert any("raised" in info for info in pair.infos)


def test_states_that_are_not_finite_are_unhealthy(monkeypatch: pytest.MonkeyPatch) -> None:
    import mujoco

    pair, step = Pair(lambda: make("Ant-v5", disable_env_checker=True)), mujoco.mj_step

    def broken(model: Any, data: Any, nstep: int) -> None:
        step(model, data, nstep)
        if data is pair.alone[1].unwrapped.data or data is pair.together[1].unwrapped.data:  # type: ignore[attr-defined]
            data.qvel[3] = np.inf

    pair.step(2)
    monkeypatch.setattr(mujoco, "mj_step", broken)
    pair.step(1)
    assert pair.ends[-3:] == [(False, False), (True, False), (False, False)]


# The threads.


def alive() -> int:
    return sum(thread.name.startswith("crew-") for thread in threading.enumerate())


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_all_pieces_are_done_once_and_several_at_a_time() -> None:
    crew, meeting = Crew(3, worth=0), threading.Barrier(3, timeout=10)
    crew.run(lambda piece: meeting.wait() and None, 3)  # which takes three threads
    for pieces in range(20):
        done: list[int] = []
        assert crew.run(done.append, pieces) == {}
        assert sorted(done) == list(range(pieces))


def test_what_pieces_raise_is_returned_and_the_others_are_done() -> None:
    done: list[int] = []

    def work(piece: int) -> None:
        if piece in (1, 4):
            raise KeyError(piece)
        done.append(piece)

    gc.collect()
    before, crew = alive(), Crew(2, worth=0)
    errors = crew.run(work, 6)
    assert {piece: error.args for piece, error in errors.items()} == {1: (1,), 4: (4,)}
    assert sorted(done) == [0, 2, 3, 5]
    del errors, crew  # whose tracebacks know each other
    eventually(lambda: gc.collect() >= 0 and alive() <= before)


def test_threads_are_called_where_they_pay() -> None:
    crew = Crew(4, worth=0.01)

    def workers(seconds: float) -> int:
        found = set()

        def work(piece: int) -> None:
            found.add(threading.get_ident())
            time.sleep(seconds)

        for _ in range(8):
            crew.run(work, 4)
        return len(found)

    assert workers(1e-5) == 1
    assert workers(0.02) == 4


def test_an_interrupt_waits_for_what_has_begun() -> None:
    crew, main = Crew(2, worth=0), threading.get_ident()
    begun, ended = threading.Event(), []

    def work(piece: int) -> None:
        if threading.get_ident() == main:
            assert begun.wait(10)
            signal.raise_signal(signal.SIGINT)
        else:
            begun.set()
            time.sleep(0.2)
            ended.append(piece)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
    try:
        with pytest.raises(KeyboardInterrupt):
            crew.run(work, 4)
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(ended) == 1
    assert crew.run(lambda piece: None, 5) == {}


def test_threads_end_with_the_crew_and_come_again() -> None:
    gc.collect()
    eventually(lambda: alive() == 0)
    crew = Crew(3)
    assert alive() == 0
    crew.run(lambda piece: None, 4)
    assert alive() == 2
    crew.close()
    eventually(lambda: alive() == 0)
    crew.run(lambda piece: None, 4)
    assert alive() == 2
    del crew
    gc.collect()
    eventually(lambda: alive() == 0)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # as is the point
def test_a_fork_makes_its_own_threads() -> None:
    pair = Pair(lambda: gym.make("Hopper-v5"), threads=2)
    pair.step(3)
    if (child := os.fork()) == 0:
        try:
            pair.step(3)
            os._exit(alive() != 1)
        except BaseException:
            os._exit(1)
    deadline = time.monotonic() + 30
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
        assert time.monotonic() < deadline, os.kill(child, signal.SIGKILL)
        time.sleep(0.01)
    assert ended[1] == 0
    pair.step(3)


def test_cores() -> None:
    assert 1 <= cores() <= (os.cpu_count() or 1)


def test_stable_physics_is_one_step_in_two_halves() -> None:
    env = StablePhysics(gym.make("Hopper-v5", disable_env_checker=True))
    env.reset(seed=0)
    result: Any = env.env.step(np.zeros(3, np.float32))
    assert env.after_step(*result) == result
