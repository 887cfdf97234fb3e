"""One small network for each seed, side by side: so small that a Python step for each would cost all the time there is.

Every seed has first weights and method randomness of its own, and its result is the same, to the bit, whichever other
seeds run beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from plasticity import HiddenLayer, Network, Randomness, Reader, uniform_bound

EXPERIMENT = "slowly_changing_regression"  # part of the name of every random stream


class SeedwiseLinear(nn.Module):
    """Independent linear layers side by side: weight (seeds, outputs, inputs), bias (seeds, outputs).

    Gradients are worked out by hand, which is some three times as fast for layers this small. That is why nothing here
    requires a gradient: autograd builds no graph, while activations are still recorded.
    """

    def __init__(self, seeds: int, inputs: int, outputs: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(seeds, outputs, inputs), requires_grad=False)
        self.bias = nn.Parameter(torch.zeros(seeds, outputs), requires_grad=False)
        # at this size making a view takes as long as using it
        self._bias_column = self.bias.unsqueeze(-1)

    def forward(self, inputs: Tensor) -> Tensor:
        """(seeds, inputs, 1) -> (seeds, outputs, 1)."""
        return torch.baddbmm(self._bias_column, self.weight, inputs)

    def backward(self, inputs: Tensor, gradient: Tensor) -> None:
        """Set the gradients of weight and bias.

        inputs: (seeds, 1, inputs). gradient: (seeds, outputs, 1), of the loss by what `forward` gave.
        """
        self.weight.grad = gradient * inputs
        self.bias.grad = gradient.squeeze(-1)


def _relu_slope(gradient: Tensor, hidden: Tensor) -> Tensor:
    return gradient * (hidden > 0)


def _tanh_slope(gradient: Tensor, hidden: Tensor) -> Tensor:
    return gradient * (1 - hidden * hidden)


SLOPES: dict[type[nn.Module], Callable[[Tensor, Tensor], Tensor]] = {nn.ReLU: _relu_slope, nn.Tanh: _tanh_slope}


class Learners(nn.Module):
    """One learner for each seed: inputs, a hidden layer of ReLU or tanh units (or none: a linear learner), one output.

    Biases start at 0, weights uniform on +-gain sqrt(3 / inputs), those of the output on +-sqrt(3 / its inputs); the
    gain is sqrt(2) for ReLU, 5/3 for tanh.
    """

    def __init__(self, seeds: Sequence[int], inputs: int, units: int, activation: type[nn.Module] = nn.ReLU):
        super().__init__()
        self.hidden = SeedwiseLinear(len(seeds), inputs, units) if units else None
        self.activation, self._slope = activation(), SLOPES[activation]
        self.output = SeedwiseLinear(len(seeds), units or inputs, 1)
        draws = [Randomness(seed, EXPERIMENT, "learner") for seed in seeds]
        for layer, function in ((self.hidden, self.activation), (self.output, None)):
            if layer is not None:
                bound = uniform_bound(layer, "kaiming", function)
                layer.weight.copy_(torch.stack([draw.uniform(*layer.weight.shape[1:], bound=bound) for draw in draws]))
        self._readout = self.output.weight.transpose(-2, -1)  # (seeds, units, 1)

    def learn(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """(seeds, inputs, 1), (seeds, 1, 1) -> y_hat - y (seeds, 1, 1); sets the gradients of each (y_hat - y)^2."""
        hidden = inputs if self.hidden is None else self.activation(self.hidden(inputs).squeeze(-1)).unsqueeze(-1)
        error: Tensor = self.output(hidden) - targets
        gradient = 2 * error
        if self.hidden is not None:
            self.hidden.backward(inputs.transpose(-2, -1), self._slope(gradient * self._readout, hidden))
        self.output.backward(hidden.transpose(-2, -1), gradient)
        return error

    def network(self, optimizer: torch.optim.Optimizer) -> Network:
        """What a method needs to know of the learners."""
        assert self.hidden is not None
        layer = HiddenLayer("hidden", self.hidden, self.activation, (Reader(self.output),))
        return Network("learner", [layer], [optimizer])


class SGD(torch.optim.Optimizer):
    """theta <- theta - lr * gradient: what `torch.optim.SGD` does, without the choices that cost it half its time."""

    def __init__(self, parameters: Sequence[nn.Parameter], lr: float):
        super().__init__(parameters, {"lr": lr})

    def step(self, closure: object = None) -> None:  # type: ignore[override]
        """One gradient step."""
        for group in self.param_groups:
            torch._foreach_add_(group["params"], [p.grad for p in group["params"]], alpha=-group["lr"])
