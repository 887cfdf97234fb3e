"""LunarLander: needs Box2D, `pip install "pliant-rl[box2d]"`."""

import copy
import importlib.util
import itertools
import pickle
import re
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from envs import NonStationary, make_nonstationary, targets_of
from envs.perturbations import PERTURBATIONS

if importlib.util.find_spec("Box2D") is None or importlib.util.find_spec("pygame") is None:
    pytest.skip('Box2D is not installed; pip install "pliant-rl[box2d]"', allow_module_level=True)

# SWIG's wrapper types lack an attribute that Python 3.12 asks for; Box2D 2.3.10 ships them so.
pytestmark = pytest.mark.filterwarnings("ignore:builtin type .* has no __module__ attribute:DeprecationWarning")


def flight(env: Any, steps: int = 60) -> list[bytes]:
    env.reset(seed=1)
    return [env.step(step // 5 % 4)[0].tobytes() for step in range(steps)]


def lander(change: Any, **kwargs: Any) -> Any:
    return make_nonstationary("LunarLander-v3", change, **kwargs)


@pytest.mark.parametrize("scale", [0.5, 1.1])
def test_gravity_is_as_if_built_with_that_value_at_once_and_after_resets(scale: float) -> None:
    changed = lander(f"gravity=every:999999|cycle:{scale}|draw")
    rebuilt = gym.make("LunarLander-v3", gravity=-10.0 * scale)
    assert flight(changed) == flight(rebuilt) == flight(changed)
    assert flight(changed) != flight(gym.make("LunarLander-v3"))


def test_gravity_changes_in_mid_flight_and_back_to_nominal_exactly() -> None:
    env = lander("gravity=every:20|cycle:0.5,1", boundary="step")
    other = gym.make("LunarLander-v3")
    nominal = flight(other)
    env.reset(seed=1)
    heights = [env.step(0)[0] for _ in range(45)]
    speeds = [b[3] - a[3] for a, b in itertools.pairwise(heights)]
    np.testing.assert_allclose(np.mean(speeds[22:36]), np.mean(speeds[:18]) / 2, rtol=0.05)
    assert env.unwrapped.world.gravity == (0, -10)
    env.pin(1.0)
    assert flight(env) == nominal == flight(other)


@pytest.mark.parametrize(("name", "value"), [("wind_power", 3.0), ("turbulence_power", 0.5)])
def test_the_wind_is_as_if_built_with_that_value_and_refused_where_there_is_none(name: str, value: float) -> None:
    changed = lander(f"{name}=every:999999|cycle:{value}|draw", enable_wind=True)
    assert flight(changed) == flight(gym.make("LunarLander-v3", enable_wind=True, **{name: value}))
    assert flight(changed) != flight(gym.make("LunarLander-v3", enable_wind=True))
    with pytest.raises(ValueError, match=f"'{name}' does nothing in LunarLander: build it with enable_wind=True"):
        lander(f"{name}=every:9|cycle:{value}")


def test_every_target_is_covered_above() -> None:
    env = gym.make("LunarLander-v3")
    assert set(targets_of(env)) - set(PERTURBATIONS) == {"gravity", "wind_power", "turbulence_power"}
    with pytest.raises(ValueError, match=re.escape("gravity must be in [0.01, 3], got 0")):
        NonStationary(env, "gravity=every:9|cycle:0")


@pytest.mark.parametrize("how", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
def test_a_copy_has_the_gravity_and_asks_for_a_reset(how: Any) -> None:
    env = lander("gravity=every:20|cycle:0.5,1|draw", boundary="step")
    flight(env, 30)
    env.set_clock(45)
    twin = how(env)
    assert (twin.clock, twin.unwrapped.gravity) == (45, -5.0)
    with pytest.raises(AssertionError):  # Gymnasium's own, without a word: Box2D's worlds cannot be copied
        twin.unwrapped.step(0)
    assert flight(twin) == flight(env)
