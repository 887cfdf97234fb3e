"""UnitAdam against torch's own Adam."""

import copy
import subprocess
import sys

import pytest
import torch
from torch import nn

from plasticity import UnitAdam, reset_state
from tests.plasticity.models import mlp, train


def stock(parameters, decoupled, **kwargs):
    return (torch.optim.AdamW if decoupled else torch.optim.Adam)(parameters, **kwargs)


@pytest.mark.parametrize("eps", [1e-8, 1e-5])
@pytest.mark.parametrize("decay", [0.0, 1e-3])
@pytest.mark.parametrize("decoupled", [False, True])
def test_it_is_adam_bit_for_bit_while_nothing_is_reset(eps, decay, decoupled):
    ours, theirs = mlp(), mlp()
    kwargs = {"lr": 1e-3, "eps": eps, "weight_decay": decay}
    train(ours, UnitAdam(ours.parameters(), decoupled=decoupled, **kwargs), 50)
    train(theirs, stock(theirs.parameters(), decoupled, **kwargs), 50)
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))
    assert not torch.equal(ours[0].weight, mlp()[0].weight)


def count_by_unit(optimizer):
    """Force the per-unit arithmetic without changing any state."""
    for group in optimizer.param_groups:
        for p in group["params"]:
            optimizer.reset(p, rows=torch.zeros(p.shape[0], dtype=torch.bool))


@pytest.mark.parametrize("eps", [1e-8, 1e-5])
@pytest.mark.parametrize("decay", [0.0, 1e-3])
@pytest.mark.parametrize("decoupled", [False, True])
def test_counting_by_unit_equals_adam_in_float64(eps, decay, decoupled):
    ours, theirs = mlp().double(), mlp().double()
    kwargs = {"lr": 1e-3, "eps": eps, "weight_decay": decay}
    one, two = (
        UnitAdam(ours.parameters(), decoupled=decoupled, **kwargs),
        stock(theirs.parameters(), decoupled, **kwargs),
    )
    train(ours, one, 1), train(theirs, two, 1)
    count_by_unit(one)
    for seed in range(199):
        train(ours, one, 1, seed=seed), train(theirs, two, 1, seed=seed)
    assert "row_step" in one.state[ours[0].weight]
    assert max((a - b).abs().max() for a, b in zip(ours.parameters(), theirs.parameters(), strict=True)) < 1e-12


@pytest.mark.parametrize("eps", [1e-8, 1e-5])
@pytest.mark.parametrize("decay", [0.0, 1e-3])
@pytest.mark.parametrize("decoupled", [False, True])
def test_counting_by_unit_equals_adam_in_float32_on_recorded_gradients(eps, decay, decoupled):
    lr, random = 1e-3, torch.Generator().manual_seed(0)
    start = torch.randn(6, 4, generator=random)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    kwargs = {"lr": lr, "eps": eps, "weight_decay": decay}
    one, two = UnitAdam([ours], decoupled=decoupled, **kwargs), stock([theirs], decoupled, **kwargs)
    for step in range(200):
        gradient = torch.randn(6, 4, generator=random) * 10 ** float(torch.rand(1, generator=random) * 4 - 3)
        before = theirs.detach().clone()
        ours.data.copy_(before)  # compare steps, not paths: free-running float32 drifts apart
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        one.step(), two.step()
        if step == 0:
            count_by_unit(one)
        assert (ours - theirs).abs().max() <= 1e-3 * lr + 1e-7


def test_counting_by_unit_serves_betas_of_zero_and_parameters_of_several_types_and_shapes():
    random = torch.Generator().manual_seed(0)
    shapes = [((6, 4), torch.float64), ((6,), torch.float32), ((3, 2, 2, 2), torch.float64), ((5, 3), torch.bfloat16)]
    ours = [nn.Parameter(torch.randn(shape, generator=random).to(dtype)) for shape, dtype in shapes]
    theirs = [nn.Parameter(p.detach().clone()) for p in ours]
    one, two = UnitAdam(ours, betas=(0.0, 0.9)), torch.optim.Adam(theirs, betas=(0.0, 0.9))
    for step in range(20):
        for a, b in zip(ours, theirs, strict=True):
            a.grad = torch.randn(a.shape, generator=random).to(a)
            b.grad = a.grad.clone()
        one.step(), two.step()
        if step == 0:
            count_by_unit(one)
    for (_, dtype), a, b in zip(shapes, ours, theirs, strict=True):
        tolerance = {torch.float64: 1e-12, torch.float32: 1e-6, torch.bfloat16: 0.02}[dtype]
        assert (a - b).abs().max() <= tolerance
        assert one.steps(a).unique().tolist() == [20]


def test_after_a_reset_the_replaced_weights_are_a_fresh_adams_and_the_live_ones_untouched():
    random = torch.Generator().manual_seed(0)
    gradients = torch.randn(60, 6, 5, generator=random, dtype=torch.float64)
    start = torch.randn(6, 5, generator=random, dtype=torch.float64)

    def run(optimizer, parameter, stream):
        for gradient in stream:
            parameter.grad = gradient.clone()
            optimizer.step()

    ours, untouched = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    optimizer = UnitAdam([ours], lr=1e-2)
    run(optimizer, ours, gradients[:30])
    rows, columns = torch.arange(6) == 2, torch.arange(5) == 4
    optimizer.reset(ours, rows=rows, columns=columns)
    middle = ours.detach().clone()
    run(optimizer, ours, gradients[30:])
    run(torch.optim.Adam([untouched], lr=1e-2), untouched, gradients)
    fresh = nn.Parameter(middle)
    run(torch.optim.Adam([fresh], lr=1e-2), fresh, gradients[30:])
    reset = rows[:, None] | columns[None]
    assert torch.allclose(ours[reset], fresh[reset], rtol=0, atol=1e-13)
    assert torch.allclose(ours[~reset], untouched[~reset], rtol=0, atol=1e-13)
    assert (optimizer.steps(ours) == torch.where(reset, 30, 60)).all()


def test_later_resets_of_rows_and_columns_count_from_the_latest():
    p = nn.Parameter(torch.ones(3, 2))
    optimizer = UnitAdam([p])

    def steps(n):
        for _ in range(n):
            p.grad = torch.ones_like(p)
            optimizer.step()

    steps(4), optimizer.reset(p, rows=torch.tensor([True, False, False]))
    steps(3), optimizer.reset(p, columns=torch.tensor([False, True]))
    steps(2)
    assert optimizer.steps(p).tolist() == [[5, 2], [9, 2], [9, 2]]


def test_convolutions_and_biases_are_counted_too():
    conv = nn.Conv2d(3, 4, 2)
    optimizer = UnitAdam(conv.parameters())
    conv(torch.randn(2, 3, 5, 5)).square().mean().backward()
    optimizer.step()
    optimizer.reset(conv.weight, columns=torch.tensor([False, True, False]))
    optimizer.reset(conv.bias, rows=torch.tensor([True, False, False, False]))
    optimizer.step()
    assert (optimizer.steps(conv.weight)[:, 1] == 1).all()
    assert (optimizer.steps(conv.weight)[:, [0, 2]] == 2).all()
    assert optimizer.steps(conv.bias).tolist() == [1, 2, 2, 2]


def test_its_own_state_loads_exactly():
    model = mlp()
    optimizer = UnitAdam(model.parameters(), lr=0.01)
    train(model, optimizer, 3)
    optimizer.reset(model[0].weight, rows=torch.arange(6) == 1)
    optimizer.state[model[0].weight]["row_step"][0] = 2**24 + 1  # float32 would lose the 1
    optimizer.state[model[4].weight]["step"].fill_(2**24 + 1)
    other = copy.deepcopy(model)
    loaded = UnitAdam(other.parameters(), lr=0.5)
    loaded.load_state_dict(optimizer.state_dict())
    assert loaded.param_groups[0]["lr"] == 0.01
    assert loaded.state[other[0].weight]["row_step"][0] == 2**24 + 1
    assert loaded.state[other[0].weight]["row_step"].dtype == torch.int64
    assert int(loaded.state[other[4].weight]["step"]) == 2**24 + 1
    train(model, optimizer, 3), train(other, loaded, 3)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


def test_a_stock_state_loads_under_our_hyper_parameters_and_can_be_reset():
    model = mlp()
    theirs = torch.optim.Adam(model.parameters(), lr=0.5, eps=1e-8)
    train(model, theirs, 7)
    other = copy.deepcopy(model)
    ours = UnitAdam(other.parameters(), lr=0.01, eps=1e-5)
    ours.load_state_dict(theirs.state_dict())
    assert (ours.param_groups[0]["lr"], ours.param_groups[0]["eps"]) == (0.01, 1e-5)
    assert (ours.steps(other[0].weight) == 7).all()
    theirs.param_groups[0].update(lr=0.01, eps=1e-5)
    train(model, theirs, 5), train(other, ours, 5)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    ours.reset(other[0].weight, rows=torch.arange(6) == 1)
    assert (ours.steps(other[0].weight)[1] == 0).all()
    assert (theirs.state[model[0].weight]["step"] == 12).all()  # the source is not aliased


def test_states_of_other_optimizers_and_amsgrad_are_refused():
    model = mlp()
    for other, text in (
        (torch.optim.SGD(model.parameters(), 0.1, momentum=0.9), "has no exp_avg"),
        (torch.optim.Adam(model.parameters(), amsgrad=True), "amsgrad=True"),
    ):
        train(model, other, 1)
        with pytest.raises(ValueError, match=text):
            UnitAdam(model.parameters()).load_state_dict(other.state_dict())


def test_after_a_reset_of_single_weights_they_are_a_fresh_adams_and_the_others_untouched():
    random = torch.Generator().manual_seed(0)
    gradients = torch.randn(60, 6, 5, generator=random, dtype=torch.float64)
    some = torch.rand(6, 5, generator=random) < 0.4
    whole, fresh, old = (nn.Parameter(torch.zeros(6, 5, dtype=torch.float64)) for _ in range(3))
    ours, new, stale = UnitAdam([whole], lr=0.01), torch.optim.Adam([fresh], lr=0.01), torch.optim.Adam([old], lr=0.01)
    for step, gradient in enumerate(gradients):
        if step == 40:
            ours.reset(whole, entries=some)
            with torch.no_grad():
                fresh.copy_(old)
        for parameter, optimizer in ((whole, ours), (old, stale), (fresh, new)):
            if optimizer is not new or step >= 40:
                parameter.grad = gradient.clone()
                optimizer.step()
    assert (whole - torch.where(some, fresh, old)).abs().max() < 1e-12
    assert ours.steps(whole).equal(torch.where(some, 20, 60))
    ours.reset(whole, rows=torch.tensor([True] + [False] * 5))
    assert ours.steps(whole)[0].tolist() == [0] * 5
    assert ours.steps(whole)[1:].equal(torch.where(some, 20, 60)[1:])


def test_counts_of_single_weights_survive_save_and_load_exactly():
    p = nn.Parameter(torch.ones(3, 2))
    one, two = UnitAdam([p]), UnitAdam([p])
    p.grad = torch.ones_like(p)
    one.step()
    one.reset(p, entries=torch.tensor([[True, False]] * 3))
    one.state[p]["entry_step"][0, 1] = 2**24 + 1  # float32 would round it
    two.load_state_dict(one.state_dict())
    assert two.state[p]["entry_step"].equal(one.state[p]["entry_step"])
    assert two.state[p]["entry_step"].dtype == torch.int64


def test_without_masks_all_of_a_parameter_starts_afresh_in_any_optimizer():
    for make in (UnitAdam, torch.optim.Adam, torch.optim.RMSprop):
        p, q, fresh = (nn.Parameter(torch.ones(3, 2)) for _ in range(3))
        optimizer = make([p, q], lr=0.1)
        for parameter in (p, q):
            parameter.grad = torch.ones_like(p)
        optimizer.step()
        reset_state(optimizer, p)
        assert p not in optimizer.state
        assert q in optimizer.state
        with torch.no_grad():
            p.fill_(1.0)
        p.grad, fresh.grad = torch.full_like(p, 2.0), torch.full_like(p, 2.0)
        optimizer.step(), make([fresh], lr=0.1).step()
        assert torch.equal(p, fresh)


def test_wrong_settings_and_masks_are_named():
    p = nn.Parameter(torch.ones(3, 2))
    with pytest.raises(ValueError, match=r"lr must be in \[0, inf\), got -1"):
        UnitAdam([p], lr=-1)
    with pytest.raises(ValueError, match=r"eps must be in \[0, inf\), got nan"):
        UnitAdam([p], eps=float("nan"))
    with pytest.raises(ValueError, match=r"betas must be in \[0, 1\), got \(0.9, 1.0\)"):
        UnitAdam([p], betas=(0.9, 1.0))
    with pytest.raises(ValueError, match=r"columns must be a mask over dimension 1 .* \(3, 2\), got shape \(3,\)"):
        UnitAdam([p]).reset(p, columns=torch.ones(3, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"entries must have the shape \(3, 2\), got \(2, 3\)"):
        UnitAdam([p]).reset(p, entries=torch.ones(2, 3, dtype=torch.bool))


def test_other_optimizers_reset_the_state_they_have_and_adam_says_what_it_lacks():
    p = nn.Parameter(torch.ones(3, 2))
    rms, adam = torch.optim.RMSprop([p]), torch.optim.Adam([p])
    p.grad = torch.ones_like(p)
    rms.step(), adam.step()
    rows = torch.tensor([False, True, False])
    reset_state(rms, p, rows=rows)
    assert (rms.state[p]["square_avg"][1] == 0).all()
    assert (rms.state[p]["square_avg"][[0, 2]] > 0).all()
    with pytest.warns(UserWarning, match=r"up to 6\.5 times too long; use plasticity\.UnitAdam"):
        reset_state(adam, p, rows=rows)
    assert (adam.state[p]["exp_avg"][1] == 0).all()


def test_a_closure_is_called_with_gradients():
    p = nn.Parameter(torch.ones(2))
    optimizer = UnitAdam([p])

    def closure():
        optimizer.zero_grad()
        loss = p.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure) == 2
    assert (p < 1).all()


def test_torchs_compiler_is_not_imported_by_a_run_of_ppo():
    program = """
import sys, torch
from agents import PPO
from stable_baselines3.common.env_util import make_vec_env
model = PPO("MlpPolicy", make_vec_env("CartPole-v1"), n_steps=64, plasticity="cbp", backend="auto", device="cpu")
model.learn(64)
model.policy.optimizer.load_state_dict(model.policy.optimizer.state_dict())
model.policy.optimizer.zero_grad()
assert "torch._dynamo" not in sys.modules
import torch._dynamo
model.policy.optimizer.zero_grad()
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
