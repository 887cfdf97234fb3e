"""README tells the truth: its examples are those of examples/ and run; its commands are understood."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.command_line import main

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error"}


def run(*words, cwd=ROOT):
    return subprocess.run(
        [sys.executable, *words], cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, timeout=600
    )


def fenced(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_run(path, tmp_path):
    done = run(str(path), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    expected = {
        "bring_your_own_model.py": r"DQN replaced \{'q_net': [1-9]\d*\}\nTD3 replaced \{'actor': \d+, 'qf0': [1-9]",
        "own_environment.py": r"from step +0: .*\nfrom step  2\d\d\d: .*\nfrom step  4\d\d\d: ",
        "own_method.py": r"pi nudged \d+ times\nvf nudged [1-9]\d* times",
        "supervised.py": r"backprop .*dead units [1-9]\d%\ncontinual backprop .*last 5 tasks (9\d|100)%   dead .* \d%",
    }
    assert re.search(expected[path.name], done.stdout), done.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["own_environment.py", "own_method.py", "supervised.py"])
def test_readme_shows_the_examples_as_they_are(name):
    shown = re.search(rf"<!-- example: {re.escape(name)} -->\n```python\n(.*?)```", README, re.DOTALL)
    assert shown
    assert shown.group(1) == (ROOT / "examples" / name).read_text()


def test_the_other_code_runs(tmp_path):
    files = {path.read_text() for path in EXAMPLES}
    snippets = [code for code in fenced("python") if code not in files]
    assert len(snippets) == 1
    done = run("-c", snippets[0], cwd=tmp_path)
    assert done.returncode == 0, done.stderr


COMMANDS = [line for block in fenced("sh") for line in block.splitlines() if line.startswith("python train.py")]


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_are_understood(command, tmp_path, monkeypatch, capsys):
    words = shlex.split(command)[2:]
    if "-m" in words:
        words = [*words, "--cells"]
    elif "--help" not in words and "--cfg" not in words:
        words = ["--cfg", "job", *words]
    monkeypatch.chdir(tmp_path)
    code, (out, err) = main(words), capsys.readouterr()
    assert (code, err) == (0, "")
    assert ("cells: " if "-m" in words else "agent") in out
    assert not list(tmp_path.iterdir())


def test_commands_were_found_and_every_file_named_exists():
    assert len(COMMANDS) >= 7
    for name in re.findall(r"\]\(([^)#]+)\)", README):
        assert name.startswith("https://") or (ROOT / name).exists(), name


def test_make_targets_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    text = README + (ROOT / "CONTRIBUTING.md").read_text()
    assert set(re.findall(r"^make ([a-z-]+)", text, re.MULTILINE)) <= targets
