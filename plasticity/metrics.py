"""Measures of plasticity: pure functions, activations or weights in, numbers out.

`activations` are (rows, units), as `HiddenLayer.rows` gives them; masks are boolean (units,); singular values are those
of the uncentred matrix, in descending order. Nothing here keeps state, needs gradients or draws random numbers.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from plasticity.activations import CReLU
from plasticity.layers import HiddenLayer
from plasticity.native import one_thread

CONSTANT = 1e-3  # standard deviation, or size, below which a smooth unit counts as dead
LANCZOS, ACCURACY = 8, 1e-9  # steps between two looks at the largest value so far, and how exact its square must be
AT_ONCE = 512  # rows that are in memory with 8 bytes a number
SMALL = 512  # columns of a matrix of which all singular values take no longer than the largest
DORMANT = (0.025, 0.1)  # the thresholds of the ReDo paper

_RECTIFIED = (nn.ReLU, nn.ReLU6, CReLU)
_GATED = (nn.GELU, nn.SiLU, nn.Mish)


def dead_units(activations: Tensor, activation: nn.Module, constant: float = CONSTANT) -> Tensor:
    """Units that say nothing on this batch.

    ReLU, ReLU6, CReLU: h <= 0 in every row. GELU, SiLU, Mish: |h| < 1e-3 in every row. Others (tanh, sigmoid, ...):
    constant, a standard deviation below 1e-3 (`constant`); SB3's default for PPO is tanh, where no unit is ever 0.
    Source: Dohare et al., Nature 632:768 (2024) for ReLU; the others are ours.
    """
    if isinstance(activation, _RECTIFIED):
        return activations.amax(0) <= 0
    if isinstance(activation, _GATED):
        return (activations.abs() < constant).all(0)
    return activations.std(0, correction=0) < constant


def silent_units(layer: HiddenLayer, activations: Tensor, constant: float = CONSTANT) -> Tensor:
    """A layer's dead units, (*replicas, units); one that puts out several numbers is dead when all of them are.

    activations: as the layer puts them out. constant: see `dead_units`.
    """
    if layer.copies == 1:
        return dead_units(layer.rows(activations), layer.activation, constant)
    dead = dead_units(layer.features(activations), layer.activation, constant)
    return dead.view(layer.units, layer.copies).all(-1)


def dormancy_score(activations: Tensor) -> Tensor:
    """mean |h| of each unit over the layer's mean of it, (*replicas, units); all 0 for a layer that is all 0.

    Source: Sokar et al., ICML 2023, arXiv 2302.12902, equation 1.
    """
    size = activations.abs().mean(0)
    return size / (size.mean(-1, keepdim=True) + 1e-9)


def dormant_units(activations: Tensor, threshold: float = DORMANT[0]) -> Tensor:
    """Units whose dormancy score is at most `threshold` (tau)."""
    return dormancy_score(activations) <= threshold


def saturated_units(activations: Tensor) -> Tensor:
    """tanh units with a mean slope below 0.01: mean(1 - h^2) < 0.01."""
    return (1 - activations.square()).mean(0) < 0.01


def zero_fraction(activations: Tensor) -> float:
    """Share of activations that are exactly 0; about 0.5 in a healthy random ReLU layer, so never call it dead."""
    zeros = (activations == 0).cpu().numpy()  # NumPy counts without making numbers of them first
    return np.count_nonzero(zeros) / zeros.size


def singular_values(activations: Tensor) -> Tensor:
    """The singular values of (rows, units), descending, float64, by the eigenvalues of the Gram matrix.

    Raises `ValueError` with fewer rows than units: every rank would be capped by the batch. Raises `FloatingPointError`
    where there is NaN or infinity.
    """
    rows, units = activations.shape
    if rows < units:
        raise ValueError(f"a rank needs at least as many rows as units, got {rows} rows for {units} units")
    return _spectrum(activations)


def _spectrum(matrix: Tensor) -> Tensor:
    """Of a matrix with no more columns than rows."""
    first, *others = _some_rows(matrix)
    gram = _gram(first)
    for part in others:
        gram += _gram(part)
    on_cpu = gram.device.type == "cpu"  # NumPy's LAPACK is the faster one
    squares = torch.from_numpy(np.linalg.eigvalsh(gram.numpy())) if on_cpu else torch.linalg.eigvalsh(gram)
    return squares.clamp_min(0).sqrt().flip(0)


def _some_rows(matrix: Tensor) -> tuple[Tensor, ...]:
    """All of them, so many at a time."""
    return matrix.split(AT_ONCE)  # type: ignore[no-any-return, no-untyped-call]


def _finite(matrix: Tensor) -> Tensor:
    """In float64."""
    matrix = matrix.double()
    if not matrix.sum().isfinite():
        raise FloatingPointError("singular values need finite numbers, got a matrix with NaN or infinity")
    return matrix


def _gram(matrix: Tensor) -> Tensor:
    matrix = _finite(matrix)
    if matrix.device.type != "cpu":
        return matrix.T @ matrix
    values = matrix.numpy()  # NumPy sees that the product is symmetric
    return torch.from_numpy(values.T @ values)


def spectral_norm(matrix: Tensor) -> float:
    """The largest singular value of a matrix, to about 8 digits; of a large one without the others.

    By Lanczos' method on A^T A with full reorthogonalisation, from a vector that is always the same (Golub & Van Loan,
    Matrix Computations, section 10.1): the error is at most that of the last row of the largest Ritz vector. Raises
    `FloatingPointError` where there is NaN or infinity.
    """
    matrix = matrix.detach()
    if len(matrix) < matrix.shape[1]:
        matrix = matrix.T
    size = matrix.shape[1]
    if size <= SMALL:
        return float(_spectrum(matrix)[0])
    matrix = _finite(matrix)
    start = torch.arange(1, size + 1, dtype=torch.float64, device=matrix.device).cos()
    basis, diagonal, beside = (start / start.norm())[None], list[Tensor](), list[Tensor]()
    while True:
        image = matrix.T @ (matrix @ basis[-1])
        diagonal.append(image @ basis[-1])
        for _ in range(2):  # once leaves rounding errors, which grow
            image = image - (basis @ image) @ basis
        beside.append(image.norm())
        t, off, steps = torch.stack(diagonal), torch.stack(beside), len(diagonal)
        is_all = steps == size or bool(off[-1] <= ACCURACY * t.sum())  # nothing but rounding errors is left to find
        if is_all or steps % LANCZOS == 0:
            values, vectors = torch.linalg.eigh(t.diag() + off[:-1].diag(1) + off[:-1].diag(-1))
            if is_all or float(off[-1] * vectors[-1, -1].abs()) <= ACCURACY * float(values[-1]):
                return math.sqrt(max(float(values[-1]), 0.0))
        basis = torch.cat([basis, (image / beside[-1])[None]])


def effective_rank(sigma: Tensor) -> float:
    """exp of the entropy of sigma / sum(sigma); 0 for a zero matrix (Roy & Vetterli, EUSIPCO 2007)."""
    total = float(sigma.sum())
    if total == 0:
        return 0.0
    share = sigma / total
    return math.exp(float(torch.special.entr(share).sum()))


def srank(sigma: Tensor, share: float = 0.99) -> int:
    """Smallest k such that the top k hold `share` of sum(sigma) (Kumar et al., ICLR 2021, arXiv 2010.14498).

    The code of Dohare et al. calls this stable rank.
    """
    total = float(sigma.sum())
    if total == 0:
        return 0
    return int((sigma.cumsum(0) < share * total).sum()) + 1


def approximate_rank(sigma: Tensor, share: float = 0.99) -> int:
    """The same with squares: smallest k such that the top k hold `share` of sum(sigma^2) (Yang et al., ICML 2019)."""
    return srank(sigma.square(), share)


def stable_rank(sigma: Tensor) -> float:
    """Squared Frobenius norm over squared spectral norm; 0 for a zero matrix."""
    largest = float(sigma.max())
    return float((sigma / largest).square().sum()) if largest > 0 else 0.0


def numerical_rank(sigma: Tensor, rows: int, eps: float = torch.finfo(torch.float32).eps) -> int:
    """Singular values above max(rows, units) * eps * the largest; `eps` is that of the type the activations had."""
    return int((sigma > max(rows, len(sigma)) * eps * sigma.max()).sum())


@one_thread()  # so do the handful of small ones here, after which others of torch's would take cores from BLAS's
def activation_metrics(layer: HiddenLayer, activations: Tensor) -> dict[str, float]:
    """Every measure of one layer on one batch, by name; `activations` as the layer's activation put them out.

    Shares are in [0, 1]. The ranks are left out where the batch has fewer rows than the layer has outputs.
    """
    rows, features = layer.rows(activations), layer.features(activations)
    score = dormancy_score(rows)
    numbers = {
        "dead_fraction": _share(silent_units(layer, activations)),
        "dormant_fraction": _share(score <= DORMANT[0]),
        "dormant_fraction_0.1": _share(score <= DORMANT[1]),
        "zero_fraction": zero_fraction(rows),
        "feature_norm": float(torch.cat([part.double().norm(dim=-1) for part in _some_rows(features)]).mean()),
    }
    if isinstance(layer.activation, nn.Tanh):
        numbers["saturated_fraction"] = _share(saturated_units(rows))
    if len(features) >= features.shape[1]:
        sigma = singular_values(features)
        numbers["effective_rank"] = effective_rank(sigma)
        numbers["srank"] = srank(sigma)
        numbers["approximate_rank"] = approximate_rank(sigma)
        numbers["stable_rank"] = stable_rank(sigma)
        numbers["numerical_rank"] = numerical_rank(sigma, len(features), torch.finfo(rows.dtype).eps)
    return numbers


@one_thread()
def weight_metrics(weight: Tensor, initial: Tensor | None = None) -> dict[str, float]:
    """Mean |W|, spectral norm, and the Frobenius distance from `initial` if given."""
    weight = weight.detach()
    flat = weight.flatten(1)
    numbers = {
        "weight_magnitude": float(weight.abs().mean()),
        "spectral_norm": spectral_norm(flat),
    }
    if initial is not None:
        numbers["distance_from_init"] = float((weight - initial).norm())
    return numbers


def update_ratio(before: Tensor, after: Tensor) -> float:
    """||after - before|| / ||before||: the relative size of a step; infinite from zero weights, 0 if nothing moved."""
    step, size = float((after - before).norm()), float(before.norm())
    if size == 0:
        return 0.0 if step == 0 else math.inf
    return step / size


def _share(mask: Tensor) -> float:
    return float(mask.double().mean())
