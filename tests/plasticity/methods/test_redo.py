"""ReDo: which units it recycles, and how."""

import torch
from torch import nn

from plasticity import Every, ReDo, uniform_bound
from tests.plasticity.models import mlp, network


def test_redo_recycles_channels():
    model = nn.Sequential(nn.Conv2d(1, 3, 2), nn.ReLU(), nn.Conv2d(3, 2, 2))
    net = network(model)
    with torch.no_grad():
        model[0].weight[1], model[0].bias[1] = 0.0, -1.0
    redo = ReDo(net.layers)
    model(torch.rand(4, 1, 5, 5) + 1)
    with torch.no_grad():
        model[0].weight[[0, 2]], model[0].bias[[0, 2]] = 0.5, 0.5
        net.activations["0"] = model[:2](torch.rand(4, 1, 5, 5))
        redo.after_step(net)
    assert redo.telemetry()["0/replaced"] == 1
    assert (model[2].weight[:, 1] == 0).all()


def test_redo_recycles_exactly_the_dormant_units_every_period():
    model = mlp((4, 6, 2))
    net = network(model)
    with torch.no_grad():
        model[0].weight[1], model[0].bias[1] = 0.0, -1.0  # dead
        model[0].weight[4], model[0].bias[4] = 0.0, 1e-3  # dormant, not dead
        model[2].weight.fill_(1.0)
    before = model[0].weight.detach().clone()
    redo = Every(3, ReDo(net.layers, threshold=0.025))
    x = torch.randn(50, 4)
    for step in range(1, 4):
        model(x)
        with torch.no_grad():
            redo.after_step(net)
        assert redo.telemetry()["0/replaced"] == (2 if step == 3 else 0)
    assert (model[2].weight == 0).all(0).tolist() == [False, True, False, False, True, False]
    assert (model[0].weight != before).any(1).tolist() == [False, True, False, False, True, False]
    assert model[0].bias[[1, 4]].tolist() == [0, 0]
    assert model[0].weight[[1, 4]].abs().max() <= uniform_bound(mlp((4, 6, 2))[0], "network") * 1.2


def test_redo_recycles_a_layer_that_is_all_dead():
    model = mlp((4, 6, 2))
    net = network(model)
    with torch.no_grad():
        model[0].weight.zero_(), model[0].bias.fill_(-1.0)
    redo = ReDo(net.layers, init="lecun")
    model(torch.randn(5, 4))
    with torch.no_grad():
        redo.after_step(net)
    assert redo.telemetry()["0/replaced"] == 6
    assert torch.isfinite(model[0].weight).all()
    assert (model[0].weight != 0).all()
