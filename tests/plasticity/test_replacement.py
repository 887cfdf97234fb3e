"""What replacing a unit does to the network, exactly."""

import pytest
import torch
from torch import nn

from plasticity import HiddenLayer, Network, NoiseReader, Reader, UnitAdam, hidden_layers, replace_units
from tests.plasticity.models import mlp, network, train


def fresh(layer, count):
    return torch.full((count, layer.incoming().shape[-1]), 0.5)


def pick(units, *chosen):
    mask = torch.zeros(units, dtype=torch.bool)
    mask[list(chosen)] = True
    return mask


def test_a_unit_nobody_listens_to_is_replaced_without_a_trace():
    model, x = mlp(), torch.randn(9, 4)
    with torch.no_grad():
        model[2].weight[:, 3] = 0
    before = model(x)
    replace_units(network(model), {"0": pick(6, 3)}, fresh)
    assert torch.equal(model(x), before)
    assert (model[0].weight[3] == 0.5).all()  # but it was replaced
    assert model[0].bias[3] == 0


def test_without_mean_transfer_the_output_loses_exactly_the_units_contribution():
    model, x = mlp((4, 6, 2)).double(), torch.randn(9, 4, dtype=torch.float64)
    net = network(model)
    h, before, out = model[:2](x), model(x), model[2].weight.detach().clone()
    changes = replace_units(net, {"0": pick(6, 1, 4)}, fresh)
    lost = h[:, [1, 4]] @ out[:, [1, 4]].T
    assert lost.abs().max() > 0.01
    assert torch.allclose(model(x) - before, -lost, atol=1e-14)
    assert (model[2].weight[:, [1, 4]] == 0).all()
    assert torch.allclose(changes["0"].double(), lost.abs().mean())


def test_with_mean_transfer_only_the_deviation_from_the_mean_is_lost():
    model, x = mlp((4, 6, 2)).double(), torch.randn(9, 4, dtype=torch.float64)
    net = network(model)
    h, before, out = model[:2](x), model(x), model[2].weight.detach().clone()
    mean = torch.rand(6, dtype=torch.float64)
    changes = replace_units(net, {"0": pick(6, 1, 4)}, fresh, mean_activation={"0": mean})
    lost = (h - mean)[:, [1, 4]] @ out[:, [1, 4]].T
    assert torch.allclose(model(x) - before, -lost, atol=1e-14)
    assert torch.allclose(changes["0"].double(), lost.abs().mean())


def test_channels_lose_all_their_positions_and_transfer_their_mean():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 3, 2), nn.ReLU(), nn.Conv2d(3, 4, 2), nn.ReLU(), nn.Flatten(), nn.Linear(36, 2)
    ).double()
    x = torch.randn(5, 1, 5, 5, dtype=torch.float64)
    # the channel read by a convolution
    z, h = model[:3](x), model[:2](x)
    mean = torch.rand(3, dtype=torch.float64)
    columns = model[2].weight.detach()[:, 1:2]
    lost = nn.functional.conv2d(h[:, 1:2] - mean[1], columns)
    replace_units(network(model), {"0": pick(3, 1)}, fresh, mean_activation={"0": mean})
    assert torch.allclose(model[:3](x) - z, -lost, atol=1e-13)
    # the channel read by a linear layer after flattening
    before, h = model(x), model[:4](x)
    mean = torch.rand(4, dtype=torch.float64)
    columns = model[5].weight.detach()[:, 18:27].clone()
    lost = (h[:, 2] - mean[2]).flatten(1) @ columns.T
    replace_units(network(model), {"1": pick(4, 2)}, fresh, mean_activation={"1": mean})
    assert torch.allclose(model(x) - before, -lost, atol=1e-13)


def test_a_padded_reader_takes_no_mean():
    assert not Reader(nn.Conv2d(1, 1, 3, padding=1)).takes_mean
    assert not Reader(nn.Conv2d(1, 1, 3, padding="same")).takes_mean
    assert Reader(nn.Conv2d(1, 1, 3, padding="valid")).takes_mean
    assert not Reader(nn.Linear(1, 1, bias=False)).takes_mean
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.Conv2d(2, 2, 3, padding=1), nn.ReLU(), nn.Conv2d(2, 1, 1))
    before = model[2].bias.detach().clone()
    replace_units(network(model), {"0": pick(2, 1)}, fresh, mean_activation={"0": torch.ones(2)})
    assert torch.equal(model[2].bias, before)
    assert (model[2].weight[:, 1] == 0).all()
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1, bias=False))
    replace_units(network(model), {"0": pick(2, 1)}, fresh, mean_activation={"0": torch.ones(2)})


def test_every_reader_is_silenced_and_noise_readers_take_their_initial_value():
    torch.manual_seed(0)
    body, mu, q = nn.Sequential(nn.Linear(3, 4), nn.Tanh()), nn.Linear(4, 2), nn.Linear(2 + 4, 1)
    log_std = nn.Parameter(torch.randn(4, 2))
    layers = hidden_layers(body, [mu, Reader(q, first=2)], [NoiseReader(log_std, -3.0)])
    optimizer = torch.optim.SGD([*body.parameters(), *mu.parameters(), *q.parameters(), log_std], 0.1)
    replace_units(Network("n", layers, [optimizer]), {"0": pick(4, 1)}, fresh)
    assert (mu.weight[:, 1] == 0).all()
    assert (q.weight[:, 3] == 0).all()
    assert (log_std[1] == -3).all()
    assert (mu.weight[:, [0, 2, 3]] != 0).all()
    assert (q.weight[:, [0, 1, 2, 4, 5]] != 0).all()
    assert (log_std[[0, 2, 3]] != -3).all()


def test_the_output_change_is_that_of_all_readers():
    body, readers = nn.Sequential(nn.Linear(3, 4), nn.ReLU()), [nn.Linear(4, 2), nn.Linear(4, 2)]
    parameters = [p for module in (body, *readers) for p in module.parameters()]
    net = Network("n", hidden_layers(body, readers), [torch.optim.SGD(parameters, 0.1)])
    x = torch.randn(6, 3)
    before = [reader(body(x)) for reader in readers]
    changes = replace_units(net, {"0": pick(4, 0, 1)}, fresh)
    after = [reader(body(x)) for reader in readers]
    moved = torch.stack([(a - b).abs().mean() for a, b in zip(after, before, strict=True)])
    assert (moved > 0).all()
    assert torch.allclose(changes["0"], moved.mean())


def test_rows_of_noise_readers_and_norms_start_afresh_in_the_optimizer():
    body, mu = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Tanh()), nn.Linear(4, 2)
    log_std = nn.Parameter(torch.zeros(4, 2))
    optimizer = UnitAdam([*body.parameters(), *mu.parameters(), log_std])
    (mu(body(torch.randn(5, 3))).square().mean() + log_std.sum()).backward()
    optimizer.step()
    net = Network("n", hidden_layers(body, [mu], [NoiseReader(log_std, -1.0)]), [optimizer])
    replace_units(net, {"0": pick(4, 2)}, fresh)
    for parameter in (log_std, body[1].weight, body[1].bias):
        counts = optimizer.steps(parameter).reshape(4, -1)[:, 0]
        assert counts.tolist() == [1, 1, 0, 1]


def test_a_target_s_layer_norm_forgets_the_unit_too():
    def build():
        model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.ReLU(), nn.Linear(4, 1))
        with torch.no_grad():
            model[1].weight.fill_(3.0)
        return model

    model, target = build(), build()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    net = Network("q", hidden_layers(model), [optimizer], twins=hidden_layers(target), sync_twins=True)
    replace_units(net, {"0": pick(4, 1)}, fresh)
    assert target[1].weight.tolist() == [3, 1, 3, 3]


def test_neighbours_replaced_together_are_not_connected():
    model = mlp()
    replace_units(
        network(model),
        {"0": pick(6, 2), "1": pick(5, 3)},
        fresh,
        mean_activation={"0": torch.ones(6), "1": torch.ones(5)},
    )
    assert (model[2].weight[:, 2] == 0).all()  # also in the row that was drawn afresh
    assert (model[2].weight[3, [0, 1, 3, 4, 5]] == 0.5).all()
    assert model[2].bias[3] == 0


def test_a_layer_norm_forgets_the_unit():
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.ReLU(), nn.Linear(4, 1))
    with torch.no_grad():
        model[1].weight.fill_(3.0), model[1].bias.fill_(2.0)
    replace_units(network(model), {"0": pick(4, 1)}, fresh)
    assert model[1].weight.tolist() == [3, 1, 3, 3]
    assert model[1].bias.tolist() == [2, 0, 2, 2]


def test_the_optimizers_state_of_the_unit_starts_afresh_and_no_other():
    model = mlp()
    optimizer = UnitAdam(model.parameters(), lr=0.01)
    net = network(model, optimizer)
    train(model, optimizer, 5)
    replace_units(net, {"0": pick(6, 2)}, fresh)
    incoming, bias, outgoing = (optimizer.steps(p) for p in (model[0].weight, model[0].bias, model[2].weight))
    others = [0, 1, 3, 4, 5]
    assert (incoming[2] == 0).all()
    assert (incoming[others] == 5).all()
    assert bias.tolist() == [5, 5, 0, 5, 5, 5]
    assert (outgoing[:, 2] == 0).all()
    assert (outgoing[:, others] == 5).all()
    assert (optimizer.state[model[2].weight]["exp_avg"][:, 2] == 0).all()
    assert (optimizer.state[model[0].weight]["exp_avg_sq"][2] == 0).all()
    assert (optimizer.steps(model[4].weight) == 5).all()
    train(model, optimizer, 5)
    replace_units(net, {"0": pick(6, 0)}, fresh, reset_optimizer=False)
    assert (optimizer.steps(model[0].weight)[0] == 10).all()


def test_state_in_another_networks_optimizer_is_found():
    body, head = nn.Sequential(nn.Linear(3, 4), nn.ReLU()), nn.Linear(4, 1)
    one, two = UnitAdam(body.parameters()), UnitAdam(head.parameters())
    head(body(torch.randn(8, 3))).square().mean().backward()
    one.step(), two.step()
    replace_units(Network("n", hidden_layers(body, [head]), [one, two]), {"0": pick(4, 1)}, fresh)
    assert two.steps(head.weight).tolist() == [[1, 0, 1, 1]]


@pytest.mark.parametrize("sync", [False, True])
def test_a_target_network_lags_or_gets_the_same_replacement(sync):
    model, target = mlp(seed=0).double(), mlp(seed=5).double()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    net = Network("q", hidden_layers(model), [optimizer], twins=hidden_layers(target), sync_twins=sync)
    before = {key: value.clone() for key, value in target.state_dict().items()}
    x = torch.randn(3, 4, dtype=torch.float64)
    mean = torch.rand(5, dtype=torch.float64)
    h, out = target[:4](x), target(x)
    replace_units(net, {"0": pick(6, 2), "1": pick(5, 3)}, fresh, mean_activation={"1": mean})
    if not sync:
        assert all(torch.equal(value, before[key]) for key, value in target.state_dict().items())
        return
    assert torch.equal(target[0].weight[2], model[0].weight[2])
    assert torch.equal(target[2].weight[3], model[2].weight[3])
    for side in (model, target):
        assert (side[2].weight[:, 2] == 0).all()
        assert (side[4].weight[:, 3] == 0).all()
    assert torch.equal(target[0].weight[0], before["0.weight"][0])
    assert torch.allclose(target[4].bias, before["4.bias"] + before["4.weight"][:, 3] * mean[3])
    assert h.shape == (3, 5)
    assert not torch.equal(out, target(x))


def test_replicas_are_replaced_one_by_one():
    torch.manual_seed(0)
    linear, out = nn.Module(), nn.Module()
    linear.weight, linear.bias = nn.Parameter(torch.randn(3, 5, 4)), nn.Parameter(torch.randn(3, 5))
    out.weight, out.bias = nn.Parameter(torch.randn(3, 2, 5)), nn.Parameter(torch.randn(3, 2))
    layer = HiddenLayer("h", linear, nn.ReLU(), (Reader(out),))
    parameters = [linear.weight, linear.bias, out.weight, out.bias]
    optimizer = torch.optim.SGD(parameters, 0.1, momentum=0.9)
    sum(p.sum() for p in parameters).backward()
    optimizer.step()
    mask = torch.zeros(3, 5, dtype=torch.bool)
    mask[0, 1] = mask[2, 4] = True
    mean = torch.rand(3, 5)
    expected = out.bias.detach().clone()
    expected[0] += out.weight.detach()[0, :, 1] * mean[0, 1]
    expected[2] += out.weight.detach()[2, :, 4] * mean[2, 4]
    replace_units(Network("n", [layer], [optimizer]), {"h": mask}, fresh, mean_activation={"h": mean})
    assert torch.allclose(out.bias, expected)
    assert (linear.weight[mask] == 0.5).all()
    assert (linear.weight == 0.5).sum() == 8
    assert (out.weight == 0).nonzero().tolist() == [[0, 0, 1], [0, 1, 1], [2, 0, 4], [2, 1, 4]]
    momentum = optimizer.state[out.weight]["momentum_buffer"]
    assert (momentum == 0).nonzero().tolist() == [[0, 0, 1], [0, 1, 1], [2, 0, 4], [2, 1, 4]]
