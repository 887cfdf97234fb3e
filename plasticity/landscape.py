"""The loss landscape around a network: how many directions its gradients have, and how sharply the loss bends.

All of it is of a network's outputs on a batch of its inputs, in float64 on the CPU, on a copy: nothing is left behind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from plasticity.copies import OutputCopy
from plasticity.intervention import Randomness
from plasticity.metrics import effective_rank
from plasticity.network import Network

EIGENVALUES = 3
LANCZOS_STEPS = 30


def landscape_metrics(network: Network, inputs: Tensor, *, rows: int = 64, seed: int = 0) -> dict[str, float]:
    """`gradient_rank`, `ntk_rank` and `hessian_eigenvalue_1`, `_2`, `_3`, by name.

    The loss: half the squared distance of the outputs f(x) from what they are now plus noise, L = mean over rows of
    ||f(x) - f_now(x) - e||^2 / 2, e ~ N(0, 1) for each output: a new task that is as good as any other. `gradient_rank`
    is the effective rank of its `gradient_covariance`, between 1 (all samples pull at the same weights in the same way)
    and `rows`; `ntk_rank` that of the `tangent_kernel`; the eigenvalues are the largest of its Hessian.

    inputs: (batch, ...), what the first hidden layer reads; at most `rows` of them are used, evenly spread.
    seed: of the noise and of Lanczos' first vector.
    Raises `ValueError` where the network is no function of its inputs alone (see `Network.heads`).
    Memory: rows * parameters numbers of 8 bytes.

    Source: Lyle et al., ICML 2023, arXiv 2303.01486, sections 2.1 and 4.2, who look at the normalised covariance of
    gradients and the spectrum of the Hessian, also of a stop-gradient target with noise; the ranks are our summary.
    """
    model = OutputCopy(network).cpu().double().requires_grad_()
    picked = torch.linspace(0, len(inputs) - 1, min(rows, len(inputs))).round().long()
    x = inputs.detach()[picked.to(inputs.device)].cpu().double()
    random = Randomness(seed, "landscape")
    with torch.no_grad():
        now = model(x)
    targets = now + random.normal(*now.shape).double()
    with torch.enable_grad():
        loss = (model(x) - targets).square().sum(-1).mean() / 2
        largest = hessian_eigenvalues(loss, list(model.parameters()), EIGENVALUES, random=random)
    return {
        "gradient_rank": _rank(gradient_covariance(model, x, targets)),
        "ntk_rank": _rank(tangent_kernel(model, x)),
        **{f"hessian_eigenvalue_{i}": value for i, value in enumerate(largest, 1)},
    }


def gradient_covariance(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    """C, (rows, rows): cosines between the gradients of ||model(x) - y||^2 / 2 of single rows; 0 where one vanishes.

    Source: Lyle et al., arXiv 2303.01486, equation 3.
    """
    gradients = _row_gradients(model, inputs, targets, lambda output, y: (output - y).square().sum() / 2)
    products = _products(gradients)
    size = products.diagonal().clamp_min(0).sqrt()
    scale = torch.where(size > 0, 1 / size, 0)
    return scale[:, None] * products * scale


def tangent_kernel(model: nn.Module, inputs: Tensor) -> Tensor:
    """The empirical neural tangent kernel, (rows, rows): sum over outputs o of grad f_o(x_i) . grad f_o(x_j).

    Source: Jacot et al., NeurIPS 2018, arXiv 1806.07572; with several outputs this is the trace over them.
    """
    with torch.no_grad():
        outputs = model(inputs[:1]).shape[1]
    select = torch.eye(outputs, dtype=inputs.dtype)
    kernel = torch.zeros(len(inputs), len(inputs), dtype=inputs.dtype)
    for one in select:  # one by one: all at once would need `outputs` times the memory
        kernel += _products(_row_gradients(model, inputs, one.expand(len(inputs), -1), lambda f, o: (f * o).sum()))
    return kernel


def hessian_eigenvalues(
    loss: Tensor, parameters: Sequence[Tensor], count: int, *, steps: int = LANCZOS_STEPS, random: Randomness
) -> list[float]:
    """The `count` largest eigenvalues of the loss's second derivative, descending, by Lanczos' method.

    `steps` products of the Hessian with a vector, every vector made orthogonal to all before; fewer if these run out,
    which is when the eigenvalues are exact. One that is there several times is found once.
    """
    parameters = list(parameters)
    gradient = _flat(torch.autograd.grad(loss, parameters, create_graph=True, materialize_grads=True))

    def product(vector: Tensor) -> Tensor:
        return _flat(torch.autograd.grad(gradient, parameters, vector, retain_graph=True, materialize_grads=True))

    return _lanczos(product, random.normal(len(gradient)).to(gradient), steps)[:count]


def _lanczos(product: Callable[[Tensor], Tensor], start: Tensor, steps: int) -> list[float]:
    """Eigenvalues, descending, of the symmetric operator on the space of start, product(start), ..."""
    basis = [start / start.norm()]
    diagonal: list[Tensor] = []
    beside: list[Tensor] = []
    for _ in range(min(steps, len(start))):
        vector = product(basis[-1])
        size = vector.norm()
        diagonal.append(vector @ basis[-1])
        known = torch.stack(basis)
        for _ in range(2):  # rounding errors of the first time are as large as what is left, at the end
            vector = vector - known.T @ (known @ vector)
        beside.append(vector.norm())
        if beside[-1] <= 1e-10 * size:
            break
        basis.append(vector / beside[-1])
    matrix = torch.diag(torch.stack(diagonal))
    if len(diagonal) > 1:
        off = torch.stack(beside[: len(diagonal) - 1])
        matrix = matrix + torch.diag(off, 1) + torch.diag(off, -1)
    return [float(value) for value in torch.linalg.eigvalsh(matrix).flip(0)]


def _row_gradients(
    model: nn.Module, inputs: Tensor, others: Tensor, of: Callable[[Tensor, Tensor], Tensor]
) -> dict[str, Tensor]:
    """By parameter, (rows, ...): the gradient of `of(model(x), other)` for each row by itself."""

    def value(parameters: dict[str, Tensor], x: Tensor, other: Tensor) -> Tensor:
        output: Tensor = functional_call(model, parameters, (x[None],))
        return of(output[0], other)

    parameters = {name: parameter.detach() for name, parameter in model.named_parameters()}
    gradients: dict[str, Tensor] = torch.func.vmap(torch.func.grad(value), (None, 0, 0))(parameters, inputs, others)
    return gradients


def _products(gradients: dict[str, Tensor]) -> Tensor:
    """(rows, rows): inner products of the rows' gradients over all parameters."""
    flat = [gradient.flatten(1) for gradient in gradients.values()]
    return torch.stack([rows @ rows.T for rows in flat]).sum(0)


def _rank(matrix: Tensor) -> float:
    """Effective rank of a positive semi-definite matrix, whose eigenvalues are its singular values."""
    return effective_rank(torch.linalg.eigvalsh(matrix).clamp_min(0).flip(0))


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])
