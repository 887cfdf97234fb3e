"""UPGD: with SGD the paper's update, with Adam Adaptive UPGD, both written out here; the maximum is bias-corrected."""

import pytest
import torch
from torch import nn

from plasticity import UPGD, HiddenLayer, Network, Randomness, Reader, UnitAdam, attach, hidden_layers
from tests.plasticity.models import mlp, network, same, train

LR, SIGMA, DECAY = 0.05, 0.3, 0.9


def written_out(steps, adaptive, protect):
    """The same training by the paper's formulas in float64, with explicit bias corrections."""
    model = mlp().double()
    parameters = [p for linear in (model[0], model[2], model[4]) for p in (linear.weight,)]
    parameters += [linear.bias for linear in (model[0], model[2], model[4])]
    random, noise = torch.Generator().manual_seed(1), Randomness(5, "net", "upgd")
    means = [[torch.zeros_like(p) for _ in range(3)] for p in parameters]
    for t in range(1, steps + 1):
        x = torch.randn(8, 4, generator=random).double()
        loss = (model(x) - x.sum(1, keepdim=True)).square().mean()
        gradients = torch.autograd.grad(loss, parameters)
        for parameter, g, (u, m, v) in zip(parameters, gradients, means, strict=True):
            u.copy_(DECAY * u + (1 - DECAY) * -g * parameter.detach())
            m.copy_(0.9 * m + 0.1 * g), v.copy_(0.999 * v + 0.001 * g**2)
        largest = max(float((u / (1 - DECAY**t)).max()) for u, _, _ in means)
        for parameter, g, (u, m, v) in zip(parameters, gradients, means, strict=True):
            gate = 1 - torch.sigmoid(u / (1 - DECAY**t) / largest)
            step = (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-8) if adaptive else g
            xi = noise.normal(*parameter.shape, std=SIGMA).double()
            with torch.no_grad():
                parameter -= LR * (step * (gate if protect else 1) + xi * gate)
    return model


@pytest.mark.parametrize("protect", [True, False])
@pytest.mark.parametrize("adaptive", [True, False])
def test_it_is_the_update_of_the_paper(adaptive, protect):
    model = mlp().double()
    optimizer = (torch.optim.Adam if adaptive else torch.optim.SGD)(model.parameters(), lr=LR)
    net = network(model, optimizer)
    attach(UPGD(net, SIGMA, decay=DECAY, protect=protect, seed=5), net)
    train(model, optimizer, 20)
    for one, two in zip(model.parameters(), written_out(20, adaptive, protect).parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-9)


def single(weight=(2.0, -1.0, 0.0)):
    """One unit of three weights under an output weight without gradient."""
    model = nn.Sequential(nn.Linear(3, 1, bias=False), nn.ReLU(), nn.Linear(1, 1, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([weight]))
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    return model, optimizer, network(model, optimizer)


@pytest.mark.parametrize("decay", [0.0, 0.999])
def test_the_first_step_by_hand_whatever_the_decay(decay):
    """Without bias correction of the maximum, decay .999 would saturate the sigmoid at the first step."""
    model, optimizer, net = single()
    attach(UPGD(net, 0.0, decay=decay), net)
    model[0].weight.grad = torch.tensor([[-1.0, -1.0, -1.0]])  # utilities 2, -1, 0, scaled 1, -1/2, 0
    optimizer.step()
    steps = 1 - torch.sigmoid(torch.tensor([[1.0, -0.5, 0.0]]))
    torch.testing.assert_close(model[0].weight.detach(), torch.tensor([[2.0, -1.0, 0.0]]) + steps)


def test_where_no_weight_is_useful_none_is_protected():
    model, optimizer, net = single()
    attach(UPGD(net, 0.0, decay=0.0), net)
    model[0].weight.grad = torch.tensor([[1.0, -1.0, 1.0]])  # utilities -2, -1, 0
    optimizer.step()
    torch.testing.assert_close(model[0].weight.detach(), torch.tensor([[1.0, 0.0, -0.5]]))


def test_a_parameter_without_gradient_gets_no_noise_and_nothing_outside_does():
    model, optimizer, net = single()
    untouched = model[2].weight.detach().clone()
    attach(UPGD(net, 10.0), net)
    model[0].weight.grad = torch.zeros_like(model[0].weight)
    optimizer.step()
    assert (model[0].weight != torch.tensor([[2.0, -1.0, 0.0]])).all()
    assert torch.equal(model[2].weight, untouched)


def test_noise_has_its_size():
    model = mlp((200, 100, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    net = network(model, optimizer)
    attach(UPGD(net, 0.5), net)
    before = model[0].weight.detach().clone()
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert (model[0].weight - before).std().item() == pytest.approx(0.1 * 0.5 * 0.5, rel=0.02)


def test_norms_and_log_std_take_the_optimizers_step():
    models = [nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Tanh(), nn.Linear(6, 2)) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    for place, model in enumerate(models):
        log_std = nn.Parameter(torch.zeros(2))
        optimizer = UnitAdam([*model.parameters(), log_std], lr=0.01)
        net = Network("n", hidden_layers(model), [optimizer], log_std=[log_std])
        if place:
            attach(UPGD(net, 1.0), net)
        log_std.grad = torch.ones(2)
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        torch.testing.assert_close(log_std.detach(), torch.full((2,), -0.01))
    assert same(models[0][1], models[1][1])
    assert not same(models[0][0], models[1][0])


def test_networks_side_by_side_have_each_its_own_maximum():
    linear, reader, activation = nn.Linear(3, 1, bias=False), nn.Linear(1, 1, bias=False), nn.ReLU()
    linear.weight = nn.Parameter(torch.tensor([[[2.0, -1.0, 0.0]], [[20.0, -10.0, 0.0]]]))
    reader.weight = nn.Parameter(torch.ones(2, 1, 1))
    optimizer = torch.optim.SGD([linear.weight, reader.weight], lr=1.0)
    net = Network("n", [HiddenLayer("0", linear, activation, (Reader(reader),))], [optimizer])
    attach(UPGD(net, 0.0, decay=0.0), net)
    before = linear.weight.detach().clone()
    linear.weight.grad = torch.full_like(linear.weight, -1)
    optimizer.step()
    steps = 1 - torch.sigmoid(torch.tensor([[1.0, -0.5, 0.0]]))
    torch.testing.assert_close(linear.weight.detach() - before, steps.expand(2, 1, 3))
