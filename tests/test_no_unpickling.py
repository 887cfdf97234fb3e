"""Nothing of ours reads a file with an unpickler that could run what is in it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("plasticity", "envs", "agents", "experiments")
PICKLES = {"pickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
READS = {"load", "loads", "Unpickler", "open", "unsafe_load", "full_load", "read_pickle", "load_replay_buffer"}
PLAIN = {"json", "safetensors.numpy", "safetensors.torch"}  # formats in which nothing can be called
OURS = {
    "snapshot": "envs/snapshot.py, attributes and simulator states in memory",
    "self._models": "envs/mujoco_snapshot.py, arrays of a MuJoCo model",
}
# Bytes that this very process, or the one that started it, has just made; they never come from a file.
MADE_HERE = {
    ("envs/nonstationary.py", "__setstate__"): "a copy of an environment, by copy.deepcopy or a pickle of the user's",
    ("experiments/workers.py", "_work"): "the environment's maker, through a pipe from the run to its worker",
}


def unpicklers(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """(function it is in, what is named there) for everything that reads, or may read, a pickle."""
    modules = {
        alias.asname or alias.name: alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    calls = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}

    def walk(node: ast.AST, inside: str) -> Iterator[tuple[str, str]]:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            inside = node.name
        if isinstance(node, ast.ImportFrom) and node.module in {*PICKLES, "torch", "numpy", "yaml"}:
            yield from ((inside, f"{node.module}.{a.name}") for a in node.names if a.name in READS)
        if isinstance(node, ast.Attribute) and node.attr in READS:
            owner = ast.unparse(node.value)
            owner = modules.get(owner, owner)
            if may_unpickle(owner, node.attr, calls.get(id(node))):
                yield inside, f"{owner}.{node.attr}"
        for child in ast.iter_child_nodes(node):
            yield from walk(child, inside)

    yield from walk(tree, "")


def may_unpickle(owner: str, name: str, call: ast.Call | None) -> bool:
    if owner in PICKLES:
        return True
    if name == "open" or (name != "load" and owner in PLAIN):
        return False
    keywords = {} if call is None else {k.arg: ast.unparse(k.value) for k in call.keywords}
    if owner == "torch":
        return keywords.get("weights_only") != "True"
    if owner in ("np", "numpy"):
        return call is None or keywords.get("allow_pickle", "False") != "False" or len(call.args) > 2
    return owner not in PLAIN and owner not in OURS  # anything else: SB3's load, yaml.load, VecNormalize.load


@pytest.mark.parametrize(
    "path",
    [ROOT / "train.py", *sorted(p for package in PACKAGES for p in (ROOT / package).rglob("*.py"))],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_no_module_unpickles_what_could_come_from_a_file(path: Path) -> None:
    place = str(path.relative_to(ROOT))
    found = {(inside, name) for inside, name in unpicklers(ast.parse(path.read_text("utf-8")))}
    assert {one for one in found if (place, one[0]) not in MADE_HERE} == set()


def test_the_exceptions_are_still_needed() -> None:
    for place, function in MADE_HERE:
        tree = ast.parse((ROOT / place).read_text("utf-8"))
        assert function in {inside for inside, _ in unpicklers(tree)}


@pytest.mark.parametrize(
    ("code", "caught"),
    [
        ("import pickle\npickle.load(f)", True),
        ("import pickle as p\nf = p.loads", True),
        ("from pickle import loads", True),
        ("import pickle\npickle.Unpickler(f)", True),
        ("import joblib\njoblib.load(p)", True),
        ("import torch\ntorch.load(p)", True),
        ("import torch\ntorch.load(p, weights_only=flag)", True),
        ("import torch\ntorch.load(p, weights_only=True)", False),
        ("import numpy as np\nnp.load(p)", False),
        ("import numpy as np\nnp.load(p, allow_pickle=True)", True),
        ("import numpy as np\nnp.load(p, None, True)", True),
        ("PPO.load(p)", True),
        ("VecNormalize.load(p, env)", True),
        ("model.load_replay_buffer(p)", True),
        ("import yaml\nyaml.load(t, Loader)", True),
        ("import json\njson.load(f)", False),
        ("import json\njson.loads(t)", False),
        ("path.open()", False),
    ],
)
def test_what_is_caught(code: str, caught: bool) -> None:
    assert bool(list(unpicklers(ast.parse(code)))) is caught
