"""Hooks around UnitAdam's steps against those around torch's own Adam's."""

import pytest
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from plasticity import UnitAdam

KINDS = pytest.mark.parametrize("kind", [UnitAdam, torch.optim.Adam], ids=["ours", "torch's"])


def optimizer(kind):
    weight = nn.Parameter(torch.ones(3))
    weight.grad = torch.ones(3)
    return kind([weight], lr=0.1), weight


@KINDS
def test_hooks_are_called_around_a_step_in_their_order(kind):
    own, weight = optimizer(kind)
    seen = []

    def hook(name):
        def note(told, args, kwargs):
            seen.append((name, told is own, args == (own, None), kwargs, weight[0].item() < 1))

        return note

    handles = [
        register_optimizer_step_pre_hook(hook("all before")),
        register_optimizer_step_post_hook(hook("all after")),
        own.register_step_pre_hook(hook("before")),
        own.register_step_pre_hook(hook("before too")),
        own.register_step_post_hook(hook("after")),
    ]
    try:
        own.step(None)
    finally:
        for handle in handles:
            handle.remove()
    names = ["all before", "before", "before too", "after", "all after"]
    assert seen == [(name, True, True, {}, "after" in name) for name in names]
    own.step()
    assert len(seen) == 5


@pytest.mark.parametrize("wrapped", [True, False])
def test_a_kind_of_ones_own_has_its_hooks_called_once(wrapped):
    class Louder(UnitAdam):
        def step(self, closure=None):
            self.said = True
            return super().step(closure)

    class Loudest(Louder):
        pass

    own, weight = optimizer(Loudest if wrapped else Louder)
    seen = []
    own.register_step_pre_hook(lambda *_: seen.append("before"))
    own.register_step_post_hook(lambda *_: seen.append("after"))
    own.step()
    assert seen == ["before", "after"]
    assert own.said
    assert weight[0] < 1


@KINDS
def test_a_hook_may_exchange_the_arguments(kind):
    own, _ = optimizer(kind)
    own.register_step_pre_hook(lambda told, args, kwargs: ((told,), {"closure": lambda: 7.0}))
    seen = []
    own.register_step_post_hook(lambda told, args, kwargs: seen.append([*kwargs]))
    assert own.step() == 7.0
    assert seen == [["closure"]]


@KINDS
def test_what_a_hook_must_not_return(kind):
    own, weight = optimizer(kind)
    own.register_step_pre_hook(lambda *_: "all is well")
    with pytest.raises(
        RuntimeError, match=r"must return None or a tuple .*\(new_args, new_kwargs\), but got|got all is"
    ):
        own.step()
    assert weight[0] == 1


@KINDS
@pytest.mark.parametrize("enabled", [True, False])
def test_a_step_is_without_gradients_and_a_closure_with_them(kind, enabled):
    own, weight = optimizer(kind)
    seen = []
    with torch.set_grad_enabled(enabled):
        own.step(lambda: seen.append(torch.is_grad_enabled()))
        assert torch.is_grad_enabled() == enabled
    assert seen == [True]
    assert weight.grad_fn is None
    assert weight[0] < 1


@KINDS
def test_a_profiler_is_told_of_steps(kind):
    own, _ = optimizer(kind)
    seen = []
    own.register_step_pre_hook(lambda *_: seen.append(1))
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        own.step()
    assert f"Optimizer.step#{kind.__name__}.step" in {event.key for event in profile.key_averages()}
    assert seen == [1]


@KINDS
def test_a_scheduler_knows_of_steps(kind, recwarn):
    own, _ = optimizer(kind)
    schedule = torch.optim.lr_scheduler.StepLR(own, 1, gamma=0.5)
    own.step()
    schedule.step()
    assert own.param_groups[0]["lr"] == 0.05
    assert not recwarn.list
