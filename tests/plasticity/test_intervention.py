"""The seam and its combinators, and the metrics of one step."""

import pytest
import torch
from torch import nn

from plasticity import Chain, ContinualBackprop, Every, Idle, Intervention, OnChange, StepMetrics, attach, schedule
from tests.plasticity.models import mlp, network, train


class Recorder(nn.Module, Intervention):
    def __init__(self, name, log):
        super().__init__()
        self.name, self.log = name, log

    def before_step(self, network):
        self.log.append(f"{self.name} before")

    def after_step(self, network):
        self.log.append(f"{self.name} after")

    def telemetry(self):
        return {self.name: 1.0}


def test_a_chain_acts_in_order_and_every_counts_gradient_steps():
    model, log = mlp(), []
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    chain = Chain([Recorder("a", log), Every(2, Recorder("b", log))])
    attach(chain, network(model, optimizer))
    train(model, optimizer, 2)
    assert log == ["a before", "a after", "a before", "b before", "a after", "b after"]
    assert chain.telemetry() == {"a": 1.0, "b": 1.0}
    assert Chain([Recorder("0/replaced", log), Recorder("0/replaced", log)]).telemetry() == {"0/replaced": 2.0}
    with pytest.raises(ValueError, match=r"period must be in \[1, inf\) gradient steps, got 0"):
        Every(0, Recorder("b", log))


def test_a_method_that_has_after_step_only_is_an_intervention():
    class Mine(nn.Module, Intervention):
        def after_step(self, network):
            network.layers[0].weight.zero_()

    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    attach(Mine(), network(model, optimizer))
    train(model, optimizer, 1)
    assert (model[0].weight == 0).all()
    assert Mine().telemetry() == {}


def test_step_metrics_measure_one_step_when_armed():
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    net, metrics = network(model, optimizer), StepMetrics()
    attach(metrics, net)
    train(model, optimizer, 2)
    assert metrics.telemetry() == {}
    before = model[0].weight.detach().clone()
    metrics.arm()
    train(model, optimizer, 1, seed=8)
    numbers = metrics.telemetry()
    gradient = model[0].weight.grad
    assert numbers["0/gradient_norm"] == pytest.approx(float(gradient.norm()))
    assert numbers["0/update_ratio"] == pytest.approx(float(0.5 * gradient.norm() / before.norm()), rel=1e-4)
    assert numbers["0/zero_gradient_fraction"] == float((gradient == 0).double().mean())
    train(model, optimizer, 1, seed=9)
    assert metrics.telemetry() == numbers


def test_on_change_acts_once_at_the_first_step_after_each_change():
    model, log = mlp(), []
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    chain = Chain([Every(1, OnChange(Recorder("a", log)))])
    attach(chain, network(model, optimizer))
    train(model, optimizer, 2)
    assert log == []
    chain.notice_change(), chain.notice_change()
    train(model, optimizer, 3)
    assert log == ["a before", "a after"]
    chain.notice_change()
    saved = chain.state_dict()
    other, log2 = Chain([Every(1, OnChange(Recorder("b", [])))]), []
    other.load_state_dict(saved)
    other[0].intervention.intervention.log = log2
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    attach(other, network(model, optimizer))
    train(model, optimizer, 2)
    assert log2 == ["b before", "b after"]


def test_a_period_is_a_number_of_steps_or_a_change():
    assert isinstance(schedule("change", Recorder("a", [])), OnChange)
    assert schedule(5, Recorder("a", [])).period == 5


def test_step_metrics_of_a_network_as_a_whole():
    model = mlp()
    net, metrics = network(model, torch.optim.SGD(model.parameters(), lr=0.1)), StepMetrics()
    attach(metrics, net)
    before = torch.cat([p.detach().flatten() for p in model.parameters()])
    metrics.arm()
    train(model, net.optimizers[0], 1)
    gradient = torch.cat([p.grad.flatten() for p in model.parameters()])
    numbers = metrics.telemetry()
    assert numbers["gradient_norm"] == pytest.approx(float(gradient.norm()))
    assert numbers["zero_gradient_fraction"] == pytest.approx(float((gradient == 0).double().mean()))
    assert numbers["update_ratio"] == pytest.approx(0.1 * float(gradient.norm() / before.norm()), rel=1e-4)


def test_histograms_pass_through_whatever_wraps_a_method():
    layers = network(mlp()).layers
    every, change = (schedule(period, ContinualBackprop(layers)) for period in (3, "change"))
    assert Intervention.histograms(every) == {}
    for wrapped in (every, change, Chain([every]), Chain([Idle(), change])):
        found = wrapped.histograms()
        assert sorted(found) == ["0/age", "0/utility", "1/age", "1/utility"]
        assert found["0/age"].tolist() == [0] * 6
        assert found["0/utility"].tolist() == [0.0] * 6
