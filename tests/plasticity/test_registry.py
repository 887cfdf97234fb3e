"""Methods by name, their settings, and the sentences for wrong ones."""

import pytest
import torch
from torch import nn

from plasticity import (
    ContinualBackpropConfig,
    L2Config,
    SettingsError,
    build_intervention,
    initialise,
    method_config,
    method_configs,
    uniform_bound,
)
from tests.plasticity.models import mlp, network


def test_the_same_method_twice_draws_differently():
    model = mlp()
    chain = build_intervention(["cbp", "cbp"], network(model), 0)
    first, second = (method.random.get_extra_state() for method in chain)
    assert not torch.equal(first, second)


def test_initial_bounds():
    layer = nn.Linear(12, 5)
    assert uniform_bound(layer, "lecun") == pytest.approx((3 / 12) ** 0.5)
    assert uniform_bound(layer, "default") == pytest.approx((1 / 12) ** 0.5)
    assert uniform_bound(layer, "kaiming", nn.ReLU()) == pytest.approx(2**0.5 * (3 / 12) ** 0.5)
    assert uniform_bound(layer, "kaiming", nn.Tanh()) == pytest.approx(5 / 3 * (3 / 12) ** 0.5)
    assert uniform_bound(layer, "xavier", nn.ReLU()) == pytest.approx(2**0.5 * (6 / 17) ** 0.5)
    assert uniform_bound(nn.Conv2d(3, 5, 2), "xavier") == pytest.approx((6 / (12 + 20)) ** 0.5)
    assert uniform_bound(nn.Conv2d(3, 5, 2), "lecun") == pytest.approx((3 / 12) ** 0.5)
    wide = nn.Linear(300, 200)
    initialise(wide, "lecun")
    assert uniform_bound(wide, "network") == pytest.approx(uniform_bound(wide, "lecun"), rel=0.02)
    assert (wide.bias == 0).all()


def test_methods_may_be_written_in_many_ways():
    config = ContinualBackpropConfig(maturity=5)
    assert method_configs(None) == method_configs("none") == method_configs({}) == []
    assert method_configs("cbp") == [ContinualBackpropConfig()]
    assert method_configs(["l2", config]) == [L2Config(), config]
    assert method_configs({"l2": {"strength": "1e-4"}, "cbp": {"maturity": "2e3"}}) == [
        L2Config(1e-4),
        ContinualBackpropConfig(maturity=2000),
    ]


def test_wrong_methods_and_settings_are_named_all_at_once():
    with pytest.raises(SettingsError, match=r'unknown method "cpb": allowed are none, cbp, .*; did you mean "cbp"'):
        method_config("cpb")
    with pytest.raises(SettingsError) as error:
        method_config("cbp", {"replacment_rate": 1, "maturity": 1.5, "decay": "x"}, "plasticity.cbp")
    assert error.value.errors == (
        'plasticity.cbp: unknown setting "replacment_rate": allowed are replacement_rate, maturity, decay, utility, '
        'init, mean_transfer, reset_optimizer, rounding; did you mean "replacement_rate"?',
        "plasticity.cbp.maturity must be a whole number, got 1.5",
        "plasticity.cbp.decay must be a number, got 'x'",
    )
    with pytest.raises(SettingsError, match=r"mean_transfer must be true or false, got 'yes'"):
        method_config("cbp", {"mean_transfer": "yes"})
    with pytest.raises(SettingsError, match="a method must be a name or a config with build"):
        method_configs(3)
    with pytest.raises(SettingsError, match="a method must be a name or a config with build"):
        method_configs(ContinualBackpropConfig)
    with pytest.raises(SettingsError, match="cbp must be a mapping of settings, got 5"):
        method_configs({"cbp": 5})
