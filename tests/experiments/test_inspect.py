"""What is said of a run's folder, in whatever state it was left."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments import folder as files
from experiments import inspect
from experiments.checkpoint.store import Store, sealed
from experiments.command_line import main as train
from tests.experiments.conftest import ROOT, Outcome
from tests.experiments.test_lock import HOLD

WORDS = [
    *("env=ns_cartpole", "env.n_envs=2", "total_steps=300", "agent.n_steps=64", "agent.batch_size=64"),
    *("agent.net_arch=[8]", "agent.n_epochs=2", "plasticity=[l2,cbp]", "seed=7", "run.checkpoint.every=128"),
    "run.threads=1",
]
Inspect = Callable[..., Outcome]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with checkpoints of steps 256 and 384."""
    folder = tmp_path_factory.mktemp("inspected") / "run"
    assert train([*WORDS, f"run.dir={folder}"]) == 0
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return shutil.copytree(finished, tmp_path / "run")


@pytest.fixture
def inspected(capsys: pytest.CaptureFixture[str]) -> Inspect:
    def call(*words: Any) -> Outcome:
        capsys.readouterr()
        code = inspect.main([str(word) for word in words])
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return call


def as_json(outcome: Outcome) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(outcome.out)
    return found


def edit(path: Path, **changes: Any) -> None:
    """Change what a JSON file says; a manifest is sealed again."""
    found = json.loads(path.read_text()) | changes
    path.write_text(json.dumps(sealed(found) if "sha256" in found else found))


def test_a_finished_run(finished: Path, inspected: Inspect) -> None:
    before = {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in finished.rglob("*")}
    outcome = inspected(finished)
    assert (outcome.code, outcome.err) == (0, "")
    assert "PPO with l2, cbp on NSCartPole-v1, 2 at once, seed 7" in outcome.out
    assert "finished after 384 steps, of 384 (asked 300)" in outcome.out
    assert len(re.findall(r"step +(256|384) .* MB  verified", outcome.out)) == 2
    assert "going on will be exact" in outcome.out
    assert "could not be written" not in outcome.out
    assert {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in finished.rglob("*")} == before


def test_the_digest_is_that_of_the_weights(finished: Path, inspected: Inspect) -> None:
    with zipfile.ZipFile(finished / files.MODEL) as archive, archive.open("policy.pth") as file:
        state = torch.load(file, weights_only=True)
    text = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        text.update(f"{name} {str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}\n".encode())
        text.update(bytes(tensor.contiguous().flatten().view(torch.uint8).tolist()) if tensor.ndim else tensor.numpy())
    outcome = inspected(finished)
    assert f"weights of step 384: SHA-256 {text.hexdigest()}" in outcome.out
    one = {"a": torch.zeros(2)}
    others = [{"b": torch.zeros(2)}, {"a": torch.zeros(1, 2)}, {"a": torch.zeros(2).double()}, {"a": -torch.zeros(2)}]
    assert len({inspect.digest(each) for each in (one, *others)}) == 5


def test_machines_are_told_the_same(finished: Path, inspected: Inspect) -> None:
    found = as_json(inspected(finished, "--json"))
    assert (found["state"], found["steps"], found["asked_steps"], found["planned_steps"]) == ("finished", 384, 300, 384)
    assert [(one["step"], one["fault"]) for one in found["checkpoints"]] == [(256, None), (384, None)]
    sizes = [sum(p.stat().st_size for p in Path(c["path"]).glob("state.*")) for c in found["checkpoints"]]
    assert [one["size"] for one in found["checkpoints"]] == sizes
    assert found["resume"]["inexact"] == []
    assert found["resume"]["weights"] in inspected(finished).out


def test_a_finished_run_goes_on_by_the_command_that_is_shown(run: Path, inspected: Inspect) -> None:
    commands = [command for command, _ in as_json(inspected(run, "--json"))["commands"]]
    (longer,) = [shlex.split(command) for command in commands if "train.py" in command]
    assert longer[:2] == ["python", "train.py"]
    assert train([*longer[2:], "total_steps=512"]) == 0
    assert files.words(run) == [*(w for w in WORDS if "total" not in w), "total_steps=768", "total_steps=512"]
    assert as_json(inspected(run, "--json"))["steps"] == 512


def test_a_run_that_was_killed_or_stopped_or_failed(run: Path, inspected: Inspect) -> None:
    edit(run / files.RESULT, status="stopped")
    outcome = inspected(run)
    assert "stopped after 384 steps" in outcome.out
    assert "# go on from step 384" in outcome.out
    edit(run / files.RESULT, status="failed")
    (run / files.ERROR_LOG).write_text("Traceback\nZeroDivisionError: the world ended\n")
    assert "failed after 384 steps, of 384 (asked 300)\n  ZeroDivisionError: the world ended" in inspected(run).out
    edit(run / files.RESULT, steps=128)  # that was before it was gone on with
    assert "ended without a word (killed, or the machine went down), saved at step 384" in inspected(run).out
    (run / files.RESULT).unlink()
    assert as_json(inspected(run, "--json"))["state"] == "killed"


def test_a_run_that_goes_on_is_not_disturbed(run: Path, inspected: Inspect) -> None:
    words = [sys.executable, "-c", HOLD, str(run)]
    with subprocess.Popen(words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        outcome = inspected(run)
        assert outcome.code == 0
        assert f"running in process {holder.pid} on host " in outcome.out
        assert "train.py" not in outcome.out
        second = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
        assert second.returncode == 6  # it holds it as before
        holder.communicate()
    assert "finished after" in inspected(run).out


def test_damaged_checkpoints(run: Path, inspected: Inspect) -> None:
    state = run / "checkpoints" / f"{384:012d}" / "state.safetensors"
    content = bytearray(state.read_bytes())
    content[-1] ^= 1
    state.write_bytes(content)
    outcome = inspected(run)
    assert outcome.code == 0
    assert re.search(r"step +384 .* cannot be used: state.safetensors has SHA-256 \w{12}", outcome.out)
    assert "weights of step 256" in outcome.out
    edit(run / "checkpoints" / f"{256:012d}" / "manifest.json", format=99)
    outcome = inspected(run)
    assert outcome.code == 5
    assert "has format 99 and this version" in outcome.out
    assert "none of them can be used" in outcome.out
    assert "run.overwrite=true" in outcome.out
    shutil.rmtree(run / "checkpoints")
    assert inspected(run).code == 5


def test_a_checkpoint_that_verifies_and_makes_no_sense(run: Path, inspected: Inspect) -> None:
    checkpoint, _ = Store(run).newest()
    assert checkpoint is not None
    Store(run).write(512, {"policy": 3}, {})
    outcome = inspected(run)
    assert outcome.code == 0
    assert re.search(r"step +512 .* cannot be used: cannot be read: (Key|Type)Error", outcome.out)
    assert "weights of step 384" in outcome.out


def test_why_going_on_would_not_be_exact(run: Path, inspected: Inspect) -> None:
    manifest = run / "checkpoints" / f"{384:012d}" / "manifest.json"
    found = json.loads(manifest.read_text())
    versions = found["versions"] | {"torch": "1.0", "gymnasium": "0.1"}
    edit(manifest, versions=versions, threads=4, products="scipy", inexact=["environment: cannot be kept"])
    edit(run / files.RESULT, status="stopped")
    outcome = inspected(run)
    assert outcome.code == 0
    assert "going on will not be exact" in outcome.out
    assert f"torch 1.0 -> {found['versions']['torch']}" in outcome.out
    assert "torch threads changed (4 -> 1) at step 384" in outcome.out
    assert f"whose products of matrices are used changed (scipy -> {found['products']}) at step 384" in outcome.out
    assert "environment: cannot be kept" in outcome.out
    assert "run.checkpoint.allow_version_change=true  # go on" in outcome.out
    words = [word for word in WORDS if not word.startswith("total")]
    assert train([*words, "total_steps=500", f"run.dir={run}"]) == 5
    assert train([*words, "total_steps=500", f"run.dir={run}", "run.checkpoint.allow_version_change=true"]) == 0


def test_what_could_not_be_written_is_listed(run: Path, inspected: Inspect) -> None:
    (run / files.RESULT).unlink()
    checkpoint, _ = Store(run).newest()
    assert checkpoint is not None
    tree = checkpoint.read()
    tree["parts"]["losses"]["gaps"] = {"progress.csv": [{"first": 64, "last": 128, "rows": 2}]}
    Store(run).write(512, tree, {k: v for k, v in checkpoint.manifest.items() if k not in ("step", "format", "files")})
    assert "progress.csv: 2 rows could not be written, steps 64-128" in inspected(run).out


def test_no_run(tmp_path: Path, run: Path, inspected: Inspect) -> None:
    assert inspected(tmp_path).errors == [f"error: {tmp_path} holds no run: there is no config.yaml"]
    assert inspected(tmp_path / "none").code == 2
    (run / files.CONFIG).write_text("[")
    assert inspected(run).code == 2
    (run / files.CONFIG).write_text("agent: {}")
    outcome = inspected(run)
    assert outcome.code == 2
    assert outcome.err.startswith(f"error: {run / files.CONFIG}: agent.")
    assert inspected("--jsn", run).code == 2


def test_the_words_of_a_run_are_read_back(tmp_path: Path) -> None:
    def words(*lines: str) -> list[str]:
        (tmp_path / files.COMMAND).write_text("".join(f"{line}\n" for line in lines))
        return files.words(tmp_path)

    assert words("python train.py agent=sac", "python train.py agent=ppo 'agent.net_arch=[8, 8]' run.dir=x") == [
        *("agent=ppo", "agent.net_arch=[8, 8]"),
    ]
    assert words("python train.py --config-dir a --config-dir=b env=mine") == [
        *("--config-dir=a", "--config-dir=b", "env=mine"),
    ]
    assert words("python -m experiments.import_weights lr=1/model.zip env=mine --optimizer") == ["env=mine"]
    assert words() == []
