"""One small network for each seed, side by side: so small that a Python step for each would cost all the time there is.

Every seed has first weights and method randomness of its own, and its result is the same, to the bit, whichever other
seeds run beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from plasticity import HiddenLayer, Intervention, MethodConfig, Network, Randomness, Reader, attach, uniform_bound

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

    def forward(self, inputs: Tensor) -> Tensor:
        """(seeds, inputs) -> (seeds, outputs)."""
        return torch.baddbmm(self.bias.unsqueeze(-1), self.weight, inputs.unsqueeze(-1)).squeeze(-1)

    def backward(self, inputs: Tensor, gradient: Tensor) -> None:
        """Set the gradients of weight and bias; `gradient`: (seeds, outputs), of the loss by what `forward` gave."""
        self.weight.grad = gradient.unsqueeze(-1) * inputs.unsqueeze(-2)
        self.bias.grad = gradient


class Learners(nn.Module):
    """One learner for each seed: inputs, a hidden layer of ReLU units (or none: a linear learner), one output.

    Biases start at 0, weights uniform on +-sqrt(2) sqrt(3 / inputs), those of the output on +-sqrt(3 / its inputs).
    """

    def __init__(self, seeds: Sequence[int], inputs: int, units: int):
        super().__init__()
        self.hidden = SeedwiseLinear(len(seeds), inputs, units) if units else None
        self.activation = nn.ReLU()
        self.output = SeedwiseLinear(len(seeds), units or inputs, 1)
        draws = [Randomness(seed, EXPERIMENT, "learner") for seed in seeds]
        for layer, activation in ((self.hidden, self.activation), (self.output, None)):
            if layer is not None:
                bound = uniform_bound(layer, "kaiming", activation)
                layer.weight.copy_(torch.stack([draw.uniform(*layer.weight.shape[1:], bound=bound) for draw in draws]))

    def learn(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """(seeds, inputs), (seeds, 1) -> y_hat - y (seeds, 1); sets the gradients of each seed's (y_hat - y)^2."""
        hidden = self.activation(self.hidden(inputs)) if self.hidden is not None else inputs
        error: Tensor = self.output(hidden) - targets
        gradient = 2 * error
        if self.hidden is not None:
            self.hidden.backward(inputs, gradient * self.output.weight.squeeze(-2) * (hidden > 0))
        self.output.backward(hidden, gradient)
        return error

    def network(self, optimizer: torch.optim.Optimizer) -> Network:
        """What a method needs to know of the learners."""
        assert self.hidden is not None
        return Network(
            "learner", [HiddenLayer("hidden", self.hidden, self.activation, (Reader(self.output),))], [optimizer]
        )


class SeedwiseRandomness(Randomness):
    """A method's random stream with one generator a seed: each fills its equal share of the first dimension.

    The seeds' learners are of one age, so continual backprop replaces in all of them at the same steps and equally many
    units; what one seed gets is then the same whether it runs alone or among others.
    """

    def __init__(self, seeds: Sequence[int], name: str):
        super().__init__(0, name)
        self.streams = nn.ModuleList(Randomness(seed, EXPERIMENT, name) for seed in seeds)

    def uniform(self, *shape: int, bound: float = 1.0) -> Tensor:
        return self._split(shape, lambda stream, share: stream.uniform(*share, bound=bound))

    def unit(self, *shape: int) -> Tensor:
        return self._split(shape, lambda stream, share: stream.unit(*share))

    def normal(self, *shape: int, std: float = 1.0) -> Tensor:
        return self._split(shape, lambda stream, share: stream.normal(*share, std=std))

    def _split(self, shape: Sequence[int], draw: Callable[[Randomness, tuple[int, ...]], Tensor]) -> Tensor:
        each, rest = divmod(shape[0], len(self.streams))
        if rest:
            raise ValueError(f"{shape[0]} rows cannot be shared equally among {len(self.streams)} seeds")
        return torch.cat([draw(stream, (each, *shape[1:])) for stream in self.streams])  # type: ignore[arg-type]


def attach_method(config: MethodConfig, network: Network, seeds: Sequence[int]) -> None:
    """Build a method, give each seed randomness of its own, and attach it to the network's optimizer."""
    method = config.build(network, seed=0)
    assert isinstance(method, Intervention)
    for module in list(method.modules()):
        if isinstance(getattr(module, "random", None), Randomness):
            module.random = SeedwiseRandomness(seeds, type(module).__name__)
    attach(method, network)
