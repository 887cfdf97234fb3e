"""The seven utilities by hand arithmetic."""

import pytest
import torch
from torch import nn

from plasticity import UTILITIES, HiddenLayer, Reader, UnitStatistics

# Two units; unit 0 reads (1, -3), unit 1 reads (2, 2). Reader A has outputs (0.5, -1) and (1, 0); reader B (-2, 3).
INCOMING = [[1.0, -3.0], [2.0, 2.0]]
ACTIVATIONS = [[2.0, 0.0], [4.0, -1.0]]  # two rows
MEAN = [1.0, 0.5]
OUT = [(0.5 + 1 + 2) / 3, (1 + 0 + 3) / 3]  # mean |W_out| over all three outputs together
SIZE = [3.0, 0.5]  # mean |h|
DEVIATION = [(1 + 3) / 2, (0.5 + 1.5) / 2]  # mean |h - f|
IN = [2.0, 2.0]  # mean |W_in|

EXPECTED = {
    "weight": OUT,
    "contribution": [OUT[0] * SIZE[0], OUT[1] * SIZE[1]],
    "adaptation": [1 / IN[0], 1 / IN[1]],
    "zero_contribution": [OUT[0] * DEVIATION[0], OUT[1] * DEVIATION[1]],
    "adaptable_contribution": [OUT[0] * DEVIATION[0] / IN[0], OUT[1] * DEVIATION[1] / IN[1]],
    "feature_by_input": [DEVIATION[0] / IN[0], DEVIATION[1] / IN[1]],
}


def linear(weight):
    layer = nn.Linear(len(weight[0]), len(weight))
    layer.weight.data = torch.tensor(weight)
    return layer


def statistics():
    readers = (Reader(linear([[0.5, 1.0], [-1.0, 0.0]])), Reader(linear([[9.0, -2.0, 3.0]]), first=1))
    layer = HiddenLayer("h", linear(INCOMING), nn.ReLU(), readers)
    return UnitStatistics(layer, torch.tensor(ACTIVATIONS), torch.tensor(MEAN), lambda *shape: torch.full(shape, 0.25))


@pytest.mark.parametrize("name", EXPECTED)
def test_by_hand(name):
    assert torch.allclose(UTILITIES[name](statistics()), torch.tensor(EXPECTED[name]))


def test_random_draws_from_the_given_stream_and_nothing_is_left_untested():
    assert UTILITIES["random"](statistics()).tolist() == [0.25, 0.25]
    assert set(EXPECTED) | {"random"} == set(UTILITIES)


def test_a_unit_without_incoming_weights_is_finite():
    s = statistics()
    s.layer.weight.data[0] = 0
    assert torch.isfinite(UTILITIES["adaptation"](s)).all()


def test_channels_average_over_positions_outputs_and_kernels():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 2), nn.ReLU(), nn.Conv2d(3, 4, 2))
    layer = HiddenLayer("c", model[0], model[1], (Reader(model[2]),))
    h = model[:2](torch.randn(5, 2, 6, 6))
    s = UnitStatistics(layer, layer.rows(h), torch.zeros(3), torch.rand)
    for i in range(3):
        out = model[2].weight[:, i].abs().mean()
        assert torch.isclose(UTILITIES["contribution"](s)[i], out * h[:, i].abs().mean())
        assert torch.isclose(UTILITIES["adaptation"](s)[i], 1 / model[0].weight[i].abs().mean())
