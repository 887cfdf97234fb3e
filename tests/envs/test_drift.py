"""Drifts: pure functions of (schedule seed, t), against their closed forms, and at work in the wrapper."""

import json
import math
import re
import time
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.classic_control.pendulum import PendulumEnv
from gymnasium.envs.registration import EnvSpec
from hypothesis import given, settings
from hypothesis import strategies as st

from envs import Drift, NonStationary, make_nonstationary, parse_schedule

finite = st.floats(-1e6, 1e6, allow_nan=False)
steps = st.integers(1, 100_000)
apart = st.tuples(finite, finite, finite).map(sorted).filter(lambda three: three[0] < three[2])
deviation = st.floats(1e-3, 1e4)


def wandering(kind: str) -> st.SearchStrategy[str]:
    return st.builds(lambda n, abc, d: f"{kind}:{n},{abc[1]!r},{d!r},{abc[0]!r},{abc[2]!r}", steps, apart, deviation)


texts = st.one_of(
    st.builds(lambda n, a, b: f"linear:{n},{a!r},{b!r}", steps, finite, finite),
    st.builds(lambda n, abc: f"sine:{n},{abc[0]!r},{abc[2]!r}", steps, apart),
    wandering("random_walk"),
    wandering("ou"),
)
seeds = st.integers(0, 2**32)
times = st.lists(st.integers(0, 10_000), min_size=1, max_size=12)


def drift(text: str, seed: int = 0, name: str = "") -> Drift:
    found = parse_schedule(text, seed=seed, name=name)
    assert isinstance(found, Drift)
    return found


@settings(max_examples=100, deadline=None)
@given(texts, seeds, times)
def test_the_same_forwards_backwards_and_from_a_fresh_copy(text: str, seed: int, ts: list[int]) -> None:
    scale = drift(text).path.steps
    ts = [t * max(1, scale // 1000) for t in ts]  # up to ten blocks of a random drift
    forwards, backwards = drift(text, seed, "a"), drift(text, seed, "a")
    ahead = {t: forwards.at(t) for t in sorted(ts)}
    behind = {t: backwards.at(t) for t in sorted(ts, reverse=True)}
    assert ahead == behind == {t: drift(text, seed, "a").at(t) for t in ts}


@settings(max_examples=100, deadline=None)
@given(texts, seeds, st.integers(0, 500_000))
def test_values_respect_their_bounds_and_are_constant_over_their_span(text: str, seed: int, t: int) -> None:
    moving = drift(text, seed)
    low, high = moving.bounds()
    start, end = moving.span(t)
    assert start <= t < end
    last = t + 10**6 if end == math.inf else int(end) - 1
    assert moving.at(start) == moving.at(t) == moving.at(last)
    assert low <= moving.at(t) <= high
    assert (moving.regime(t), moving.start(0), moving.start(1)) == (0, 0, None)


@settings(max_examples=100, deadline=None)
@given(texts, seeds, st.integers(1, 100_000))
def test_short_form_and_dict_round_trip_through_json(text: str, seed: int, resolution: int) -> None:
    given_ = drift(text, seed)
    for moving in (given_, drift(f"{text}|resolution:{min(resolution, given_.path.steps)}", seed)):
        assert parse_schedule(json.loads(json.dumps(str(moving))), seed=seed) == moving
        assert parse_schedule(json.loads(json.dumps(moving.to_dict())), seed=seed) == moving
    assert given_.resolution == max(1, given_.path.steps // 1000)


def test_linear_and_sine_are_their_formulas() -> None:
    line = drift("linear:1000,2.0,-1.0|resolution:10")
    assert [line.at(t) for t in (0, 9, 10, 500, 999, 1000, 10**9)] == pytest.approx(
        [2, 2, 1.97, 0.5, 2 - 2.97, -1, -1], rel=1e-12
    )
    assert line.span(5000) == (1000, math.inf)
    wave = drift("sine:1000,0.5,1.5|resolution:1")
    for t in (0, 1, 125, 250, 500, 750, 1000, 20_000_125):
        assert wave.at(t) == pytest.approx(1 + 0.5 * math.sin(2 * math.pi * t / 1000), abs=1e-9)


N = 2000  # stretches of time, of one path


@pytest.mark.parametrize("resolution", [100, 1000])
def test_a_random_walks_variance_grows_in_proportion_to_time(resolution: int) -> None:
    """Far from its walls: variance deviation^2 t / steps, whatever the resolution, and independent increments."""
    walk = drift(f"random_walk:10000,0,0.3,-1e6,1e6|resolution:{resolution}", 3)
    assert walk.at(0) == 0.0
    lags = np.array([0, 5_000, 15_000, 40_000])
    paths = np.array([[walk.at(start + lag) for lag in lags] for start in range(0, N * 40_000, 40_000)])
    increments = np.diff(paths, axis=1)
    expected = 0.3**2 * np.diff(lags) / 10_000
    np.testing.assert_allclose(increments.var(0), expected, rtol=4 * math.sqrt(2 / N))
    np.testing.assert_allclose(increments.mean(0) / np.sqrt(expected), 0, atol=4 / math.sqrt(N))
    assert np.abs(np.corrcoef(increments.T) - np.eye(3)).max() < 4 / math.sqrt(N)


def test_a_reflected_walk_ends_up_uniform_between_its_walls() -> None:
    walk = drift("random_walk:100,0.25,1.0,0.2,0.4|resolution:10", 3)
    places = np.sort([walk.at(t) for t in range(500, 500 * (N + 1), 500)])
    uniform = 0.2 + 0.2 * (np.arange(N) + 0.5) / N
    assert np.abs(places - uniform).max() / 0.2 < 1.95 / math.sqrt(N)  # Kolmogorov-Smirnov, p = 0.001
    slow = drift("random_walk:1000,0.25,0.1,0.2,0.4|resolution:1", 3)  # reflected, and not put back at the other wall
    steps = np.diff([slow.at(t) for t in range(20_000)])
    assert np.abs(steps).max() < 6 * 0.1 / math.sqrt(1000)


@pytest.mark.parametrize("resolution", [10, 250])
def test_ornstein_uhlenbeck_has_its_stationary_deviation_and_autocorrelation(resolution: int) -> None:
    text = f"ou:1000,2.0,0.5,-50,50|resolution:{resolution}"
    lags, moving = (0, 500, 1000, 3000), drift(text, 3)
    paths = np.array([[moving.at(start + lag) for lag in lags] for start in range(0, N * 15_000, 15_000)])
    np.testing.assert_allclose(paths.mean(0), 2.0, atol=4 * 0.5 / math.sqrt(N))
    np.testing.assert_allclose(paths.var(0), 0.25, rtol=4 * math.sqrt(2 / N))
    np.testing.assert_allclose(np.corrcoef(paths.T)[0], np.exp(-np.array(lags) / 1000), atol=4 / math.sqrt(N))
    beginnings = np.array([drift(text, seed).at(0) for seed in range(400)])  # stationary from the first step on
    np.testing.assert_allclose(beginnings.var(), 0.25, rtol=4 * math.sqrt(2 / 400))


def test_ornstein_uhlenbeck_is_clipped_to_its_bounds() -> None:
    moving = drift("ou:10,1.0,1.0,0.5,1.5|resolution:10")
    values = [moving.at(t) for t in range(0, 4000, 10)]
    share = 0.3085  # of a normal beyond half a deviation, on either side
    for wall in (0.5, 1.5):
        assert abs(values.count(wall) / 400 - share) < 4 * math.sqrt(share * (1 - share) / 400)


@pytest.mark.parametrize("text", ["random_walk:1e6,1.0,0.5,0.2,2.0", "ou:1e6,1.0,0.2,0.5,1.5"])
def test_twenty_million_steps_ahead_is_cheap(text: str) -> None:
    moving = drift(text)
    began = time.perf_counter()
    moving.at(20_000_000)
    assert time.perf_counter() - began < 1.0  # measured: 1 ms at this resolution, 1000
    began = time.perf_counter()
    for t in range(20_000_000, 20_100_000, 1000):
        moving.at(t)
    assert time.perf_counter() - began < 0.5  # measured: 1 us each


def test_seeds_and_targets_have_drifts_of_their_own_which_are_pinned() -> None:
    text = "ou:1000,0,1,-9,9"
    values = {(seed, name): drift(text, seed, name).at(5000) for seed in (0, 1) for name in ("a", "b")}
    assert len(set(values.values())) == 4
    assert values[0, "a"] == pytest.approx(OU_OF_SEED_0, rel=1e-9)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("sin:100,0,1", 'did you mean "sine"?'),
        ({"drift": "sin:100,0,1"}, "unknown 'drift' \"sin\": allowed are linear, sine, random_walk, ou; did you mean"),
        ({"when": "sine:100,0,1"}, 'sine is a drift: give it as "drift" and not as "when"'),
        ("sine", 'drift: sine needs its numbers after a colon, such as "sine:1e6,0.5,1.5"'),
        ("sine:100,0", "drift: sine takes steps,low,high, got '100,0'"),
        ("sine:100,1,0", "drift: sine needs low <= high, got '100,1,0'"),
        ("sine:0.5,0,1", "steps in drift: sine must be a whole number >= 1"),
        ("linear:100,0,much", "stop in drift: linear must be a finite number, got 'much'"),
        ("ou:100,1,0.2,0.5", "drift: ou takes steps,mean,deviation,low,high"),
        ("ou:100,1,0,0.5,1.5", "deviation in drift: ou must be > 0"),
        ("ou:100,2,0.2,0.5,1.5", "drift: ou needs low < high and mean in [low, high]"),
        ("random_walk:100,1,0.2,1,1", "drift: random_walk needs low < high and start in [low, high]"),
        ("sine:100,0,1|resolution:200", "resolution must be in [1, 100] (environment steps, up to the drift's own"),
        ("sine:100,0,1|resolution:0", "resolution must be a whole number >= 1"),
        ("sine:100,0,1|resolutoin:5", "after a drift comes |resolution:steps, such as |resolution:1000, or nothing"),
        ("sine:100,0,1|res:10", "or nothing, got 'res:10'"),
        ("sine:100,0,1|resolution", "or nothing, got 'resolution'"),
        ("sine:100,0,1|resolution:", "resolution must be a whole number >= 1"),
        ("sine:100,0,1|resolution:5|draw", "a drift is sine:numbers or sine:numbers|resolution:steps"),
        ({"drift": "sine:100,0,1", "first": "draw"}, 'a drift brings its own times and values: leave out "first"'),
        ({"when": "every:5", "to": "cycle:1", "resolution": 5}, '"resolution" belongs to a drift'),
    ],
)
def test_errors_teach(spec: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_schedule(spec)


IDLE = np.zeros(1, np.float32)


def drifting(change: Any = "length=sine:100,0.5,1.5|resolution:10", **kwargs: Any) -> NonStationary:
    return NonStationary(PendulumEnv(), change, **kwargs)


def value(t: int) -> float:
    return 1 + 0.5 * math.sin(2 * math.pi * (t // 10 * 10) / 100)


@pytest.mark.parametrize("boundary", ["episode", "step", "truncate"])
@pytest.mark.parametrize("stride", [1, 4])
def test_a_drift_moves_between_steps_and_is_no_change_point(boundary: str, stride: int) -> None:
    env = drifting(boundary=boundary, stride=stride, context="info")
    env.reset(seed=0)
    for step in range(1, 60):
        *_, truncated, info = env.step(IDLE)
        t = step * stride
        assert info["nonstationary/length"] == pytest.approx(value(t - stride))  # in force during the step
        assert info["nonstationary/context"] == pytest.approx([value(t)])  # and in the next
        assert (info["nonstationary/regime"], info["nonstationary/change_point"], truncated) == (0, False, False)
        assert env.unwrapped.l == pytest.approx(value(t))  # type: ignore[attr-defined]
        assert env.due() == env.applied()


def test_a_drift_may_wait_for_the_episodes_end() -> None:
    env = drifting({"target": "length", "drift": "sine:100,0.5,1.5", "resolution": 10, "boundary": "episode"})
    env.reset(seed=0)
    env.step(IDLE)
    for _ in range(24):
        env.step(IDLE)
        assert env.applied()["nonstationary/length"] == 1.0
    assert env.reset()[1]["nonstationary/length"] == value(25)


def test_a_drift_and_regimes_on_one_environment() -> None:
    changes = ["length=sine:100,0.5,1.5|resolution:10", "gravity=every:25|cycle:0.5,2"]
    env = drifting(changes, boundary="step")
    env.reset(seed=0)
    points = [env.step(IDLE)[4]["nonstationary/change_point"] for _ in range(60)]
    assert [i for i, point in enumerate(points) if point] == [25, 50]
    env.pin(regime=3)
    assert env.applied() == {
        "nonstationary/length": value(75),
        "nonstationary/gravity": 0.5,
        "nonstationary/regime": 3,
    }
    env.unpin()
    assert env.applied() == env.due()


def test_a_resumed_or_rewound_run_sees_the_same_drift() -> None:
    text = "length=ou:100,1,0.2,0.5,1.5"
    whole, part = drifting(text, schedule_seed=3), drifting(text, schedule_seed=3)
    whole.reset(seed=0)
    seen = [whole.step(IDLE)[4]["nonstationary/length"] for _ in range(200)]
    part.reset(seed=9)
    part.set_clock(150)
    assert [part.step(IDLE)[4]["nonstationary/length"] for _ in range(50)] == seen[150:]
    part.reset(options={"schedule_clock": 0})
    assert [part.step(IDLE)[4]["nonstationary/length"] for _ in range(50)] == seen[:50]
    assert len(set(seen)) == 200


def test_a_drifting_environments_spec_says_that_seeds_do_not_tell_all_and_rebuilds_it() -> None:
    env = make_nonstationary("Pendulum-v1", "length=ou:1e5,1,0.2,0.5,1.5|resolution:50", schedule_seed=4)
    steady = make_nonstationary("Pendulum-v1", "length=every:50|cycle:2")
    assert env.spec is not None
    assert steady.spec is not None
    assert (env.spec.nondeterministic, steady.spec.nondeterministic) == (True, False)
    rebuilt: Any = gym.make(EnvSpec.from_json(env.spec.to_json()))
    assert rebuilt.spec == env.spec
    assert rebuilt.due(10**6) == env.due(10**6) != env.due(0)


def test_drifts_that_leave_the_targets_range_are_refused() -> None:
    with pytest.raises(ValueError, match=re.escape("length must be in [0.01, 100], got 0")):
        drifting("length=linear:100,1,0")


OU_OF_SEED_0 = 1.2013953148716836
