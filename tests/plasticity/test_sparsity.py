"""Masks, and how many weights each layer keeps."""

import pytest
import torch
from torch import nn

from plasticity import HiddenLayer, Network, Reader, UnitAdam, hidden_layers
from plasticity.sparsity import SparseWeights, densities, largest
from tests.plasticity.models import mlp, network, train


def sizes(layers):
    return [layer.weight.numel() for layer in layers]


def test_uniform_layers_all_miss_the_same_share():
    assert densities(network(mlp((10, 20, 30, 1))).layers, 0.75, "uniform") == [0.25, 0.25]


def test_erdos_renyi_kernel_follows_its_definition():
    layers = network(mlp((40, 60, 80, 1))).layers
    one, two = densities(layers, 0.9, "erk")
    assert one / two == pytest.approx(((40 + 60) / (40 * 60)) / ((60 + 80) / (60 * 80)))
    assert one * 2400 + two * 4800 == pytest.approx(0.1 * 7200)


def test_a_layer_that_would_keep_more_than_all_keeps_all_and_the_total_is_right():
    layers = network(mlp((2, 50, 50, 1))).layers
    one, two = densities(layers, 0.5, "erk")
    assert one == 1
    assert 100 + two * 2500 == pytest.approx(0.5 * 2600)
    assert densities(layers, 0.0, "erk") == pytest.approx([1, 1])


def test_kernels_and_networks_side_by_side_count_by_one_weight_s_shape():
    model = nn.Sequential(nn.Conv2d(2, 8, 3), nn.ReLU(), nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Conv2d(16, 1, 1))
    one, two = densities(network(model).layers, 0.8, "erk")
    assert one / two == pytest.approx(((8 + 2 + 3 + 3) / (8 * 2 * 9)) / ((16 + 8 + 3 + 3) / (16 * 8 * 9)))
    replicas = []
    for outputs, inputs in ((60, 40), (80, 60)):
        linear, out = nn.Module(), nn.Module()
        linear.weight, out.weight = nn.Parameter(torch.zeros(5, outputs, inputs)), nn.Parameter(torch.zeros(5, 1, 80))
        replicas.append(HiddenLayer("h", linear, nn.ReLU(), (Reader(out),)))
    assert densities(replicas, 0.9, "erk") == pytest.approx(densities(network(mlp((40, 60, 80, 1))).layers, 0.9, "erk"))


def test_the_largest_of_some_scores():
    scores = torch.tensor([[5.0, 1.0, 4.0, 4.0], [0.0, 0.0, 0.0, -1.0]])
    among = torch.tensor([[False, True, True, True], [True, True, True, True]])
    assert largest(scores, 2, among).tolist() == [[False, False, True, True], [True, True, False, False]]
    counts = torch.tensor([1, 4])
    assert largest(scores, counts, among).tolist() == [[False, False, True, False], [True] * 4]
    assert not largest(scores, 0, among).any()


def test_only_hidden_weights_are_masked_and_what_is_missing_stays_so():
    model = mlp((4, 6, 5, 2))
    optimizer = UnitAdam(model.parameters(), lr=0.01, weight_decay=0.1)
    net = network(model, optimizer)
    weights = SparseWeights(net)
    assert weights.telemetry() == {"0/sparsity": 0, "1/sparsity": 0}
    assert [mask.shape for mask in weights.masks] == [(6, 4), (5, 6)]
    train(model, optimizer, 3)
    gone = torch.zeros(6, 4, dtype=torch.bool)
    gone[1, 2] = gone[3] = True
    with torch.no_grad():
        weights.change(net, net.layers[0], ~gone)
    assert (model[0].weight == 0).equal(gone)
    assert weights.telemetry()["0/sparsity"] == pytest.approx(5 / 24)
    model(torch.ones(2, 4)).sum().backward()
    with torch.no_grad():
        weights.mask_gradients(net)
        assert ((model[0].weight.grad == 0) & gone).equal(gone)
        assert (model[4].weight.grad != 0).any()
        model[0].weight.add_(1.0)
        weights.mask_weights(net)
    assert (model[0].weight == 0).equal(gone)


def test_the_optimizer_starts_afresh_for_weights_that_vanish_and_appear_and_no_others():
    model = mlp((4, 6, 2))
    optimizer = UnitAdam(model.parameters(), lr=0.01)
    net = network(model, optimizer)
    weights, new = SparseWeights(net), torch.ones(6, 4, dtype=torch.bool)
    new[1, 2] = False
    train(model, optimizer, 5)
    with torch.no_grad():
        weights.change(net, net.layers[0], new)
    moments = optimizer.state[model[0].weight]["exp_avg_sq"]
    assert moments[1, 2] == 0
    assert optimizer.steps(model[0].weight)[1].tolist() == [5, 5, 0, 5]
    train(model, optimizer, 3)
    with torch.no_grad():
        weights.change(net, net.layers[0], torch.ones(6, 4, dtype=torch.bool))
    assert model[0].weight[1, 2] == 0
    assert optimizer.steps(model[0].weight)[1].tolist() == [8, 8, 0, 8]
    assert (optimizer.steps(model[0].weight)[0] == 8).all()


@pytest.mark.parametrize("sync", [False, True])
def test_a_target_network_starts_with_the_masks_and_then_lags_or_keeps_up(sync):
    model, target = mlp((4, 6, 2)), mlp((4, 6, 2))
    net = Network(
        "qf0",
        hidden_layers(model),
        [torch.optim.SGD(model.parameters(), 0.1)],
        twins=hidden_layers(target),
        sync_twins=sync,
    )
    weights, new = SparseWeights(net), torch.ones(6, 4, dtype=torch.bool)
    new[0] = False
    weights.start(net, [new])
    for side in (model, target):
        assert (side[0].weight == 0).equal(~new)
    with torch.no_grad():
        weights.change(net, net.layers[0], new & (torch.arange(4) > 0))
        weights.mask_weights(net)
    assert (model[0].weight[:, 0] == 0).all()
    assert (target[0].weight[1:, 0] == 0).all() == sync
