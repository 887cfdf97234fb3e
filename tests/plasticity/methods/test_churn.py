"""Churn reduction: the penalty's gradient by hand, what it keeps, and what it leaves alone."""

import copy
import io

import pytest
import torch
from torch import nn

from plasticity import ChurnReduction, ChurnReductionConfig, Network, Reader, UnitAdam, attach, hidden_layers
from tests.plasticity.models import mlp, network, same, train


def batches(count, rows=8, seed=1):
    random = torch.Generator().manual_seed(seed)
    return [torch.randn(rows, 4, generator=random) for _ in range(count)]


def loss_of(model, x):
    return (model(x) - x.sum(1, keepdim=True)).square().mean()


def step(model, optimizer, x):
    optimizer.zero_grad()
    loss_of(model, x).backward()
    optimizer.step()


def test_the_gradient_is_that_of_the_penalty_written_out():
    """At each step: mean (f(x) - f_before(x))^2, f_before the weights one step ago, x the batch two steps ago."""
    strength = 3.0
    model = mlp((4, 6, 2), nn.Tanh).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    churn = ChurnReduction(net := network(model, optimizer), strength)
    attach(churn, net)
    seen, before = [], None
    for t, x in enumerate(batch.double() for batch in batches(6)):
        now = copy.deepcopy(model)
        now.zero_grad()
        loss_of(now, x).backward()
        if t >= 2:
            with torch.no_grad():
                old = before(seen[t - 2])
            penalty = (now(seen[t - 2]) - old).square().sum() / old.numel()
            (strength * penalty).backward()
        optimizer.zero_grad()
        loss_of(model, x).backward()
        optimizer.step()
        for own, expected in zip(model.parameters(), now.parameters(), strict=True):
            assert torch.allclose(own.grad, expected.grad, atol=1e-12)
        if t >= 2:
            assert churn.telemetry()["churn_penalty"] == pytest.approx(float(penalty.detach()))
            assert churn.telemetry()["churn_penalty"] > 0
        seen.append(x)
        before = copy.deepcopy(now)


def test_less_churn_with_it_than_without():
    """Mean squared change of the outputs on other inputs, at one step, over the last half of a run."""

    def churned(strength):
        model = mlp((4, 16, 2), nn.Tanh)
        optimizer = UnitAdam(model.parameters(), lr=0.01)
        net = network(model, optimizer)
        attach(ChurnReduction(net, strength), net)
        other = torch.randn(100, 4, generator=torch.Generator().manual_seed(9))
        moved = []
        for x in batches(200):
            with torch.no_grad():
                before = model(other)
            step(model, optimizer, x)
            with torch.no_grad():
                moved.append(float((model(other) - before).square().mean()))
        return sum(moved[100:])

    assert churned(50.0) < 0.8 * churned(0.0)


def test_what_the_network_last_did_stays_recorded():
    model = mlp((4, 6, 2))
    optimizer = UnitAdam(model.parameters())
    net = network(model, optimizer)
    attach(ChurnReduction(net), net)
    for x in batches(4):
        step(model, optimizer, x)
        assert torch.equal(net.inputs, x)
        assert net.activations["0"].shape == (8, 6)
    with torch.no_grad():
        model[0].weight.zero_(), model[0].bias.fill_(1.0)
    step(model, optimizer, batches(1)[0])
    assert (net.activations["0"] == 1).all()


def test_a_run_resumes_bit_for_bit_also_with_batches_of_other_sizes():
    def begun(seed=0):
        model = mlp((4, 6, 2), nn.Tanh, seed=seed)
        optimizer = UnitAdam(model.parameters(), lr=0.01)
        net = network(model, optimizer)
        churn = ChurnReductionConfig(5.0).build(net, 0)
        attach(churn, net)
        return model, optimizer, churn

    one, two = begun(), begun(seed=4)
    for x in batches(3) + batches(1, rows=5):
        step(*one[:2], x)
    train(*two[:2], 3, batch=2)
    file = io.BytesIO()
    torch.save([part.state_dict() for part in one], file)
    file.seek(0)
    for part, saved in zip(two, torch.load(file, weights_only=True), strict=True):
        part.load_state_dict(saved)
    assert [buffer.shape[0] for buffer in two[2].buffers() if buffer.dim()] == [5, 8, 8]
    for model, optimizer, _ in (one, two):
        for x in batches(3, seed=7):
            step(model, optimizer, x)
    assert same(one[0], two[0])


def test_the_kept_batch_is_a_copy():
    model = mlp((4, 6, 2))
    optimizer = UnitAdam(model.parameters())
    churn = ChurnReduction(net := network(model, optimizer))
    attach(churn, net)
    x = torch.ones(3, 4)
    step(model, optimizer, x)
    x.zero_()
    assert (churn.latest == 1).all()


def test_frozen_weights_norms_and_all_heads():
    torch.manual_seed(0)
    body = nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Tanh())
    mu, log_std = nn.Linear(6, 2), nn.Linear(6, 2)
    body[0].bias.requires_grad_(False)
    parameters = [p for m in (body, mu, log_std) for p in m.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=0.1)
    net = Network("actor", hidden_layers(body, [mu, log_std]), [optimizer])
    churn = ChurnReduction(net, 100.0)
    for x in batches(4):
        optimizer.zero_grad()
        mu(body(x)).square().mean().backward()
        log_std.weight.grad, log_std.bias.grad = torch.zeros(2, 6), torch.zeros(2)
        gains = body[1].weight.grad.clone()
        with torch.no_grad():
            log_std.weight.add_(0.1)  # its outputs churn too
            churn.before_step(net)
        optimizer.step()
    assert torch.equal(body[1].weight.grad, gains)
    assert body[0].bias.grad is None
    assert log_std.weight.grad.abs().max() > 0


def test_convolutions_and_heads_that_read_other_things():
    model = nn.Sequential(nn.Conv2d(1, 3, 2), nn.ReLU(), nn.Conv2d(3, 2, 2))
    optimizer = UnitAdam(model.parameters())
    churn = ChurnReduction(net := network(model, optimizer))
    attach(churn, net)
    for x in torch.randn(4, 5, 1, 4, 4):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
    assert churn.telemetry()["churn_penalty"] > 0
    body, q = nn.Sequential(nn.Linear(3, 4), nn.ReLU()), nn.Linear(4 + 2, 1)
    optimizer = UnitAdam([*body.parameters(), *q.parameters()])
    with pytest.raises(ValueError, match="reads other things too"):
        ChurnReductionConfig().build(Network("q", hidden_layers(body, [Reader(q)]), [optimizer]), 0)
