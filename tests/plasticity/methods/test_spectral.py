"""Spectral regularisation: against torch's singular values and autograd through them."""

import pytest
import torch
from torch import nn

from plasticity import HiddenLayer, Network, Reader, Spectral, attach
from tests.plasticity.models import mlp, network, train


def act(method, net, parameters):
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    with torch.no_grad():
        method.before_step(net)
    return [parameter.grad.clone() for parameter in parameters]


def penalty(parameters, k, biases=True):
    total = 0.0
    for parameter in parameters:
        if parameter.dim() > 1:
            total = total + (torch.linalg.matrix_norm(parameter.flatten(1), 2) ** k - 1).square()
        elif biases:
            total = total + parameter.norm() ** (2 * k)
    return total


@pytest.mark.parametrize("k", [1, 2, 3])
def test_it_is_the_gradient_of_the_penalty(k):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2)).double()
    parameters = list(model.parameters())
    expected = torch.autograd.grad(0.3 * penalty(parameters, k), parameters)
    ours = act(Spectral(network(model), 0.3, exponent=k), network(model), parameters)
    for one, two in zip(ours, expected, strict=True):
        torch.testing.assert_close(one, two)


def test_one_iteration_a_step_follows_the_weights():
    model = mlp((4, 6, 5, 2)).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    net = network(model, optimizer)
    method = Spectral(net, 1e-3)
    attach(method, net)
    train(model, optimizer, 300)
    parameters = list(model.parameters())
    expected = torch.autograd.grad(1e-3 * penalty(parameters, 2), parameters)
    for one, two in zip(act(method, net, parameters), expected, strict=True):
        torch.testing.assert_close(one, two, rtol=0.02, atol=1e-6)


def test_a_wrong_first_vector_is_forgotten():
    model = mlp((4, 6, 2)).double()
    net, parameters = network(model), list(model.parameters())
    method = Spectral(net, 1.0)
    for left in method.left:
        left.copy_(torch.ones_like(left) / len(left) ** 0.5)
    for _ in range(300):
        ours = act(method, net, parameters)
    for one, two in zip(ours, torch.autograd.grad(penalty(parameters, 2), parameters), strict=True):
        torch.testing.assert_close(one, two)


def test_it_alone_brings_singular_values_to_1_and_biases_to_0():
    model = mlp((4, 6, 5, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    net = network(model, optimizer)
    attach(Spectral(net, 1.0), net)
    with torch.no_grad():
        model[0].weight.mul_(3)
    for _ in range(2000):
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
    for linear in net.linears:
        assert torch.linalg.matrix_norm(linear.weight, 2).item() == pytest.approx(1, abs=1e-3)
        assert linear.bias.norm().item() < 0.1  # ||b||^4 is flat near 0


def test_a_weight_that_was_all_zero_is_followed_again():
    model = mlp((4, 6, 2))
    net, parameters = network(model), list(model.parameters())
    method = Spectral(net, 1.0)
    kept = model[0].weight.detach().clone()
    with torch.no_grad():
        model[0].weight.zero_()
    assert all(gradient.isfinite().all() for gradient in act(method, net, parameters))
    with torch.no_grad():
        model[0].weight.copy_(kept)
    assert (act(method, net, parameters)[0] != 0).any()


def test_biases_may_be_left_alone():
    model = mlp()
    weight, bias, *_ = act(Spectral(network(model), 1.0, biases=False), network(model), list(model.parameters()))
    assert (weight != 0).any()
    assert (bias == 0).all()


def test_networks_side_by_side():
    torch.manual_seed(0)
    linear, reader, activation = nn.Linear(4, 3), nn.Linear(3, 1), nn.ReLU()
    for module in (linear, reader):
        module.weight, module.bias = (nn.Parameter(torch.randn(5, *p.shape)) for p in (module.weight, module.bias))
    parameters = [*linear.parameters(), *reader.parameters()]
    layer = HiddenLayer("0", linear, activation, (Reader(reader),))
    net = Network("net", [layer], [torch.optim.SGD(parameters, lr=0.1)])
    total = sum(penalty([p[i] for p in parameters], 2) for i in range(5))
    expected = torch.autograd.grad(total, parameters)
    for one, two in zip(act(Spectral(net, 1.0), net, parameters), expected, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-4)
