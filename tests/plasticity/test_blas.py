"""Whose products of matrices are used, and that they are products."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from plasticity import blas, native

OWNERS = {"torch": blas.of_torch, "numpy": blas.of_numpy, "scipy": blas.of_scipy}


@pytest.mark.parametrize("owner", OWNERS)
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_each_multiplies(owner, kind):
    found = OWNERS[owner]()
    if found is None:
        pytest.skip(f"no products of {owner}'s here")
    assert found.owner == owner
    a, b = (np.random.default_rng(seed).normal(size=(3, 3)).astype(kind) for seed in (0, 1))
    into, size, one = np.empty((3, 3), kind), ctypes.c_int64(3), np.ones((), kind)
    address = ctypes.cast(found.sgemm if kind is np.float32 else found.dgemm, ctypes.c_void_p).value
    product = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 13)(address)
    zero, n = np.zeros((), kind), ctypes.addressof(size)
    scales = one.ctypes.data, zero.ctypes.data
    keep = ctypes.create_string_buffer(b"N"), ctypes.create_string_buffer(b"T")
    letters = (ctypes.addressof(letter) for letter in keep)
    # its matrices lie column by column, so that ours look turned: (a b^T)^T is b a^T
    product(*letters, n, n, n, scales[0], a.ctypes.data, n, b.ctypes.data, n, scales[1], into.ctypes.data, n)
    np.testing.assert_allclose(into.T, a.T @ b, rtol=1e-5)


@pytest.mark.parametrize("owner", ["torch", "numpy"])
def test_setting_threads_tells_how_many_there_were(owner):
    found = OWNERS[owner]()
    if found is None:
        pytest.skip(f"no products of {owner}'s here")
    before = found.set_threads(1)
    assert found.set_threads(before) == 1


@pytest.mark.parametrize(
    ("kernels", "is_intel", "owner"),
    [("skylakex", False, "numpy"), ("skylakex", True, "torch"), ("haswell", False, "torch"), ("", False, "torch")],
)
def test_numpys_are_used_where_only_they_are_wide(monkeypatch, kernels, is_intel, owner):
    monkeypatch.setattr(blas, "of_torch", lambda: blas.Products("torch", None, None))
    monkeypatch.setattr(blas, "of_numpy", lambda: blas.Products("numpy", None, None))
    monkeypatch.setattr(blas, "kernels", lambda: kernels)
    assert blas.products(is_intel).owner == owner


def test_without_those_of_torch_and_numpy_scipys_are_used(monkeypatch):
    monkeypatch.setattr(blas, "PLACES", {"torch": (), "numpy": ()})
    assert blas.kernels() == ""
    assert blas.products(is_intel=False).owner == "scipy"


@pytest.mark.skipif(not native.TORCHS, reason="torch's products are not known here")
def test_threads_are_left_as_they_were_whosever_products_are_used():
    found = blas.of_torch()
    before = found.set_threads(3)
    try:
        native.use(found)  # both setters are one
        native.together(native.NO_WORK, native.NO_WORK, alone=False)
        assert found.set_threads(3) == 3
    finally:
        found.set_threads(before)
        native.use(getattr(blas, f"of_{native.BLAS}")())
