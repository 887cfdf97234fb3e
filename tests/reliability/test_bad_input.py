"""What is refused before anything is built: exit 2, a line for each fault, nothing on the disk."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest

from experiments.checkpoint.store import sealed
from tests.reliability.conftest import Shared
from tests.reliability.program import Program, steps
from tests.reliability.words import CARTPOLE, PPO, ROLLOUT, TOTAL


def refused(program: Program, *words: str) -> list[str]:
    """The faults, without "error: "."""
    outcome = program.main(*words)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.errors
    assert all(line.startswith("error: ") for line in outcome.errors)
    return [line.removeprefix("error: ") for line in outcome.errors]


@pytest.mark.case(19, "friction NaN, negative, text, empty list", "exit 2 naming key and value")
@pytest.mark.parametrize(
    ("to", "named"),
    [
        ("list:nan", ["to", "nan"]),
        ("list:-1", ["friction", "-1"]),
        ("list:slippery", ["to", "slippery"]),
        ("[]", ["to", "[]"]),
        ("list:", ["to", "list:"]),
        ("uniform:-1,2", ["friction", "-1"]),
    ],
)
def test_an_impossible_friction(to: str, named: list[str], program: Program) -> None:
    (line,) = refused(program, "env=slippery_ant", f"+env.kwargs.to='{to}'", *PPO)
    assert all(text in line for text in named), line
    assert list(program.cwd.iterdir()) == []


@pytest.mark.case(22, "misspelt key", "exit 2, the nearest key suggested, no files made")
def test_a_misspelt_key(program: Program) -> None:
    (line,) = refused(program, "run.chekpoint.minutes=3")
    assert line.startswith('run: unknown setting "chekpoint": allowed are root, dir, ')
    assert line.endswith('did you mean "checkpoint"?')
    assert refused(program, "run.checkpoint.minuts=3")[0].endswith('did you mean "minutes"?')
    assert list(program.cwd.iterdir()) == []


@pytest.mark.case(
    23,
    "gamma 1.7, clip -.2, `lr: 1e-4` read as text, `.nan`, replacement_rate 2, maturity -1, batch above rollout",
    "exit 2, all errors at once",
)
def test_all_faults_at_once(program: Program) -> None:
    file = program.cwd / "mine" / "agent" / "mine.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("algorithm: ppo\nlearning_rate: 1e-4\nvf_coef: .nan\nn_steps: 64\nbatch_size: 128\n")
    faults = [
        *("agent.gamma=1.7", "agent.clip_range=-0.2"),
        *("plasticity.cbp.replacement_rate=2", "plasticity.cbp.maturity=-1", "run.checkpoint.keep=1"),
    ]
    lines = refused(program, "--config-dir", "mine", "agent=mine", "experiment=none", *faults)
    assert sorted(lines) == [
        "agent.clip_range must be in (0, inf), got -0.2",
        "agent.gamma must be in [0, 1], got 1.7",
        "agent.vf_coef must be finite, got nan",
        "plasticity.cbp.maturity must be in [0, inf), got -1",
        "plasticity.cbp.replacement_rate must be in [0, 1], got 2.0",
        "run.checkpoint.keep must be in [2, inf), got 1",
    ]
    (line,) = refused(program, "agent.n_steps=64", "env.n_envs=1", "agent.batch_size=128")
    assert line.startswith("agent.batch_size must be at most the rollout of 64 steps")
    shown = program.main("--config-dir", "mine", "agent=mine", "experiment=none", "agent.vf_coef=1", "--cfg=job",
                         "agent.batch_size=64")  # fmt: skip
    assert "learning_rate: 0.0001\n" in shown.out  # text in YAML 1.1, and a number all the same
    assert [path.name for path in program.cwd.iterdir()] == ["mine"]


@pytest.mark.case(
    24,
    "fewer steps than one rollout, or not a multiple",
    'stated exactly before it starts: "will run 4,096 (asked 3,000)"',
)
@pytest.mark.parametrize(("asked", "planned"), [(3, ROLLOUT), (ROLLOUT + 1, 2 * ROLLOUT)])
def test_a_total_that_is_no_multiple(asked: int, planned: int, program: Program) -> None:
    outcome = program.main(*CARTPOLE, f"total_steps={asked}")
    said = f"will run {planned:,} (asked {asked:,}) environment steps"
    assert said in outcome.out
    assert outcome.out.index(said) < outcome.out.index("100 %")
    assert json.loads((program.folder / "result.json").read_text())["steps"] == planned


@pytest.mark.case(
    26,
    "poisoned zip, pickle, yaml (also one that sets `hydra.*`, `_target_` or a logging `()` factory), env id `mod:Env` "
    "in a file",
    "never runs; exit 2 says how to import safely",
)
@pytest.mark.parametrize(
    ("path", "text", "said"),
    [
        ("agent/mine.yaml", "_target_: os.system\ncommand: touch poisoned\n", "_target_"),
        ("experiment/mine.yaml", "# @package _global_\nhydra:\n  run: {dir: poisoned}\n", "hydra"),
        ("hydra/job_logging/mine.yaml", "handlers:\n  one:\n    (): os.system\n", "()"),
        ("agent/mine.yaml", "policy: !!python/object/apply:os.system ['touch poisoned']\n", "plain YAML only"),
        ("env/mine.yaml", "id: antigravity:World-v0\n", "type it instead, env.id=antigravity:World-v0"),
    ],
)
def test_poisoned_yaml(path: str, text: str, said: str, program: Program) -> None:
    file = program.cwd / "theirs" / path
    file.parent.mkdir(parents=True)
    file.write_text(text)
    lines = refused(program, "--config-dir", "theirs", f"{file.parts[-2]}=mine", *PPO)
    assert any(said in line for line in lines)
    assert [entry.name for entry in program.cwd.iterdir()] == ["theirs"]


class Poison:
    """Makes a file where it is unpickled."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("poisoned",)


def poison(path: Path) -> None:
    """As a zip file that holds a pickle, or as a bare pickle."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("data", pickle.dumps(Poison()))
            archive.writestr("policy.pth", pickle.dumps(Poison()))
    else:
        path.write_bytes(pickle.dumps(Poison()))


@pytest.mark.case(26)
def test_poison_in_a_run_folder(stopped: Shared, program: Program) -> None:
    folder = stopped.copy(program)
    for name in ("model.zip", "probe.pt"):
        poison(folder / name)
    newest = folder / "checkpoints" / f"{max(steps(folder)):012d}"
    manifest = json.loads((newest / "manifest.json").read_text())
    for name in manifest["files"]:
        poison(newest / name)
        content = (newest / name).read_bytes()
        manifest["files"][name] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (newest / "manifest.json").write_text(json.dumps(sealed(manifest)))
    program.did("pickles that run code in place of the files, with checksums that agree")
    outcome = program.main(*CARTPOLE, f"total_steps={TOTAL}")
    assert outcome.code == 5
    (line,) = outcome.errors
    assert line.startswith(
        f"error: run/checkpoints/{newest.name} agrees with its checksums and holds no state of a run"
    )
    assert [path.name for path in program.cwd.iterdir()] == ["run"]


@pytest.mark.case(26)
def test_a_poisoned_zip(program: Program) -> None:
    poison(program.cwd / "model.zip")
    outcome = program.import_weights("model.zip", *CARTPOLE)
    assert (outcome.code, outcome.out) == (2, "")
    assert "could run any code, so it was not loaded. Only tensors are taken here: have its author save" in outcome.err
    assert [path.name for path in program.cwd.iterdir()] == ["model.zip"]


@pytest.mark.case(32, "replay buffer above memory", "exit 2 with the figure in GB")
def test_a_buffer_above_memory(program: Program) -> None:
    (line,) = refused(program, "agent=sac", "env=ns_pendulum", "agent.buffer_size=1_000_000_000_000")
    assert line.startswith(
        "agent.buffer_size=1,000,000,000,000 needs 40,000.0 GB of memory for the replay buffer, and "
    )
    assert list(program.cwd.iterdir()) == []
