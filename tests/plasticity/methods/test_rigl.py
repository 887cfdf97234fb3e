"""RigL: which weights are exchanged, by hand, and that nothing else moves."""

import math

import torch

from plasticity import HiddenLayer, Network, Reader, RigL, UnitAdam, attach
from plasticity.sparsity import densities
from tests.plasticity.models import mlp, network, train


def test_the_smallest_weights_go_and_those_with_the_largest_gradients_come():
    model = mlp((4, 2, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    net = network(model, optimizer)
    method = RigL(net, sparsity=0.5, drop_fraction=1.0, period=1, end=2, distribution="uniform")
    mask = torch.tensor([[True, True, False, False], [True, False, True, False]])
    weight = torch.tensor([[0.5, -0.1, 0, 0], [2.0, 0, -0.2, 0]])
    gradient = torch.tensor([[9.0, -8, 1, -5], [0, 0.5, 0, 0.1]])
    with torch.no_grad():
        next(iter(method.weights.masks)).copy_(mask)
        model[0].weight.copy_(weight)
        model[0].weight.grad = gradient.clone()
        method.before_step(net)  # step 1 of 2: 1/2 (1 + cos(pi / 2)) of 4 weights, so 2 go
    # -0.1 and -0.2 go; -0.1 has the largest gradient of what is missing then and comes back; (0, 3) is next
    new = torch.tensor([[True, True, False, True], [True, False, False, False]])
    assert next(iter(method.weights.masks)).equal(new)
    assert model[0].weight.tolist() == torch.where(new, weight, 0.0).tolist()
    assert model[0].weight.grad.tolist() == torch.where(new, gradient, 0.0).tolist()


def test_the_number_of_weights_never_changes_and_the_number_exchanged_falls_as_a_cosine():
    model = mlp((20, 30, 20, 2))
    optimizer = UnitAdam(model.parameters(), lr=1e-3)
    net = network(model, optimizer)
    method = RigL(net, sparsity=0.8, drop_fraction=0.5, period=2, end=10, seed=3)
    attach(method, net)
    expected = [round(share * 600) for share in densities(net.layers, 0.8, "erk")]
    masks = [mask.clone() for mask in method.weights.masks]
    assert [int(mask.sum()) for mask in masks] == expected
    for step in range(1, 14):
        train(model, optimizer, 1, seed=step)
        fraction = 0.25 * (1 + math.cos(math.pi * step / 10)) if step % 2 == 0 and step < 10 else 0.0
        for i, (layer, mask) in enumerate(method.weights.of(net)):
            assert int(mask.sum()) == expected[i]
            gone = int((masks[i] & ~mask).sum())
            assert gone <= int(fraction * expected[i])  # some come back at once
            assert (gone > 0) == (fraction > 0)
            assert (layer.weight[~mask] == 0).all()
            assert (layer.weight[mask & masks[i]] != 0).all()
            masks[i] = mask.clone()


def test_a_grown_weight_takes_the_first_step_of_a_fresh_adam():
    model = mlp((6, 8, 2))
    optimizer = UnitAdam(model.parameters(), lr=0.01)
    net = network(model, optimizer)
    method = RigL(net, sparsity=0.5, period=5, end=100, distribution="uniform")
    attach(method, net)
    train(model, optimizer, 4)
    before = next(iter(method.weights.masks)).clone()
    train(model, optimizer, 1)
    grown = next(iter(method.weights.masks)) & ~before
    assert grown.any()
    assert torch.allclose(model[0].weight[grown].abs(), torch.tensor(0.01), rtol=1e-3)


def test_the_first_masks_are_random_by_seed_and_network():
    def masks(seed, name="net"):
        net = network(mlp((10, 20, 2)), name=name)
        return next(iter(RigL(net, sparsity=0.5, seed=seed).weights.masks))

    assert masks(0).equal(masks(0))
    assert not masks(0).equal(masks(1))
    assert not masks(0).equal(masks(0, "other"))


def test_networks_side_by_side_exchange_weights_of_their_own():
    torch.manual_seed(0)
    linear, out = nn_module(3, 5, 4), nn_module(3, 1, 5)
    layer = HiddenLayer("h", linear, torch.nn.ReLU(), (Reader(out),))
    net = Network("n", [layer], [torch.optim.SGD([linear.weight, out.weight], 0.1)])
    method = RigL(net, sparsity=0.5, drop_fraction=1.0, period=1, end=2)
    mask = next(iter(method.weights.masks))
    assert mask.sum((1, 2)).tolist() == [10, 10, 10]
    before = mask.clone()
    linear.weight.grad = torch.randn(3, 5, 4)
    linear.weight.grad[1] = linear.weight.detach()[1]  # here what exists is what is wanted most
    with torch.no_grad():
        method.before_step(net)
    assert mask.sum((1, 2)).tolist() == [10, 10, 10]
    assert not mask[0].equal(before[0])
    assert mask[1].equal(before[1])


def nn_module(*shape):
    module = torch.nn.Module()
    module.weight = torch.nn.Parameter(torch.randn(shape))
    return module
