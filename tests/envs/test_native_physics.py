"""Simulations stepped by native.c against Python's mj_step: numbers, errors, warnings, whatever users put into them."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
import pytest

from envs import batched_physics
from envs.batched_physics import Physics
from envs.native_physics import LIBRARY, NativePhysics
from plasticity import native

pytestmark = pytest.mark.skipif(LIBRARY is None, reason="native.c is not compiled, or MuJoCo is older than version 4")
FIELDS = ("time", "qpos", "qvel", "qacc_warmstart", "cfrc_ext", "xpos", "qfrc_actuator")


def share(tasks: int, count: int, threads: int) -> None:
    """As plasticity's, with threads of Python's."""
    table = (ctypes.c_void_p * (2 * count)).from_address(tasks)
    crew = [threading.Thread(target=LIBRARY.simulate, args=[table[1]]) for _ in range(threads)]  # type: ignore[union-attr]
    for one in crew:
        one.start()
    for one in crew:
        one.join()


def robots(n: int = 5, name: str = "Ant-v5") -> list[Any]:
    found = [gym.make(name).unwrapped for _ in range(n)]
    for seed, robot in enumerate(found):
        robot.reset(seed=seed)
    return found


def alone(robot: Any) -> None:
    mujoco.mj_step(robot.model, robot.data, robot.frame_skip)
    mujoco.mj_rnePostConstraint(robot.model, robot.data)


def assert_same(some: list[Any], others: list[Any]) -> None:
    for one, other in zip(some, others, strict=True):
        for field in FIELDS:
            assert np.array_equal(getattr(one.data, field), getattr(other.data, field)), field


def batch(found: list[Any], threads: int = 2, by: Any = native.share) -> Physics:
    physics = Physics(found, threads, by)
    assert physics._native is not None
    return physics


@pytest.mark.parametrize("by", [None, share, native.share], ids=["one thread", "Python's threads", "plasticity's"])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_every_number_is_that_of_mj_step(threads: int, by: Any) -> None:
    mine, theirs = robots(), robots()
    physics, rng = batch(mine, threads, by), np.random.default_rng(0)
    for step in range(30):
        which = sorted(rng.choice(5, size=1 + step % 5, replace=False))
        for index in which:
            action = rng.uniform(-1, 1, 8)
            physics.put(index, action)
            theirs[index].data.ctrl[:] = action
            alone(theirs[index])
        assert physics.step(which) == {}
        assert_same(mine, theirs)


def test_all_threads_take_part_and_keep_their_seats() -> None:
    physics = batch(robots(4), 2)
    for _ in range(3):
        physics.step(range(4))
    assert physics._native is not None
    seats = physics._native._seats.tolist()
    assert len({*seats[:2]}) == 2
    assert seats[2:] == [0, 0]
    physics.step(range(4))
    assert physics._native._seats.tolist() == seats


@pytest.mark.parametrize("threads", [1, 2])
def test_an_error_is_that_of_mj_step_and_ends_one_simulation(threads: int) -> None:
    mine, theirs = robots(4), robots(4)
    for robot in (mine[2], theirs[2]):
        robot.model.opt.integrator = 99
    physics = batch(mine, threads)
    for _ in range(2):
        with pytest.raises(mujoco.FatalError) as expected:
            alone(theirs[2])
        for index in (0, 1, 3):
            alone(theirs[index])
        errors = physics.step(range(4))
        assert [*errors] == [2]
        assert type(errors[2]) is mujoco.FatalError
        assert str(errors[2]) == str(expected.value) == "mj_step: invalid integrator"
        assert_same([mine[i] for i in (0, 1, 3)], [theirs[i] for i in (0, 1, 3)])
    with pytest.raises(mujoco.FatalError, match="invalid integrator"):
        alone(mine[2])  # MuJoCo's own handler is back in its place
    for robot in (mine[2], theirs[2]):
        robot.model.opt.integrator = 0
        robot.reset(seed=7)
    alone(theirs[2])
    assert physics.step([2]) == {}
    assert_same(mine, theirs)


def test_errors_of_all_simulations_on_all_threads_are_told_apart() -> None:
    mine = robots(8)
    for robot in mine:
        robot.model.opt.integrator = 99
    physics = batch(mine, 2)
    for _ in range(1_500):
        errors = physics.step(range(8))
        assert {*map(str, errors.values())} == {"mj_step: invalid integrator"}
        assert sorted(errors) == [*range(8)]


def crowded() -> Any:
    """A simulation that its memory is too small for."""
    boxes = "".join(
        f"<body pos='0 0 {0.1 + 0.19 * i}'><freejoint/><geom type='box' size='.1 .1 .1'/></body>" for i in range(20)
    )
    plane = "<geom type='plane' size='5 5 1'/>"
    model = mujoco.MjModel.from_xml_string(
        f"<mujoco><size memory='200K'/><worldbody>{plane}{boxes}</worldbody></mujoco>"
    )
    return SimpleNamespace(model=model, data=mujoco.MjData(model), frame_skip=5)


def test_an_error_without_a_function_is_that_of_mj_step_too() -> None:
    mine, theirs = crowded(), crowded()
    physics, expected = batch([mine], 1), ""
    for _ in range(9):
        errors = physics.step([0])
        try:
            alone(theirs)
        except mujoco.FatalError as error:
            expected = str(error)
            break
        assert errors == {}
    assert "out of memory" in expected
    assert str(errors[0]) == expected


def test_several_batches_at_once_from_threads_of_pythons() -> None:
    found: dict[int, bool] = {}

    def work(number: int) -> None:
        mine, theirs = robots(3, "Hopper-v5"), robots(3, "Hopper-v5")
        physics = batch(mine, 2)
        for _ in range(100):
            physics.step(range(3))
            for robot in theirs:
                alone(robot)
        assert_same(mine, theirs)
        found[number] = True

    threads = [threading.Thread(target=work, args=[number]) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == {0: True, 1: True, 2: True}


def test_a_fork_steps_on() -> None:
    mine, theirs = robots(4), robots(4)
    physics = batch(mine, 2)
    physics.step(range(4))
    if (child := os.fork()) == 0:
        code = 1
        try:
            physics.step(range(4))
            for robot in theirs:
                alone(robot), alone(robot)
            assert_same(mine, theirs)
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.fixture
def warnings_of_mujoco() -> Iterator[Callable[[Any], None]]:
    """Sets who hears them, for a while."""
    usual = mujoco.get_mju_user_warning()
    yield mujoco.set_mju_user_warning
    mujoco.set_mju_user_warning(usual)


def broken() -> list[Any]:
    found = robots(3)
    found[1].data.qpos[3] = np.nan
    return found


@pytest.mark.parametrize("threads", [1, 2])
def test_warnings_are_heard_where_mj_steps_are(threads: int, warnings_of_mujoco: Callable[[Any], None]) -> None:
    mine, theirs, heard = broken(), broken(), list[str]()
    warnings_of_mujoco(heard.append)
    alone(theirs[1])
    expected = heard[:]
    assert "Nan, Inf or huge value in QPOS" in expected[0]
    heard.clear()
    assert batch(mine, threads).step(range(3)) == {}
    assert heard == expected
    assert mine[1].data.warning.number.tolist() == theirs[1].data.warning.number.tolist()
    assert_same([mine[1]], [theirs[1]])


def test_warnings_that_nobody_hears_are_printed(
    tmp_path: Any,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    warnings_of_mujoco: Callable[[Any], None],
) -> None:
    monkeypatch.chdir(tmp_path)  # where MuJoCo keeps a log
    warnings_of_mujoco(None)
    alone(broken()[1])
    expected = capfd.readouterr()
    assert "Nan, Inf or huge value in QPOS" in expected.err
    batch(broken(), 2).step(range(3))
    assert capfd.readouterr() == expected


@pytest.mark.parametrize("name", ["control", "passive", "time"])
def test_functions_of_a_users_own_are_run_by_python(name: str) -> None:
    mine, called = robots(2), []
    physics, put = batch(mine), getattr(mujoco, f"set_mjcb_{name}")
    clock = mujoco.get_mjcb_time()
    put((lambda: called.append(1) or 0.0) if name == "time" else (lambda model, data: called.append(1)))
    try:
        assert not LIBRARY.is_usable()  # type: ignore[union-attr]
        assert physics.step([0, 1]) == {}
        assert called
    finally:
        put(clock if name == "time" else None)


def test_mujocos_clock_goes_on_afterwards() -> None:
    robot = robots(1)[0]
    timers = robot.data.timer
    batch([robot], 1).step([0])
    assert timers.duration[0] == 0
    assert timers.number[0] > 0
    alone(robot)
    assert timers.duration[0] > 0


def test_without_the_compiled_part_python_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batched_physics, "LIBRARY", None)
    mine, theirs = robots(3), robots(3)
    physics = Physics(mine, 2, native.share)
    assert physics._native is None
    assert physics.step(range(3)) == {}
    for robot in theirs:
        alone(robot)
    assert_same(mine, theirs)


def test_it_holds_what_it_points_to() -> None:
    simulations = NativePhysics(LIBRARY, [(r.model, r.data, 1) for r in robots(2)])  # type: ignore[arg-type]
    assert simulations.step([0, 1], 1, None) == {}
