"""Aggregates and intervals against closed forms and against rliable's own numbers."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from experiments.analysis import (
    interquartile_mean,
    mean,
    paired_difference,
    probability_of_improvement,
    probability_of_improvement_interval,
    slope,
    stratified_bootstrap_interval,
)

# Scores of two methods, (runs, tasks), and what rliable 1.2.0 (arch 7.2.0) says of them: aggregate_iqm, aggregate_mean
# and probability_of_improvement; intervals by get_interval_estimates with 50,000 resamples (5,000 for the probability)
FIRST = np.array(
    [
        *([1.0, 1.15, 0.86], [0.55, 0.77, 0.5], [1.03, 1.67, 0.75], [0.69, 1.24, 1.18], [1.05, 0.53, 0.99]),
        *([1.35, 0.33, 0.77], [0.05, 0.36, 0.08], [0.88, 0.37, 1.14], [1.08, 0.91, -0.26], [0.73, 0.98, 1.06]),
    ]
)
SECOND = np.array(
    [
        *([0.03, 0.56, 0.31], [0.4, 1.33, 0.4], [0.78, 1.24, 0.51], [0.74, 0.86, 0.83], [0.19, 0.84, 1.48]),
        *([0.03, 1.23, 0.86], [0.48, 1.8, 1.18], [0.2, 0.84, 1.09]),
    ]
)
RLIABLE = {
    ("first", "iqm"): (0.846875, 0.676875, 0.98125),
    ("first", "mean"): (0.793, 0.64433333, 0.93466667),
    ("second", "iqm"): (0.7325, 0.57833333, 0.915),
    ("second", "mean"): (0.75875, 0.62291667, 0.89708333),
    ("first task", "iqm"): (0.89666667, 0.64666667, 1.05833333),
    ("first task", "mean"): (0.841, 0.619, 1.037),
}
RLIABLE_PROBABILITY = (0.5354166666666667, 0.39791667, 0.675)
RLIABLE_PROBABILITY_WITH_TIES = 0.5458333333333333  # of the scores rounded to one digit
SCORES = {"first": FIRST, "second": SECOND, "first task": FIRST[:, :1]}
STATISTICS = {"iqm": interquartile_mean, "mean": mean}


@pytest.mark.parametrize(("scores", "statistic"), RLIABLE)
def test_aggregates_and_intervals_are_those_of_rliable(scores, statistic):
    value, low, high = RLIABLE[scores, statistic]
    strata, of = list(SCORES[scores].T), STATISTICS[statistic]
    assert of(np.concatenate(strata)) == pytest.approx(value, abs=1e-8)
    got = stratified_bootstrap_interval(strata, of, resamples=20_000)
    assert got == pytest.approx((low, high), abs=0.01)  # both are of random draws


def test_the_probability_of_improvement_is_that_of_rliable():
    value, low, high = RLIABLE_PROBABILITY
    first, second = list(FIRST.T), list(SECOND.T)
    assert probability_of_improvement(first, second) == pytest.approx(value, abs=1e-12)
    assert probability_of_improvement_interval(first, second, resamples=20_000) == pytest.approx((low, high), abs=0.01)
    ties = probability_of_improvement(list(FIRST.round(1).T), list(SECOND.round(1).T))
    assert ties == pytest.approx(RLIABLE_PROBABILITY_WITH_TIES, abs=1e-12)


@pytest.mark.parametrize("runs", [1, 2, 3, 4, 5, 8, 11, 100])
def test_the_interquartile_mean_of_numbers_in_a_row_is_their_middle(runs):
    scores = np.random.default_rng(0).permutation(runs)
    assert interquartile_mean(scores) == pytest.approx((runs - 1) / 2)
    spread = np.where(scores == runs - 1, 1e9, scores)  # one outlier is cut off where a quarter is a run or more
    cut = runs // 4
    assert interquartile_mean(spread) == pytest.approx(np.sort(spread)[cut : runs - cut].mean())


def test_an_interval_of_normal_data_is_the_textbooks():
    runs = 400
    scores = np.random.default_rng(1).normal(3.0, 2.0, runs)
    expected = scores.mean() + np.array([-1.96, 1.96]) * scores.std() / np.sqrt(runs)
    assert stratified_bootstrap_interval([scores], mean, resamples=20_000) == pytest.approx(expected, abs=0.01)


def test_runs_are_drawn_within_their_task():
    strata = [np.zeros(4), np.full(9, 10.0)]  # unequal numbers of runs, no spread within a task
    assert stratified_bootstrap_interval(strata, mean) == pytest.approx((90 / 13, 90 / 13))
    assert stratified_bootstrap_interval([np.concatenate(strata)], mean)[0] < 5  # without strata there is spread


def test_an_interval_is_of_each_further_place_and_of_known_width():
    scores = np.random.default_rng(2).normal(0, 1, (30, 5)) + np.arange(5)
    low, high = stratified_bootstrap_interval([scores], mean)
    assert low.shape == high.shape == (5,)
    for place in range(5):  # the same draws for each place
        assert stratified_bootstrap_interval([scores[:, place]], mean) == pytest.approx((low[place], high[place]))


def test_many_numbers_are_drawn_in_pieces(monkeypatch):
    scores = np.random.default_rng(3).normal(size=(7, 3))
    whole = stratified_bootstrap_interval([scores])
    monkeypatch.setattr("experiments.analysis.statistics.AT_ONCE", 50)
    assert np.array_equal(whole, stratified_bootstrap_interval([scores]))


def test_one_run_has_no_interval_and_draws_are_our_own():
    assert np.isnan(stratified_bootstrap_interval([[3.0]])).all()
    assert np.isnan(probability_of_improvement_interval([[3.0]], [[2.0]])).all()
    before = np.random.get_state()[1].copy()  # noqa: NPY002 - the stream that must not be touched
    first = stratified_bootstrap_interval([FIRST[:, 0]])
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002
    assert first == stratified_bootstrap_interval([FIRST[:, 0]])
    assert first != stratified_bootstrap_interval([FIRST[:, 0]], seed=1)


def test_intervals_of_few_runs_are_too_narrow_as_the_report_says():
    generator, held = np.random.default_rng(4), 0
    for _ in range(400):
        low, high = stratified_bootstrap_interval([generator.normal(size=5)], mean, resamples=500)
        held += low <= 0 <= high
    assert 0.8 < held / 400 < 0.9


def test_improvement_of_sets_apart_and_alike():
    assert probability_of_improvement([[3, 4]], [[1, 2, 2.5]]) == 1
    assert probability_of_improvement([[1, 2]], [[3, 4]]) == 0
    assert probability_of_improvement([[1, 2, 3]], [[3, 2, 1]]) == 0.5
    assert probability_of_improvement([[7, 7]], [[7]]) == 0.5
    assert probability_of_improvement([[3, 4], [1, 2]], [[1, 2], [3, 4]]) == 0.5  # one task won, one lost
    assert probability_of_improvement_interval([[3, 4]], [[1, 2]]) == (1, 1)


def test_pairs_take_out_what_seeds_have_in_common():
    seeds = np.array([0.0, 100.0, 500.0, -300.0, 50.0])
    value, low, high = paired_difference(seeds + np.array([1, 2, 3, 2, 2]), seeds)
    assert value == pytest.approx(2)
    assert 1 <= low < 2 < high <= 3


def test_slopes():
    x = np.arange(10.0)
    assert slope(x, 3 * x - 5) == pytest.approx(3)
    assert slope([0, 1, 2], [1, np.nan, 5]) == pytest.approx(2)
    y = np.random.default_rng(5).normal(size=10)
    assert slope(x, y) == pytest.approx(scipy.stats.linregress(x, y).slope)
    assert np.isnan(slope([1], [1]))
    assert np.isnan(slope([2, 2], [1, 5]))
