"""A network: its hidden layers, the optimizers that own its weights, and what its units last did."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from plasticity.layers import CONVOLUTIONS, HiddenLayer, Reader, weight_of
from plasticity.optim import UnitAdam, reset_state


class Network:
    """The hidden layers of one network and the optimizers that own its weights.

    activations: for each layer, by name, what its activation put out in the latest forward pass that had gradients
        enabled, so rollouts, targets, metrics and evaluation under `torch.no_grad` never show up here.
    inputs: what the first hidden layer read in that pass.
    input_gradients, output_gradients: for each layer, by name, what the backward pass of that forward pass brought to
        the activation's input and to its output; kept only once `record_gradients` was called.
    wants_sums: whether a method has asked for `latest_sums`, where a pass can give them cheaply.
    latest_sums: for each layer, by name, the sums over the batch of each unit's activation and of its size, (2, units),
        of the pass that was recorded last, in the same object where the room is the same; None where it did not tell.
    steady: another object for each stretch of training in which nobody puts another tensor in the place of one of this
        network's or its methods', nor freezes any, optimizers' states aside; None where nobody vouches for that.
    optimizers: the first is the one whose steps train the network; a weight's state may lie in any of them.
    linears: the layers whose weights and biases belong to this network (default: hidden layers and their readers).
    log_std: free parameters that scale a policy's noise; regularisers leave them alone unless asked.
    twins: the same layers in a target network that follows this one; with `sync_twins` they get the same replacements.
    """

    def __init__(
        self,
        name: str,
        layers: Sequence[HiddenLayer],
        optimizers: Sequence[Optimizer],
        *,
        linears: Iterable[nn.Module] | None = None,
        log_std: Sequence[nn.Parameter] = (),
        twins: Sequence[HiddenLayer] = (),
        sync_twins: bool = False,
    ):
        self.name, self.layers, self.optimizers = name, tuple(layers), tuple(optimizers)
        every = [layer.linear for layer in layers] + [reader.linear for layer in layers for reader in layer.readers]
        self.linears = tuple(dict.fromkeys(every if linears is None else linears))
        self.log_std = tuple(log_std)
        self.twins, self.sync_twins = {twin.name: twin for twin in twins}, sync_twins
        self.activations: dict[str, Tensor] = {}
        self.input_gradients: dict[str, Tensor] = {}
        self.output_gradients: dict[str, Tensor] = {}
        self._seen: dict[str, Tensor] = {}
        self.wants_sums = False
        self.latest_sums: Mapping[str, Tensor] | None = None
        self.steady: object | None = None
        self._check()
        self._recorders = [_Recorder(self.activations, layer.name, layer.activation, of=self) for layer in self.layers]
        self._gradient_recorders: list[_GradientRecorder] = []
        self._hooks = []
        for layer, recorder in zip(self.layers, self._recorders, strict=True):
            self._hooks.append(layer.activation.register_forward_hook(recorder))
        if self.layers:
            first = self.layers[0].linear
            self._recorders.append(_Recorder(self._seen, "inputs", first, inputs=True))
            self._hooks.append(first.register_forward_hook(self._recorders[-1]))

    def close(self) -> None:
        """Record nothing any more."""
        for hook in self._hooks:
            hook.remove()

    def record_gradients(self) -> None:
        """Keep gradients at activations too, from now on: what each backward pass brings to the latest forward pass.

        In SAC an actor's backward pass goes through the critics; at a critic's own step its own one was the latest.
        """
        if self._gradient_recorders:
            return
        for layer in self.layers:
            recorder = _GradientRecorder(self.input_gradients, self.output_gradients, layer.name, layer.activation)
            self._gradient_recorders.append(recorder)
            self._hooks.append(layer.activation.register_forward_pre_hook(recorder.before))
            self._hooks.append(layer.activation.register_forward_hook(recorder.after))

    @property
    def records_gradients(self) -> bool:
        """Whether `record_gradients` was called."""
        return bool(self._gradient_recorders)

    def record(
        self,
        inputs: Tensor,
        activations: Mapping[str, Tensor],
        gradients: Mapping[str, tuple[Tensor, Tensor]],
        sums: Mapping[str, Tensor],
    ) -> None:
        """Take what a pass that was worked out without the modules would have had the hooks record.

        gradients: by layer, those at the activation's input and at its output.
        sums: see `latest_sums`; empty unless `wants_sums`.
        """
        self._seen["inputs"] = inputs
        self.activations.update(activations)
        self.latest_sums = sums or None
        for name, (at_input, at_output) in gradients.items():
            self.input_gradients[name], self.output_gradients[name] = at_input, at_output

    def has_foreign_hooks(self, module: nn.Module) -> bool:
        """Whether anything but this network is called when the module is, or its gradients are worked out."""
        hooks = [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
        return bool(module._backward_hooks or module._backward_pre_hooks) or any(
            not isinstance(getattr(hook, "__self__", hook), _Recorder | _GradientRecorder) for hook in hooks
        )

    @property
    def inputs(self) -> Tensor | None:
        """(batch, ...), or None before the first forward pass that had gradients enabled."""
        return self._seen.get("inputs")

    def _check(self) -> None:
        if not self.optimizers:
            raise ValueError(f"network {self.name!r} has no optimizer")
        names = [layer.name for layer in self.layers]
        if len(set(names)) != len(names):
            raise ValueError(f"network {self.name!r}: layer names must differ, got {names}")
        seen: dict[nn.Module, str] = {}
        for layer in self.layers:
            if len(layer.unit_shape) > 1 and any(isinstance(optimizer, UnitAdam) for optimizer in self.optimizers):
                raise ValueError(
                    f"network {self.name!r}: UnitAdam counts the rows and columns of one network, but layer "
                    f"{layer.name!r} holds {layer.unit_shape[0]} side by side; use another optimizer"
                )
            if layer.activation in seen:
                raise ValueError(
                    f"network {self.name!r}: layers {seen[layer.activation]!r} and {layer.name!r} share one activation "
                    "module; give each its own, or their units cannot be told apart"
                )
            seen[layer.activation] = layer.name
        owned = {id(p) for optimizer in self.optimizers for group in optimizer.param_groups for p in group["params"]}
        for linear in self.linears:
            for name, parameter in linear.named_parameters(recurse=False):
                if parameter.requires_grad and id(parameter) not in owned:
                    raise ValueError(f"network {self.name!r}: {name} of {linear} is in none of its optimizers")

    @property
    def replicas(self) -> torch.Size:
        """How many networks are side by side: the leading dimensions of weights and biases, () for a single one."""
        return self.layers[0].unit_shape[:-1] if self.layers else torch.Size()

    @property
    def trained_layers(self) -> list[HiddenLayer]:
        """The hidden layers that learn: activations recorded, and neither incoming nor outgoing weights frozen."""
        return [layer for layer in self.layers if layer.name in self.activations and layer.trainable]

    def parameters(self, *, biases: bool = True, log_std: bool = False) -> list[nn.Parameter]:
        """Weights (and biases, and log standard deviations) of this network; never normalisation gains."""
        found = [weight_of(linear) for linear in self.linears]
        if biases:
            every = [getattr(linear, "bias", None) for linear in self.linears]
            found += [bias for bias in every if isinstance(bias, nn.Parameter)]
        return found + list(self.log_std if log_std else ())

    def learning_rate(self, parameter: nn.Parameter) -> float:
        """The learning rate the network's optimizers use for `parameter`."""
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                if any(p is parameter for p in group["params"]):
                    return float(group["lr"])
        raise ValueError(f"network {self.name!r}: no optimizer holds a parameter of shape {tuple(parameter.shape)}")

    def forget(
        self,
        parameter: nn.Parameter,
        *,
        rows: Tensor | None = None,
        columns: Tensor | None = None,
        entries: Tensor | None = None,
    ) -> None:
        """Reset the optimizers' state of rows (outputs), columns (inputs) or single entries of a parameter.

        All are given as masks; without any, the parameter's whole state starts afresh.
        """
        for optimizer in self.optimizers:
            reset_state(optimizer, parameter, rows=rows, columns=columns, entries=entries)

    def outputs(self, inputs: Tensor, *, twin: bool = False) -> list[Tensor]:
        """What each reader of the last hidden layer puts out, (batch, outputs): the network as a function of `inputs`.

        inputs: (batch, ...), as the first hidden layer reads them. twin: of the target network. Dropout is left out.
        Raises `ValueError` where a reader reads other things besides this network's units.
        """
        layers = [self.twins[layer.name] for layer in self.layers] if twin else self.layers
        for layer in layers:
            inputs = layer(_flat_for(layer.linear, inputs))
        return self.read_out(inputs, twin=twin)

    def read_out(self, hidden: Tensor, *, twin: bool = False) -> list[Tensor]:
        """The same, of what the last hidden layer puts out."""
        return [reader.linear(_flat_for(reader.linear, hidden)) for reader in self.heads(twin=twin)]

    def heads(self, *, twin: bool = False) -> tuple[Reader, ...]:
        """The readers of the last hidden layer; raises `ValueError` where one reads other things besides."""
        last = self.twins[self.layers[-1].name] if twin else self.layers[-1]
        for reader in last.readers:
            weight = weight_of(reader.linear)
            read = weight.shape[1] if isinstance(reader.linear, CONVOLUTIONS) else weight.shape[-1]
            if read != last.units * reader.span:
                raise ValueError(
                    f"network {self.name!r} is no function of its inputs alone: {reader.linear} reads other things too"
                )
        return last.readers

    def pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        """Each hidden layer's linear layer and each reader, with the same one of the target network.

        Where a target lacks readers, it has the last ones (SAC's critics have a target, the actor beside them none).
        """
        found = {}
        for layer in self.layers:
            if (twin := self.twins.get(layer.name)) is not None:
                found[layer.linear] = twin.linear
                readers = layer.readers[-len(twin.readers) :]
                found |= {r.linear: t.linear for r, t in zip(readers, twin.readers, strict=True)}
        return list(found.items())

    @contextmanager
    def watch(self) -> Iterator[dict[str, Tensor]]:
        """Collect what each layer puts out in forward passes inside the block; needs no gradients, leaves no trace.

        `activations` stays as it is even where a pass enables gradients by itself, as SB3's critics do.
        """
        seen: dict[str, Tensor] = {}
        watchers = [_Recorder(seen, layer.name, layer.activation, always=True) for layer in self.layers]
        handles = [w.module.register_forward_hook(w) for w in watchers]
        recorders: list[_Recorder | _GradientRecorder] = [*self._recorders, *self._gradient_recorders]
        for recorder in recorders:
            recorder.paused = True
        try:
            yield seen
        finally:
            for handle in handles:
                handle.remove()
            for recorder in recorders:
                recorder.paused = False


class _Recorder:
    """A forward hook that keeps a module's output or input. A copy of the module keeps the hook but records nothing."""

    def __init__(
        self,
        into: dict[str, Tensor],
        name: str,
        module: nn.Module,
        always: bool = False,
        inputs: bool = False,
        of: Network | None = None,
    ):
        self.into, self.name, self.module, self.always, self.inputs = into, name, module, always, inputs
        self.of = of  # whose sums are of another pass from then on
        self.paused = False

    def __call__(self, module: nn.Module, args: Any, output: Tensor) -> None:
        if module is self.module and not self.paused and (self.always or torch.is_grad_enabled()):
            self.into[self.name] = (args[0] if self.inputs else output).detach()
            if self.of is not None:
                self.of.latest_sums = None

    def __deepcopy__(self, memo: Any) -> _Recorder:
        return self


class _GradientRecorder:
    """Hooks that keep the gradients at a module's input and output; a forward pass forgets those of the one before."""

    def __init__(self, inputs: dict[str, Tensor], outputs: dict[str, Tensor], name: str, module: nn.Module):
        self.inputs, self.outputs, self.name, self.module = inputs, outputs, name, module
        self.paused = False

    def before(self, module: nn.Module, args: Any) -> None:
        self._keep(module, args[0], self.inputs)  # before the module may overwrite it

    def after(self, module: nn.Module, args: Any, output: Tensor) -> None:
        self._keep(module, output, self.outputs)

    def _keep(self, module: nn.Module, tensor: Tensor, into: dict[str, Tensor]) -> None:
        if module is self.module and not self.paused and torch.is_grad_enabled() and tensor.requires_grad:
            into.pop(self.name, None)

            def keep(gradient: Tensor) -> None:
                into[self.name] = gradient.detach()

            tensor.register_hook(keep)  # type: ignore[no-untyped-call]

    def __deepcopy__(self, memo: Any) -> _GradientRecorder:
        return self


def _flat_for(linear: nn.Module, inputs: Tensor) -> Tensor:
    flat = isinstance(linear, nn.Linear) and inputs.dim() > 2
    return inputs.flatten(1) if flat else inputs
