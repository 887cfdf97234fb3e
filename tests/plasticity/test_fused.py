"""What is compiled equals what is written in torch."""

from __future__ import annotations

import copy
import platform

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from plasticity import ContinualBackprop, Network, UnitAdam, hidden_layers
from plasticity.fused_adam import FusedAdam, corrections
from tests.plasticity.models import mlp, network, train


def stock(parameters, decoupled, **kwargs):
    return (torch.optim.AdamW if decoupled else torch.optim.Adam)(parameters, **kwargs)


@pytest.mark.parametrize("eps", [1e-8, 1e-5])
@pytest.mark.parametrize("decay", [0.0, 1e-3])
@pytest.mark.parametrize("decoupled", [False, True])
def test_fused_unit_adam_is_adam_in_float64(eps, decay, decoupled):
    ours, theirs = mlp().double(), mlp().double()
    kwargs = {"lr": 1e-3, "eps": eps, "weight_decay": decay}
    train(ours, UnitAdam(ours.parameters(), decoupled=decoupled, fused=True, **kwargs), 200)
    train(theirs, stock(theirs.parameters(), decoupled, **kwargs), 200)
    assert max((a - b).abs().max() for a, b in zip(ours.parameters(), theirs.parameters(), strict=True)) < 1e-12


@pytest.mark.parametrize("decay", [0.0, 1e-3])
def test_fused_unit_adam_is_adam_in_float32_on_recorded_gradients(decay):
    lr, random = 1e-3, torch.Generator().manual_seed(0)
    ours = [nn.Parameter(torch.randn(shape, generator=random)) for shape in ((6, 4), (7,), (3, 2, 5, 5))]
    theirs = [nn.Parameter(p.detach().clone()) for p in ours]
    one = UnitAdam(ours, lr=lr, weight_decay=decay, fused=True)
    two = torch.optim.Adam(theirs, lr=lr, weight_decay=decay)
    for _ in range(200):
        for a, b in zip(ours, theirs, strict=True):
            a.data.copy_(b.detach())  # compare steps, not paths: free-running float32 drifts apart
            scale = 10 ** float(torch.rand(1, generator=random) * 4 - 3)
            a.grad = torch.randn(a.shape, generator=random) * scale
            b.grad = a.grad.clone()
        one.step(), two.step()
        for a, b in zip(ours, theirs, strict=True):
            assert (a - b).abs().max() <= 1e-3 * lr + 1e-7


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_moments_too_small_for_full_precision_count_as_zero_within_a_step_only(kind):
    smallest = torch.finfo(kind).tiny
    weight = nn.Parameter(torch.ones(4, 3, dtype=kind))
    optimizer = UnitAdam([weight], lr=1e-3, fused=True)
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    before = weight.detach().clone()
    state = optimizer.state[weight]
    for moment in (state["exp_avg"], state["exp_avg_sq"]):
        moment[1].fill_(smallest / 4)
    weight.grad[1] = 0
    optimizer.step()
    assert (weight[1] == before[1]).all()  # torch's Adam would move it by less than can be seen
    assert (weight[0] < before[0]).all()
    if platform.machine().lower() in ("x86_64", "amd64"):
        assert (state["exp_avg"][1] == 0).all()
        assert (state["exp_avg_sq"][1] == 0).all()
    below = torch.full((3,), smallest, dtype=kind) / 4
    assert (below > 0).all()  # elsewhere such numbers are what they were
    assert (below * 2 == smallest / 2).all()


def reset_some(optimizer, random):
    for parameter in optimizer.param_groups[0]["params"]:
        rows = torch.rand(parameter.shape[0], generator=random) < 0.3
        columns = torch.rand(parameter.shape[1], generator=random) < 0.3 if parameter.dim() > 1 else None
        optimizer.reset(parameter, rows=rows, columns=columns)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([(0.9, 0.999), (0.0, 0.5), (0.99, 0.99)]), st.booleans(), st.booleans())
def test_resets_of_rows_and_columns_give_what_torchs_arithmetic_gives(seed, betas, fused, decoupled):
    kwargs = {"lr": 0.01, "betas": betas, "weight_decay": 1e-2, "decoupled": decoupled}
    models = [mlp(seed=seed).double() for _ in range(2)]
    one, two = (UnitAdam(model.parameters(), fused=fused, **kwargs) for model in models)
    two._in_one_pass.step = lambda parameters, states, group: list(parameters)  # nothing in one pass
    for index in range(4):
        for model, optimizer in zip(models, (one, two), strict=True):
            train(model, optimizer, 5, seed=seed + index)
            reset_some(optimizer, torch.Generator().manual_seed(index))
    for a, b in zip(*(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)
        assert torch.equal(one.steps(a), two.steps(b))


def test_it_follows_tensors_that_move_and_leaves_to_torch_what_is_laid_out_otherwise():
    random = torch.Generator().manual_seed(0)
    start = [torch.randn(6, 4, generator=random, dtype=torch.float64) for _ in range(2)]
    ours, theirs = ([nn.Parameter(p.clone()) for p in start] for _ in range(2))
    ours[1].data = ours[1].data.t().contiguous().t()  # strides of its own: one step at a time is torch's
    one, two = UnitAdam(ours, fused=True), torch.optim.Adam(theirs)
    for step in range(12):
        if step == 4:
            ours[0].data = ours[0].data.clone()
        if step == 8:
            one.load_state_dict(one.state_dict())
        for a, b in zip(ours, theirs, strict=True):
            b.grad = torch.randn(6, 4, generator=random, dtype=torch.float64)
            if step % 3 == 0 or a.grad is None:
                a.grad = torch.empty(4, 6, dtype=torch.float64).t() if step == 6 else torch.empty_like(b.grad)
            a.grad.copy_(b.grad)
        one.step(), two.step()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)
        assert one.state[a]["step"] == 12


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 20), st.integers(1, 20)), min_size=1, max_size=3),
    st.sampled_from([torch.float32, torch.float64]),
    st.booleans(),
)
def test_a_step_tells_the_sums_of_columns_that_were_asked_for(shapes, kind, reset):
    random = torch.Generator().manual_seed(0)
    ours = [nn.Parameter(torch.randn(shape, generator=random, dtype=kind)) for shape in shapes]
    theirs = [nn.Parameter(p.detach().clone()) for p in ours]
    one, two = UnitAdam(ours, lr=0.1, fused=True), UnitAdam(theirs, lr=0.1)
    assert all(one.column_sums(p).known() is None for p in ours)  # asked for
    for step in range(5):
        for a, b in zip(ours, theirs, strict=True):
            a.grad = torch.randn(a.shape, generator=random, dtype=kind)
            b.grad = a.grad.clone()
        one.step(), two.step()
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)  # and the step is what it is without
            torch.testing.assert_close(one.column_sums(a).known(), a.detach().abs().sum(0))
            assert torch.equal(one.steps(a), two.steps(b))
        if reset and step % 2 == 0:
            for optimizer in (one, two):
                reset_some(optimizer, torch.Generator().manual_seed(step))


def test_sums_of_columns_are_not_told_once_something_else_has_changed_them():
    parameter, bias = nn.Parameter(torch.randn(4, 3)), nn.Parameter(torch.randn(4))
    optimizer = UnitAdam([parameter, bias], fused=True)

    def step():
        parameter.grad, bias.grad = torch.randn(4, 3), torch.randn(4)
        optimizer.step()

    assert optimizer.column_sums(parameter).known() is optimizer.column_sums(bias).known() is None
    changes = (
        lambda: parameter.data.__setitem__(0, 5.0) or parameter.detach().mul_(2),
        lambda: setattr(parameter, "data", torch.randn(4, 3)),
    )
    for change in changes:
        step()
        torch.testing.assert_close(optimizer.column_sums(parameter).known(), parameter.detach().abs().sum(0))
        change()
        assert optimizer.column_sums(parameter).known() is None
    step()
    optimizer.load_state_dict(optimizer.state_dict())  # weights are what they were
    assert optimizer.column_sums(parameter).known() is not None
    optimizer.fused = False  # torch's own step tells none
    step()
    assert optimizer.column_sums(parameter).known() is None


def test_room_for_sums_follows_the_parameter_and_empty_ones_have_none():
    parameter, empty = nn.Parameter(torch.randn(4, 3)), nn.Parameter(torch.randn(0, 5))
    optimizer = UnitAdam([parameter, empty], fused=True)
    assert optimizer.column_sums(parameter).known() is optimizer.column_sums(empty).known() is None
    for new in (torch.randn(6, 40), torch.randn(6, 40).double(), torch.randn(4, 3)):
        parameter.data = new
        optimizer.state.clear()
        parameter.grad, empty.grad = torch.randn_like(parameter), torch.randn_like(empty)
        optimizer.step()
        torch.testing.assert_close(optimizer.column_sums(parameter).known(), parameter.detach().abs().sum(0))
        assert torch.equal(optimizer.column_sums(empty).known(), torch.zeros(5))


def test_within_a_stretch_whatever_may_change_is_followed():
    ours, theirs = mlp().double(), mlp().double()
    one = UnitAdam(ours.parameters(), lr=1e-2, weight_decay=1e-2, fused=True)
    two = UnitAdam(theirs.parameters(), lr=1e-2, weight_decay=1e-2)
    random, again = torch.Generator().manual_seed(0), []
    step_again = one._in_one_pass.again
    one._in_one_pass.again = lambda *given: again.append(step_again(*given)) or again[-1]
    for step in range(24):
        if step % 12 == 0:
            one.steady = object()
        if step == 4:
            reset_some(one, torch.Generator().manual_seed(1)), reset_some(two, torch.Generator().manual_seed(1))
        if step == 6:
            one.state.pop(ours[0].weight), two.state.pop(theirs[0].weight)
        if step == 8:
            one.param_groups[0]["lr"] = two.param_groups[0]["lr"] = 1e-3
        if step == 10:
            stretch = one.steady
            one.load_state_dict(one.state_dict())
            one.steady = stretch
        if step == 16:
            one.column_sums(ours[2].weight)
        if step == 18:
            ours[0].bias.grad = theirs[0].bias.grad = None
        if step == 20:
            one.steady = None
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            if step == 0 or step == 14:
                a.grad, b.grad = torch.empty_like(a), torch.empty_like(b)
            if b.grad is not None:
                a.grad.copy_(b.grad.normal_(generator=random))
        one.step(), two.step()
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-13)
            assert torch.equal(one.steps(a), two.steps(b))
    changed = {0, 4, 6, 10, 12, 14, 16, 18, 19}
    assert again == [step not in changed for step in range(20)]


def test_a_copy_of_an_optimizer_steps_its_own_parameters():
    model = mlp()
    optimizer = UnitAdam(model.parameters(), fused=True)
    train(model, optimizer, 3)
    before = [p.detach().clone() for p in model.parameters()]
    other, copied = copy.deepcopy((model, optimizer))
    assert copied.fused
    train(other, copied, 3)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before, strict=True))
    train(model, optimizer, 3)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("root", [False, True])
@pytest.mark.parametrize("beta", [0.0, 0.5, 0.9, 0.999, 0.99999])
def test_the_table_of_corrections(beta, root):
    table = corrections(beta, root).table
    counts = np.array([1, 2, 10, 1000, len(table) - 1])
    counts = counts[counts < len(table)]
    correction = -np.expm1(counts * np.log(beta)) if beta else np.ones(len(counts))
    np.testing.assert_allclose(table[counts], correction ** (-0.5 if root else -1), rtol=1e-14)
    assert len(table) == 200_001 or table[-1] == 1.0


def test_counts_beyond_the_table():
    parameter = nn.Parameter(torch.ones(2, 2, dtype=torch.float64))
    optimizer = UnitAdam([parameter], betas=(0.9, 0.99999999), fused=True)
    parameter.grad = torch.full((2, 2), 0.5, dtype=torch.float64)
    optimizer.step()
    optimizer.state[parameter]["step"].fill_(300_000)
    reference = nn.Parameter(parameter.detach().clone())
    stock_ = torch.optim.Adam([reference], betas=(0.9, 0.99999999))
    reference.grad = parameter.grad
    stock_.load_state_dict(
        {
            "state": {0: {k: v.clone() for k, v in optimizer.state[parameter].items()}},
            "param_groups": stock_.state_dict()["param_groups"],
        }
    )
    optimizer.step(), stock_.step()
    torch.testing.assert_close(parameter, reference, rtol=0, atol=1e-13)


def test_parameters_of_several_types_are_taken_each_by_its_own_kind():
    parameters = [nn.Parameter(torch.ones(3, dtype=kind)) for kind in (torch.float32, torch.float64, torch.bfloat16)]
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    taken = FusedAdam()
    states = [
        {
            "step": torch.zeros((), dtype=torch.float64),
            "exp_avg": torch.zeros_like(p),
            "exp_avg_sq": torch.zeros_like(p),
        }
        for p in parameters
    ]
    group = {"lr": 0.1, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0, "decoupled": False}
    assert taken.step(parameters, states, group) == [parameters[2]]
    assert [float(p[0].detach()) for p in parameters] == pytest.approx([0.9, 0.9, 1.0])


# -- continual backprop


def pair(model, **settings):
    """The same method twice on one network: by kernel, and by torch."""
    net = network(model)
    one, two = (ContinualBackprop(net.layers, seed=3, **settings) for _ in range(2))
    two._contribution = lambda *args: None
    return net, one, two


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=4),
    st.sampled_from([nn.ReLU, nn.Tanh]),
    st.sampled_from([0.0, 0.9, 0.99]),
    st.sampled_from([torch.float32, torch.float64]),
    st.integers(1, 9),
)
def test_what_continual_backprop_learns_of_units(widths, activation, decay, kind, batch):
    model = mlp((3, *widths, 2), activation).to(kind)
    net, one, two = pair(model, decay=decay, maturity=3, replacement_rate=0.02)
    random = torch.Generator().manual_seed(0)
    for _ in range(12):
        model(torch.randn(batch, 3, generator=random).to(kind))
        picked = []
        for method in (one, two):
            method._replace = lambda network, chosen, into=picked: into.append(chosen)  # look, and replace nothing
            with torch.no_grad():
                method.after_step(net)
        if picked:
            assert picked[0].keys() == picked[1].keys()
            assert all(torch.equal(picked[0][name], picked[1][name]) for name in picked[0])
    for layer in net.layers:
        for name, value in one.state(layer).state_dict().items():
            torch.testing.assert_close(value, two.state(layer).state_dict()[name], rtol=1e-5, atol=1e-7, msg=name)
    assert one._contribution._tasks


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(2, 9), min_size=1, max_size=3),
    st.sampled_from([nn.ReLU, nn.Tanh]),
    st.sampled_from([torch.float32, torch.float64]),
    st.booleans(),
    st.sampled_from(["unit", "none"]),
    st.sampled_from([0.1, 0.6]),
)
def test_units_that_are_replaced_by_the_kernel(widths, activation, kind, transfer, reset, rate):
    """With weights, moments and counts as torch's own calls leave them, and the same draws."""
    found = []
    for by_kernel in (True, False):
        torch.manual_seed(0)
        model = mlp((3, *widths, 2), activation).to(kind)
        optimizer = UnitAdam(model.parameters(), lr=1e-2, fused=True)
        net = Network("net", hidden_layers([*model]), [optimizer])
        method = ContinualBackprop(
            net.layers, seed=3, maturity=2, replacement_rate=rate, mean_transfer=transfer, reset_optimizer=reset
        )
        if not by_kernel:
            method._replacement.takes = lambda *_: False
        for _ in range(8):
            optimizer.zero_grad()
            model(torch.randn(6, 3, dtype=kind)).pow(2).mean().backward()
            optimizer.step()
            with torch.no_grad():
                method.after_step(net)
        states = [optimizer.state[p] for p in model.parameters()]
        found.append((dict(model.named_parameters()), states, {n: s.state_dict() for n, s in method.layers.items()}))
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-6)
    assert all(int(own["replaced"]) > 0 for own in found[0][2].values())


def test_a_state_that_begins_anew_within_a_stretch_is_followed():
    """Here each time that units are replaced; the network vouches for its tensors meanwhile."""
    model = mlp((3, 6, 2))
    optimizer = UnitAdam(model.parameters(), lr=0.1, fused=True)
    net = Network("net", hidden_layers([*model]), [optimizer])
    method = ContinualBackprop(net.layers, maturity=1, replacement_rate=0.4)
    net.steady = object()
    replaced = 0
    for _ in range(6):
        optimizer.zero_grad()
        model(torch.randn(6, 3)).pow(2).mean().backward()
        optimizer.step()
        net.forget(model[0].weight)
        optimizer.step()
        with torch.no_grad():
            method.after_step(net)
        fresh = method.state(net.layers[0]).age == 0
        replaced += int(fresh.sum())
        assert not optimizer.state[model[0].weight]["exp_avg"][fresh].any()
    assert replaced > 3


def test_a_policys_method_can_be_copied_and_goes_on_by_itself():
    model = mlp((3, 6, 2))
    optimizer = UnitAdam(model.parameters(), lr=0.1, fused=True)
    net = Network("net", hidden_layers([*model]), [optimizer])
    method = ContinualBackprop(net.layers, maturity=1, replacement_rate=0.4)
    for _ in range(4):
        optimizer.zero_grad()
        model(torch.randn(6, 3)).pow(2).mean().backward()
        optimizer.step()
        with torch.no_grad():
            method.after_step(net)
    before = copy.deepcopy(method.state_dict())
    twin = copy.deepcopy(method)
    with torch.no_grad():
        twin.after_step(net)
    torch.testing.assert_close(method.state_dict(), before, rtol=0, atol=0)
    assert int(twin.state(net.layers[0]).age.max()) == int(method.state(net.layers[0]).age.max()) + 1


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
@pytest.mark.parametrize("meddle", [False, True])
def test_what_the_optimizer_tells_of_outgoing_weights_is_used_unless_they_have_changed_since(meddle, kind):
    model = mlp((3, 50, 40, 2)).to(kind)
    optimizer = UnitAdam(model.parameters(), lr=0.1, fused=True)
    net = Network("net", hidden_layers([*model]), [optimizer])
    untold = Network("net", net.layers, [torch.optim.SGD(model.parameters())])
    one, two, three = (ContinualBackprop(net.layers, replacement_rate=0.0, decay=0.5) for _ in range(3))
    three._contribution = lambda *args: None
    for step in range(4):
        optimizer.zero_grad()
        model(torch.randn(6, 3, dtype=kind)).pow(2).mean().backward()
        optimizer.step()
        with torch.no_grad():
            if meddle:
                model[2].weight.mul_(3)
            one.after_step(net), two.after_step(untold), three.after_step(net)
        known = [task.held[1] is not None for task in one._contribution._tasks]
        assert known == [step > 0 and not meddle, step > 0]  # the first one asks
        assert not any(task.held[1] is not None for task in two._contribution._tasks)
        for layer in net.layers:
            utility = one.state(layer).utility
            assert torch.equal(utility, two.state(layer).utility)  # so that a run that is resumed goes on exactly
            torch.testing.assert_close(utility, three.state(layer).utility)


def test_several_readers_and_their_columns_count_together():
    body, heads = mlp((3, 5, 4)), [nn.Linear(4, 2), nn.Linear(7, 3)]
    from plasticity import Reader

    layers = hidden_layers([*body, nn.ReLU()], [heads[0], Reader(heads[1], first=2)])
    optimizer = torch.optim.SGD([p for module in (body, *heads) for p in module.parameters()], lr=0.1)
    net = Network("net", layers, [optimizer])
    one, two = (ContinualBackprop(layers, decay=0.5) for _ in range(2))
    two._contribution = lambda *args: None
    layers[-1].activation(body(torch.randn(6, 3)))
    with torch.no_grad():
        one.after_step(net), two.after_step(net)
    found, expected = one.state(layers[-1]).utility, two.state(layers[-1]).utility
    outgoing = torch.cat([heads[0].weight, heads[1].weight[:, 2:6]]).abs().mean(0)
    by_hand = 0.5 * outgoing * net.activations[layers[-1].name].abs().mean(0)
    torch.testing.assert_close(found, by_hand)
    torch.testing.assert_close(found, expected)


def test_weights_that_are_put_elsewhere_are_followed_and_other_layouts_are_torchs():
    model = mlp((3, 5, 2))
    net, one, two = pair(model, decay=0.5)
    for change in (
        lambda: None,
        lambda: setattr(model[2].weight, "data", torch.randn(2, 5)),
        lambda: one.state(net.layers[0]).load_state_dict(two.state(net.layers[0]).state_dict()),
        lambda: setattr(model[2].weight, "data", torch.randn(5, 2).t()),  # not in rows
    ):
        change()
        model(torch.randn(4, 3))
        with torch.no_grad():
            one.after_step(net), two.after_step(net)
        torch.testing.assert_close(one.state(net.layers[0]).utility, two.state(net.layers[0]).utility)
    assert not one._contribution._tasks


def test_other_utilities_are_torchs():
    model = mlp()
    net, one, _ = pair(model, utility="zero_contribution")
    one._contribution = None  # would fail if it were asked
    model(torch.randn(4, model[0].in_features))
    with torch.no_grad():
        one.after_step(net)
    assert all(int(one.state(layer).age.min()) == 1 for layer in net.layers)
