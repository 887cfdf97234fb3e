"""Parseval regularisation: the gradient of lambda (64 / width)^2 ||W W^T - s I||_F^2 for hidden layers only."""

import pytest
import torch
from torch import nn

from plasticity import CReLU, Network, Parseval, UnitAdam, attach, hidden_layers
from tests.plasticity.models import mlp, network


def act(method, net, parameters):
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    with torch.no_grad():
        method.before_step(net)
    return [parameter.grad.clone() for parameter in parameters]


def penalty(weight, scale, strength=1.0):
    matrix = weight.flatten(1)
    width = len(matrix)
    return strength * (64 / width) ** 2 * (matrix @ matrix.T - scale * torch.eye(width)).square().sum()


@pytest.mark.parametrize("sizes", [(4, 6, 5, 2), (9, 6, 3, 2)], ids=["more units than inputs", "fewer"])
def test_it_is_the_gradient_of_the_penalty_on_hidden_layers(sizes):
    model = mlp(sizes)
    hidden = [model[0].weight, model[2].weight]
    expected = torch.autograd.grad(sum(penalty(w, 1.5, 0.01) for w in hidden), hidden)
    ours = act(Parseval(0.01, scale=1.5), network(model), list(model.parameters()))
    torch.testing.assert_close([ours[0], ours[2]], list(expected))
    assert all((ours[place] == 0).all() for place in (1, 3, 4, 5))  # biases and the output layer


def test_kernels_count_flat():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2))
    expected = torch.autograd.grad(penalty(model[0].weight, 2.0), model[0].weight)[0]
    ours = act(Parseval(1.0), network(model), list(model.parameters()))
    torch.testing.assert_close(ours[0], expected)


def test_a_doubling_activation_counts_at_its_full_width():
    model = nn.Sequential(nn.Linear(4, 3), CReLU(), nn.Linear(6, 2))
    net = Network("n", hidden_layers(model), [torch.optim.SGD(model.parameters(), lr=0.1)])
    expected = torch.autograd.grad(penalty(model[0].weight, 2.0) / 4, model[0].weight)[0]  # 6 wide, not 3
    torch.testing.assert_close(act(Parseval(1.0), net, list(model.parameters()))[0], expected)


@pytest.mark.parametrize("sizes", [(6, 4, 1), (4, 6, 1)])
def test_it_alone_makes_weights_orthogonal(sizes):
    model = mlp(sizes)
    optimizer = UnitAdam(model.parameters(), lr=0.01)
    net = network(model, optimizer)
    attach(Parseval(0.01), net)
    for _ in range(2000):
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
    values = torch.linalg.svdvals(model[0].weight)
    torch.testing.assert_close(values, torch.full((4,), 2.0**0.5), rtol=1e-3, atol=0)
