"""L2-Init adds the gradient of lambda / 2 * ||theta - theta_0||^2, theta_0 taken before the first step and saved."""

import copy

import pytest
import torch
from torch import nn

from plasticity import HiddenLayer, L2Init, Network, Reader, UnitAdam, attach
from tests.plasticity.models import mlp, network, same, train


@pytest.fixture
def convolutional():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2))


def test_it_is_the_gradient_of_the_penalty(convolutional):
    method = L2Init(network(convolutional), 0.3)
    first = copy.deepcopy(convolutional)
    with torch.no_grad():
        for parameter in convolutional.parameters():
            parameter.add_(torch.randn_like(parameter))
    pairs = list(zip(convolutional.parameters(), first.parameters(), strict=True))
    (0.3 / 2 * sum((p - p0.detach()).square().sum() for p, p0 in pairs)).backward()
    expected = [parameter.grad.clone() for parameter in convolutional.parameters()]
    convolutional.zero_grad(set_to_none=False)
    with torch.no_grad():
        method.before_step(network(convolutional))
    for parameter, gradient in zip(convolutional.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


def test_training_with_it_is_training_on_the_loss_with_the_penalty():
    ours, theirs = mlp(), mlp()
    first = [parameter.detach().clone() for parameter in theirs.parameters()]
    optimizer, stock = UnitAdam(ours.parameters(), lr=0.01), torch.optim.Adam(theirs.parameters(), lr=0.01)
    net = network(ours, optimizer)
    attach(L2Init(net, 0.1), net)
    train(ours, optimizer, 20)
    random = torch.Generator().manual_seed(1)
    for _ in range(20):
        x = torch.randn(8, 4, generator=random)
        penalty = sum((p - p0).square().sum() for p, p0 in zip(theirs.parameters(), first, strict=True))
        stock.zero_grad()
        ((theirs(x) - x.sum(1, keepdim=True)).square().mean() + 0.1 / 2 * penalty).backward()
        stock.step()
    for one, two in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, two)


def test_the_first_weights_are_its_own_and_saved():
    model = mlp()
    method = L2Init(network(model))
    first = [parameter.detach().clone() for parameter in network(model).parameters()]
    later = mlp(seed=1)
    loaded = L2Init(network(later))
    loaded.load_state_dict(method.state_dict())
    with torch.no_grad():
        for parameter in (*model.parameters(), *later.parameters()):
            parameter.zero_()
    for one, two, three in zip(method.initial, loaded.initial, first, strict=True):
        assert torch.equal(one, three)
        assert torch.equal(two, three)


def test_without_gradients_it_goes_back_to_the_first_weights():
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    net = network(model, optimizer)
    attach(L2Init(net, 1.0), net)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
    for _ in range(50):
        optimizer.zero_grad(set_to_none=False)
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
    for one, two in zip(model.parameters(), mlp().parameters(), strict=True):
        torch.testing.assert_close(one, two)


def test_biases_may_be_left_alone_and_parameters_without_gradients_are():
    model = mlp()
    method = L2Init(network(model), 0.5, biases=False)
    before = copy.deepcopy(model)
    with torch.no_grad():
        method.before_step(network(model))
    assert same(model, before)
    assert all(parameter.grad is None for parameter in model.parameters())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
            parameter.add_(1)
        method.before_step(network(model))
    torch.testing.assert_close(model[0].weight.grad, torch.full_like(model[0].weight, 0.5))
    assert (model[0].bias.grad == 0).all()


def test_networks_side_by_side():
    linear, reader, activation = nn.Linear(4, 3), nn.Linear(3, 1), nn.ReLU()
    for module in (linear, reader):
        module.weight, module.bias = (
            nn.Parameter(torch.randn(5, *part.shape)) for part in (module.weight, module.bias)
        )
    layer = HiddenLayer("0", linear, activation, (Reader(reader),))
    parameters = [*linear.parameters(), *reader.parameters()]
    net = Network("net", [layer], [torch.optim.SGD(parameters, lr=0.1)])
    method = L2Init(net, 0.5)
    with torch.no_grad():
        for parameter in parameters:
            parameter.grad = torch.zeros_like(parameter)
            parameter += torch.arange(5.0).view(5, *(1,) * (parameter.dim() - 1))
        method.before_step(net)
    for parameter in parameters:
        expected = 0.5 * torch.arange(5.0).view(5, *(1,) * (parameter.dim() - 1)).expand_as(parameter)
        torch.testing.assert_close(parameter.grad, expected)
