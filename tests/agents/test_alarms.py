"""Alarms: when they are raised, what they say, and that they do not repeat themselves."""

import pytest

from agents import Alarms


def numbers(rank=None, dormant=None, weights=0.1, layer="pi/1"):
    found = {f"{layer}/weight_magnitude": weights}
    if rank is not None:
        found[f"{layer}/probe_effective_rank"] = rank
    if dormant is not None:
        found[f"{layer}/probe_dormant_fraction"] = dormant
    return found


def warm():
    """Alarms that have seen the first measurements, which say nothing of ranks."""
    alarms = Alarms()
    for _ in range(10):
        alarms.check(0, {})
    return alarms


def test_ranks_that_fall_as_learning_begins_are_no_alarm():
    alarms = Alarms()
    assert [alarms.check(step, numbers(rank=100 / (1 + step))) for step in range(10)] == [[]] * 10
    assert alarms.check(10, numbers(rank=9)) == []
    assert len(alarms.check(11, numbers(rank=4))) == 1


def test_a_healthy_run_is_quiet():
    alarms = Alarms()
    for step in range(0, 1000, 100):
        assert alarms.check(step, numbers(rank=100 - step / 25, dormant=0.5, weights=0.1 + step / 1e4)) == []
    assert alarms.raised == []


def test_what_is_said_of_a_layer_in_one_line():
    alarms = warm()
    alarms.check(0, numbers(rank=120, dormant=0.0))
    alarms.check(300_000, numbers(rank=180, dormant=0.1))
    assert alarms.check(400_000, numbers(rank=91, dormant=0.3)) == []
    said = (
        "pi/1: effective rank on the probe batch fell from 180 to 41 since step 300,000; 52% of its units are dormant"
    )
    assert alarms.check(500_000, numbers(rank=41, dormant=0.52)) == [said]
    assert alarms.raised == [(500_000, said)]


def test_each_is_said_again_only_when_it_is_twice_as_bad():
    alarms = warm()
    ranks = [100, 49, 48, 25, 24, 24, 60, 49, 13, 12, 0, 0]
    said = [bool(alarms.check(step, numbers(rank=rank))) for step, rank in enumerate(ranks)]
    assert [rank for rank, news in zip(ranks, said, strict=True) if news] == [49, 24, 0]
    shares = [0.4, 0.5, 0.51, 0.6, 0.74, 0.76, 0.87, 0.9, 1.0, 1.0]
    said = [bool(alarms.check(step, numbers(dormant=share))) for step, share in enumerate(shares)]
    assert [share for share, news in zip(shares, said, strict=True) if news] == [0.51, 0.76, 0.9, 1.0]


def test_weights_that_grow_tenfold():
    alarms = Alarms()
    alarms.check(10, numbers(weights=0.05))
    assert alarms.check(20, numbers(weights=0.5)) == []
    assert alarms.check(30, numbers(weights=0.6)) == ["pi/1: mean |weight| grew from 0.05 to 0.6 since step 10"]
    assert alarms.check(40, numbers(weights=1.1)) == []
    assert len(alarms.check(50, numbers(weights=1.3))) == 1


def test_layers_are_watched_each_by_itself_and_networks_as_a_whole_are_not():
    alarms = warm()
    both = [numbers(rank=10, layer=layer) for layer in ("pi/0", "vf/0")]
    alarms.check(0, both[0] | both[1] | {"pi/weight_magnitude": 0.01})
    found = alarms.check(
        1, numbers(rank=1, layer="pi/0") | numbers(rank=9, layer="vf/0") | {"pi/weight_magnitude": 9.0}
    )
    assert [sentence.partition(":")[0] for sentence in found] == ["pi/0"]


def test_without_ranks_there_is_nothing_to_say_of_them():
    assert Alarms().check(0, numbers()) == []


@pytest.mark.parametrize("zero", [0.0])
def test_zeros_are_no_error(zero):
    alarms = warm()
    assert alarms.check(0, numbers(rank=zero, dormant=zero, weights=zero)) == []
    assert len(alarms.check(1, numbers(rank=zero, dormant=1.0, weights=1.0))) == 1
    assert alarms.check(2, numbers(rank=zero, dormant=1.0, weights=2.0)) == []


def test_state_goes_into_a_checkpoint_and_back():
    one, other = warm(), Alarms()
    one.check(0, numbers(rank=100))
    one.check(1, numbers(rank=40))
    other.load_state_dict(one.state_dict())
    for alarms in (one, other):
        assert alarms.check(2, numbers(rank=30)) == []
        assert len(alarms.check(3, numbers(rank=19))) == 1
    assert one.raised == other.raised
