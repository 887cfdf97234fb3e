"""L2 equals the weight decay of torch's Adam."""

import pytest
import torch
from torch import nn

from plasticity import L2, Network, UnitAdam, attach, hidden_layers
from tests.plasticity.models import mlp, network, same, train


@pytest.mark.parametrize("decoupled", [False, True])
def test_l2_is_adams_weight_decay(decoupled):
    ours, theirs = mlp(), mlp()
    optimizer = UnitAdam(ours.parameters(), lr=0.01)
    attach(L2(0.1, decoupled=decoupled), network(ours, optimizer))
    stock = (torch.optim.AdamW if decoupled else torch.optim.Adam)(theirs.parameters(), lr=0.01, weight_decay=0.1)
    train(ours, optimizer, 20), train(theirs, stock, 20)
    assert same(ours, theirs)


def test_l2_leaves_biases_or_takes_log_std_when_asked():
    model, log_std = mlp(), nn.Parameter(torch.ones(2))
    for parameter in (*model.parameters(), log_std):
        parameter.grad = torch.zeros_like(parameter)
    optimizer = torch.optim.SGD([*model.parameters(), log_std], lr=1.0)
    net = Network("n", hidden_layers(model), [optimizer], log_std=[log_std])
    with torch.no_grad():
        L2(0.5, biases=False).before_step(net)
    assert (model[0].bias.grad == 0).all()
    assert torch.equal(model[4].weight.grad, 0.5 * model[4].weight)
    assert (log_std.grad == 0).all()
    with torch.no_grad():
        L2(0.5, log_std=True).before_step(net)
    assert (log_std.grad == 0.5).all()
    assert torch.equal(model[0].bias.grad, 0.5 * model[0].bias)
