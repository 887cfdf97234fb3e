"""Metrics against closed forms."""

import math

import pytest
import torch
from torch import nn

from plasticity import (
    HiddenLayer,
    Reader,
    activation_metrics,
    approximate_rank,
    dead_units,
    dormancy_score,
    dormant_units,
    effective_rank,
    numerical_rank,
    saturated_units,
    singular_values,
    spectral_norm,
    srank,
    stable_rank,
    update_ratio,
    weight_metrics,
    zero_fraction,
)


def matrix_with(sigma, rows=64):
    random = torch.Generator().manual_seed(0)
    q = torch.linalg.qr(torch.randn(rows, len(sigma), generator=random, dtype=torch.float64))[0]
    v = torch.linalg.qr(torch.randn(len(sigma), len(sigma), generator=random, dtype=torch.float64))[0]
    return q * torch.tensor(sigma, dtype=torch.float64) @ v.T


def test_the_check_value():
    sigma = singular_values(matrix_with([10.0, 1.0, 1.0, 1.0, 0.01]))
    assert effective_rank(sigma) == pytest.approx(2.224, abs=5e-4)
    assert srank(sigma) == 4
    assert approximate_rank(sigma) == 3
    assert stable_rank(sigma) == pytest.approx(1.030, abs=5e-4)
    assert numerical_rank(sigma, 64) == 5


@pytest.mark.parametrize("n", [1, 4, 100])
def test_the_identity_has_full_rank(n):
    sigma = singular_values(torch.eye(n))
    assert effective_rank(sigma) == pytest.approx(n)
    assert stable_rank(sigma) == pytest.approx(n)
    assert srank(sigma) == approximate_rank(sigma) == math.ceil(0.99 * n)
    assert numerical_rank(sigma, n) == n


def test_rank_one_and_zero():
    one = singular_values(torch.ones(20, 1) @ torch.tensor([[1.0, -2.0, 3.0]]))
    assert effective_rank(one) == pytest.approx(1, abs=1e-4)
    assert (srank(one), approximate_rank(one), numerical_rank(one, 20)) == (1, 1, 1)
    assert stable_rank(one) == pytest.approx(1)
    zero = singular_values(torch.zeros(20, 3))
    assert [f(zero) for f in (effective_rank, srank, approximate_rank, stable_rank)] == [0, 0, 0, 0]
    assert numerical_rank(zero, 20) == 0


def test_the_gram_matrix_agrees_with_the_svd():
    full = torch.randn(300, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    deficient = full[:, :10] @ torch.randn(10, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for matrix, bound in ((full, 1e-13), (deficient, 1e-4)):
        svd = torch.linalg.svdvals(matrix)
        assert effective_rank(singular_values(matrix)) == pytest.approx(effective_rank(svd), rel=bound)
    # recorded in float32, read with float32's eps: rounding noise is not rank
    assert numerical_rank(singular_values(deficient.float()), 300) == 10


def test_many_rows_are_taken_some_at_a_time():
    activations = torch.randn(2500, 7, generator=torch.Generator().manual_seed(0)).relu()
    expected = torch.linalg.svdvals(activations.double())
    assert torch.allclose(singular_values(activations), expected, rtol=1e-12)
    assert zero_fraction(activations) == pytest.approx(float((activations == 0).double().mean()), rel=1e-15)


def test_fewer_rows_than_units_is_an_error_and_left_out_of_the_summary():
    with pytest.raises(ValueError, match="got 2 rows for 3 units"):
        singular_values(torch.ones(2, 3))
    layer = HiddenLayer("0", nn.Linear(2, 3), nn.ReLU(), (Reader(nn.Linear(3, 1)),))
    assert "effective_rank" not in activation_metrics(layer, torch.ones(2, 3))
    assert "effective_rank" in activation_metrics(layer, torch.ones(3, 3))


def test_dead_units_know_their_activation():
    h = torch.tensor([[0.0, 0.3, 0.0], [0.0, 0.3, 1.0]])
    assert dead_units(h, nn.ReLU()).tolist() == [True, False, False]
    assert dead_units(h, nn.Tanh()).tolist() == [True, True, False]  # a constant unit says nothing
    assert dead_units(h - 2e-4, nn.GELU()).tolist() == [True, False, False]
    assert dead_units(torch.tensor([[-0.17, 0.0], [-0.17, 5.0]]), nn.GELU()).tolist() == [False, False]
    assert dead_units(torch.tensor([[0.9999, -1.0], [0.9999, 1.0]]), nn.Tanh()).tolist() == [True, False]


def test_dormancy_is_relative_to_the_layer_and_total_when_all_is_zero():
    h = torch.tensor([[0.0, 0.03, 2.0, -3.97]])
    assert torch.allclose(dormancy_score(h), torch.tensor([0.0, 0.02, 2 / 1.5, 3.97 / 1.5]))
    assert dormant_units(h).tolist() == [True, True, False, False]
    assert dormant_units(h, 0.0).tolist() == [True, False, False, False]
    assert dormant_units(torch.zeros(5, 3)).all()


def test_saturation_and_zeros():
    h = torch.tensor([[0.999, 0.5], [-0.999, 0.5]])
    assert saturated_units(h).tolist() == [True, False]
    assert zero_fraction(torch.tensor([[0.0, 1.0], [0.0, 0.0]])) == 0.75


@pytest.mark.parametrize(
    "matrix",
    [
        torch.zeros(4, 3),
        torch.eye(7),
        torch.ones(30, 1) @ torch.arange(-5.0, 9.0)[None],
        torch.diag(torch.linspace(0.999, 1, 300)),  # one close to the next: many steps
        *(torch.randn(shape, generator=torch.Generator().manual_seed(1)) for shape in ((1, 1), (1, 9), (9, 1))),
        *(torch.randn(shape, generator=torch.Generator().manual_seed(1)) for shape in ((8, 256), (300, 200))),
        1e-20 * torch.randn(64, 64, generator=torch.Generator().manual_seed(1)),
        torch.zeros(600, 520),  # from here on without the other singular values
        torch.eye(513),
        nn.init.orthogonal_(torch.empty(600, 520), gain=2**0.5, generator=torch.Generator().manual_seed(1)),
        torch.diag(torch.tensor([3.0] * 5 + [1.0] * 600)),
        torch.ones(530, 1) @ torch.arange(-5.0, 535.0)[None],
        torch.diag(torch.linspace(0.999, 1, 600)),
        torch.randn(700, 520, generator=torch.Generator().manual_seed(1)),
        1e-20 * torch.randn(520, 520, generator=torch.Generator().manual_seed(1)),
    ],
    ids=lambda matrix: "x".join(map(str, matrix.shape)),
)
def test_the_spectral_norm_is_the_largest_singular_value(matrix):
    expected = float(torch.linalg.svdvals(matrix.double())[0])
    assert spectral_norm(matrix) == pytest.approx(expected, rel=1e-8, abs=1e-40)


@pytest.mark.parametrize("size", [20, 600])
@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_what_is_no_number_has_no_singular_values(size, number):
    matrix = torch.eye(size)
    matrix[1, 3] = number
    for measure in (spectral_norm, singular_values):
        with pytest.raises(FloatingPointError, match="need finite numbers, got a matrix with NaN or infinity"):
            measure(matrix)


def test_weights_and_updates():
    weight = torch.tensor([[3.0, 0.0], [0.0, -1.0]])
    numbers = weight_metrics(weight, torch.tensor([[0.0, 0.0], [4.0, -1.0]]))
    assert numbers == {"weight_magnitude": 1.0, "spectral_norm": pytest.approx(3.0), "distance_from_init": 5.0}
    assert update_ratio(weight, weight) == 0
    assert update_ratio(torch.tensor([3.0, 4.0]), torch.tensor([3.0, 4.5])) == pytest.approx(0.1)
    assert update_ratio(torch.zeros(2), torch.zeros(2)) == 0
    assert update_ratio(torch.zeros(2), torch.ones(2)) == math.inf


def test_a_channel_is_a_unit_and_every_position_a_row():
    layer = HiddenLayer("c", nn.Conv2d(1, 2, 1), nn.ReLU(), (Reader(nn.Conv2d(2, 1, 1)),))
    h = torch.zeros(1, 2, 2, 2)
    h[0, 1, 0, 0] = 1.0
    numbers = activation_metrics(layer, h)
    assert numbers["dead_fraction"] == 0.5
    assert numbers["zero_fraction"] == 7 / 8
    assert numbers["effective_rank"] == pytest.approx(1)
