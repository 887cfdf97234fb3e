"""What holds for every method of the registry."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from plasticity import (
    METHODS,
    Chain,
    Network,
    UnitAdam,
    attach,
    build_intervention,
    hidden_layers,
    network_options,
    rebuild,
)
from tests.plasticity.models import mlp, same, train
from tests.plasticity.rows import ROWS


@dataclass
class Trained:
    """A small network that was trained with a method.

    log_std and outside: parameters of the same optimizer; the first belongs to the network, the second does not.
    """

    model: nn.Module
    optimizer: UnitAdam
    intervention: Chain
    network: Network
    log_std: nn.Parameter
    outside: nn.Parameter


def run(method, settings, steps=10, seed=0, model=None):
    model = mlp((4, 6, 4, 2), nn.Tanh) if model is None else model
    methods = {method: settings} if method else None
    options = network_options(methods)
    log_std, outside = nn.Parameter(torch.full((2,), 0.5)), nn.Parameter(torch.full((3,), 0.5))
    log_std.grad, outside.grad = torch.zeros(2), torch.zeros(3)
    betas = options.betas or (0.9, 0.999)
    optimizer = UnitAdam([*model.parameters(), log_std, outside], lr=0.01, betas=betas)
    net = Network("net", hidden_layers(model), [optimizer], log_std=[log_std])
    if options.rebuild:
        rebuild(model, [net], options)
        net.close()
        net = Network("net", hidden_layers(model), [optimizer], log_std=[log_std])
    intervention = build_intervention(methods, net, seed)
    attach(intervention, net)
    intervention.notice_change()
    train(model, optimizer, steps)
    return Trained(model, optimizer, intervention, net, log_std, outside)


def test_every_method_has_its_row():
    assert set(ROWS) == set(METHODS)


@pytest.mark.parametrize("method", METHODS)
def test_strength_zero_is_the_identity_bit_for_bit(method):
    if ROWS[method].identity is None:
        pytest.skip("a choice of architecture or optimizer has no strength")
    assert same(run(method, ROWS[method].identity).model, run(None, {}).model)


@pytest.mark.parametrize("method", METHODS)
def test_active_it_changes_the_network_and_nothing_outside_it(method):
    trained, plain = run(method, ROWS[method].active), run(None, {})
    shapes = [[p.shape for p in one.model.parameters()] for one in (trained, plain)]
    assert shapes[0] != shapes[1] or not same(trained.model, plain.model)
    assert (trained.outside == 0.5).all()
    assert (trained.log_std == 0.5).all()  # left alone unless asked


@pytest.mark.parametrize("method", METHODS)
def test_normalisation_gains_are_left_alone_but_for_those_of_new_units(method):
    if network_options(method).layer_norm:
        pytest.skip("it brings its own")
    model = nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Tanh(), nn.Linear(6, 2))
    model[1].requires_grad_(False)
    model[1].weight.fill_(2.0), model[1].bias.fill_(3.0)
    trained = run(method, ROWS[method].active, model=model)
    norm = next(layer.norm for layer in trained.network.layers)
    assert ((norm.weight == 2) | (norm.weight == 1)).all()
    assert ((norm.bias == 3) | (norm.bias == 0)).all()


SPARSE = {"magnitude_pruning", "rigl", "neuroplastic_expansion"}


@pytest.mark.parametrize("method", sorted(set(METHODS) - SPARSE - {"plasticity_injection"}))
@pytest.mark.parametrize("frozen", [(0,), (2,), (0, 2, 4)])
def test_frozen_layers_stay_as_they_are(method, frozen):
    model = mlp((4, 6, 4, 2), nn.Tanh)
    for place in frozen:
        model[place].requires_grad_(False)
    trained = run(method, ROWS[method].active, steps=0, model=model)  # has its architecture now
    before = [p.detach().clone() for p in model.parameters()]
    for _ in range(10):
        trained.optimizer.zero_grad()
        loss = model(torch.ones(8, 4)).square().mean()
        if loss.requires_grad:
            loss.backward()
        trained.optimizer.step()
    pairs = zip(before, model.parameters(), strict=True)
    same_as_before = [torch.equal(old, p) for old, p in pairs if not p.requires_grad]
    assert len(same_as_before) >= 2 * len(frozen)
    assert all(same_as_before)


@pytest.mark.parametrize("method", METHODS)
def test_every_parameter_that_needs_gradients_is_in_the_optimizer_and_moves(method):
    before, trained = run(method, ROWS[method].active, steps=0), run(method, ROWS[method].active)
    held = {id(p) for group in trained.optimizer.param_groups for p in group["params"]}
    for one, two in zip(before.model.parameters(), trained.model.parameters(), strict=True):
        assert id(two) in held
        assert not torch.equal(one, two)


@pytest.mark.parametrize("method", METHODS)
def test_the_same_seed_repeats_and_another_one_does_not(method):
    row = ROWS[method]
    assert same(run(method, row.active, seed=1).model, run(method, row.active, seed=1).model)
    assert same(run(method, row.active, seed=1).model, run(method, row.active, seed=2).model) != row.random


@pytest.mark.parametrize("method", METHODS)
def test_the_global_random_stream_is_untouched(method):
    model = mlp((4, 6, 4, 2), nn.Tanh)
    torch.manual_seed(9)
    before = torch.get_rng_state()
    run(method, ROWS[method].active, model=model)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("method", METHODS)
def test_state_survives_save_and_load(method, tmp_path):
    one = run(method, ROWS[method].active, steps=7)
    two = run(method, ROWS[method].active, steps=0, seed=5)
    for part in ("model", "optimizer", "intervention"):
        torch.save(getattr(one, part).state_dict(), tmp_path / part)
        getattr(two, part).load_state_dict(torch.load(tmp_path / part, weights_only=True))
    for trained in (one, two):
        trained.intervention.notice_change()
        train(trained.model, trained.optimizer, 7, seed=3)
    assert same(one.model, two.model)
    assert one.intervention.telemetry() == two.intervention.telemetry()


@settings(max_examples=60, deadline=None)
@given(data=st.data(), name=st.sampled_from(sorted(METHODS)), sizes=st.lists(st.integers(1, 3), min_size=2, max_size=5))
def test_any_shape_of_network_stays_finite_and_in_its_optimizer(data, name, sizes):
    activation = data.draw(st.sampled_from([nn.ReLU, nn.Tanh, nn.GELU, nn.LeakyReLU]))
    model = mlp((3, *(2 * size for size in sizes), 2), activation)
    trained = run(name, ROWS[name].active, steps=8, model=model, seed=data.draw(st.integers(0, 2**31)))
    assert all(torch.isfinite(p).all() for p in trained.model.parameters())
    held = {id(p) for group in trained.optimizer.param_groups for p in group["params"]}
    assert {id(p) for p in trained.model.parameters()} <= held


@pytest.mark.parametrize("method", [name for name, config in METHODS.items() if "init" in config.__dataclass_fields__])
def test_the_scale_of_fresh_weights_is_that_of_the_saved_network(method):
    options = ROWS[method].active | {"init": "network"}
    one = run(method, options, steps=2)
    wide = mlp((4, 6, 4, 2), nn.Tanh)
    with torch.no_grad():
        for parameter in wide.parameters():
            parameter.mul_(50)
    two = run(method, options, steps=0, model=wide)
    for part in ("model", "optimizer", "intervention"):
        getattr(two, part).load_state_dict(copy.deepcopy(getattr(one, part).state_dict()))
    for trained in (one, two):
        train(trained.model, trained.optimizer, 8, seed=3)
    assert same(one.model, two.model)
