"""Plain multi-layer perceptrons forward and backward by hand: no graph, no allocation, gradients written in place.

A network is Linear, activation, ..., Linear, with one or several heads that read the last hidden layer. With x_0 its
inputs, W_l, b_l and f the weights, biases and activation of layer l, and L the loss:

    forward     z_l = x_l W_l^T + b_l         x_(l+1) = f(z_l)
    backward    dL/dz_l = dL/dx_(l+1) * f'(z_l), with f' = [x > 0] for ReLU and 1 - x^2 for tanh, x = f(z_l)
                dL/dW_l = (dL/dz_l)^T x_l     dL/db_l = sum over the batch of dL/dz_l     dL/dx_l = dL/dz_l W_l

where dL/dx_(last) is summed over the heads. All of it is done in one call of native_mlp.h, whose products are those
of plasticity/blas.py: what the forward pass puts out equals the modules' but for rounding.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from plasticity import Network
from plasticity.layers import HiddenLayer
from plasticity.native import NATIVE, NO_WORK, TORCHS, Table, Work, addressable, one_thread, put, table, together

ACTIVATIONS = (nn.ReLU, nn.Tanh)
ROWS, INPUTS, APART, _DEPTH, _HEADS, _GEMM, LAYERS = range(7)  # of a pass, as native_mlp.h reads it
*_, SLOPE, BEFORE, _IS_TANH, SUMS, COLUMNS = range(12)  # of each of its layers


class PlainMLP:
    """The weights of such a network, and the gradients that its passes write.

    layers: the hidden layers in order; heads: the linear layers that read the last. trained: whether it has gradients.
    """

    def __init__(self, layers: Sequence[HiddenLayer], heads: Sequence[nn.Linear], trained: bool = True):
        self.layers, self.heads = tuple(layers), tuple(heads)
        linears: list[Any] = [layer.linear for layer in layers]
        self.hidden: list[nn.Linear] = linears
        self.parameters: list[nn.Parameter] = [p for linear in [*linears, *heads] for p in (linear.weight, linear.bias)]
        self.gradients = [torch.zeros_like(parameter) for parameter in self.parameters if trained]

    def give_gradients(self) -> None:
        """Make what the passes write the parameters' gradients."""
        for parameter, gradient in zip(self.parameters, self.gradients, strict=True):
            if parameter.grad is not gradient:
                parameter.grad = gradient

    def __deepcopy__(self, memo: Any) -> None:
        """A copy of a model makes its own."""


class MLPPass:
    """Room for one pass of a batch of `rows`, and the table from which native_mlp.h's tasks read it.

    hidden: what each hidden layer put out, (rows, units); outputs: each head's, (rows, outputs); to_outputs: dL/d of
    those, which a backward pass starts from. All are written over by the next pass. work: a forward pass of what was
    read.
    """

    def __init__(self, mlp: PlainMLP, rows: int, of: MLPPass | None = None, first: int = 0, gemm: int = 0):
        """of: another pass, of whose rows these are some, from `first` on; slopes are its own.

        gemm: the address of what multiplies matrices on the way forward, in place of what does in all other passes.
        """
        self.mlp, self.rows, self.native = mlp, rows, NATIVE[mlp.parameters[0].dtype]
        like = mlp.parameters[0]
        linears = [*mlp.hidden, *mlp.heads]
        room = [like.new_empty(rows, linear.out_features) for linear in linears]
        if of is not None:
            room = [whole[first : first + rows] for whole in (*of.hidden, *of.outputs)]
        depth = len(mlp.hidden)
        self.hidden: list[Tensor] = room[:depth]
        self.outputs: list[Tensor] = room[depth:]
        self._held = [parameter.detach() for parameter in mlp.parameters]
        self._slopes = [torch.empty_like(out) for out in room]  # dL/dx, then dL/dz
        self._before: list[Tensor] = []
        self._sums: dict[str, Tensor] = {}
        self.to_outputs = self._slopes[depth:]
        self.inputs: Tensor = like.new_empty(0, mlp.hidden[0].in_features)
        rest = [0] * (2 * len(linears)) if not mlp.gradients else [gradient.data_ptr() for gradient in mlp.gradients]
        rows_of_table: list[int] = [rows, 0, 0, depth, len(mlp.heads), gemm]
        for place, linear in enumerate(linears):
            is_tanh = place < depth and isinstance(mlp.layers[place].activation, nn.Tanh)
            weight, bias = mlp.parameters[2 * place : 2 * place + 2]
            rows_of_table += [weight.data_ptr(), bias.data_ptr(), *rest[2 * place : 2 * place + 2]]
            rows_of_table += [linear.in_features, linear.out_features, room[place].data_ptr()]
            rows_of_table += [self._slopes[place].data_ptr(), 0, is_tanh, 0]
        self.table: Table = table(rows_of_table)
        self.work = Work((self.native.forward, self.table))

    def read(self, inputs: Tensor) -> None:
        """What the next pass reads, (rows, inputs); it must stay as it is until the backward pass is done."""
        self.inputs = inputs
        self.table[INPUTS], self.table[APART] = inputs.data_ptr(), inputs.stride(0)

    def __call__(self, inputs: Tensor) -> list[Tensor]:
        """What the heads put out, on this thread."""
        self.read(inputs)
        together(NO_WORK, self.work)
        return self.outputs

    def keep_what_is_recorded(self, network: Network) -> None:
        """Before the passes: have them keep what methods look at, or only hooks of this network would see."""
        if network.records_gradients and not self._before:
            self._before = [torch.empty_like(hidden) for hidden in self.hidden]
            self._keep(BEFORE, self._before)
        if network.wants_sums and not self._sums:
            layers = zip(self.mlp.layers, self.hidden, strict=True)
            self._sums = {layer.name: hidden.new_empty(2, hidden.shape[1]) for layer, hidden in layers}
            self._keep(SUMS, self._sums.values())

    def _keep(self, column: int, into: Iterable[Tensor]) -> None:
        for place, tensor in enumerate(into):
            put(self.table, LAYERS + COLUMNS * place + column, tensor.data_ptr())

    def tell(self, network: Network) -> None:
        """After a backward pass: tell what hooks would have recorded."""
        layers = self.mlp.layers
        # other tensors each time: by that a method knows that there was a pass
        hidden = {layer.name: h.detach() for layer, h in zip(layers, self.hidden, strict=True)}
        gradients = {
            layer.name: (at_input.detach(), at_output.detach())
            for layer, at_input, at_output in zip(layers, self._slopes, self._before, strict=False)
        }
        network.record(self.inputs, hidden, gradients, self._sums)


def act_together(passes: Sequence[MLPPass | Exact], x: Tensor) -> list[list[Tensor]]:
    """What the heads of two networks put out; at once if another thread is awake, as between steps of many worlds."""
    one, other = passes
    if isinstance(one, Exact) or isinstance(other, Exact):
        return [one(x), other(x)]
    one.read(x)
    other.read(x)
    together(one.work, other.work, wake=False)
    return [one.outputs, other.outputs]


def in_rows(inputs: Tensor) -> Tensor:
    """The same numbers, one row after the other in memory, as a pass reads them."""
    usual = inputs.stride() == (inputs.shape[1], 1)
    return inputs if usual else inputs.clone(memory_format=torch.contiguous_format)


def acting(mlp: PlainMLP, rows: int) -> MLPPass | Exact:
    """A forward pass for few rows that equals the modules' on one thread to the last bit: what a rollout needs."""
    gemm = TORCHS.get(mlp.parameters[0].dtype, 0)
    is_same = gemm and not any(isinstance(layer.activation, nn.Tanh) for layer in mlp.layers)
    return MLPPass(mlp, rows, gemm=gemm) if is_same else Exact(mlp, rows)


class Exact:
    """Such a pass, with products and activations by torch's own calls."""

    def __init__(self, mlp: PlainMLP, rows: int):
        like = mlp.parameters[0]
        self.mlp = mlp
        self._hidden = [like.new_empty(rows, linear.out_features) for linear in mlp.hidden]
        self._outputs = [like.new_empty(rows, head.out_features) for head in mlp.heads]
        self._turned = [parameter.detach().t() for parameter in mlp.parameters[::2]]
        self._are_tanh = [isinstance(layer.activation, nn.Tanh) for layer in mlp.layers]

    def __call__(self, x: Tensor) -> list[Tensor]:
        """What the heads put out, written over by the next call. x: (rows, inputs)."""
        biases, depth = self.mlp.parameters[1::2], len(self._hidden)
        with one_thread():
            for place, out in enumerate(self._hidden):
                torch.addmm(biases[place], x, self._turned[place], out=out)
                x = out.tanh_() if self._are_tanh[place] else out.relu_()
            for place, out in enumerate(self._outputs, start=depth):
                torch.addmm(biases[place], x, self._turned[place], out=out)
        return self._outputs


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
