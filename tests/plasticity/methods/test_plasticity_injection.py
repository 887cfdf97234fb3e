"""Plasticity injection: the same outputs, fresh weights, and only those learn."""

import copy
import io

import pytest
import torch
from torch import nn

from plasticity import (
    Every,
    Idle,
    Network,
    NoiseReader,
    OnChange,
    PlasticityInjection,
    PlasticityInjectionConfig,
    Reader,
    UnitAdam,
    attach,
    hidden_layers,
)
from tests.plasticity.models import mlp, network, train


def conv_model() -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 4, 2), nn.GroupNorm(1, 4), nn.ReLU(), nn.Flatten(), nn.Linear(36, 5), nn.PReLU()]
    return nn.Sequential(*layers, nn.Linear(5, 3))


def inject(injection, net):
    with torch.no_grad():
        injection.after_step(net)


@pytest.mark.parametrize("make", [lambda: mlp((4, 6, 5, 2), nn.Tanh), conv_model])
def test_the_output_stays_and_every_weight_is_fresh(make):
    model = make()
    net = network(model)
    x = torch.randn((7, 4) if isinstance(model[0], nn.Linear) else (7, 2, 4, 4))
    injection = PlasticityInjection(net, init="lecun")
    old = copy.deepcopy(model.state_dict())
    before = model(x)
    inject(injection, net)
    assert torch.allclose(model(x), before, atol=1e-6)
    linears = [name for name, part in model.named_modules() if isinstance(part, (nn.Linear, nn.Conv2d))]
    for name in linears:
        assert not torch.equal(model.state_dict()[f"{name}.weight"], old[f"{name}.weight"])
        assert (model.state_dict()[f"{name}.bias"] == 0).all()
    assert injection.telemetry() == {"injected": 1.0}


def test_then_the_output_is_frozen_plus_live_minus_copy():
    model = mlp((4, 6, 2), nn.Tanh)
    optimizer = UnitAdam(model.parameters(), lr=0.05)
    net = network(model, optimizer)
    injection = PlasticityInjection(net)
    frozen = copy.deepcopy(model)
    inject(injection, net)
    base = {name: value.clone() for name, value in model.state_dict().items()}
    train(model, optimizer, 5)

    def plain(weights, x):
        return (x @ weights["0.weight"].T + weights["0.bias"]).tanh() @ weights["2.weight"].T + weights["2.bias"]

    x = torch.randn(9, 4)
    live = dict(model.named_parameters())
    expected = plain(dict(frozen.named_parameters()), x) + plain(live, x) - plain(base, x)
    assert torch.allclose(model(x), expected, atol=1e-6)
    assert not torch.allclose(model(x), frozen(x), atol=1e-2)
    with net.watch(), torch.no_grad():  # metrics see it too
        assert torch.allclose(torch.cat(net.outputs(x)), expected, atol=1e-6)


def test_before_the_injection_nothing_is_computed():
    model = mlp()
    injection = PlasticityInjection(net := network(model))
    calls = []
    injection.online.frozen.register_forward_hook(lambda *_: calls.append(1))
    model(torch.ones(2, 4))
    assert calls == []
    inject(injection, net)
    model(torch.ones(2, 4))
    assert calls == [1]


def test_only_the_live_part_gets_gradients_and_its_optimizer_state_starts_afresh():
    model = mlp((4, 6, 2))
    optimizer = UnitAdam(model.parameters(), lr=0.01)
    net = network(model, optimizer)
    train(model, optimizer, 5)
    injection = PlasticityInjection(net)
    parameters = list(model.parameters())
    inject(injection, net)
    assert list(map(id, model.parameters())) == list(map(id, parameters))  # the optimizer's own
    assert not optimizer.state
    train(model, optimizer, 1)
    assert all((optimizer.steps(p) == 1).all() for p in model.parameters())
    copies = list(injection.parameters())
    assert len(copies) == 2 * len(parameters)
    assert all(not p.requires_grad and p.grad is None for p in copies)
    assert not {id(p) for p in copies} & {id(p) for group in optimizer.param_groups for p in group["params"]}


def test_gradients_with_respect_to_inputs_are_those_of_the_whole_function():
    """An actor's loss goes through the critic's inputs: the frozen part is most of what it sees."""
    model = mlp((4, 6, 1), nn.Tanh).double()
    optimizer = UnitAdam(model.parameters(), lr=0.01)
    net = network(model, optimizer)
    injection = PlasticityInjection(net)
    inject(injection, net)
    x = torch.randn(4, 4, dtype=torch.float64)
    model(x).square().sum().backward()
    optimizer.step()
    assert torch.autograd.gradcheck(model, (x.requires_grad_(),))


def test_once_only_and_at_the_time_asked_for():
    model = mlp()
    net = network(model)
    at_change = PlasticityInjectionConfig().build(net, 0)
    assert isinstance(at_change, OnChange)
    inject(at_change, net)
    assert at_change.telemetry() == {"injected": 0.0}
    at_change.notice_change()
    inject(at_change, net)
    weight = model[0].weight.clone()
    at_change.notice_change()
    inject(at_change, net)
    assert torch.equal(model[0].weight, weight)
    later = PlasticityInjectionConfig(period=3).build(network(mlp()), 0)
    assert isinstance(later, Every)


def test_a_target_network_is_injected_with_the_same_fresh_weights():
    online, target = mlp((4, 6, 2), seed=0), mlp((4, 6, 2), seed=1)
    target.requires_grad_(False)
    net = Network("q", hidden_layers(online), [UnitAdam(online.parameters())], twins=hidden_layers(target))
    injection = PlasticityInjection(net)
    x = torch.randn(8, 4)
    before = online(x), target(x)
    inject(injection, net)
    assert torch.allclose(online(x), before[0], atol=1e-6)
    assert torch.allclose(target(x), before[1], atol=1e-6)
    for one, two in zip(online.parameters(), target.parameters(), strict=True):
        assert torch.equal(one, two)
    with torch.no_grad():
        for one, two in zip(online.parameters(), target.parameters(), strict=True):
            one.add_(0.1)
            two.add_(0.05)  # half of the way, as an average would go
    half = before[1] + mlp_of(target, x) - mlp_of(target, x, shift=-0.05)
    assert torch.allclose(target(x), half, atol=1e-5)


def mlp_of(model, x, shift=0.0):
    w = [p + shift for p in model.parameters()]
    return (x @ w[0].T + w[1]).relu() @ w[2].T + w[3]


def test_the_copies_record_nothing_into_the_network():
    model = mlp((4, 6, 2))
    net = network(model)
    injection = PlasticityInjection(net)
    inject(injection, net)
    x = torch.randn(3, 4)
    model(x)
    assert torch.equal(net.activations["0"], model[:2](x))
    assert torch.equal(net.inputs, x)
    assert all(not part._forward_hooks and not part._forward_pre_hooks for part in injection.online.modules())


def test_a_network_that_never_was_injected_takes_it_from_a_saved_one():
    one, two = mlp((4, 6, 2)), mlp((4, 6, 2), seed=3)
    injected, other = PlasticityInjection(net := network(one)), PlasticityInjection(network(two), seed=8)
    x = torch.randn(5, 4)
    inject(injected, net)
    with torch.no_grad():
        one[0].weight.add_(0.1)
    assert {k: v.shape for k, v in injected.state_dict().items()} == {k: v.shape for k, v in other.state_dict().items()}
    file = io.BytesIO()
    torch.save({"model": one.state_dict(), "injection": injected.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    two.load_state_dict(saved["model"]), other.load_state_dict(saved["injection"])
    assert torch.equal(one(x), two(x))


def test_a_copy_of_model_and_injection_together_is_one_of_its_own():
    """Also right after a pass whose inputs had gradients."""
    holder = nn.ModuleDict({"model": mlp((4, 6, 2))})
    injection = PlasticityInjection(net := network(holder["model"]))
    holder["injection"] = injection
    inject(injection, net)
    x = torch.randn(5, 4, requires_grad=True)
    holder["model"][:2](x)  # the head is still to come
    twin = copy.deepcopy(holder)
    out = holder["model"](x)
    with torch.no_grad():
        for parameter in twin["injection"].parameters():
            parameter.zero_()
    assert torch.equal(holder["model"](x), out)
    assert torch.equal(twin["model"](x), mlp_of(twin["model"], x))


def test_a_head_alone_is_refused_after_the_injection():
    model = mlp((4, 6, 2))
    injection = PlasticityInjection(net := network(model))
    inject(injection, net)
    with pytest.raises(RuntimeError, match="was called without a pass through the network's first hidden layer"):
        model[2](torch.zeros(1, 6))


def test_it_moves_with_its_module():
    injection = PlasticityInjection(network(mlp((4, 6, 2)))).to(torch.float64)
    assert all(p.dtype == torch.float64 for p in injection.parameters())


def test_all_heads_of_an_actor_are_injected():
    body, mu, log_std = nn.Sequential(nn.Linear(3, 4), nn.Tanh()), nn.Linear(4, 2), nn.Linear(4, 2)
    optimizer = UnitAdam([p for m in (body, mu, log_std) for p in m.parameters()])
    net = Network("actor", hidden_layers(body, [mu, log_std]), [optimizer])
    x = torch.randn(6, 3)
    before = [head(body(x)) for head in (mu, log_std)]
    injection = PlasticityInjection(net)
    inject(injection, net)
    h = body(x)
    for head, old in zip((mu, log_std), before, strict=True):
        assert torch.allclose(head(h), old, atol=1e-6)


def test_an_encoder_that_other_networks_read_is_left_as_it_is():
    encoder, head = (
        nn.Sequential(nn.Linear(3, 4), nn.Tanh()),
        nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1)),
    )
    optimizer = UnitAdam([*encoder.parameters(), *head.parameters()])
    layers = hidden_layers(encoder, [head[0]])
    features = Network("features", layers, [optimizer], linears=[encoder[0]])
    assert isinstance(PlasticityInjectionConfig().build(features, 0), Idle)
    pi = Network("pi", hidden_layers(head), [optimizer])
    x = torch.randn(6, 3)
    before, weight = head(encoder(x)), encoder[0].weight.clone()
    injection = PlasticityInjection(pi)
    inject(injection, pi)
    out = head(encoder(x))
    assert torch.allclose(out, before, atol=1e-6)
    assert torch.equal(encoder[0].weight, weight)
    out.sum().backward()
    assert encoder[0].weight.grad.abs().max() > 0  # it goes on learning


def test_heads_that_read_other_things_and_noise_are_refused():
    body, q = nn.Sequential(nn.Linear(3, 4), nn.ReLU()), nn.Linear(4 + 2, 1)
    optimizer = UnitAdam([*body.parameters(), *q.parameters()])
    net = Network("q", hidden_layers(body, [Reader(q)]), [optimizer])
    with pytest.raises(ValueError, match="reads other things too"):
        PlasticityInjection(net)
    body, mu = nn.Sequential(nn.Linear(3, 4), nn.Tanh()), nn.Linear(4, 2)
    log_std = nn.Parameter(torch.zeros(4, 2))
    layers = hidden_layers(body, [mu], [NoiseReader(log_std, -3.0)])
    net = Network("pi", layers, [UnitAdam([*body.parameters(), *mu.parameters(), log_std])])
    with pytest.raises(ValueError, match="scales exploration noise"):
        PlasticityInjection(net)


def test_other_steps_go_on_after_it():
    model = mlp((4, 6, 2))
    optimizer = UnitAdam(model.parameters(), lr=0.02)
    net = network(model, optimizer)
    attach(PlasticityInjectionConfig(period=5).build(net, 0), net)
    x = torch.randn(64, 4)

    @torch.no_grad()
    def loss():
        return float((model(x) - x.sum(1, keepdim=True)).square().mean())

    train(model, optimizer, 5)
    middle = loss()
    train(model, optimizer, 200)
    assert loss() < middle / 2
