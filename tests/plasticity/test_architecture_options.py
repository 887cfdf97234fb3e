"""Choices of architecture: what rebuilding a network changes, and that units, readers and measures agree afterwards."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plasticity import (
    ContinualBackprop,
    CReLU,
    Fourier,
    HiddenLayer,
    Network,
    NetworkOptions,
    NoiseReader,
    Reader,
    ReDo,
    SettingsError,
    UnitAdam,
    activation_metrics,
    attach,
    hidden_layers,
    network_options,
    rebuild,
    replace_units,
)
from tests.plasticity.models import mlp, network, train


def conv_model() -> nn.Sequential:
    torch.manual_seed(0)
    convolutions = [nn.Conv2d(2, 4, 2), nn.ReLU(), nn.Conv2d(4, 6, 2), nn.ReLU()]
    return nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(24, 8), nn.ReLU(), nn.Linear(8, 3))


def even_mlp() -> nn.Sequential:
    return mlp((4, 6, 8, 2))


IMAGES = (5, 2, 4, 4)


def rebuilt(model: nn.Sequential, options: NetworkOptions, optimizer: torch.optim.Optimizer | None = None) -> Network:
    before = network(model, optimizer)
    rebuild(model, [before], options)
    before.close()
    return network(model, before.optimizers[0])


@pytest.mark.parametrize("activation", [CReLU, Fourier])
def test_unit_i_owns_outputs_2i_and_2i_plus_1(activation):
    z = torch.tensor([[0.5, -2.0, 3.0]])
    one, two = (F.relu, lambda z: F.relu(-z)) if activation is CReLU else (torch.sin, torch.cos)
    expected = [f(z[0, i]).item() for i in range(3) for f in (one, two)]
    assert activation()(z)[0].tolist() == pytest.approx(expected)
    images = torch.randn(5, 3, 2, 2)
    out = activation()(images)
    assert out.shape == (5, 6, 2, 2)
    assert torch.equal(out[:, 2], one(images[:, 1]))
    assert torch.equal(out[:, 3], two(images[:, 1]))


def test_widths_stay_and_the_first_half_of_the_rows_does_too():
    model = mlp((4, 6, 8, 2))
    old = copy.deepcopy(model)
    net = rebuilt(model, NetworkOptions(activation=CReLU))
    assert [layer.units for layer in net.layers] == [3, 4]
    assert [reader.span for layer in net.layers for reader in layer.readers] == [2, 2]
    for i, units in ((0, 3), (2, 4)):
        assert torch.equal(model[i].weight, old[i].weight[:units])
        assert torch.equal(model[i].bias, old[i].bias[:units])
        assert model[i].out_features == units
    assert torch.equal(model[4].weight, old[4].weight)
    x = torch.randn(7, 4)
    z = F.linear(x, old[0].weight[:3], old[0].bias[:3])
    h = torch.stack([F.relu(z), F.relu(-z)], -1).reshape(7, 6)
    z = F.linear(h, old[2].weight[:4], old[2].bias[:4])
    h = torch.stack([F.relu(z), F.relu(-z)], -1).reshape(7, 8)
    assert torch.allclose(model(x), F.linear(h, old[4].weight, old[4].bias), atol=1e-6)


def test_the_papers_order_of_halves_is_the_same_function_with_columns_in_another_order():
    z, weight = torch.randn(5, 3), torch.randn(2, 6)
    halves = torch.cat([F.relu(z), F.relu(-z)], 1) @ weight.T
    assert torch.allclose(CReLU()(z) @ weight[:, [0, 3, 1, 4, 2, 5]].T, halves, atol=1e-6)


def test_convolutions_double_their_channels_and_compute_right():
    model = conv_model()
    old = copy.deepcopy(model)
    net = rebuilt(model, NetworkOptions(activation=CReLU))
    assert [layer.units for layer in net.layers] == [2, 3, 4]
    assert [layer.readers[0].span for layer in net.layers] == [2, 8, 2]
    assert model[0].out_channels == 2
    x = torch.randn(IMAGES)

    def both(z: Tensor) -> Tensor:
        return torch.cat([t for i in range(z.shape[1]) for t in (F.relu(z[:, i : i + 1]), F.relu(-z[:, i : i + 1]))], 1)

    h = both(F.conv2d(x, old[0].weight[:2], old[0].bias[:2]))
    h = both(F.conv2d(h, old[2].weight[:3], old[2].bias[:3])).flatten(1)
    h = both(F.linear(h, old[5].weight[:4], old[5].bias[:4]))
    assert torch.allclose(model(x), F.linear(h, old[7].weight, old[7].bias), atol=1e-6)


def test_layer_norm_stands_before_the_activation():
    model = mlp((4, 6, 2))
    old = copy.deepcopy(model)
    net = rebuilt(model, NetworkOptions(layer_norm=True))
    x = torch.randn(7, 4)
    z = old[0](x)
    z = (z - z.mean(1, keepdim=True)) / (z.var(1, keepdim=True, correction=0) + 1e-5).sqrt()
    assert torch.allclose(model(x), old[2](F.relu(z)), atol=1e-5)
    assert isinstance(net.layers[0].norm, nn.LayerNorm)
    assert net.activations["0"].shape == (7, 6)


def test_a_convolution_is_normalised_over_channels_and_positions_together():
    model = nn.Sequential(nn.Conv2d(1, 4, 2), nn.Tanh(), nn.Conv2d(4, 1, 2))
    old = copy.deepcopy(model)
    net = rebuilt(model, NetworkOptions(layer_norm=True))
    z = old[0](torch.randn(3, 1, 4, 4))
    flat = z.flatten(1)
    flat = (flat - flat.mean(1, keepdim=True)) / (flat.var(1, keepdim=True, correction=0) + 1e-5).sqrt()
    assert torch.allclose(net.layers[0].norm(z), flat.view_as(z), atol=1e-5)


def test_both_together_normalise_units_before_doubling_them():
    net = rebuilt(mlp((4, 6, 2)), NetworkOptions(activation=Fourier, layer_norm=True))
    assert net.layers[0].norm.normalized_shape == (3,)
    assert net.layers[0].units == 3


@pytest.mark.parametrize("norm", [nn.LayerNorm(6), nn.GroupNorm(1, 6)])
def test_a_norm_that_is_there_shrinks_with_its_layer(norm):
    conv = isinstance(norm, nn.GroupNorm)
    parts = (nn.Conv2d(1, 6, 2), nn.Conv2d(6, 1, 2)) if conv else (nn.Linear(3, 6), nn.Linear(6, 1))
    model = nn.Sequential(parts[0], norm, nn.ReLU(), parts[1])
    with torch.no_grad():
        norm.weight.copy_(torch.arange(6.0))
    net = rebuilt(model, NetworkOptions(activation=CReLU))
    model(torch.randn((2, 1, 4, 4) if conv else (2, 3))).sum().backward()
    assert model[1].weight.tolist() == [0, 1, 2]
    held = [p for group in net.optimizers[0].param_groups for p in group["params"]]
    assert [id(p) for p in held] == [id(p) for p in model.parameters()]


@pytest.mark.parametrize(
    "options", [NetworkOptions(CReLU), NetworkOptions(layer_norm=True), NetworkOptions(Fourier, layer_norm=True)]
)
@pytest.mark.parametrize("make", [even_mlp, conv_model])
def test_the_optimizer_holds_the_new_parameters_in_the_places_of_the_old_and_trains_them(options, make):
    model = make()
    outside = nn.Parameter(torch.ones(1))
    groups = [{"params": [outside]}, {"params": list(model.parameters()), "lr": 0.5}]
    optimizer = UnitAdam(groups, lr=0.1)
    rebuilt(model, options, optimizer)
    first, second = optimizer.param_groups
    assert [id(p) for p in first["params"]] == [id(outside)]
    assert {id(p) for p in second["params"]} == {id(p) for p in model.parameters()}
    assert len(second["params"]) == len(list(model.parameters()))
    before = copy.deepcopy(model)
    x = torch.randn(IMAGES) if make is conv_model else torch.randn(5, 4)
    model(x).square().sum().backward()
    optimizer.step()
    assert all(not torch.equal(a, b) for a, b in zip(before.parameters(), model.parameters(), strict=True))


def test_target_networks_are_rebuilt_equally_and_stay_out_of_the_optimizer():
    root = nn.ModuleDict({"online": mlp((4, 6, 2)), "target": mlp((4, 6, 2))})
    root["target"].requires_grad_(False)
    optimizer = UnitAdam(root["online"].parameters())
    net = Network("q", hidden_layers(root["online"]), [optimizer], twins=hidden_layers(root["target"]))
    rebuild(root, [net], NetworkOptions(CReLU, layer_norm=True))
    shapes = [{name: p.shape for name, p in root[side].named_parameters()} for side in root]
    assert shapes[0] == shapes[1]
    assert not any(p.requires_grad for p in root["target"].parameters())
    held = {id(p) for p in optimizer.param_groups[0]["params"]}
    assert held == {id(p) for p in root["online"].parameters()}
    x = torch.randn(3, 4)
    assert torch.equal(root["online"](x), root["target"](x))


def test_what_cannot_be_rebuilt_is_refused_by_name():
    with pytest.raises(
        ValueError, match="CReLU puts out two numbers a unit, so widths must be even; got 5 in layer '1'"
    ):
        rebuilt(mlp((4, 6, 5, 2)), NetworkOptions(CReLU))
    model = mlp((4, 6, 2))
    optimizer = UnitAdam(model.parameters())
    train(model, optimizer, 1)
    with pytest.raises(ValueError, match="before training only, but its optimizer has state"):
        rebuilt(model, NetworkOptions(CReLU), optimizer)
    model = mlp((4, 6, 2))
    rebuilt(model, NetworkOptions(CReLU, layer_norm=True))
    with pytest.raises(ValueError, match="layer '0' is normalised already"):
        rebuilt(model, NetworkOptions(layer_norm=True))
    with pytest.raises(ValueError, match="layer '0' is doubled already"):
        rebuilt(model, NetworkOptions(nn.ReLU))
    other = mlp((4, 6, 2))
    with pytest.raises(ValueError, match=r"ReLU\(\) is in no module of Linear"):
        rebuild(nn.Linear(1, 1), [network(other)], NetworkOptions(CReLU))
    linear, out = nn.Module(), nn.Module()
    linear.weight, out.weight = nn.Parameter(torch.zeros(2, 4, 4)), nn.Parameter(torch.zeros(2, 1, 4))
    beside = Network(
        "n", [HiddenLayer("h", linear, nn.ReLU(), (Reader(out),))], [torch.optim.SGD([linear.weight, out.weight], 0.1)]
    )
    with pytest.raises(ValueError, match="layer 'h' holds 2 networks side by side"):
        rebuild(linear, [beside], NetworkOptions(CReLU))


def test_options_of_several_methods_merge_or_contradict():
    assert network_options(["crelu", "nap", "l2"]) == NetworkOptions(CReLU, layer_norm=True)
    assert network_options({"ns": {"beta": 0.5}}) == NetworkOptions(betas=(0.5, 0.5))
    with pytest.raises(SettingsError, match="two methods ask for different activation"):
        network_options(["crelu", "fourier"])


def _silenced_unit_has_no_say(model: nn.Sequential, x: Tensor) -> None:
    """By finite differences: moving a unit's own bias moves the output, unless its outgoing weights were zeroed."""
    net = network(model)
    for layer in net.layers:
        for unit in range(layer.units):
            changed = copy.deepcopy(model)
            own = network(changed).layers[int(layer.name)]
            mask = torch.zeros(layer.units, dtype=torch.bool)
            mask[unit] = True

            def moved(changed: nn.Sequential = changed, own: HiddenLayer = own, unit: int = unit) -> float:
                before = changed(x)
                own.bias[unit] += 0.3
                after = changed(x)
                own.bias[unit] -= 0.3
                return float((after - before).abs().max())

            with torch.no_grad():
                assert moved() > 1e-4
                own.readers[0].columns(own.units)[mask] = 0
                assert moved() < 1e-6
            reader = own.readers[0]
            silent = (reader.linear.weight == 0).transpose(0, 1).flatten(1).all(1)
            assert torch.equal(silent, reader.mask(mask))
            others = torch.ones(layer.units, dtype=torch.bool)
            others[unit] = False
            assert (reader.columns(own.units)[others] != 0).all()


@pytest.mark.parametrize("options", [NetworkOptions(CReLU), NetworkOptions(Fourier), NetworkOptions()])
def test_a_reader_s_columns_are_those_of_the_unit(options):
    torch.manual_seed(3)
    model = mlp((4, 6, 4, 2))
    rebuilt(model, options) if options.rebuild else None
    with torch.no_grad():
        model[0].bias.add_(1.0), model[2].bias.add_(1.0)  # so that no ReLU unit is silent
    _silenced_unit_has_no_say(model, torch.randn(20, 4))
    model = conv_model()
    rebuilt(model, options) if options.rebuild else None
    with torch.no_grad():
        for i in (0, 2, 5):
            model[i].bias.add_(1.0)
    _silenced_unit_has_no_say(model, torch.randn(20, 2, 4, 4))


@pytest.mark.parametrize("options", [NetworkOptions(CReLU), NetworkOptions(Fourier)])
@pytest.mark.parametrize("make", [even_mlp, conv_model])
def test_replacing_a_unit_loses_its_contribution_and_nothing_else(options, make):
    model = make().double()
    net = rebuilt(model, options, UnitAdam(model.parameters()))
    x = torch.randn(IMAGES if make is conv_model else (9, 4), dtype=torch.float64)
    last = net.layers[-1]
    before = model(x)
    h = net.activations[last.name]
    lost = h[:, [2, 3]] @ last.readers[0].linear.weight.detach()[:, [2, 3]].T
    mask = torch.arange(last.units) == 1
    changes = replace_units(net, {last.name: mask}, lambda layer, n: torch.ones(n, layer.incoming().shape[-1]))
    assert lost.abs().max() > 1e-3
    assert torch.allclose(model(x) - before, -lost, atol=1e-12)
    assert float(changes[last.name]) == pytest.approx(float(lost.abs().mean()))


@pytest.mark.parametrize("method", ["cbp", "redo"])
@pytest.mark.parametrize("options", [NetworkOptions(CReLU, layer_norm=True), NetworkOptions(Fourier, layer_norm=True)])
@pytest.mark.parametrize("make", [even_mlp, conv_model])
def test_methods_that_replace_units_work_on_other_architectures(method, options, make):
    model = make()
    optimizer = UnitAdam(model.parameters(), lr=0.01)
    net = rebuilt(model, options, optimizer)
    replaces = (
        ContinualBackprop(net.layers, replacement_rate=0.1, maturity=2, mean_transfer=False)
        if method == "cbp"
        else ReDo(net.layers, threshold=1.0)
    )
    attach(replaces, net)
    random = torch.Generator().manual_seed(0)
    for _ in range(12):
        x = torch.randn(IMAGES if make is conv_model else (9, 4), generator=random)
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
    replaced = [replaces.telemetry()[f"{layer.name}/replaced"] for layer in net.layers]
    assert all(count > 0 for count in replaced)
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_a_units_noise_rows_are_replaced_with_it():
    body, mu = nn.Sequential(nn.Linear(3, 4), CReLU()), nn.Linear(8, 2)
    log_std = nn.Parameter(torch.zeros(8, 2))
    layers = hidden_layers(body, [mu], [NoiseReader(log_std, -3.0)])
    net = Network("n", layers, [UnitAdam([*body.parameters(), *mu.parameters(), log_std])])
    replace_units(net, {"0": torch.arange(4) == 1}, lambda layer, n: torch.zeros(n, 3))
    assert log_std[:, 0].tolist() == [0, 0, -3, -3, 0, 0, 0, 0]


def doubled(activation: type[nn.Module], z: Tensor) -> dict[str, float]:
    layer = HiddenLayer("0", nn.Linear(1, z.shape[1]), activation(), (Reader(nn.Linear(2 * z.shape[1], 1), span=2),))
    return activation_metrics(layer, layer.activation(z))


def test_a_crelu_unit_is_dead_when_both_its_numbers_are():
    z = torch.randn(50, 4)
    z[:, 1], z[:, 2] = 0.0, -1.0
    found = doubled(CReLU, z)
    assert found["dead_fraction"] == 0.25  # the unit at -1 says 1
    assert found["dormant_fraction"] == 0.25
    assert found["zero_fraction"] == pytest.approx((4 + 1) / 8)  # half, and the other half of the dead unit


def test_a_fourier_unit_is_dead_when_both_its_numbers_are_constant():
    z = torch.randn(50, 4)
    z[:, 1] = 0.7
    z[:, 2] = torch.randn(50) * 1e-2  # cos is flat here, sin is not
    assert doubled(Fourier, z)["dead_fraction"] == 0.25


def test_ranks_of_doubled_layers_count_outputs():
    z = torch.randn(60, 3, dtype=torch.float64)
    found = doubled(CReLU, z)
    sigma = torch.linalg.svdvals(CReLU()(z))
    share = sigma / sigma.sum()
    assert found["effective_rank"] == pytest.approx(float((-share * share.log()).sum().exp()))
    assert found["numerical_rank"] == 6
    assert found["feature_norm"] == pytest.approx(float(z.norm(dim=1).mean()))  # relu(z)^2 + relu(-z)^2 = z^2
