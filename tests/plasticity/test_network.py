"""Units, readers, recording."""

import copy

import pytest
import torch
from torch import nn

from plasticity import HiddenLayer, Network, Reader, UnitAdam, hidden_layers
from tests.plasticity.models import mlp, network


def test_a_chain_names_its_layers_and_each_is_read_by_the_next():
    model = mlp()
    layers = hidden_layers(model)
    assert [layer.name for layer in layers] == ["0", "1"]
    assert [layer.linear for layer in layers] == [model[0], model[2]]
    assert [layer.readers[0].linear for layer in layers] == [model[2], model[4]]
    assert [layer.units for layer in layers] == [6, 5]


def test_flattened_channels_take_a_column_for_every_position():
    model = nn.Sequential(nn.Conv2d(1, 3, 2), nn.ReLU(), nn.Conv2d(3, 2, 2), nn.ReLU(), nn.Flatten(), nn.Linear(18, 4))
    first, second = hidden_layers(model)
    assert first.readers[0].columns(3).shape == (3, 2, 4)  # units, outputs, positions in the kernel
    assert second.readers[0].span == 9
    marked = second.readers[0].mask(torch.tensor([False, True]))
    assert marked.nonzero().flatten().tolist() == list(range(9, 18))
    # the view writes through to the weight, at just these places
    with torch.no_grad():
        second.readers[0].columns(2)[torch.tensor([False, True])] = 7.0
    assert (model[5].weight[:, 9:] == 7).all()
    assert not (model[5].weight[:, :9] == 7).any()


def test_a_layer_norm_belongs_to_its_layer_and_dropout_to_none():
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Tanh(), nn.Dropout(0.1), nn.Linear(4, 1))
    (layer,) = hidden_layers(model)
    assert layer.norm is model[1]
    assert layer.readers[0].linear is model[4]


def test_linear_layers_without_activation_between_have_no_hidden_units():
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 1))
    (layer,) = hidden_layers(model)
    assert layer.linear is model[1]


def test_a_residual_block_is_refused_by_name():
    class Residual(nn.Module):
        pass

    with pytest.raises(ValueError, match=r"module 2 \(Residual\(\)\): its units may mix or be read across blocks"):
        hidden_layers(nn.Sequential(nn.Linear(3, 3), nn.ReLU(), Residual(), nn.Linear(3, 1)))


def test_an_unread_layer_a_shared_activation_and_a_stray_parameter_are_refused():
    with pytest.raises(ValueError, match="'0' has no readers"):
        hidden_layers(nn.Sequential(nn.Linear(3, 4), nn.ReLU()))
    relu = nn.ReLU()
    model = nn.Sequential(nn.Linear(3, 4), relu, nn.Linear(4, 4), relu, nn.Linear(4, 1))
    with pytest.raises(ValueError, match="layers '0' and '1' share one activation module"):
        network(model)
    model = mlp()
    with pytest.raises(ValueError, match=r"weight of Linear\(in_features=5.* is in none of its optimizers"):
        Network("net", hidden_layers(model), [torch.optim.SGD(model[:4].parameters(), 0.1)])
    with pytest.raises(ValueError, match="grouped convolutions are not supported"):
        HiddenLayer("c", nn.Conv2d(2, 2, 1, groups=2), nn.ReLU(), (Reader(nn.Conv2d(2, 1, 1)),))
    for inputs in (6, 8):  # 8 could be two columns a unit, or the units and four actions
        with pytest.raises(ValueError, match=rf"has {inputs} inputs, which do not say where it reads the 4 units"):
            hidden_layers(nn.Sequential(nn.Linear(3, 4), nn.ReLU()), [nn.Linear(inputs, 1)])
    with pytest.raises(ValueError, match="does not end in an activation"):
        hidden_layers(nn.Sequential(nn.Linear(3, 4)), [nn.Linear(4, 1)])


def test_only_passes_with_gradients_are_recorded():
    model = mlp()
    net = network(model)
    with torch.no_grad():
        model(torch.ones(3, 4))
    assert net.activations == {}
    model(torch.ones(3, 4))
    recorded = net.activations["0"].clone()
    with torch.no_grad():
        model(torch.zeros(3, 4))
    assert torch.equal(net.activations["0"], recorded)
    assert torch.equal(recorded, model[:2](torch.ones(3, 4)))


def test_watching_sees_passes_without_gradients_and_leaves_no_trace():
    model = mlp()
    net = network(model)
    with net.watch() as seen, torch.no_grad():
        model(torch.ones(3, 4))
    assert torch.equal(seen["1"], model[:4](torch.ones(3, 4)))
    before = dict(seen)
    model(torch.zeros(3, 4))
    assert seen == before  # nothing more was recorded


def test_a_deep_copy_of_the_model_does_not_record_into_the_original():
    model = mlp()
    net = network(model)
    copy.deepcopy(model)(torch.ones(3, 4))
    assert net.activations == {}


def test_each_replica_is_a_network_of_its_own():
    layer = nn.Module()
    layer.weight = nn.Parameter(torch.randn(7, 5, 3))  # 7 replicas, 5 units, 3 inputs
    layer.bias = nn.Parameter(torch.zeros(7, 5))
    out = nn.Module()
    out.weight = nn.Parameter(torch.randn(7, 2, 5))
    hidden = HiddenLayer("h", layer, nn.ReLU(), (Reader(out),))
    assert hidden.unit_shape == (7, 5)
    assert hidden.incoming().shape == (7, 5, 3)
    assert hidden.readers[0].columns(5).shape == (7, 5, 2, 1)
    assert hidden.rows(torch.zeros(11, 7, 5)).shape == (11, 7, 5)
    x = torch.randn(11, 7, 5)
    assert torch.allclose(hidden.readers[0].respond(x), torch.einsum("bri,roi->bro", x, out.weight), atol=1e-6)


@pytest.mark.parametrize(
    "module", [nn.Softmax(dim=1), nn.GLU(), nn.RReLU(), nn.Dropout(0.5, inplace=True), nn.BatchNorm1d(3)]
)
def test_what_mixes_units_or_overwrites_them_is_refused(module):
    with pytest.raises(ValueError, match=r"module 2 .*its units may mix"):
        hidden_layers(nn.Sequential(nn.Linear(3, 3), nn.ReLU(), module, nn.Linear(3, 1)))


def test_a_layer_norm_elsewhere_is_refused():
    for parts in ([nn.Linear(3, 3), nn.ReLU(), nn.LayerNorm(3)], [nn.Conv2d(1, 3, 1), nn.LayerNorm(3), nn.ReLU()]):
        with pytest.raises(ValueError, match="LayerNorm between Linear and activation"):
            hidden_layers([*parts, nn.Linear(3, 1)])


def test_a_computed_weight_is_named():
    linear = nn.utils.parametrizations.spectral_norm(nn.Linear(3, 3))
    with pytest.raises(ValueError, match="computed from others and no parameter of its own"):
        hidden_layers(nn.Sequential(linear, nn.ReLU(), nn.Linear(3, 1)))[0].weight  # noqa: B018


def test_replicas_need_another_optimizer_than_unit_adam():
    linear, out = nn.Module(), nn.Module()
    linear.weight, out.weight = nn.Parameter(torch.zeros(2, 3, 4)), nn.Parameter(torch.zeros(2, 1, 3))
    layer = HiddenLayer("h", linear, nn.ReLU(), (Reader(out),))
    with pytest.raises(ValueError, match="layer 'h' holds 2 side by side; use another optimizer"):
        Network("n", [layer], [UnitAdam([linear.weight, out.weight])])
    net = Network("n", [layer], [torch.optim.SGD([linear.weight, out.weight], 0.1)])
    assert len(net.parameters()) == 2  # layers without biases are fine


def test_watching_does_not_disturb_what_is_recorded_even_with_gradients_on():
    model = mlp()
    net = network(model)
    model(torch.ones(3, 4))
    recorded = net.activations["0"].clone()
    with net.watch() as seen:
        model(torch.zeros(3, 4))
    assert torch.equal(net.activations["0"], recorded)
    assert not torch.equal(seen["0"], recorded)
    model(torch.zeros(3, 4))
    assert torch.equal(net.activations["0"], seen["0"])
