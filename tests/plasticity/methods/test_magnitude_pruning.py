"""Gradual magnitude pruning: how many weights vanish when, and which."""

import pytest
import torch

from plasticity import MagnitudePruning, SettingsError, UnitAdam, attach
from plasticity.methods.magnitude_pruning import MagnitudePruningConfig
from tests.plasticity.models import mlp, network, train


def test_the_share_of_missing_weights_follows_the_cubic_schedule():
    model = mlp((10, 20, 10, 2))
    optimizer = UnitAdam(model.parameters(), lr=1e-3)
    net = network(model, optimizer)
    method = MagnitudePruning(net, sparsity=0.9, start=4, end=15, period=3)
    attach(method, net)
    reached = 0.0
    for step in range(1, 21):
        train(model, optimizer, 1, seed=step)
        if step in (7, 10, 13, 15):
            reached = 0.9 * (1 - ((15 - step) / 11) ** 3)
        for layer in (0, 2):
            missing = int((model[layer].weight == 0).sum())
            assert missing == 200 - round((1 - reached) * 200)
        assert method.telemetry()["0/sparsity"] == pytest.approx(missing / 200)
    assert missing == 180
    assert (model[4].weight != 0).all()
    assert all((model[layer].bias != 0).all() for layer in (0, 2, 4))


def test_the_smallest_weights_vanish_and_never_return():
    model = mlp((4, 3, 1))
    net = network(model)
    method = MagnitudePruning(net, sparsity=0.5, start=0, end=1)
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[5.0, -1, 2, 9], [-8, 7, 3, -4], [6, 10, -11, 12]]))
        method.after_step(net)
        assert (model[0].weight == 0).tolist() == [
            [True, True, True, False],
            [False, False, True, True],
            [True, False, False, False],
        ]
        gone = model[0].weight == 0
        model[0].weight.copy_(torch.arange(12.0, 0.0, -1.0).view(3, 4))
        for _ in range(3):
            method.after_step(net)
        assert (model[0].weight == 0).equal(gone)


def test_ten_times_the_same_step_with_a_method_before_and_after_its_time():
    settings = {"sparsity": 0.5, "start": 100, "end": 200}
    plain, early = mlp(), mlp()
    for model, with_method in ((plain, False), (early, True)):
        optimizer = UnitAdam(model.parameters(), lr=0.01)
        net = network(model, optimizer)
        if with_method:
            attach(MagnitudePruning(net, **settings), net)
        train(model, optimizer, 10)
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), early.parameters(), strict=True))


def test_wrong_settings_are_named():
    with pytest.raises(SettingsError, match=r"end must be greater than start, 20000, got 20000"):
        MagnitudePruningConfig(end=20_000)
    with pytest.raises(SettingsError, match=r"sparsity must be in \[0, 1\), got 1"):
        MagnitudePruningConfig(sparsity=1.0)
