"""A constant, nominal schedule is bit for bit the bare environment: every MuJoCo v5 one, every target that it takes."""

import gymnasium as gym
import pytest

from envs import NonStationary, targets_of
from envs.physics import make_target
from tests.envs.test_mujoco import IDS, REFUSED
from tests.envs.test_physics import trajectory

V5 = [id for id in IDS if id.endswith("-v5")]
# Those that write the same arrays as friction_scale and gravity.
OTHER_FORM = {"friction", "gravity_direction"}
# No schedule stays at the one permutation that changes nothing: test_perturbations.py pins it.
PINNED = {"observation_permutation", "action_permutation"}


def neutral(env: gym.Env, names: set[str]) -> NonStationary:
    # Written again every 50 steps, in mid-episode, so that the writes themselves are on trial and not only their value.
    nominal = {name: getattr(make_target(env, name), "nominal", 1.0) for name in sorted(names)}
    return NonStationary(env, [f"{name}=every:50|cycle:{nominal[name]!r}" for name in nominal], boundary="step")


def taken(id: str, env: gym.Env) -> set[str]:
    paid_by_velocity = id.split("-")[0] in ("Ant", "HalfCheetah", "Hopper", "Humanoid", "Swimmer", "Walker2d")
    names = set(targets_of(env)) - set(REFUSED.get(id[:-3], {})) - PINNED
    return names if paid_by_velocity else names - {"target_direction"}


@pytest.mark.parametrize("id", V5)
@pytest.mark.parametrize("steps", [200, pytest.param(500, marks=pytest.mark.slow)])
def test_all_targets_together_at_their_nominal_values_are_bit_identical_to_the_bare_environment(
    id: str, steps: int
) -> None:
    env = gym.make(id)
    names = taken(id, env) - OTHER_FORM
    wrapped = neutral(env, names)
    assert len(names) >= 11
    assert trajectory(wrapped, steps) == trajectory(gym.make(id), steps)
    assert wrapped.applied()["nonstationary/regime"] == len(names) * (steps // 50)


@pytest.mark.parametrize("id", V5)
def test_so_are_tilted_gravity_and_absolute_friction_where_all_geoms_have_the_same(id: str) -> None:
    env = gym.make(id)
    uniform = len(set(env.unwrapped.model.geom_friction[:, 0])) == 1  # type: ignore[attr-defined]
    names = taken(id, env) & (OTHER_FORM if uniform else {"gravity_direction"})
    if not names:
        pytest.skip("neither gravity nor friction does anything here")
    assert trajectory(neutral(env, names), 100) == trajectory(gym.make(id), 100)


@pytest.mark.parametrize("id", V5)
def test_so_is_a_schedule_whose_first_change_is_yet_to_come(id: str) -> None:
    env = gym.make(id)
    changes = [
        f"{name}=every:1e6|cycle:0.5" for name in sorted(taken(id, env) & {"gravity", "mass", "gear", "damping"})
    ]
    assert trajectory(NonStationary(env, changes), 100) == trajectory(gym.make(id), 100)
