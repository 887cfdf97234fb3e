"""The house keeps its shape: imports run one way, modules stay small, every public name is exported and documented."""

from __future__ import annotations

import ast
import importlib
import inspect
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("plasticity", "envs", "agents", "experiments")
HYDRA = {"train.py", "experiments/compose.py"}

FORBIDDEN = {
    "plasticity": {"agents", "envs", "experiments", "train", "stable_baselines3", "gymnasium", "hydra", "omegaconf"},
    "envs": {"plasticity", "agents", "experiments", "train", "torch", "stable_baselines3", "hydra", "omegaconf"},
    "agents": {"experiments", "train", "hydra", "omegaconf"},
    "experiments": {"train", "hydra", "omegaconf"},
}


def modules():
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def imported(path):
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(str(node.module).split(".")[0])
    return names


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_one_way(path):
    place = path.relative_to(ROOT)
    forbidden = FORBIDDEN[place.parts[0]]
    if str(place) in HYDRA:
        forbidden = forbidden - {"hydra", "omegaconf"}
    assert not imported(path) & forbidden


def test_only_the_physics_knows_mujoco():
    users = {path.name for path in (ROOT / "envs").glob("*.py") if "mujoco" in imported(path)}
    assert users
    assert all(any(word in name for word in ("physics", "snapshot", "renderer")) for name in users)


def test_modules_hold_one_idea():
    long = {str(p.relative_to(ROOT)): n for p in modules() if (n := len(p.read_text().splitlines())) > 320}
    assert not long
    assert len((ROOT / "train.py").read_text().splitlines()) < 150


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_is_exported_and_has_a_docstring(package):
    module = importlib.import_module(package)
    assert module.__doc__
    for name in getattr(module, "__all__", ()):
        value = getattr(module, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert value.__doc__, f"{package}.{name} has no docstring"


@pytest.mark.parametrize("package", ["plasticity", "envs", "agents"])
def test_public_methods_say_what_they_do(package):
    for name in importlib.import_module(package).__all__:
        value = getattr(importlib.import_module(package), name)
        if not inspect.isclass(value) or not value.__module__.startswith(package):
            continue
        for attribute, member in vars(value).items():
            if inspect.isfunction(member) and not attribute.startswith("_"):
                assert inspect.getdoc(getattr(value, attribute)), f"{package}.{name}.{attribute} has no docstring"


def test_the_page_of_public_names_is_up_to_date():
    page = runpy.run_path(str(ROOT / "docs" / "make_api.py"))["page"]()
    assert (ROOT / "docs" / "api.md").read_text() == page, "run: python docs/make_api.py"
