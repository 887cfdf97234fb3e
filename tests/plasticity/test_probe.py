"""The plasticity probe: what it must tell apart, and that it leaves no trace."""

import math

import pytest
import torch
from torch import nn

from plasticity import CReLU, HiddenLayer, ProbeResult, Reader, copied, hidden_layers, plasticity_probe
from plasticity.probe import Randomness, _fit, _random_functions
from tests.plasticity.models import mlp, network

ROWS = torch.randn(256, 5, generator=torch.Generator().manual_seed(0))
SHORT = {"targets": 2, "steps": 30}


def layers(activation=nn.ReLU, seed=0):
    return hidden_layers(mlp((5, 32, 32, 1), activation, seed))


def test_the_gap_is_that_of_log_losses():
    result = ProbeResult(trained=torch.tensor([0.5, 0.2]), fresh=torch.tensor([0.25, 0.1]))
    assert result.gap == pytest.approx(math.log(2))
    assert result.metrics() == {
        "plasticity_gap": pytest.approx(math.log(2)),
        "fit_loss": pytest.approx(0.35),
        "fresh_fit_loss": pytest.approx(0.175),
    }


def test_the_first_weights_have_no_gap_and_others_like_them_hardly_any():
    first = layers()
    assert plasticity_probe(first, ROWS, fresh=copied(first)).gap == 0
    result = plasticity_probe(first, ROWS, fresh=copied(layers(seed=1)))
    assert 0 < result.fresh.max() < 0.9  # functions are learned
    assert abs(result.gap) < 0.2


def test_dead_units_and_collapsed_features_lose_plasticity():
    for damage in (kill_most, collapse):
        broken = layers()
        damage(broken)
        assert plasticity_probe(broken, ROWS, fresh=copied(layers())).gap > 0.25, damage


@torch.no_grad()
def kill_most(broken):
    for layer in broken:
        layer.bias[4:] = -100.0


@torch.no_grad()
def collapse(broken):
    broken[0].weight[1:] = broken[0].weight[0]
    broken[0].bias[1:] = broken[0].bias[0]


def test_a_dead_network_learns_nothing():
    dead = layers()
    with torch.no_grad():
        dead[0].weight.zero_()
        dead[0].bias.fill_(-1.0)
        dead[1].bias.fill_(-1.0)
    assert plasticity_probe(dead, ROWS, **SHORT).trained.tolist() == pytest.approx([1.0, 1.0], abs=0.05)


def test_functions_are_standardised_differ_and_depend_on_the_seed_alone():
    one, two = (_random_functions(ROWS, 3, Randomness(seed, "x")) for seed in (0, 1))
    assert torch.allclose(one.mean(-1), torch.zeros(3, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(one.var(-1, correction=0), torch.ones(3, dtype=torch.float64))
    assert torch.equal(one, _random_functions(ROWS, 3, Randomness(0, "x")))
    every = torch.corrcoef(torch.cat([one, two]))
    assert (every - torch.eye(6)).abs().max() < 0.9
    line = torch.cat([ROWS.double(), torch.ones(256, 1).double()], 1)
    rest = one.T - line @ torch.linalg.lstsq(line, one.T).solution
    assert (rest.square().mean(0) > 0.05).all()  # no linear function of the inputs


def test_fitting_is_adam_on_the_mean_squared_error():
    first, targets = layers(nn.Tanh), torch.randn(2, 256, generator=torch.Generator().manual_seed(1))
    order = torch.randint(256, (10, 16), generator=torch.Generator().manual_seed(2))
    found = _fit([copied(first), copied(layers(nn.Tanh, 1))], ROWS, targets, order, 1e-3)
    for seed, wanted, loss in zip((0, 1), targets, found, strict=True):
        model = mlp((5, 32, 32, 1), nn.Tanh, seed)
        nn.init.zeros_(model[-1].weight)
        nn.init.zeros_(model[-1].bias)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        for rows in order:
            optimizer.zero_grad()
            (model(ROWS[rows]).squeeze(-1) - wanted[rows]).square().mean().backward()
            optimizer.step()
        assert float(loss) == pytest.approx((model(ROWS).squeeze(-1) - wanted).square().mean().item(), rel=1e-4)


def test_it_leaves_no_trace():
    model = mlp((5, 32, 32, 1))
    net = network(model)
    model(ROWS[:7]).sum().backward()
    recorded = {name: h.clone() for name, h in net.activations.items()}
    before = [(p.clone(), p.grad.clone()) for p in model.parameters()]
    stream = torch.get_rng_state()
    with torch.no_grad():
        plasticity_probe(net.layers, ROWS, **SHORT)
    assert torch.equal(torch.get_rng_state(), stream)
    for parameter, (value, gradient) in zip(model.parameters(), before, strict=True):
        assert torch.equal(parameter, value)
        assert torch.equal(parameter.grad, gradient)
    assert all(torch.equal(h, recorded[name]) for name, h in net.activations.items())
    assert not net.layers[0].weight.grad_fn


def test_copies_call_nobody_s_hooks():
    model, calls = mlp((5, 32, 32, 1)), []
    model[0].register_forward_hook(lambda *_: calls.append("forward"))
    model[0].register_forward_pre_hook(lambda *_: calls.append("before"))
    model[3].register_full_backward_hook(lambda *_: calls.append("backward"))
    plasticity_probe(hidden_layers(model), ROWS, **SHORT)
    assert calls == []
    model(ROWS)
    assert calls == ["before", "forward"]


def test_the_same_question_has_the_same_answer():
    one, two, other = (plasticity_probe(layers(), ROWS, seed=seed, **SHORT) for seed in (0, 0, 1))
    assert torch.equal(one.trained, two.trained)
    assert torch.equal(one.fresh, two.fresh)
    assert not torch.equal(one.trained, other.trained)


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(nn.Linear(5, 8), nn.LayerNorm(8), CReLU(), nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 1)),
        nn.Sequential(
            *(nn.Conv2d(1, 4, 3), nn.GroupNorm(1, 4), nn.ReLU(), nn.Flatten()),
            *(nn.Linear(64, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 2)),
        ),
    ],
)
@pytest.mark.parametrize("fresh", [True, False])
def test_norms_doubled_activations_and_convolutions(model, fresh):
    described = hidden_layers(model)
    shape = (5,) if isinstance(model[0], nn.Linear) else (1, 6, 6)
    inputs = torch.randn(128, *shape, generator=torch.Generator().manual_seed(0))
    assert torch.equal(copied(described)(inputs), model[:-1](inputs))
    result = plasticity_probe(described, inputs, fresh=copied(described) if fresh else None, targets=1, steps=10)
    assert 0 < result.trained.item() < 1.1
    assert (result.gap == 0) is fresh


def test_frozen_parameters_stay_frozen():
    first = layers()
    for layer in first:
        layer.weight.requires_grad_(False)
        layer.bias.requires_grad_(False)
    free = plasticity_probe(layers(), ROWS, fresh=copied(layers()), **SHORT)
    bound = plasticity_probe(first, ROWS, fresh=copied(first), **SHORT)
    assert bound.trained.mean() > free.trained.mean() + 0.02


def test_constant_inputs_have_no_functions_to_fit():
    assert plasticity_probe(layers(), torch.ones(64, 5), fresh=copied(layers()), **SHORT).gap == 0


def test_networks_side_by_side_are_refused():
    side = nn.Module()
    side.weight, side.bias = nn.Parameter(torch.zeros(3, 4, 5)), nn.Parameter(torch.zeros(3, 4))
    with pytest.raises(ValueError, match="fits one network at a time"):
        plasticity_probe([HiddenLayer("0", side, nn.ReLU(), (Reader(nn.Linear(4, 1)),))], ROWS)
