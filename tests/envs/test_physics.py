"""Physics really changes, exactly, and nothing else does."""

import inspect
import math
import pickle
import re
import sys
import textwrap
from pathlib import Path
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
import pytest
from gymnasium.envs.classic_control.acrobot import AcrobotEnv
from gymnasium.envs.classic_control.cartpole import CartPoleEnv
from gymnasium.envs.classic_control.continuous_mountain_car import Continuous_MountainCarEnv
from gymnasium.envs.classic_control.mountain_car import MountainCarEnv
from gymnasium.envs.classic_control.pendulum import PendulumEnv
from gymnasium.envs.mujoco.ant_v5 import AntEnv
from gymnasium.envs.mujoco.hopper_v5 import HopperEnv

from envs import NonStationary, targets_of
from envs.perturbations import PERTURBATIONS
from envs.physics import make_target

ASSETS = Path(gym.__file__).parent / "envs" / "mujoco" / "assets"
MUJOCO_TARGETS = ["friction_scale", "gravity", "mass", "damping", "gear"]


def arrays(thing: Any) -> dict[str, np.ndarray]:
    """Every array and number of an MjModel or MjData."""
    parts = {"": thing} | ({"opt.": thing.opt, "stat.": thing.stat} if isinstance(thing, mujoco.MjModel) else {})
    found = {}
    for prefix, part in parts.items():
        for name in dir(part):
            if not name.startswith("_") and isinstance(value := getattr(part, name), np.ndarray | float | int):
                found[prefix + name] = np.array(value)
    return found


def different(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> set[str]:
    return {name for name in a if not np.array_equal(a[name], b[name], equal_nan=a[name].dtype.kind == "f")}


def trajectory(env: gym.Env, steps: int, *, seed: int = 0, reset: bool = True) -> list[Any]:
    """Observations, rewards and infos (less the wrapper's) under fixed random actions."""
    rng = np.random.default_rng(seed)
    out: list[Any] = [env.reset(seed=seed)] if reset else []
    low, high = env.action_space.low, env.action_space.high  # type: ignore[attr-defined]
    for _ in range(steps):
        out.append(env.step(rng.uniform(low, high).astype(np.float32)))
        if out[-1][2] or out[-1][3]:
            out.append(env.reset())
    return [tuple(bare(part) for part in row) for row in out]


def bare(part: Any) -> Any:
    if isinstance(part, dict):
        return {key: np.asarray(value).tolist() for key, value in part.items() if not key.startswith("nonstationary/")}
    return part.tobytes() if isinstance(part, np.ndarray) else part


def ant_from(tmp_path: Path, **edits: str) -> AntEnv:
    """Ant compiled anew from an edited XML."""
    xml = (ASSETS / "ant.xml").read_text()
    for old, new in edits.values():
        assert old in xml
        xml = xml.replace(old, new)
    path = tmp_path / "ant.xml"
    path.write_text(xml)
    return AntEnv(xml_file=str(path))


@pytest.mark.parametrize("mu", [0.02, 0.3, 1.7])
def test_every_floor_contact_has_the_new_friction_and_the_ant_moves_otherwise(mu: float) -> None:
    env = NonStationary(AntEnv(), f"friction=every:1000000|cycle:{mu}|draw")
    data, contacts = env.unwrapped.data, 0  # type: ignore[attr-defined]
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    for _ in range(60):
        env.step(rng.uniform(-1, 1, 8).astype(np.float32))
        for contact in data.contact:
            if 0 in contact.geom:
                contacts += 1
                assert contact.friction[0] == contact.friction[1] == mu
    assert contacts > 20
    assert trajectory(env, 60) != trajectory(AntEnv(), 60)


@pytest.mark.parametrize(("name", "target"), [("Ant-v5", "friction"), ("Humanoid-v5", "friction_scale")])
def test_a_constant_nominal_schedule_is_bit_identical_to_the_bare_environment(name: str, target: str) -> None:
    # Written again every 50 steps, in mid-episode, so that the writes themselves are on trial and not only their value.
    changes = [f"{what}=every:50|cycle:1.0" for what in (target, "gravity", "mass", "damping", "gear")]
    wrapped = NonStationary(gym.make(name), changes, boundary="step")
    assert trajectory(wrapped, 500) == trajectory(gym.make(name), 500)
    assert wrapped.applied()["nonstationary/regime"] == 50


@pytest.mark.parametrize("name", ["Ant-v5", "Hopper-v5", "Humanoid-v5"])
@pytest.mark.parametrize("target", [*MUJOCO_TARGETS, "friction"])
def test_changes_do_not_compound(name: str, target: str) -> None:
    env = gym.make(name)
    nominal = arrays(env.unwrapped.model)  # type: ignore[attr-defined]
    made = make_target(env, target)
    for scale in (0.5, 3, 0.1):
        made.apply(scale)
    assert different(nominal, arrays(env.unwrapped.model))  # type: ignore[attr-defined]
    if target != "friction":
        made.apply(1.0)
        assert different(nominal, arrays(env.unwrapped.model)) == set()  # type: ignore[attr-defined]
        made.apply(0.7)
    made.restore()
    assert different(nominal, arrays(env.unwrapped.model)) == set()  # type: ignore[attr-defined]


@pytest.mark.parametrize("target", [*MUJOCO_TARGETS, "friction"])
def test_apply_leaves_the_simulation_alone_and_other_environments_too(target: str) -> None:
    env, other = AntEnv(), AntEnv()
    trajectory(env, 30)
    made = make_target(env, target)
    before, others = arrays(env.data), arrays(other.model)
    made.apply(0.5)
    assert different(before, arrays(env.data)) == set()
    assert different(others, arrays(other.model)) == set()
    assert different(others, arrays(env.model))


@pytest.mark.parametrize(
    ("change", "edit"),
    [
        ("friction=every:9|cycle:0.3|draw", ('friction="1 0.5 0.5"', 'friction="0.3 0.5 0.5"')),
        ("gravity=every:9|cycle:0.5|draw", ('timestep="0.01"', 'timestep="0.01" gravity="0 0 -4.905"')),
        ("mass=every:9|cycle:0.5|draw", ('density="5.0"', 'density="2.5"')),
        ("damping=every:9|cycle:0.5|draw", ('damping="1"', 'damping="0.5"')),
        ("gear=every:9|cycle:0.5|draw", ('gear="150"', 'gear="75"')),
        ("gear:hip_4=every:9|cycle:0.5|draw", ('joint="hip_4" gear="150"', 'joint="hip_4" gear="75"')),
        ("mass:torso=every:9|cycle:0.5|draw", ('name="torso_geom"', 'name="torso_geom" density="2.5"')),
        ("damping:hip_1=every:9|cycle:0.5|draw", ('name="hip_1"', 'name="hip_1" damping="0.5"')),
        (
            "gravity_direction=every:9|cycle:90|draw",
            ('timestep="0.01"', f'timestep="0.01" gravity="9.81 0 {-9.81 * math.cos(math.pi / 2)!r}"'),
        ),
    ],
)
def test_equal_to_an_environment_freshly_built_with_that_value(
    tmp_path: Path, change: str, edit: tuple[str, str]
) -> None:
    changed, rebuilt = NonStationary(AntEnv(), change), ant_from(tmp_path, edit=edit)
    assert trajectory(changed, 100) == trajectory(rebuilt, 100)
    # Only the viewer reads the mean mass.
    assert different(arrays(changed.unwrapped.model), arrays(rebuilt.model)) <= {"stat.meanmass"}  # type: ignore[attr-defined]


def test_mass_by_any_factor_equals_a_recompiled_model(tmp_path: Path) -> None:
    changed = NonStationary(AntEnv(), "mass=every:9|cycle:1.7|draw")
    rebuilt = ant_from(tmp_path, edit=('density="5.0"', 'density="8.5"'))
    for ours, theirs in zip(trajectory(changed, 100), trajectory(rebuilt, 100), strict=True):
        np.testing.assert_allclose(np.frombuffer(ours[0]), np.frombuffer(theirs[0]), rtol=1e-6, atol=1e-6)


def test_friction_scale_keeps_the_contrast_of_hoppers_foot_and_friction_restores_it() -> None:
    env = HopperEnv()
    nominal = env.model.geom_friction[:, 0].copy()
    assert len(set(nominal)) > 1
    scaled = make_target(env, "friction_scale")
    scaled.apply(0.5)
    np.testing.assert_array_equal(env.model.geom_friction[:, 0], nominal * 0.5)
    scaled.restore()
    absolute = NonStationary(env, "friction=every:10|cycle:0.4")
    assert absolute.applied()["nonstationary/friction"] == nominal.max() == 2.0  # the foot's
    absolute.set_clock(10)
    assert set(env.model.geom_friction[:, 0]) == {0.4}
    assert set(env.model.geom_friction[:, 1]) != {0.4}  # sliding friction alone
    absolute.set_clock(0)
    np.testing.assert_array_equal(env.model.geom_friction[:, 0], nominal)


@pytest.mark.parametrize("name", ["Swimmer", "Reacher", "Pusher", "InvertedPendulum", "InvertedDoublePendulum"])
@pytest.mark.parametrize("target", ["friction", "friction_scale"])
def test_friction_is_refused_where_nothing_touches(name: str, target: str) -> None:
    with pytest.raises(ValueError, match=f"'{target}' does nothing in {name}.*: no two geoms can touch with friction"):
        NonStationary(gym.make(f"{name}-v5"), f"{target}=every:9|cycle:0.5")


@pytest.mark.parametrize("name", ["Ant", "HalfCheetah", "Hopper", "Humanoid", "HumanoidStandup", "Walker2d"])
@pytest.mark.parametrize("target", MUJOCO_TARGETS)
def test_all_targets_take_the_robots_that_walk(name: str, target: str) -> None:
    NonStationary(gym.make(f"{name}-v5"), f"{target}=every:9|cycle:0.5")


@pytest.mark.parametrize("name", ["Swimmer", "Reacher", "Pusher"])
def test_gravity_is_refused_where_it_moves_no_joint(name: str) -> None:
    with pytest.raises(ValueError, match="'gravity' does nothing in"):
        NonStationary(gym.make(f"{name}-v5"), "gravity=every:9|cycle:0.5")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("friction=every:9|uniform:0.1,6", "friction must be in [1e-05, 5], got 6"),
        ("friction=every:9|list:1,0", "friction must be in [1e-05, 5], got 0"),
        ("gravity=every:9|cycle:-1", "gravity must be in [0, 10], got -1"),
        (
            "frction=every:9|cycle:1",
            "unknown 'target' for AntEnv \"frction\": allowed are friction, friction_scale, gravity,",
        ),
        ("frction=every:9|cycle:1", 'did you mean "friction"?'),
    ],
)
def test_refusals_come_at_construction_and_leave_the_environment_alone(change: str, message: str) -> None:
    env = AntEnv()
    nominal = arrays(env.model)
    with pytest.raises(ValueError, match=re.escape(message)):
        NonStationary(env, ["mass=every:9|cycle:2|draw", change])
    assert different(nominal, arrays(env.model)) == set()


def test_high_friction_warns() -> None:
    with pytest.warns(UserWarning, match="friction up to 4 is unphysical"):
        NonStationary(AntEnv(), "friction=every:9|cycle:1,4")


def test_two_targets_that_write_the_same_are_refused() -> None:
    with pytest.raises(ValueError, match="overwrite each other"):
        NonStationary(AntEnv(), ["friction=every:9|cycle:1", "friction_scale=every:9|cycle:1"])


CARTPOLE: dict[str, dict[str, Any]] = {
    "gravity": {"gravity": 19.6},
    "masscart": {"masscart": 2.0, "total_mass": 2.1},
    "masspole": {"masspole": 0.2, "total_mass": 1.2, "polemass_length": 0.1},
    "length": {"length": 1.0, "polemass_length": 0.1},
    "force_mag": {"force_mag": 20.0},
}
PENDULUM = {"gravity": {"g": 20.0}, "mass": {"m": 2.0}, "length": {"l": 2.0}}
ACROBOT = {
    "mass": {"LINK_MASS_1": 2.0, "LINK_MASS_2": 2.0, "LINK_MOI": 2.0},
    "length": {
        "LINK_LENGTH_1": 2.0,
        "LINK_LENGTH_2": 2.0,
        "LINK_COM_POS_1": 1.0,
        "LINK_COM_POS_2": 1.0,
        "LINK_MOI": 4.0,
    },
    "torque": {"AVAIL_TORQUE": [-2.0, 0.0, 2.0]},
}
MOUNTAIN_CAR = {"gravity": {"gravity": 0.005}, "force": {"force": 0.002}}
CONTINUOUS_MOUNTAIN_CAR = {"force": {"power": 0.003}}
ATTRIBUTES: dict[Any, dict[str, dict[str, Any]]] = {
    CartPoleEnv: CARTPOLE,
    PendulumEnv: PENDULUM,
    AcrobotEnv: ACROBOT,
    MountainCarEnv: MOUNTAIN_CAR,
    Continuous_MountainCarEnv: CONTINUOUS_MOUNTAIN_CAR,
}


@pytest.mark.parametrize(
    ("env_class", "target", "attributes"),
    [(env_class, *row) for env_class, rows in ATTRIBUTES.items() for row in rows.items()],
)
def test_classic_control_steps_as_if_built_with_that_value(
    env_class: Any, target: str, attributes: dict[str, float]
) -> None:
    changed, rebuilt, other = env_class(), env_class(), env_class()
    nominal = {name: getattr(changed, name) for name in attributes}
    made = make_target(changed, target)
    for scale in (0.5, 3, 2):
        made.apply(scale)
    vars(rebuilt).update(attributes)
    action = 2 if env_class is AcrobotEnv or env_class is MountainCarEnv else changed.action_space.sample()
    states = []
    for env in (changed, rebuilt, other):
        env.reset(seed=1)
        states.append([env.step(action)[0] for _ in range(5)])
    np.testing.assert_allclose(states[0], states[1], rtol=1e-6)
    assert not np.array_equal(states[0], states[2])
    made.restore()
    assert {name: getattr(changed, name) for name in attributes} == nominal
    assert {name: getattr(other, name) for name in attributes} == nominal


def test_every_target_of_classic_control_is_covered_above() -> None:
    elsewhere = {PendulumEnv: {"max_torque"}, AcrobotEnv: {"gravity"}, Continuous_MountainCarEnv: {"gravity"}}
    for env_class, rows in ATTRIBUTES.items():
        assert set(targets_of(env_class())) - set(PERTURBATIONS) == set(rows) | elsewhere.get(env_class, set())


@pytest.mark.parametrize(
    ("env_class", "literal", "body"),
    [(AcrobotEnv, "g = 9.8", "_dsdt"), (Continuous_MountainCarEnv, "0.0025 * math", "step")],
)
@pytest.mark.parametrize("scale", [0.0, 0.4, 1.0, 3.0])
def test_gravity_that_is_a_literal_is_as_if_the_source_had_another(
    env_class: Any, literal: str, body: str, scale: float
) -> None:
    source = textwrap.dedent(inspect.getsource(getattr(env_class, body)))
    number = re.findall(r"[\d.]+", literal)[0]
    assert source.count(literal) == 1
    scope = dict(vars(sys.modules[env_class.__module__]))
    exec(source.replace(literal, literal.replace(number, repr(float(number) * scale))), scope)
    rebuilt = type("Rebuilt", (env_class,), {body: scope[body]})()
    changed, other = NonStationary(env_class(), f"gravity=every:9|cycle:{scale}|draw"), env_class()
    rng = np.random.default_rng(0)
    for env in (changed, rebuilt, other):
        env.reset(seed=1)
    for _ in range(60):
        action = changed.action_space.sample() if env_class is AcrobotEnv else rng.uniform(-1, 1, 1).astype(np.float32)
        ours, theirs, nominal = (env.step(action)[0] for env in (changed, rebuilt, other))
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
        if scale == 1:
            assert ours.tobytes() == nominal.tobytes()
    assert (scale == 1) == np.array_equal(ours, nominal)
    twin = pickle.loads(pickle.dumps(changed))
    np.testing.assert_allclose(twin.step(action)[0], changed.step(action)[0], rtol=1e-6)
    changed.pin(1.0)
    changed.reset(seed=1)
    other.reset(seed=1)
    for _ in range(20):
        assert changed.step(action)[0].tobytes() == other.step(action)[0].tobytes()


def test_max_torque_weakens_pendulum_and_cannot_exceed_its_action_space() -> None:
    env = PendulumEnv()
    make_target(env, "max_torque").apply(0.25)
    env.reset(seed=0)
    env.step(np.array([2.0], np.float32))
    assert env.last_u == 0.5
    with pytest.raises(ValueError, match=r"max_torque must be in \[0.01, 1\], got 2"):
        NonStationary(env, "max_torque=every:9|cycle:2")


@pytest.mark.parametrize(
    ("id", "acts", "idle"),
    [
        ("CartPole-v1", {"length", "action_reversal"}, {"action_gain", "actuator_failure", "target_direction"}),
        ("Swimmer-v5", {"mass", "action_gain", "target_direction"}, {"friction", "gravity"}),
        ("Ant-v5", {"friction", "gravity", "target_direction", "actuator_failure"}, set()),
    ],
)
def test_an_unknown_target_is_answered_with_those_that_act(id: str, acts: set[str], idle: set[str]) -> None:
    with pytest.raises(ValueError, match="allowed are") as told:
        NonStationary(gym.make(id), "nothing=every:9|cycle:0.5")
    named = set(re.findall(r"[a-z_]+", str(told.value).partition("allowed are")[2].partition(";")[0]))
    assert acts <= named
    assert not idle & named
    assert named | idle <= set(targets_of(gym.make(id)))


def test_an_environment_without_built_in_targets_says_what_to_do() -> None:
    with pytest.raises(
        ValueError, match=r"unknown 'target' for BlackjackEnv.*reward_scale.*pass a class with validate"
    ):
        NonStationary(gym.make("Blackjack-v1"), "gravity=every:9|cycle:0.5")
