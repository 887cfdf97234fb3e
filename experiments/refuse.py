"""What a YAML file may not hold. Read as a tree of nodes and judged before Hydra sees it, so nothing in it can run.

Hydra's own settings, `_target_` and logging's `()` factories can each call any function; an interpolation can read the
process's environment; an id such as `module:Env-v0` imports the module. Such an id is accepted when it is typed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import yaml

_HYDRA = re.compile(r"(^|[\s/@])hydra([./:@]|$)")
_INSTANTIATE = ("_target_", "_partial_", "_recursive_", "_convert_", "_args_")
_HEADER = re.compile(r"^\s*#\s*@\s*(.*)$", re.MULTILINE)


def faults_in_files(directories: Iterable[Path]) -> list[str]:
    """One sentence for each fault in any `.yaml` file below `directories`, and for each linked folder there.

    Hydra follows links that lead to folders; what lies behind one was not looked at, so it is refused.
    """
    faults: list[str] = []
    for directory in directories:
        for folder, subfolders, _ in os.walk(directory):
            links = [Path(folder, name) for name in sorted(subfolders) if Path(folder, name).is_symlink()]
            faults += [f"{link}: is a link to a folder; put the files themselves there" for link in links]
        faults += [fault for path in sorted(directory.rglob("*.yaml")) for fault in _faults(path)]
    return faults


def faults_in_key(key: str) -> Iterator[str]:
    """What is wrong with a key of a file or of an override, as the end of a sentence."""
    if _HYDRA.search(key):
        yield f'sets "{key}": Hydra\'s own settings can run code and cannot be changed here'
    parts = re.split(r"[./@\s]", key)
    yield from (
        f'sets "{name}", which could call any function: settings only' for name in _INSTANTIATE if name in parts
    )
    if "()" in key:
        yield 'sets "()", a logging factory that could call any function: settings only'


def faults_in_text(text: str) -> Iterator[str]:
    """What is wrong with a value, as the end of a sentence."""
    if "${" in text:
        yield f"interpolates {text!r}: write the value itself"


def _faults(path: Path) -> Iterator[str]:
    try:
        text = path.read_text(encoding="utf-8")
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        yield f"{path}: cannot be read as YAML: {' '.join(str(error).split())}"
        return
    for header in _HEADER.findall(text):
        if header.split() != ["package", "_global_"]:
            yield f'{path}: has the header "@{header}"; only "@package _global_" is allowed'
    if root is not None:
        yield from (f"{path}: {fault}" for fault in _walk(root, set()))


def _walk(node: yaml.Node, seen: set[tuple[int, str]], key: str = "") -> Iterator[str]:
    if (id(node), key) in seen:  # an alias: already judged under this key, and possibly its own ancestor
        return
    seen.add((id(node), key))
    if not node.tag.startswith("tag:yaml.org,2002:") or "python" in node.tag:
        yield f"has the tag {node.tag}: plain YAML only"
    if isinstance(node, yaml.MappingNode):
        words = [name.value for name, _ in node.value if isinstance(name, yaml.ScalarNode)]
        yield from (f'has the key "{word}" twice' for word in sorted({word for word in words if words.count(word) > 1}))
        for name, value in node.value:
            word = name.value if isinstance(name, yaml.ScalarNode) else ""
            yield from faults_in_key(word)
            yield from faults_in_text(word)
            yield from _walk(value, seen, word)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from _walk(value, seen, key)
    else:
        yield from faults_in_text(node.value)
        if key == "defaults":
            yield from faults_in_key(node.value)
        if key in ("id", "ids") and ":" in node.value:
            yield f'names the environment "{node.value}", which imports a module: type it instead, env.id={node.value}'
