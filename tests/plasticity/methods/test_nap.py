"""Normalize-and-Project: norms stay, functions too."""

import copy

import pytest
import torch
from torch import nn

from plasticity import HiddenLayer, NaP, Network, Reader, UnitAdam, attach, build_intervention
from tests.plasticity.models import network, train


def normalised(activation: type[nn.Module] = nn.Tanh) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(4, 6), nn.LayerNorm(6), activation(), nn.Linear(6, 5), nn.LayerNorm(5), activation(), nn.Linear(5, 2)
    )


def norms(model: nn.Sequential) -> list[float]:
    return [float(model[i].weight.detach().square().sum().sqrt()) for i in (0, 3, 6)]


@pytest.mark.parametrize("heads", [False, True])
def test_after_every_step_hidden_weights_have_their_first_norms(heads):
    model = normalised()
    first = norms(model)
    optimizer = UnitAdam(model.parameters(), lr=0.05)
    attach(build_intervention({"nap": {"heads": heads}}, network(model, optimizer), 0), network(model, optimizer))
    for _ in range(5):
        train(model, optimizer, 1)
        assert norms(model)[:2] == pytest.approx(first[:2], rel=1e-6)
        assert (norms(model)[2] == pytest.approx(first[2], rel=1e-6)) == heads
    for i in (1, 4):  # gains and offsets learn as they will
        assert not torch.equal(model[i].weight, torch.ones_like(model[i].weight))


def test_a_projection_changes_no_output_whatever_the_activation():
    model = normalised().double()
    nap = NaP(net := network(model))
    before = copy.deepcopy(model)
    with torch.no_grad():
        for i, factor in ((0, 7.0), (3, 0.3)):
            model[i].weight.mul_(factor), model[i].bias.mul_(factor)
        grown = model(torch.ones(1, 4, dtype=torch.float64))
        nap.after_step(net)
    assert torch.allclose(model[0].weight, before[0].weight, atol=1e-12)
    assert torch.allclose(model[3].bias, before[3].bias, atol=1e-12)
    assert torch.allclose(model(torch.ones(1, 4, dtype=torch.float64)), grown, atol=1e-3)  # the norm's own eps


def test_relative_steps_stay_as_long_as_at_first():
    """The trap it mends: under a norm, the gradient of W shrinks as 1 / |W|."""
    x = torch.randn(16, 4)

    def gradient(factor: float, project: bool) -> torch.Tensor:
        model = normalised()
        nap = NaP(net := network(model))
        with torch.no_grad():
            model[0].weight.mul_(factor), model[0].bias.mul_(factor)
            if project:
                nap.after_step(net)
        model(x).square().sum().backward()
        return model[0].weight.grad

    first = gradient(1.0, project=False)
    assert gradient(10.0, project=False).norm() < 0.2 * first.norm()
    torch.testing.assert_close(gradient(10.0, project=True), first, rtol=1e-4, atol=1e-5)


def test_weights_that_are_all_0_or_were_are_left_alone():
    model = normalised()
    nap = NaP(net := network(model), heads=True)
    with torch.no_grad():
        model[0].weight.zero_()
        nap.after_step(net)
    assert (model[0].weight == 0).all()
    zero = normalised()
    nn.init.zeros_(zero[6].weight)
    nap = NaP(net := network(zero), heads=True)
    with torch.no_grad():
        zero[6].weight.fill_(1.0)
        nap.after_step(net)
    assert (zero[6].weight == 1).all()


def test_convolutions_and_saved_norms():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 2), nn.GroupNorm(1, 3), nn.ReLU(), nn.Conv2d(3, 1, 2))
    nap = NaP(net := network(model))
    first = float(model[0].weight.detach().norm())
    with torch.no_grad():
        model[0].weight.mul_(5)
    other = NaP(network(model))
    other.load_state_dict(nap.state_dict())
    with torch.no_grad():
        other.after_step(net)
    assert float(model[0].weight.detach().norm()) == pytest.approx(first)


def test_networks_side_by_side_keep_each_its_own_norm():
    linear, reader = nn.Linear(3, 4), nn.Linear(4, 1)
    linear.weight, linear.bias = nn.Parameter(torch.randn(2, 4, 3)), nn.Parameter(torch.ones(2, 4))
    reader.weight, reader.bias = nn.Parameter(torch.randn(2, 1, 4)), nn.Parameter(torch.randn(2, 1))
    layer = HiddenLayer("0", linear, nn.ReLU(), (Reader(reader),))
    parameters = [*linear.parameters(), *reader.parameters()]
    nap = NaP(net := Network("net", [layer], [torch.optim.SGD(parameters, lr=0.1)]))
    first = linear.weight.detach().clone()
    with torch.no_grad():
        linear.weight[0].mul_(4)
        nap.after_step(net)
    torch.testing.assert_close(linear.weight.detach(), first)
    assert linear.bias[0].tolist() == [0.25] * 4
    assert linear.bias[1].tolist() == [1] * 4
