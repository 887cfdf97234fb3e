"""Methods that are a choice: they check that the network was made so, and then do nothing."""

import pytest
import torch
from torch import nn

from plasticity import (
    CReLU,
    Fourier,
    Idle,
    Network,
    SettingsError,
    UnitAdam,
    hidden_layers,
    method_config,
    network_options,
    rebuild,
)
from tests.plasticity.models import mlp, network


def built(name, settings=None, betas=None):
    model = mlp((4, 6, 2))
    options = network_options({name: settings or {}})
    optimizer = UnitAdam(model.parameters(), betas=betas or options.betas or (0.9, 0.999))
    net = network(model, optimizer)
    if options.rebuild:
        rebuild(model, [net], options)
        net = network(model, optimizer)
    return method_config(name, settings).build(net, 0)


@pytest.mark.parametrize("name", ["crelu", "fourier", "layer_norm", "ns"])
def test_on_the_network_they_ask_for_they_are_idle(name):
    method = built(name)
    assert isinstance(method, Idle)
    assert method.state_dict() == {}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("crelu", r"crelu needs activation CReLU, but layer '0' has ReLU\(\); make the network .*rebuild"),
        ("fourier", r"fourier needs activation Fourier, but layer '0' has ReLU\(\)"),
        ("layer_norm", r"layer_norm needs every layer normalised, but layer '0' is not"),
        ("nap", r"nap needs every layer normalised, but layer '0' is not"),
        ("ns", r"ns needs Adam with betas \(0.99, 0.99\), but UnitAdam has \(0.9, 0.999\)"),
    ],
)
def test_on_another_network_they_say_what_to_do(name, words):
    model = mlp((4, 6, 2))
    with pytest.raises(ValueError, match=f"network 'net': {words}"):
        method_config(name).build(network(model, UnitAdam(model.parameters())), 0)


def test_target_networks_are_looked_at_too():
    online, target = nn.Sequential(nn.Linear(3, 4), CReLU(), nn.Linear(8, 1)), mlp((3, 4, 1))
    optimizer = UnitAdam(online.parameters())
    net = Network("q", hidden_layers(online), [optimizer], twins=hidden_layers(target))
    with pytest.raises(ValueError, match=r"needs activation CReLU, but layer '0' has ReLU"):
        method_config("crelu").build(net, 0)


def test_equal_betas_are_those_asked_for_in_every_optimizer_and_adam_s():
    assert network_options({"ns": {"beta": 0.95}}).betas == (0.95, 0.95)
    with pytest.raises(ValueError, match=r"betas \(0.95, 0.95\), but UnitAdam has \(0.99, 0.99\)"):
        built("ns", {"beta": 0.95}, betas=(0.99, 0.99))
    model = mlp((4, 6, 2))
    good, bad = UnitAdam(model[0].parameters(), betas=(0.99, 0.99)), UnitAdam(model[2].parameters())
    with pytest.raises(ValueError, match="but UnitAdam has"):
        method_config("ns").build(Network("net", hidden_layers(model), [good, bad]), 0)
    with pytest.raises(ValueError, match="but SGD has none"):
        method_config("ns").build(network(mlp((4, 6, 2))), 0)
    with pytest.raises(SettingsError, match=r"beta must be in \[0, 1\), got 1"):
        method_config("ns", {"beta": 1})
    with pytest.raises(SettingsError, match=r'unknown setting "betas".*did you mean "beta"'):
        method_config("ns", {"betas": [0.9, 0.9]})


def test_a_fourier_network_is_never_flat_in_a_unit():
    z = torch.linspace(-20, 20, 1001, requires_grad=True)
    gradients = (
        torch.autograd.grad(Fourier()(z[:, None])[:, 0].sum(), z)[0],
        torch.autograd.grad(Fourier()(z[:, None])[:, 1].sum(), z)[0],
    )
    assert torch.allclose(gradients[0].square() + gradients[1].square(), torch.ones(1001), atol=1e-5)
