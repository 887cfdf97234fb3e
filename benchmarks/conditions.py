"""What numbers were measured on and with."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "stable-baselines3", "sbx-rl", "jax", "gymnasium", "mujoco", "numpy")
_ASK = """
import importlib.metadata, json, platform, sys
found = {"Python": platform.python_version()}
for name in sys.argv[1:]:
    try:
        found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        pass
print(json.dumps(found))
"""


def machine() -> dict[str, Any]:
    """The processor's name, the number of cores, and whose products of matrices ours uses there."""
    from plasticity.blas import kernels
    from plasticity.native import BLAS

    info = Path("/proc/cpuinfo")
    lines = info.read_text("utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor() or platform.machine(),
        "cores": os.cpu_count() or 1,
        "products": f"{BLAS} {kernels()}",
    }


def versions(*packages: str) -> dict[str, str]:
    """Of packages of this environment, and of Python."""
    return {name: importlib.metadata.version(name) for name in packages} | {"Python": platform.python_version()}


def versions_of(python: str, packages: Sequence[str] = PACKAGES) -> dict[str, str]:
    """The same of another interpreter's environment, as far as it has them."""
    done = subprocess.run([python, "-c", _ASK, *packages], capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))
