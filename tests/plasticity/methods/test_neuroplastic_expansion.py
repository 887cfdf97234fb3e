"""Neuroplastic expansion: how fast it grows, where, and what dormant units lose."""

import math

import pytest
import torch

from plasticity import NeuroplasticExpansion, SettingsError, UnitAdam, attach
from plasticity.methods.neuroplastic_expansion import NeuroplasticExpansionConfig
from plasticity.sparsity import densities
from tests.plasticity.models import mlp, network, train


def mask_of(method):
    return next(iter(method.weights.masks))


def test_the_largest_weights_come_first_and_the_rest_at_a_rate_that_falls_as_a_half_cosine():
    model = mlp((20, 30, 20, 2))
    size = [model[i].weight.detach().abs() for i in (0, 2)]
    optimizer = UnitAdam(model.parameters(), lr=1e-3)
    net = network(model, optimizer)
    method = NeuroplasticExpansion(net, period=5, end=52)
    attach(method, net)
    first, last = densities(net.layers, 0.8, "erk"), densities(net.layers, 0.25, "erk")
    for i, mask in enumerate(method.weights.masks):
        assert int(mask.sum()) == round(first[i] * 600)
        assert size[i][mask].min() >= size[i][~mask].max()
    rates = [1 + math.cos(math.pi * (t + 0.5) / 52) for t in range(52)]  # summed instead of integrated
    for step in range(1, 61):
        train(model, optimizer, 1, seed=step)
        grown = min(52, step - step % 5 if step < 52 else 52)
        for i, (layer, mask) in enumerate(method.weights.of(net)):
            share = first[i] + (last[i] - first[i]) * sum(rates[:grown]) / sum(rates)
            assert abs(int(mask.sum()) - share * 600) <= 1
            assert (layer.weight[~mask] == 0).all()
    assert [int(mask.sum()) for mask in method.weights.masks] == [round(share * 600) for share in last]
    assert (model[4].weight != 0).all()


def test_it_grows_where_the_gradient_is_largest_and_prunes_dormant_units_first():
    model = mlp((4, 3, 1))
    net = network(model)
    method = NeuroplasticExpansion(
        net, initial_sparsity=0.5, sparsity=0.25, prune=0.4, period=1, end=1, distribution="uniform"
    )
    mask = torch.tensor([[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0]]).bool()
    gradient = torch.tensor([[9.0, 0, 2, -7], [0, 0, -6, 0.5], [0, 0, 5, 8]])
    with torch.no_grad():
        mask_of(method).copy_(mask)
        model[0].weight.copy_(torch.tensor([[1.0, -2, 0, 0], [0.5, 0.4, 0, 0], [-3, 0.1, 0, 0]]))
        model[0].weight.grad = gradient.clone()
        # the middle unit is silent; 3 weights are gained, so 0.4 / 0.6 * 3 = 2 may be pruned: both of its own
        net.activations["0"] = torch.tensor([[1.0, 0.0, 2.0], [0.0, 0.0, 1.0]])
        method.before_step(net)
    # 3 + 2 come: gradients 8, 7, 6, 5, 2
    assert mask_of(method).int().tolist() == [[1, 1, 1, 1], [0, 0, 1, 0], [1, 1, 1, 1]]
    assert model[0].weight[1].tolist() == [0, 0, 0, 0]
    assert model[0].weight.grad.tolist() == [[9, 0, 2, -7], [0, 0, -6, 0], [0, 0, 5, 8]]


def test_pruning_is_limited_and_takes_the_smallest_weights():
    model = mlp((4, 3, 1))
    net = network(model)
    method = NeuroplasticExpansion(
        net, initial_sparsity=0.5, sparsity=0.25, prune=0.25, period=1, end=1, distribution="uniform"
    )
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 0], [0, 0, 0, 0]]).bool()
    with torch.no_grad():
        mask_of(method).copy_(mask)
        model[0].weight.copy_(torch.tensor([[3.0, 3, 3, 0], [0.5, -0.4, 0.6, 0], [0, 0, 0, 0]]))
        model[0].weight.grad = torch.tensor([[0.0, 0, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1]])
        net.activations["0"] = torch.tensor([[1.0, 0.0, 1.0]])
        method.before_step(net)  # 3 gained, 1 pruned: -0.4
    assert mask_of(method).int().tolist() == [[1, 1, 1, 1], [1, 0, 1, 0], [1, 1, 1, 0]]


def test_wrong_settings_are_named():
    with pytest.raises(SettingsError, match=r"sparsity must be at most initial_sparsity, 0\.2, got 0\.25"):
        NeuroplasticExpansionConfig(initial_sparsity=0.2)
