"""GraMa: which units it finds inactive, from which gradients."""

import copy

import torch
from torch import nn

from plasticity import CReLU, Every, GraMa, HiddenLayer, Network, Reader, UnitAdam, attach, hidden_layers
from plasticity.methods.grama import gradient_score
from tests.plasticity.models import mlp, network


def act(method, net):
    with torch.no_grad():
        method.before_step(net)
        method.after_step(net)


def test_the_recorded_gradients_are_those_of_finite_differences():
    model, x = mlp((3, 4, 2), nn.Tanh).double(), torch.randn(7, 3, dtype=torch.float64)
    net = network(model)
    net.record_gradients()
    (model(x) - 1).square().mean().backward()
    with torch.no_grad():
        z = model[0](x)
        for name, recorded, start, rest in (
            ("z", net.input_gradients["0"], z, model[1:]),
            ("h", net.output_gradients["0"], torch.tanh(z), model[2:]),
        ):
            for row, unit in ((0, 0), (3, 2), (6, 3)):
                ends = []
                for shift in (1e-6, -1e-6):
                    moved = start.clone()
                    moved[row, unit] += shift
                    ends.append(float((rest(moved) - 1).square().mean()))
                assert torch.isclose(recorded[row, unit], torch.tensor((ends[0] - ends[1]) / 2e-6).double()), name


def test_nothing_is_recorded_unless_asked_for_nor_by_copies_nor_without_gradients():
    model, x = mlp(), torch.randn(3, 4)
    net = network(model)
    model(x).sum().backward()
    assert net.input_gradients == {}
    net.record_gradients()
    net.record_gradients()
    assert sum(len(layer.activation._forward_pre_hooks) for layer in net.layers) == 2  # once each
    copy.deepcopy(model)(x).sum().backward()
    with net.watch():
        model(x).sum().backward()
    assert net.input_gradients == net.output_gradients == {}
    model(x).sum().backward()
    assert set(net.input_gradients) == set(net.output_gradients) == {"0", "1"}
    model(x)
    assert net.input_gradients == net.output_gradients == {}  # of another pass than the activations
    net.close()
    model(x).sum().backward()
    assert net.input_gradients == {}


def test_activations_in_place_do_not_hide_their_input():
    models = [nn.Sequential(nn.Linear(3, 5), nn.ReLU(inplace), nn.Linear(5, 1)) for inplace in (False, True)]
    models[1].load_state_dict(models[0].state_dict())
    nets, x = [network(model) for model in models], torch.randn(6, 3)
    for model, net in zip(models, nets, strict=True):
        net.record_gradients()
        model(x).square().mean().backward()
    assert torch.equal(nets[0].input_gradients["0"], nets[1].input_gradients["0"])
    assert (nets[0].input_gradients["0"] == 0).any()
    assert torch.equal(nets[0].output_gradients["0"], nets[1].output_gradients["0"])


def test_the_score_does_not_depend_on_the_unit_of_the_loss():
    layer = network(mlp()).layers[0]
    gradient = torch.randn(9, 6, dtype=torch.float64)
    size = gradient.abs().sum(0)
    assert torch.allclose(gradient_score(layer, gradient), 6 * size / size.sum())
    assert torch.allclose(gradient_score(layer, gradient * 1e-20), gradient_score(layer, gradient))


def test_it_recycles_what_gets_no_gradient_behind_a_layer_norm():
    model = nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Tanh(), nn.Linear(6, 2))
    net = network(model)
    with torch.no_grad():
        model[1].weight[2] = 0.0  # the unit says tanh(9), about 1, whatever it reads
        model[1].bias[2] = 9.0
    grama, before = GraMa(net), model[0].weight.detach().clone()
    model(torch.randn(9, 4)).square().mean().backward()
    assert (model[0].weight.grad[2].abs() > 0.01 * model[0].weight.grad.abs().mean()).any()  # through the others
    act(grama, net)
    assert grama.telemetry() == {"0/replaced": 1}
    assert (model[0].weight != before).any(1).tolist() == [False, False, True, False, False, False]
    assert (model[3].weight == 0).all(0).tolist() == [False, False, True, False, False, False]
    assert model[1].weight[2] == 1
    assert model[1].bias[2] == 0


def test_a_dead_relu_unit_is_inactive():
    model = mlp((4, 6, 2))
    with torch.no_grad():
        model[0].weight.abs_(), model[0].bias.abs_()
        model[0].bias[1] = -100.0
    net = network(model)
    grama = GraMa(net)
    model(torch.rand(50, 4)).square().mean().backward()
    act(grama, net)
    assert grama.telemetry() == {"0/replaced": 1}
    assert model[0].bias[1] == 0


def test_a_layer_that_is_all_dead_is_inactive_but_not_the_one_before_it():
    model = mlp((4, 6, 5, 2))
    with torch.no_grad():
        model[2].bias.fill_(-100.0)
    net = network(model)
    grama = GraMa(net)
    model(torch.randn(50, 4)).square().mean().backward()
    act(grama, net)
    assert grama.telemetry() == {"0/replaced": 0, "1/replaced": 5}


def test_a_loss_that_does_not_depend_on_the_network_replaces_nothing():
    model = mlp()
    net = network(model)
    grama, before = GraMa(net), [p.detach().clone() for p in model.parameters()]
    act(grama, net)  # no gradients yet
    (model(torch.randn(9, 4)) * 0).sum().backward()  # PPO where every ratio is clipped
    act(grama, net)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before, strict=True))


def test_what_another_loss_sends_through_the_network_is_not_looked_at():
    critic, actor, x = mlp((4, 6, 1), nn.Tanh), nn.Linear(4, 4), torch.randn(8, 4)
    optimizer = UnitAdam(critic.parameters(), lr=0.0)
    net = Network("qf0", hidden_layers(critic), [optimizer])
    with torch.no_grad():
        critic[2].weight[0, 3] = 0.0  # the critic's own loss sends unit 3 nothing
    grama = Every(2, GraMa(net))
    attach(grama, net)
    for _ in range(2):
        optimizer.zero_grad()
        critic(x).square().mean().backward()
        optimizer.step()
        (critic[1](critic[0](actor(x))) * 1e6).sum().backward()  # an actor's loss that does reach it
    assert grama.telemetry() == {"0/replaced": 1}


def test_channels_doubling_activations_and_networks_side_by_side_have_scores_of_their_own():
    model = nn.Sequential(nn.Conv2d(1, 3, 2), nn.ReLU(), nn.Conv2d(3, 2, 2))
    gradient = torch.zeros(2, 3, 4, 4)
    gradient[:, 0], gradient[0, 2, 0, 0] = 1.0, -64.0
    assert gradient_score(network(model).layers[0], gradient).tolist() == [1, 0, 2]
    model = nn.Sequential(nn.Linear(4, 3), CReLU(), nn.Linear(6, 1))
    net = network(model)
    net.record_gradients()
    model(torch.randn(5, 4)).sum().backward()
    assert gradient_score(net.layers[0], net.input_gradients["0"]).shape == (3,)
    linear, out = nn.Module(), nn.Module()
    linear.weight, out.weight = nn.Parameter(torch.zeros(2, 3, 4)), nn.Parameter(torch.zeros(2, 1, 3))
    replicas = HiddenLayer("h", linear, nn.ReLU(), (Reader(out),))
    gradient = torch.ones(7, 2, 3)
    gradient[:, 1] *= torch.tensor([0.0, 1.0, 2.0])
    assert gradient_score(replicas, gradient).tolist() == [[1, 1, 1], [0, 1, 2]]
