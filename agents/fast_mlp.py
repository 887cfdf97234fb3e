"""Plain multi-layer perceptrons forward and backward by hand: no graph, no allocation, gradients written in place.

A network is Linear, activation, ..., Linear, with one or several heads that read the last hidden layer. With x_0 its
inputs, W_l, b_l and f the weights, biases and activation of layer l, and L the loss:

    forward     z_l = x_l W_l^T + b_l         x_(l+1) = f(z_l)
    backward    dL/dz_l = dL/dx_(l+1) * f'(z_l), with f' = [x > 0] for ReLU and 1 - x^2 for tanh, x = f(z_l)
                dL/dW_l = (dL/dz_l)^T x_l     dL/db_l = sum over the batch of dL/dz_l     dL/dx_l = dL/dz_l W_l

where dL/dx_(last) is summed over the heads. The products are torch's own (`addmm`, `mm`), so what the forward pass puts
out equals the modules' to the last bit; sums over the batch are taken in another order than torch's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from plasticity import Network
from plasticity.layers import HiddenLayer
from plasticity.native import NATIVE, addressable

ACTIVATIONS = (nn.ReLU, nn.Tanh)
MANY_ROWS = 64


class PlainMLP:
    """The weights of such a network, and the gradients that its passes write.

    layers: the hidden layers in order; heads: the linear layers that read the last. trained: whether it has gradients.
    """

    def __init__(self, layers: Sequence[HiddenLayer], heads: Sequence[nn.Linear], trained: bool = True):
        self.layers, self.heads = tuple(layers), tuple(heads)
        linears: list[Any] = [layer.linear for layer in layers]
        self.hidden: list[nn.Linear] = linears
        self.parameters: list[nn.Parameter] = [p for linear in [*linears, *heads] for p in (linear.weight, linear.bias)]
        self.weights: list[Tensor] = [linear.weight.detach() for linear in [*linears, *heads]]
        self.turned = [weight.t() for weight in self.weights]
        self.gradients = [torch.zeros_like(parameter) for parameter in self.parameters if trained]
        self._passes: dict[int, MLPPass] = {}

    def give_gradients(self) -> None:
        """Make what the passes write the parameters' gradients."""
        for parameter, gradient in zip(self.parameters, self.gradients, strict=True):
            if parameter.grad is not gradient:
                parameter.grad = gradient

    def at(self, rows: int) -> MLPPass:
        """A pass of so many rows, always the same one."""
        if rows not in self._passes:
            self._passes[rows] = MLPPass(self, rows)
        return self._passes[rows]

    def __deepcopy__(self, memo: Any) -> None:
        """A copy of a model makes its own."""


class MLPPass:
    """Room for one pass of a batch of `rows`: call it, then `backward` or `input_gradient`, then the next.

    hidden: what each hidden layer put out, (rows, units); outputs: each head's, (rows, outputs). Both are written over
    by the next call.
    """

    def __init__(self, mlp: PlainMLP, rows: int, hidden: list[Tensor] | None = None):
        self.mlp = mlp
        like = mlp.parameters[0]
        self.hidden = hidden or [like.new_empty(rows, linear.out_features) for linear in mlp.hidden]
        self.outputs = [like.new_empty(rows, head.out_features) for head in mlp.heads]
        self.inputs: Tensor = like.new_empty(rows, mlp.hidden[0].in_features)
        self._slopes = [torch.empty_like(hidden) for hidden in self.hidden]  # dL/dx, then dL/dz
        self._native = NATIVE[like.dtype]
        self._places = [  # as native.c's `through` wants them
            (slope.data_ptr(), h.data_ptr(), rows, h.shape[1], isinstance(layer.activation, nn.Tanh))
            for slope, h, layer in zip(self._slopes, self.hidden, mlp.layers, strict=True)
        ]
        self._biases = [gradient.data_ptr() for gradient in mlp.gradients[1::2]]

    def first(self, rows: int, inputs: Tensor) -> MLPPass:
        """The first rows of this pass, to go backward through; inputs: what they read, (rows, inputs)."""
        part = MLPPass(self.mlp, rows, [hidden[:rows] for hidden in self.hidden])
        part.inputs = inputs
        return part

    def __call__(self, inputs: Tensor) -> list[Tensor]:
        """inputs: (rows, inputs); they must stay as they are until the backward pass is done."""
        self.inputs = x = inputs
        biases, turned, depth = self.mlp.parameters[1::2], self.mlp.turned, len(self.hidden)
        for place, out in enumerate(self.hidden):
            torch.addmm(biases[place], x, turned[place], out=out)
            x = out.tanh_() if self._places[place][-1] else out.relu_()
        for place, out in enumerate(self.outputs, start=depth):
            torch.addmm(biases[place], x, turned[place], out=out)
        return self.outputs

    def backward(self, gradients: Sequence[Tensor], network: Network | None = None) -> None:
        """Write all parameters' gradients. gradients: dL/d(outputs) of each head, (rows, outputs).

        network: is told what its forward and backward hooks would have recorded.
        """
        mlp = self.mlp
        depth = len(mlp.hidden)
        into = mlp.gradients
        for place, gradient in enumerate(gradients, start=depth):
            torch.mm(gradient.t(), self.hidden[-1], out=into[2 * place])
            self._native.columns(gradient.data_ptr(), *gradient.shape, self._biases[place])
        slope = self._from_heads(gradients)
        recorded: dict[str, tuple[Tensor, Tensor]] = {}
        for place in reversed(range(depth)):
            before = slope.clone() if network is not None and network.records_gradients else slope
            self._native.through(*self._places[place], self._biases[place])
            if before is not slope:
                recorded[mlp.layers[place].name] = (slope.clone(), before)
            reads = self.hidden[place - 1] if place else self.inputs
            torch.mm(slope.t(), reads, out=into[2 * place])
            if place:
                slope = torch.mm(slope, mlp.weights[place], out=self._slopes[place - 1])
        mlp.give_gradients()
        if network is not None:
            hidden = {layer.name: h.detach() for layer, h in zip(mlp.layers, self.hidden, strict=True)}
            network.record(self.inputs, hidden, recorded)

    def input_gradient(self, gradients: Sequence[Tensor], chosen: Tensor, first: int) -> Tensor:
        """dL/d(inputs) of some rows, from column `first` on, (chosen, inputs - first); and no parameter's gradient.

        gradients: dL/d(outputs) of each head, (chosen, outputs). chosen: which rows of the pass, int64.
        """
        slope = self._from_heads(gradients)
        for place in reversed(range(len(self.hidden))):
            hidden, is_tanh = self.hidden[place], self._places[place][-1]
            given = slope.data_ptr(), hidden.data_ptr(), chosen.data_ptr()
            self._native.through_chosen(*given, *slope.shape, is_tanh)
            weight = self.mlp.weights[place]
            if place:
                slope = torch.mm(slope, weight, out=self._slopes[place - 1][: len(slope)])
        columns: Tensor = weight[:, first:].t().contiguous()  # a few are read three times as fast so
        return torch.mm(slope, columns.t())

    def _from_heads(self, gradients: Sequence[Tensor]) -> Tensor:
        slope = self._slopes[-1][: len(gradients[0])]
        first, *others = zip(gradients, self.mlp.weights[len(self.hidden) :], strict=True)
        torch.mm(*first, out=slope)
        for gradient, weight in others:
            slope.addmm_(gradient, weight)
        return slope


class Clip:
    """Scale gradients, in place, so that their joint norm is at most `max_norm`: `torch.nn.utils.clip_grad_norm_`."""

    def __init__(self, gradients: Sequence[Tensor]):
        self._held = list(gradients)  # whose addresses these are
        self._table = np.array([(gradient.data_ptr(), gradient.numel()) for gradient in gradients], np.int64)
        self._clip, self._arguments = NATIVE[gradients[0].dtype].clip, (self._table.ctypes.data, len(gradients))

    def __call__(self, max_norm: float) -> None:
        self._clip(*self._arguments, max_norm)


@contextmanager
def one_thread(rows: int) -> Iterator[None]:
    """Let torch use one thread for what is inside, if its matrices have few rows.

    More would cost more than they save, and take cores from the threads that step simulations.
    """
    threads = torch.get_num_threads()
    if threads == 1 or rows >= MANY_ROWS:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def why_not_plain(network: Network, chain: Sequence[nn.Module], heads: Sequence[nn.Module]) -> str | None:
    """Why this network cannot be worked out by hand, or None. chain: its modules up to the heads, in order."""
    layers = network.layers
    if list(chain) != [part for layer in layers for part in (layer.linear, layer.activation)]:
        return f"network {network.name} has other layers than Linear and activation"
    for layer, readers in zip(layers, [*([layer.linear] for layer in layers[1:]), list(heads)], strict=True):
        if type(layer.activation) not in ACTIVATIONS:
            return f"network {network.name} has activation {type(layer.activation).__name__}, not ReLU or Tanh"
        if [reader.linear for reader in layer.readers] != readers or layer.noise_readers:
            return f"other layers read network {network.name}, too"
    for module in [*chain, *heads]:
        if not isinstance(module, ACTIVATIONS) and (type(module) is not nn.Linear or module.bias is None):
            return f"network {network.name} has {module}, not a plain Linear with a bias"
        if network.has_foreign_hooks(module):
            return f"something else watches or changes what network {network.name} computes"
        parameters = list(module.parameters())
        if parameters and not addressable(*parameters):
            return f"network {network.name} is not dense or not on the CPU"
        if not all(map(is_free, parameters)):
            return f"network {network.name} has weights that are frozen, or whose gradients something else watches"
    return None


def is_free(parameter: nn.Parameter) -> bool:
    """Whether a parameter is trained, and nothing hangs on its gradient that only autograd would call."""
    hooks: Any = (parameter._backward_hooks, parameter._post_accumulate_grad_hooks)
    return parameter.requires_grad and not any(hooks)
