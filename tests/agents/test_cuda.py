"""On a GPU everything of an agent's is there, and trains; skipped where there is none."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from agents import PlasticityMonitor
from plasticity import METHODS, ContinualBackprop
from tests.agents.models import CBP, ppo, replaced, sac
from tests.plasticity.models import mlp, network, train
from tests.plasticity.rows import ROWS

gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")


@gpu
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("make", "steps"), [(ppo, 64), (sac, 50)], ids=["ppo", "sac"])
def test_every_method_trains_there_and_is_saved(make, steps, method, tmp_path):
    model = make(plasticity={method: ROWS[method].active}, device="cuda", backend="auto")
    assert model.why_stock()
    model.learn(steps, callback=PlasticityMonitor(every=20, probe_size=32))
    assert {p.device.type for p in model.policy.parameters()} == {"cuda"}
    model.save(tmp_path / "agent")
    again = type(model).load(tmp_path / "agent", device="cuda")
    for name, value in model.policy.state_dict().items():
        if torch.is_tensor(value):
            assert torch.equal(value, again.policy.state_dict()[name]), name


@gpu
def test_units_are_replaced_there_as_on_the_cpu():
    counts = [replaced(ppo(plasticity=CBP, device=device).learn(192)) for device in ("cpu", "cuda")]
    assert counts[0] == counts[1]


def test_counts_that_are_read_at_each_step_stay_on_the_cpu():
    """Seen without a GPU: whatever a module is moved with, `_apply` does."""
    for method in ("redo", "shrink_and_perturb", "hare_tortoise", "rigl", "magnitude_pruning"):
        model = ppo(plasticity={method: ROWS[method].active})
        for name, buffer in model.policy.plasticity._apply(lambda tensor: tensor.to("meta")).named_buffers():
            if name.endswith((".steps", ".pending")):
                assert buffer.device.type == "cpu", name


def test_the_budget_is_looked_at_only_when_a_unit_may_be_due(monkeypatch):
    """On a GPU each look waits for all that is under way. 12 units at 1/100 each: one is due every ninth step or so."""
    model = mlp((4, 12, 2), nn.ReLU)
    method = ContinualBackprop((net := network(model)).layers, replacement_rate=0.01, maturity=0)
    method._contribution = lambda *args: None  # as where there is no kernel
    looks, maximum = [], torch.Tensor.max
    monkeypatch.setattr(torch.Tensor, "max", lambda *args, **kwargs: looks.append(step) or maximum(*args, **kwargs))
    optimizer = net.optimizers[0]
    for step in range(1, 20):
        train(model, optimizer, 1, seed=step)
        with torch.no_grad():
            method.after_step(net)
    state = method.state(net.layers[0])
    assert int(state.replaced) == 2  # at steps 9 and 17: 0.12 a step, and what is left is carried
    assert len(looks) < 10
