"""Self-normalised resets against lists of silences and numpy's quantile."""

import numpy as np
import pytest
import torch
from torch import nn

from plasticity import Fourier, SelfNormalisedResets, SettingsError
from plasticity.methods.self_normalised_resets import SelfNormalisedResetsConfig
from tests.plasticity.models import mlp, network


def run(firing, activation=nn.ReLU, **settings):
    """Feed a layer which units fire in which step, (steps, units); returns the method and who was replaced when."""
    model = mlp((2, firing.shape[1], 1), activation)
    net = network(model)
    method, replaced = SelfNormalisedResets(net.layers, **settings), []
    for fires in firing:
        before = model[0].weight.detach().clone()
        net.activations["0"] = torch.as_tensor(fires, dtype=torch.float32).expand(3, -1).contiguous()
        with torch.no_grad():
            method.after_step(net)
        replaced.append((model[0].weight != before).any(1).tolist())
    return method, np.array(replaced)


def by_hand(fires, percentile, longest, period):
    """One unit, with plain lists."""
    threshold, silence, seen, replaced = longest, 0, [], []
    for step, fired in enumerate(fires, 1):
        reset = False
        if fired:
            if silence:
                seen.append(silence)
            silence = 0
        else:
            silence += 1
            if silence > threshold:
                reset = True
                seen.append(silence)
                silence = 0
        replaced.append(reset)
        if step % period == 0 and len(seen) >= round(1 / (1 - percentile)):
            quantile = np.quantile(seen, percentile, method="inverted_cdf")
            threshold = int(quantile) if quantile <= threshold else min(2 * threshold, longest)
            seen = []
    return replaced, threshold


def test_it_resets_just_when_plain_lists_say_so():
    random = np.random.default_rng(0)
    rates = np.array([0.9, 0.5, 0.2, 0.05, 1.0, 0.0])
    firing = random.random((3000, 6)) < rates
    firing[2000:, 1] = False  # dies
    settings = {"percentile": 0.9, "max_threshold": 40, "update_period": 200}
    method, replaced = run(firing, **settings)
    for unit in range(6):
        expected, threshold = by_hand(firing[:, unit], 0.9, 40, 200)
        assert replaced[:, unit].tolist() == expected
        assert int(method.silences["0"].threshold[unit]) == threshold
    assert replaced.sum(0)[[0, 1, 2, 5]].min() > 0
    assert replaced[:, 4].sum() == 0
    assert method.telemetry()["0/replaced"] == replaced.sum()


def test_a_unit_that_never_paused_keeps_its_threshold_and_so_does_one_with_too_few_silences():
    firing = np.ones((150, 2), dtype=bool)
    firing[::20, 1] = False  # 8 silences of one step; 10 are needed
    firing[100:, :] = False
    method, replaced = run(firing, percentile=0.9, max_threshold=30, update_period=10)
    assert not replaced[:130].any()  # not after one silent step, as an empty history would have it
    assert replaced[130].all()  # the 31st
    assert method.silences["0"].threshold.tolist() == [30, 30]


def test_silences_are_kept_until_there_are_enough():
    firing = np.ones((41, 1), dtype=bool)
    firing[1::4] = False
    method, _ = run(firing, percentile=0.9, max_threshold=30, update_period=10)
    assert method.silences["0"].threshold.tolist() == [1]  # ten silences of one step by step 40, two or three an update


def test_resets_do_not_shrink_the_threshold_that_caused_them():
    # silences of 9 steps only; a threshold of 4 ends them all early, so the percentile lies beyond it
    firing = np.zeros((2000, 1), dtype=bool)
    firing[::10] = True
    model = mlp((2, 1, 1))
    net = network(model)
    method = SelfNormalisedResets(net.layers, percentile=0.9, max_threshold=100, update_period=200)
    method.silences["0"].threshold.fill_(4)
    thresholds = []
    for fires in firing:
        net.activations["0"] = torch.full((3, 1), float(fires[0]))
        with torch.no_grad():
            method.after_step(net)
        thresholds.append(int(method.silences["0"].threshold))
    assert thresholds[199] == 8
    assert thresholds[399] == 16
    assert thresholds[599] == thresholds[-1] == 9
    assert method.telemetry()["0/threshold"] == 9


def test_a_reset_unit_is_replaced_and_its_silence_starts_again():
    model = mlp((2, 3, 1))
    net = network(model)
    method = SelfNormalisedResets(net.layers, max_threshold=2)
    net.activations["0"] = torch.tensor([[0.0, 1.0, -1.0], [0.0, 0.0, 0.0]])
    for step in range(1, 7):
        with torch.no_grad():
            model[2].weight.fill_(1.0)
            method.after_step(net)
        assert (model[2].weight == 0).tolist() == [[step % 3 == 0, False, step % 3 == 0]]
    assert method.telemetry()["0/replaced"] == 4


def test_smooth_units_are_silent_when_they_are_constant():
    random = torch.Generator().manual_seed(0)
    model = mlp((2, 3, 1), nn.Tanh)
    net = network(model)
    method = SelfNormalisedResets(net.layers, max_threshold=1)
    net.activations["0"] = torch.stack([torch.full((20,), 0.99), torch.rand(20, generator=random), torch.zeros(20)], 1)
    for _ in range(2):
        with torch.no_grad():
            method.after_step(net)
    assert method.telemetry()["0/replaced"] == 2
    assert (model[2].weight == 0).tolist() == [[True, False, True]]


def test_a_doubled_unit_is_silent_when_both_its_numbers_are_constant():
    model = nn.Sequential(nn.Linear(2, 2), Fourier(), nn.Linear(4, 1))
    net = network(model)
    method = SelfNormalisedResets(net.layers, max_threshold=1)
    z = torch.stack([torch.full((20,), 0.3), torch.rand(20, generator=torch.Generator().manual_seed(0))], 1)
    net.activations["0"] = model[1](z)
    for _ in range(2):
        with torch.no_grad():
            method.after_step(net)
    assert (model[2].weight == 0).tolist() == [[True, True, False, False]]


def test_wrong_settings_are_named():
    with pytest.raises(SettingsError, match=r"percentile must be in \(0, 1\), got 1"):
        SelfNormalisedResetsConfig(percentile=1.0)
    with pytest.raises(SettingsError, match=r"max_threshold must be in \[1, inf\), got 0"):
        SelfNormalisedResetsConfig(max_threshold=0)
