"""Whose products of matrices the loops of native.c use: those of a library that is loaded anyway.

Torch's own library holds MKL on x86-64, which uses AVX-512 on Intel's processors only. NumPy's wheels bring OpenBLAS,
which uses it on others, too, and then multiplies twice as fast (unless OPENBLAS_CORETYPE asks for older kernels).
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch

PLACES = {
    "torch": ("torch/lib/*torch_cpu.*",),
    "numpy": ("numpy.libs/*openblas64*", "numpy/.dylibs/*openblas64*"),
}
WIDE = ("skylakex", "cooperlake", "sapphirerapids")  # what OpenBLAS calls its kernels for AVX-512


class Products(NamedTuple):
    """sgemm and dgemm, functions or addresses, and what sets how many threads they use and returns how many it were."""

    owner: str
    sgemm: Any
    dgemm: Any
    set_threads: Any = None


def products(is_intel: bool) -> Products:
    """The fastest there are; is_intel: whether that is who made the processor."""
    numpys, torchs = of_numpy(), of_torch()
    if numpys and torchs:
        return torchs if is_intel or kernels() not in WIDE else numpys
    return numpys or torchs or of_scipy()


def of_torch() -> Products | None:
    """MKL's, where it is part of torch."""
    found = _open(torch, "sgemm_", "dgemm_", "MKL_Set_Num_Threads_Local")
    return Products("torch", *found) if found else None


def of_numpy() -> Products | None:
    """OpenBLAS's, where NumPy's wheel brings it."""
    found = _open(np, "scipy_sgemm_64_", "scipy_dgemm_64_", "openblas_set_num_threads_local")
    return Products("numpy", *found) if found else None


def kernels() -> str:
    """Which kernels NumPy's OpenBLAS has chosen for this processor, such as haswell; empty where it cannot be asked."""
    found = _open(np, "scipy_openblas_get_corename64_")
    if not found:
        return ""
    found[0].restype = ctypes.c_char_p
    return str(found[0]().decode().lower())


def of_scipy() -> Products:
    """BLAS's as SciPy offers them to compiled code, whosever they are."""
    return Products("scipy", _of_scipy("sgemm"), _of_scipy("dgemm"))


def _open(package: ModuleType, *names: str) -> list[Any]:
    """Functions of the library that a package brought along; none where one of them is missing."""
    root = Path(str(package.__file__)).parents[1]
    found = [path for pattern in PLACES[package.__name__] for path in sorted(root.glob(pattern))]
    library = ctypes.CDLL(str(found[0])) if found else None
    return [getattr(library, name) for name in names] if all(hasattr(library, name) for name in names) else []


def _of_scipy(name: str) -> int:
    from scipy.linalg import cython_blas

    capsule = cython_blas.__pyx_capi__[name]
    ctypes.pythonapi.PyCapsule_GetName.argtypes = [ctypes.py_object]
    ctypes.pythonapi.PyCapsule_GetName.restype = ctypes.c_char_p
    ctypes.pythonapi.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
    ctypes.pythonapi.PyCapsule_GetPointer.restype = ctypes.c_void_p
    kind = ctypes.pythonapi.PyCapsule_GetName(capsule)
    address: int = ctypes.pythonapi.PyCapsule_GetPointer(capsule, kind)
    return address
