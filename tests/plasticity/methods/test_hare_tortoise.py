"""Hare and Tortoise: a running mean by hand, a return every `period` steps, and two storages that stay two."""

import pytest
import torch
from torch import nn

from plasticity import HareTortoise, Network, attach, hidden_layers
from tests.plasticity.models import mlp, network


def stepper(momentum, period):
    """A model that moves by +1 in every parameter at each call; returns it, the call and the method."""
    model = mlp((3, 2, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    net = network(model, optimizer)
    method = HareTortoise(net, momentum, period=period)
    attach(method, net)

    def step():
        for parameter in model.parameters():
            parameter.grad = -torch.ones_like(parameter)
        optimizer.step()

    return model, step, method


def test_by_hand():
    model, step, method = stepper(momentum=0.75, period=3)
    first = model[0].weight.detach().clone()
    slow = next(iter(method.slow))
    fast_by_hand, slow_by_hand = 0.0, 0.0
    for t in range(1, 8):
        step()
        fast_by_hand += 1
        slow_by_hand = 0.75 * slow_by_hand + 0.25 * fast_by_hand
        if t % 3 == 0:
            fast_by_hand = slow_by_hand
        torch.testing.assert_close(model[0].weight.detach(), first + fast_by_hand)
        torch.testing.assert_close(slow, first + slow_by_hand)


def test_the_two_share_no_storage_ever():
    model, step, method = stepper(momentum=0.9, period=1)
    for _ in range(3):
        storages = {parameter.data_ptr() for parameter in model.parameters()}
        assert not storages & {slow.data_ptr() for slow in method.slow}
        step()
        kept = [slow.clone() for slow in method.slow]
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(5)  # the reference code's slow copy would follow
        assert all(torch.equal(a, b) for a, b in zip(kept, method.slow, strict=True))


def test_optimizer_states_are_kept_and_log_std_is_left_alone():
    model, log_std = mlp(), nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.Adam([*model.parameters(), log_std], lr=0.1)
    net = Network("n", hidden_layers(model), [optimizer], log_std=[log_std])
    attach(HareTortoise(net, 0.5, period=1), net)
    for parameter in (*model.parameters(), log_std):
        parameter.grad = torch.ones_like(parameter)
    before = model[0].weight.detach().clone()
    optimizer.step()
    torch.testing.assert_close(model[0].weight.detach(), before - 0.05)
    torch.testing.assert_close(log_std.detach(), torch.full((2,), -0.1))
    state = optimizer.state[model[0].weight]
    assert (state["exp_avg"] != 0).all()
    assert int(state["step"]) == 1


def test_normalisation_gains_return_with_the_weights():
    model = nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Tanh(), nn.Linear(6, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    net = network(model, optimizer)
    attach(HareTortoise(net, 0.75, period=2), net)
    for _ in range(2):
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
    # fast -1, -2; slow -.25, -.6875
    torch.testing.assert_close(model[1].weight.detach(), torch.full((6,), 1 - 0.6875))


@pytest.mark.parametrize("saved_after", [1, 2])
def test_the_count_of_steps_is_saved(saved_after):
    model, step, method = stepper(momentum=0.5, period=3)
    for _ in range(saved_after):
        step()
    other, other_step, loaded = stepper(momentum=0.5, period=3)
    other.load_state_dict(model.state_dict())
    loaded.load_state_dict(method.state_dict())
    for _ in range(4):
        step(), other_step()
        assert torch.equal(model[0].weight, other[0].weight)
