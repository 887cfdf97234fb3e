"""Forgetting, transfer and recovery, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from agents import Adaptation, average_return, backward_transfer, forgetting, forward_transfer, recovery_steps

NAN = float("nan")
RETURNS = np.array([[10.0, 4.0, NAN, NAN], [7.0, 12.0, 3.0, NAN], [5.0, 15.0, 9.0, 8.0]])
UNTRAINED = np.array([1.0, 2.0, 3.0, 1.0])


def test_average_return_is_over_the_regimes_met():
    assert average_return(RETURNS) == pytest.approx((5 + 15 + 9) / 3)  # regime 3 is still to come
    assert average_return(RETURNS[:1]) == 10


def test_forgetting_is_the_best_before_less_that_of_now():
    np.testing.assert_array_equal(forgetting(RETURNS), [10 - 5, 12 - 15, NAN, NAN])
    np.testing.assert_array_equal(forgetting(RETURNS[:1]), [NAN] * 4)


def test_the_best_before_may_be_from_before_the_regime_came_but_is_not_of_the_untrained_agent():
    early = np.array([[10.0, 20.0, 0.0], [7.0, 12.0, 0.0], [5.0, 15.0, 9.0]])
    np.testing.assert_array_equal(forgetting(early), [5, 20 - 15, NAN])


def test_backward_transfer_is_that_of_now_less_that_at_the_regime_s_end():
    np.testing.assert_array_equal(backward_transfer(RETURNS), [5 - 10, 15 - 12, NAN, NAN])


def test_forward_transfer_is_that_before_a_regime_less_that_of_the_untrained_agent():
    np.testing.assert_array_equal(forward_transfer(RETURNS, UNTRAINED), [NAN, 4 - 2, 3 - 3, 8 - 1])


def test_a_regime_that_was_skipped_is_not_known_and_spoils_no_mean():
    skipped = RETURNS.copy()
    skipped[1] = NAN
    np.testing.assert_array_equal(forgetting(skipped), [5, 4 - 15, NAN, NAN])
    np.testing.assert_array_equal(backward_transfer(skipped), [-5, NAN, NAN, NAN])
    np.testing.assert_array_equal(forward_transfer(skipped, UNTRAINED), [NAN, 2, NAN, 7])


def test_fewer_columns_than_rows():
    few = RETURNS[:, :2]
    assert average_return(few) == 10
    np.testing.assert_array_equal(forgetting(few), [5, -3])
    np.testing.assert_array_equal(backward_transfer(few), [-5, 3])
    np.testing.assert_array_equal(forward_transfer(few, UNTRAINED[:2]), [NAN, 2])


def test_returns_must_be_a_matrix():
    with pytest.raises(ValueError, match=r"a matrix \(trained, tested\), got the shape \(3,\)"):
        average_return([1.0, 2.0, 3.0])


STEPS = [110, 120, 130, 140]


def test_recovery_is_when_the_mean_of_the_last_episodes_is_back():
    # level (80 + 120) / 2 = 100; means of two: 70, 89, 92.5
    assert recovery_steps([0, 80, 120], [50, 90, 88, 97], STEPS, 100, window=2) == 140 - 100
    assert recovery_steps([0, 80, 120], [50, 90, 88, 97], STEPS, 100, window=2, fraction=0.7) == 120 - 100
    assert recovery_steps([100], [0, 0, 90, 0], STEPS, 100, window=1) == 130 - 100  # exactly the fraction is enough


def test_the_level_before_is_of_the_last_episodes_or_of_all_there_were():
    assert recovery_steps([1000, 10, 10], [9, 9, 9, 9], STEPS, 100, window=2) == 20
    assert recovery_steps([10], [9, 9, 9, 9], STEPS, 100, window=3) == 30


def test_of_negative_returns_the_fraction_means_as_much():
    # -200: 10 % of its size below is -220; means of two: -222.5, -217
    assert recovery_steps([-200, -200], [-230, -215, -219, -300], STEPS, 100, window=2) == 30
    assert recovery_steps([0, 0], [-1, -1, 0, 0], STEPS, 100, window=2) == 40


def test_what_is_never_recovered_or_not_known_is_nan():
    assert np.isnan(recovery_steps([100], [80, 80, 80, 80], STEPS, 100, window=2))
    assert np.isnan(recovery_steps([100], [200], [110], 100, window=2))  # too few to tell
    assert np.isnan(recovery_steps([], [200, 200], STEPS[:2], 100, window=2))
    assert np.isnan(recovery_steps([100], [], [], 100))


def test_all_of_a_run_in_a_few_numbers():
    run = Adaptation(RETURNS, UNTRAINED, fresh=np.array([8.0, NAN, 14.0]), recovery=np.array([NAN, 300.0, NAN]))
    np.testing.assert_array_equal(run.at_end, [10, 12, 9])
    np.testing.assert_array_equal(run.gap_to_fresh, [2, NAN, -5])
    assert run.numbers() == {
        "average_return": pytest.approx(29 / 3),
        "forgetting": 1.0,
        "backward_transfer": -1.0,
        "forward_transfer": 3.0,
        "recovery_steps": 300.0,
        "recovered": 0.5,
        "gap_to_fresh": -1.5,
    }


def test_before_the_first_change_most_is_not_known():
    run = Adaptation(RETURNS[:1], np.full(4, NAN), fresh=np.array([NAN]), recovery=np.array([NAN]))
    numbers = run.numbers()
    assert numbers.pop("average_return") == 10
    assert np.isnan(list(numbers.values())).all()
