"""The plasticity probe: how well can a network still fit something new, compared with how well it could at first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from plasticity.copies import copied
from plasticity.initialisation import redraw, uniform_bound
from plasticity.intervention import Randomness
from plasticity.layers import HiddenLayer

TARGET_UNITS = 64  # of the random networks that make the targets
FREQUENCY = 2.0  # radians for one standard deviation of what such a network puts out
SMALLEST = 1e-12  # a loss below this counts as this, so that logarithms stay finite


@dataclass(frozen=True, eq=False)
class ProbeResult:
    """Losses after fitting, each (targets,): mean squared errors in units of the targets' variance.

    1 is what a constant achieves: a network that learned nothing.
    """

    trained: Tensor
    fresh: Tensor

    @property
    def gap(self) -> float:
        """Mean over targets of log(trained) - log(fresh): 0 is as plastic as at first, log 2 twice its error."""
        return float((self.trained.log() - self.fresh.log()).mean())

    def metrics(self) -> dict[str, float]:
        """By name: `plasticity_gap`, and the mean losses `fit_loss` and `fresh_fit_loss`."""
        return {
            "plasticity_gap": self.gap,
            "fit_loss": float(self.trained.mean()),
            "fresh_fit_loss": float(self.fresh.mean()),
        }


def plasticity_probe(
    layers: Sequence[HiddenLayer],
    inputs: Tensor,
    *,
    fresh: nn.Sequential | None = None,
    seed: int = 0,
    targets: int = 4,
    steps: int = 200,
    batch_size: int = 128,
    learning_rate: float = 1e-3,
) -> ProbeResult:
    """Fit random functions with copies of a network's hidden layers, and with fresh ones; the network is not touched.

    For each of `targets` random functions g of the inputs, a copy of the hidden layers and the fresh ones each get a
    new linear output (all zero, so both begin at loss 1) and take `steps` steps of Adam on minibatches of the mean
    squared error; then the loss on all inputs is taken. g(x) = sin(2 z(x)), z a random tanh network's output, all
    three standardised over the inputs. Both see the same functions and the same minibatches.

    layers: a plain network's hidden layers in order, as `hidden_layers` describes them; not networks side by side.
    inputs: (rows, ...), what the first of them reads.
    fresh: what to compare with, as `copied(layers)` made it before training; None draws weights uniformly (`kaiming`).
    seed: of functions, minibatches and fresh weights. The same seed asks the same questions again.

    Source: Lyle et al., "Understanding plasticity in neural networks", ICML 2023, arXiv 2303.01486, sections 2.2 and
    3.1: loss after fitting random functions from a copy of the parameters, less the same from the initial ones. There
    g(x) = a + sin(1e5 f(x; w)), a the mean prediction, f a fresh network of the same architecture: noise to memorise in
    2000 steps, with 10 functions, the agent's own optimizer and output layer, and losses, not their logarithms. Here
    functions are smooth, so that 200 steps tell; output layers are new, so that a is not needed; and Adam is always the
    same (learning rate 1e-3), so that numbers of different runs compare.
    """
    if any(len(layer.unit_shape) > 1 for layer in layers):
        raise ValueError("the plasticity probe fits one network at a time, got layers that hold several side by side")
    random = Randomness(seed, "plasticity_probe")
    inputs = inputs.detach()
    wanted = _random_functions(inputs.flatten(1), targets, random).to(layers[0].weight)
    order = torch.stack([_minibatch(len(inputs), batch_size, random) for _ in range(steps)]).to(inputs.device)
    trained = copied(layers)
    fresh = _redrawn(layers, random) if fresh is None else fresh
    losses = _fit([trained] * targets + [fresh] * targets, inputs, wanted.repeat(2, 1), order, learning_rate)
    losses = losses.double().cpu().clamp_min(SMALLEST)
    return ProbeResult(trained=losses[:targets], fresh=losses[targets:])


def _random_functions(inputs: Tensor, count: int, random: Randomness) -> Tensor:
    """(count, rows), each with mean 0 and variance 1 over the rows."""
    x = _standardised(inputs.double().cpu(), 0)
    first = random.normal(count, x.shape[1], TARGET_UNITS).double() / x.shape[1] ** 0.5
    last = random.normal(count, TARGET_UNITS, 1).double()
    z = (torch.tanh(x @ first) @ last).squeeze(-1)
    return _standardised(torch.sin(FREQUENCY * _standardised(z, -1)), -1)


def _standardised(values: Tensor, dim: int) -> Tensor:
    centred = values - values.mean(dim, keepdim=True)
    return centred / centred.std(dim, correction=0, keepdim=True).clamp_min(SMALLEST)


def _minibatch(rows: int, batch_size: int, random: Randomness) -> Tensor:
    return torch.randint(rows, (min(batch_size, rows),), generator=random.generator)


def _redrawn(layers: Sequence[HiddenLayer], random: Randomness) -> nn.Sequential:
    """A copy with fresh weights, biases 0 and norms as they come."""
    model = copied(layers)
    for i, layer in enumerate(layers):
        bound = uniform_bound(layer.linear, "kaiming", layer.activation)
        redraw(model.get_submodule(f"linear{i}"), bound, random.uniform)
    for module in model:
        if isinstance(module, nn.LayerNorm | nn.GroupNorm):
            module.reset_parameters()
    return model


def _fit(models: Sequence[nn.Sequential], inputs: Tensor, targets: Tensor, order: Tensor, rate: float) -> Tensor:
    """Loss of each model on its row of `targets` (models, rows) after a step on each minibatch of `order`.

    All are fitted at once, as networks side by side: Adam treats every number by itself, so none knows of the others.
    """
    with torch.enable_grad():
        state = _side_by_side(models)
        width = models[0](inputs[:1]).flatten(1).shape[1]
        head = targets.new_zeros(len(models), width).requires_grad_()
        bias = targets.new_zeros(len(models), 1).requires_grad_()

        def features(own: dict[str, Tensor], x: Tensor) -> Tensor:
            h: Tensor = functional_call(models[0], own, (x,))
            return h.flatten(1)

        def losses(rows: Tensor) -> Tensor:
            h = torch.vmap(features, in_dims=(0, None))(state, inputs[rows])
            outputs = (h @ head.unsqueeze(-1)).squeeze(-1) + bias
            return (outputs - targets[:, rows]).square().mean(-1)

        fitted = [tensor for tensor in (*state.values(), head, bias) if tensor.requires_grad]
        optimizer = torch.optim.Adam(fitted, lr=rate)
        for rows in order:
            optimizer.zero_grad()
            losses(rows).sum().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        with torch.no_grad():
            return losses(torch.arange(len(inputs), device=inputs.device))


def _side_by_side(models: Sequence[nn.Sequential]) -> dict[str, Tensor]:
    """Parameters and buffers by name, (models, ...); what is frozen in the network stays so."""
    states = [{**dict(model.named_parameters()), **dict(model.named_buffers())} for model in models]
    return {
        name: torch.stack([state[name].detach() for state in states]).requires_grad_(tensor.requires_grad)
        for name, tensor in states[0].items()
    }
