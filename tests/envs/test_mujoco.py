"""Every MuJoCo environment of Gymnasium, v4 and v5: each target has an effect, or is refused with the reason."""

import copy
import pickle
import re
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
import pytest
from gymnasium.envs.mujoco.ant_v5 import AntEnv
from gymnasium.envs.mujoco.hopper_v5 import HopperEnv
from gymnasium.envs.registration import load_env_creator

from envs import NonStationary
from envs.mujoco_parts import actuators, bodies, joints
from envs.mujoco_targets import MUJOCO, MUJOCO_PARTS
from tests.envs.test_physics import arrays, different, trajectory

IDS = [id for id, spec in gym.registry.items() if "envs.mujoco" in str(spec.entry_point) and id[-3:] in ("-v4", "-v5")]
VALUES = {"friction": 0.3, "gravity_direction": 20.0, "push": 0.3}  # of the others 0.5
NO_CONTACT, NO_WEIGHT = "no two geoms can touch with friction", "gravity moves none of its joints"
NO_DAMPING = "that joint is not damped"
REFUSED = {
    "Reacher": {
        "friction": NO_CONTACT,
        "friction_scale": NO_CONTACT,
        "gravity": NO_WEIGHT,
        "damping:target_y": NO_DAMPING,
    },
    "Pusher": {
        "friction": NO_CONTACT,
        "friction_scale": NO_CONTACT,
        "gravity": NO_WEIGHT,
        "gravity_direction": "it has no gravity",
    },
    "InvertedPendulum": {"friction": NO_CONTACT, "friction_scale": NO_CONTACT},
    "InvertedDoublePendulum": {"friction": NO_CONTACT, "friction_scale": NO_CONTACT},
    "Swimmer": {
        "friction": NO_CONTACT,
        "friction_scale": NO_CONTACT,
        "gravity": NO_WEIGHT,
        "damping": "no joint is damped",
        "damping:motor1_rot": NO_DAMPING,
    },
}


def make(id: str) -> Any:
    """Build an environment without the deprecation warning that `gymnasium.make` has for v4."""
    spec = gym.spec(id) if id.endswith("v5") else gym.registry[id]
    try:
        return load_env_creator(str(spec.entry_point))(**spec.kwargs)
    except ImportError as error:
        pytest.skip(str(error))  # Pusher-v4 needs mujoco < 3


def names(model: Any) -> list[str]:
    inner = joints(model)[min(3, model.njnt - 1)]  # the first joints may be the root's
    return [*MUJOCO, f"mass:{bodies(model)[1]}", f"damping:{inner}", f"gear:{actuators(model)[0]}"]


def test_the_list_is_complete() -> None:
    assert len(IDS) == 22
    assert set(MUJOCO_PARTS) <= set(MUJOCO)


@pytest.mark.parametrize("id", IDS)
def test_each_target_has_an_effect_that_can_be_undone_or_is_refused_with_the_reason(id: str) -> None:
    env = make(id)
    nominal = trajectory(env, 20)
    model = arrays(env.model)
    refused = {}
    for name in names(env.model):
        value = VALUES.get(name, 0.5)
        try:
            changed = NonStationary(env, f"{name}=every:10000|cycle:{value}|draw")
        except ValueError as error:
            refused[name] = str(error)
        else:
            assert trajectory(changed, 20) != nominal, name
            changed.lives[0].target.restore()
        assert different(model, arrays(env.model)) == set()
        assert trajectory(env, 20) == nominal, name
    expected = REFUSED.get(id[:-3], {})
    assert {name: why for name, why in refused.items() if not why.endswith(expected.get(name, "?"))} == {}
    assert set(refused) == set(expected)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("mass:torzo", 'unknown body of AntEnv "torzo": allowed are world, torso, front_left_leg,'),
        ("mass:torzo", 'did you mean "torso"?'),
        ("gear:hip_5", 'unknown actuator of AntEnv "hip_5": allowed are hip_4, ankle_4,'),
        ("damping:root", "'damping:root' does nothing in AntEnv: that joint is not damped"),
        ("mass:world", "'mass:world' does nothing in AntEnv: that body has no mass"),
        ("push:world", "'push:world' does nothing in AntEnv: no joint moves that body"),
        (
            "friction:torso",
            "unknown 'target' with parts for AntEnv \"friction\": allowed are mass, damping, gear, push",
        ),
    ],
)
def test_unknown_parts_are_refused_with_the_names_there_are(target: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        NonStationary(AntEnv(), f"{target}=every:9|cycle:0.5")


@pytest.mark.parametrize("whole", ["mass", "damping", "gear", "push", "gravity"])
def test_a_whole_and_its_part_are_refused_together_and_two_parts_are_not(whole: str) -> None:
    part = {"mass": "mass:torso", "damping": "damping:hip_1", "gear": "gear:hip_1", "push": "push:torso"}.get(whole)
    with pytest.raises(ValueError, match="overwrite each other"):
        NonStationary(AntEnv(), [f"{name}=every:9|cycle:0.5" for name in (part or "gravity_direction", whole)])
    other = {"mass": "mass:aux_1", "damping": "damping:hip_2", "gear": "gear:hip_2", "push": "push:aux_1"}.get(whole)
    if part:
        NonStationary(AntEnv(), [f"{name}=every:9|cycle:0.5" for name in (part, other)])


def test_parts_compose_and_undo_exactly() -> None:
    env = AntEnv()
    nominal = arrays(env.model)
    changes = ["mass:torso=every:10|cycle:0.5,1", "mass:aux_1=every:10|cycle:3,1", "damping:hip_2=every:10|cycle:0,1"]
    changed = NonStationary(env, changes)
    changed.set_clock(10)
    assert env.model.body("torso").mass == nominal["body_mass"][1] * 0.5
    assert env.model.body("aux_1").mass == nominal["body_mass"][3] * 3
    np.testing.assert_array_equal(env.model.dof_damping, [0] * 6 + [1, 1, 0, 1, 1, 1, 1, 1])
    changed.set_clock(20)
    assert different(nominal, arrays(env.model)) == set()


def test_a_nameless_actuator_is_called_by_its_joint() -> None:
    env = HopperEnv()
    assert actuators(env.model) == ["thigh_joint", "leg_joint", "foot_joint"]
    NonStationary(env, "gear:leg_joint=every:9|cycle:0.5|draw")
    np.testing.assert_array_equal(env.model.actuator_gear[:, 0], [200, 100, 200])


def test_tilted_gravity_keeps_its_strength() -> None:
    env = NonStationary(AntEnv(), "gravity_direction=every:9|cycle:30|draw")
    gravity = env.unwrapped.model.opt.gravity  # type: ignore[attr-defined]
    np.testing.assert_allclose(gravity, [9.81 * 0.5, 0, -9.81 * np.sqrt(3) / 2], rtol=1e-12)


@pytest.mark.parametrize(
    "how", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))], ids=["deepcopy", "pickle"]
)
def test_a_push_is_a_force_through_resets_and_copies_and_ends_with_its_regime(how: Callable[[Any], Any]) -> None:
    env: Any = NonStationary(AntEnv(), "push=every:40|list:0.25,0", boundary="step")
    weight = env.unwrapped.model.body_mass.sum() * 9.81
    env.reset(seed=0)
    forces = []
    rng = np.random.default_rng(0)
    for step in range(90):
        if step in (50, 70):
            env.reset()
        if step == 60:
            env = how(env)
        env.step(rng.uniform(-1, 1, 8).astype(np.float32))
        forces.append(env.unwrapped.data.xfrc_applied.copy())
    for step, force in enumerate(forces):
        expected = np.zeros_like(force)
        if 40 <= step + 1 < 80:  # written as the regime begins, at the end of the step before
            expected[1, 0] = 0.25 * weight
        np.testing.assert_allclose(force, expected, rtol=1e-12, err_msg=str(step))


def test_a_push_accelerates_as_newton_says() -> None:
    """A robot in free flight, all joints at rest: the centre of mass gets F / m."""
    env = HopperEnv()
    pushed = NonStationary(env, "push=every:9999|cycle:0.5|draw")
    pushed.reset(seed=0)
    model, data = env.model, env.data
    env.set_state(np.array([0, 5.0, 0, 0, 0, 0]), np.zeros(6))
    before = momentum(model, data)
    pushed.step(np.zeros(3, np.float32))
    # Joint damping is internal, and the root joints have none.
    gained = (momentum(model, data) - before)[0] / model.body_mass.sum() / env.dt
    assert gained == pytest.approx(0.5 * 9.81, rel=1e-3)


def momentum(model: Any, data: Any) -> np.ndarray:
    mujoco.mj_subtreeVel(model, data)
    return np.array(data.subtree_linvel[0]) * model.body_mass.sum()
