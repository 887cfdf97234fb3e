"""Values that are vectors, and signs: their distributions, and the targets that take them."""

import copy
import pickle
import re
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.classic_control.cartpole import CartPoleEnv

from envs import NonStationary, Schedule, parse_schedule

N = 4000


def drawn(to: str, size: int | None, count: int = N) -> np.ndarray:
    schedule = parse_schedule(f"every:1|{to}|draw", seed=3)
    assert isinstance(schedule, Schedule)
    schedule = replace(schedule, size=size)
    return np.array([schedule.value(k) for k in range(count)])


def test_permutations_are_all_and_equally_likely() -> None:
    found, counts = np.unique(drawn("permutation", 3), axis=0, return_counts=True)
    np.testing.assert_array_equal(found, [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]])
    assert ((counts - N / 6) ** 2 / (N / 6)).sum() < 20.5  # chi-square with 5 degrees of freedom, p = 0.001


def test_gaussian_vectors_have_the_deviation_asked_for_and_independent_entries() -> None:
    vectors = drawn("gaussian_vector:2.0", 4)
    np.testing.assert_allclose(np.cov(vectors.T), 4 * np.eye(4), atol=4 * 4 * np.sqrt(2 / N))
    np.testing.assert_allclose(vectors.mean(0), 0, atol=4 * 2 / np.sqrt(N))


def test_signs_are_fair_and_single_where_the_target_takes_one_number() -> None:
    for size in (None, 3):
        signs = drawn("sign", size)
        assert set(signs.ravel()) == {-1.0, 1.0}
        np.testing.assert_allclose(signs.mean(0), 0, atol=4 / np.sqrt(N))


def test_masks_have_their_number_of_zeros_everywhere_alike() -> None:
    masks = drawn("mask:2", 5)
    assert (masks.sum(1) == 3).all()
    np.testing.assert_allclose(masks.mean(0), 0.6, atol=4 * np.sqrt(0.24 / N))


def test_draws_are_pinned_so_that_a_run_of_today_can_be_repeated_by_tomorrows_version() -> None:
    assert drawn("permutation", 6, 1).tolist() == [PERMUTATION]
    assert drawn("gaussian_vector:1.0", 3, 1)[0] == pytest.approx(GAUSSIAN, rel=1e-12)


class Wires:
    """A user's own target that takes vectors, complete: numbers that nothing else reads."""

    nominal = 0.0
    low, high = -9.0, 9.0
    size = 3

    def validate(self, env: gym.Env[Any, Any]) -> None:
        self.now = np.zeros(3)

    def apply(self, value: np.ndarray) -> None:
        assert value.shape == (3,)
        self.now = value

    def restore(self) -> None:
        self.now = np.zeros(3)


def wires(to: str, context: str = "hidden") -> NonStationary:
    changes = [{"target": Wires, "when": "every:5", "to": to}, "length=every:5|cycle:2"]
    return NonStationary(CartPoleEnv(), changes, context=context, boundary="step")


def test_infos_read_the_norm_and_the_context_has_every_entry() -> None:
    for context in ("info", "obs"):
        env = wires("cycle:-2", context)
        observation, info = env.reset(seed=0)
        assert info["nonstationary/Wires"] == 0.0
        for _ in range(5):
            observation, *_, info = env.step(0)
        told = observation[4:] if context == "obs" else info["nonstationary/context"]
        np.testing.assert_array_equal(told, [-2, -2, -2, 2])
        assert env.applied()["nonstationary/Wires"] == pytest.approx(np.sqrt(12))
        assert type(env.applied()["nonstationary/Wires"]) is float
    np.testing.assert_array_equal(env.observation_space.low[4:], np.float32([-9, -9, -9, 0.01]))
    assert observation in env.observation_space


@pytest.mark.parametrize("how", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
def test_vectors_travel_with_copies_and_can_be_pinned(how: Any) -> None:
    env = wires("sign")
    env.reset(seed=0)
    env.set_clock(5)
    twin = how(env)
    np.testing.assert_array_equal(twin.lives[0].target.now, env.lives[0].target.now)
    env.pin({"Wires": [1, 2, 2]})
    assert env.applied()["nonstationary/Wires"] == 3.0
    env.pin({"Wires": 1})
    np.testing.assert_array_equal(env.lives[0].target.now, [1, 1, 1])
    for value, message in [
        ([1, 2], "Wires takes 3 numbers, got [1, 2]"),
        ([1, 2, "x"], "an entry of Wires must be a finite number, got 'x'"),
        ([1, 2, 10], "Wires must be in [-9, 9], got 10"),
    ]:
        with pytest.raises(ValueError, match=re.escape(message)):
            env.pin({"Wires": value})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("length=every:5|permutation", "length takes one number, and to: permutation draws a vector"),
        ("length=every:5|gaussian_vector:1", "length takes one number, and to: gaussian_vector:1.0 draws a vector"),
        ("length=every:5|sign", "length must be in [0.01, 100], got -1"),
        ({"target": Wires, "when": "every:5", "to": "gaussian_vector:1"}, "Wires must be in [-9, 9], got -inf"),
        ({"target": Wires, "when": "every:5", "to": "mask:3"}, "mask needs a number below the target's 3 entries"),
    ],
)
def test_values_that_do_not_fit_the_target_are_refused_at_construction(change: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        NonStationary(CartPoleEnv(), change)


PERMUTATION = [4.0, 3.0, 1.0, 0.0, 2.0, 5.0]
GAUSSIAN = [0.06081559364381899, 0.8383742745036792, -0.1281861059879373]
