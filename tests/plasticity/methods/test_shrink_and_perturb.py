"""Shrink and Perturb: its formula, draws and what it spares."""

import pytest
import torch
from torch import nn

from plasticity import Network, ShrinkAndPerturb, hidden_layers
from tests.plasticity.models import mlp, network


def test_shrink_and_perturb_mixes_with_a_fresh_network_each_time():
    model = mlp((50, 40, 30))
    net = network(model)
    method = ShrinkAndPerturb(net, shrink=0.5, perturb=0.25)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with torch.no_grad():
        method.after_step(net)
    noise = (model[0].weight - 0.5 * before["0.weight"]).detach()
    bound = 0.25 * float(before["0.weight"].square().mean().sqrt()) * 3**0.5
    assert noise.abs().max() <= bound * (1 + 1e-5)
    assert noise.abs().max() > 0.99 * bound
    assert torch.equal(model[0].bias, 0.5 * before["0.bias"])
    again = model[0].weight.detach().clone()
    with torch.no_grad():
        method.after_step(net)
    assert not torch.allclose((model[0].weight - 0.5 * again).detach(), noise)


def test_gaussian_perturbation_has_its_standard_deviation_and_spares_norms_and_log_std():
    model = nn.Sequential(nn.Linear(50, 40), nn.LayerNorm(40), nn.ReLU(), nn.Linear(40, 30))
    log_std = nn.Parameter(torch.ones(3))
    optimizer = torch.optim.SGD([*model.parameters(), log_std], 0.1)
    net = Network("n", hidden_layers(model), [optimizer], log_std=[log_std])
    before = model[0].weight.detach().clone()
    with torch.no_grad():
        ShrinkAndPerturb(net, shrink=1.0, perturb=0.1, noise="gaussian").after_step(net)
    assert float((model[0].weight.detach() - before).std()) == pytest.approx(0.1, rel=0.05)
    assert (model[1].weight == 1).all()
    assert (log_std == 1).all()
