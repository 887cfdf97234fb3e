"""Bad input: exit 2, one clear line each, the nearest name, no traceback, nothing on disk."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from experiments.errors import BadInput
from experiments.startup import name_clash
from tests.experiments.conftest import ROOT, Outcome, run_train

Command = Callable[..., Outcome]
AGENT = "agent: unknown setting "

EXACT = [
    (["agent.gamma=1.7"], "agent.gamma must be in [0, 1], got 1.7"),
    (["agent.clip_range=-0.2"], "agent.clip_range must be in (0, inf), got -0.2"),
    (["agent.learning_rate=fast"], "agent.learning_rate must be a number, got 'fast'"),
    (["agent.learning_rate=nan"], "agent.learning_rate must be finite, got nan"),
    (["agent.learning_rate=inf"], "agent.learning_rate must be finite, got inf"),
    (["agent.net_arch=[64,0]"], "agent.net_arch must be in [1, inf), got (64, 0)"),
    (["agent.normalize_advantage=3"], "agent.normalize_advantage must be true or false, got 3"),
    (["agent.activation=rellu"], "agent: unknown activation"),
    (
        ["agent=sac", "env=ns_pendulum", "agent.ent_coef=auot"],
        "agent.ent_coef must be a number or \"auto\", got 'auot'",
    ),
    (["agent=sac", "env=ns_pendulum", "agent.gradient_steps=0"], "agent.gradient_steps must be at least 1"),
    (["plasticity.cbp.replacement_rate=2"], "plasticity.cbp.replacement_rate must be in [0, 1], got 2.0"),
    (["plasticity.cbp.maturity=-1"], "plasticity.cbp.maturity must be in [0, inf), got -1"),
    (["total_steps=0"], "total_steps must be in [1, inf), got 0"),
    (["total_steps=1.5"], "total_steps must be a whole number, got 1.5"),
    (["total_steps=nan"], "total_steps must be finite, got nan"),
    (["seed=-1"], "seed must be in [0, 4294967295], got -1"),
    (["env.n_envs=0"], "env.n_envs must be in [1, 1024], got 0"),
    (["+env.kwargs.period=.nan"], "env.kwargs.period must be finite, got .nan"),
    (["+env.kwargs.deep={a: [1, -.inf]}"], "env.kwargs.deep.a[1] must be finite, got -.inf"),
    (["agent.batch_size=4096"], "agent.batch_size must be at most the rollout of 2,048 steps"),
    (["agent=3"], 'unknown agent "3": allowed are ppo, sac'),
    (["agent=[ppo,sac]"], "agent takes one name"),
    (["plasticity=[none,cbp]"], 'plasticity: "none" cannot be combined with a method'),
    (["plasticity=[cbp,cbp]"], "plasticity=cbp,cbp names a method twice"),
    (["run=3"], "run must be a mapping of settings, got 3"),
    (["seed=1,2"], "seed=1,2: has several values: write a list as key=[a,b]"),
    (
        ["env=ns_pendulum", "env.kwargs.drift=sine:2000,0.5,1.5"],
        """has several values; as one text it is 'env.kwargs.drift="sine:2000,0.5,1.5"'""",
    ),
    (
        ["env=gym", "env.id=CartPole-v1", "env.changes=gravity=every:5e4|uniform:0.5,1.5"],
        """is not an override; as one text it is 'env.changes="gravity=every:5e4|uniform:0.5,1.5"'""",
    ),
    (["env=gym", "env.id=Mine-v0"], '"Mine-v0" is registered; one of your own is module:Mine-v0, where importing'),
    (["env=gym", "env.id=envs.tasks:NSCartpole-v1"], 'did you mean "envs.tasks:NSCartPole-v1"?'),
    (["env=ns_acrobot", "env.kwargs.drift='sine:2000,0.5,1.5'"], "leave out period (None; in train.py, whose files"),
    (["env=gym", "env.id=CartPole-v1", "env.changes=length"], "env.changes[0]: a change is a dict or"),
    (["env=gym", "env.id=CartPole-v1", "env.changes=3"], "changes must be a change or a list of them, got 3"),
    (["junk"], "junk: is not an override; write key=value"),
    (["~agent"], "~agent: agent is a group and always has a choice"),
    (["~plasticity.cbp"], "~plasticity.cbp: nothing can be deleted; choose what you mean, such as plasticity=none"),
    (["plasticity=[]"], "plasticity must name a choice, such as plasticity=none"),
    (["run.threads=100000"], "run.threads must be in [1, 1024], got 100000"),
    (["--cfg", "hydra"], "argument --cfg: invalid choice: 'hydra'"),
    (["--multirum"], "unrecognized arguments: --multirum"),
    (["--config-dir", "nowhere"], "--config-dir nowhere is not a folder"),
    (["device=mps"], "device mps is not available here; use device=cpu"),
    (["env=gym"], "env.id must be given, such as env.id=Hopper-v5"),
    (["env=gym", "env.id=Hoper-v5"], 'env.id: no environment "Hoper-v5" is registered; did you mean "Hopper-v5"?'),
    (["env=gym", "env.id=no_such_module:Id-v0"], 'env.id: "no_such_module:Id-v0" cannot be used: '),
    (["env=gym", "env.id=Pendulum-v1", "env.kwargs={gg: 1}"], "env.kwargs: "),
    (["env.kwargs.perod=5"], 'did you mean "period"?'),
    (["env=gym", "env.id=Pendulum-v1", "env.changes=[{target: gravity}]"], 'env.changes[0]: a schedule needs "when"'),
    (["env.changes=[{target: gravity, when: 'every:5', to: 'uniform:1,2'}]"], "env.changes: SlipperyAnt-v5 already"),
    (["agent=sac", "env=ns_cartpole"], "agent=sac needs continuous actions, NSCartPole-v1 has Discrete(2)"),
    (["agent.policy=CnnPolicy"], "agent.policy=CnnPolicy needs images"),
    (["plasticity=none", "plasticity.cbp.maturity=5"], 'the method "cbp" is not chosen (plasticity=none)'),
    (["run.dir="], "run.dir must name a folder, got ''"),
    (["run.name=..."], "run.name must have a letter or a digit, got '...'"),
    (["agent.net_arch=[]"], "agent.net_arch must name at least one hidden layer for cbp to act on, got []"),
    (["env=gym", "env.id=Pendulum-v1", "env.changes={target: gravity}"], "Cannot merge a mapping with a list"),
]
NEAREST = [
    (["agent.gama=0.9"], 'agent: unknown setting "gama"', "gamma"),
    (["totl_steps=5"], 'unknown setting "totl_steps"', "total_steps"),
    (["agnt=sac"], 'unknown setting "agnt"', "agent"),
    (["agent=sca"], 'unknown agent "sca"', "sac"),
    (["env=slipery_ant"], 'unknown env "slipery_ant"', "slippery_ant"),
    (["plasticity=shrink_and_pertub"], 'unknown plasticity "shrink_and_pertub"', "shrink_and_perturb"),
    (["experiment=quik"], 'unknown experiment "quik"', "quick"),
    (["plasticity.cbp.maturty=5"], 'plasticity.cbp: unknown setting "maturty"', "maturity"),
    (["plasticity.cbp.utility=contributon"], 'unknown utility "contributon"', "contribution"),
    (["run.overwrit=true"], 'run: unknown setting "overwrit"', "overwrite"),
    (["logging.monitor_evry=5"], 'logging: unknown setting "monitor_evry"', "monitor_every"),
    (["env.n_env=5"], 'env: unknown setting "n_env"', "n_envs"),
    (["device=cudda"], 'unknown device "cudda"', "cuda"),
]


def assert_refused(outcome: Outcome, folder: Path) -> None:
    assert outcome.code == 2
    assert outcome.out == ""
    assert outcome.errors
    assert all(line.startswith("error: ") for line in outcome.errors), outcome.err
    assert "Traceback" not in outcome.err
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(("words", "text"), EXACT, ids=[" ".join(words) for words, _ in EXACT])
def test_one_line_says_what_is_wrong(command: Command, tmp_path: Path, words: list[str], text: str) -> None:
    outcome = command(*words)
    assert_refused(outcome, tmp_path)
    assert len(outcome.errors) == 1
    assert text in outcome.err


@pytest.mark.parametrize(("words", "text", "near"), NEAREST, ids=[" ".join(words) for words, _, _ in NEAREST])
def test_a_misspelt_name_gets_the_nearest_one(
    command: Command, tmp_path: Path, words: list[str], text: str, near: str
) -> None:
    outcome = command(*words)
    assert_refused(outcome, tmp_path)
    assert len(outcome.errors) == 1
    assert text in outcome.err
    assert outcome.err.rstrip().endswith(f'did you mean "{near}"?')


def test_all_faults_are_reported_at_once(command: Command, tmp_path: Path) -> None:
    words = [
        *("agent.gamma=1.7", "agent.clip_range=-0.2", "agent.learning_rate=text", "agent.vf_coef=nan"),
        *("agent.betas=[0.9]", "plasticity.cbp.replacement_rate=2", "plasticity.cbp.maturity=-1"),
        *("plasticity.cbp.maturty=1", "totl_steps=5", "total_steps=inf", "env.n_envs=none", "run.rooot=x"),
        "env=slipery_ant",
    ]
    outcome = command(*words)
    assert_refused(outcome, tmp_path)
    for text in (
        "agent.gamma must be in [0, 1], got 1.7",
        "agent.clip_range must be in (0, inf), got -0.2",
        "agent.learning_rate must be a number, got 'text'",
        "agent.vf_coef must be finite, got nan",
        "agent.betas must have 2 entries",
        "plasticity.cbp.replacement_rate must be in [0, 1], got 2.0",
        "plasticity.cbp.maturity must be in [0, inf), got -1",
        'plasticity.cbp: unknown setting "maturty"',
        'unknown setting "totl_steps"',
        "total_steps must be finite, got inf",
        "env.n_envs must be a whole number, got 'none'",
        'run: unknown setting "rooot"',
        'unknown env "slipery_ant"',
    ):
        assert sum(text in line for line in outcome.errors) == 1, text
    assert len(outcome.errors) == 13


def test_a_refusal_as_a_user_sees_it(tmp_path: Path) -> None:
    outcome = run_train(["agent.gamma=1.7", "totl_steps=3"], tmp_path)
    assert_refused(outcome, tmp_path)
    assert outcome.errors[-1] == "error: agent.gamma must be in [0, 1], got 1.7"
    assert len(outcome.errors) == 2


def test_a_traceback_comes_only_when_asked_for(command: Command) -> None:
    with pytest.raises(BadInput):
        command("agent.gamma=1.7", "run.traceback=true")


POISON = [
    ("agent/mine.yaml", "_target_: os.system\ncommand: touch pwned\n", "_target_"),
    ("agent/mine.yaml", "x:\n  - {_target_: os.system}\n", "_target_"),
    ("experiment/mine.yaml", "# @package _global_\nhydra:\n  run: {dir: x}\n", "hydra"),
    ("experiment/mine.yaml", "# @package hydra.job_logging\nversion: 1\n", "package"),
    ("experiment/mine.yaml", "# @package _global_\ndefaults:\n  - override /hydra/launcher: x\n", "hydra"),
    ("experiment/mine.yaml", "# @package _global_\ndefaults:\n  - /hydra/job_logging/x\n", "hydra"),
    ("hydra/job_logging/x.yaml", "handlers:\n  a:\n    (): os.system\n", "()"),
    ("agent/mine.yaml", "policy: ${oc.env:HOME}\n", "interpolates"),
    ("agent/mine.yaml", "${oc.env:HOME}: 1\n", "interpolates"),
    ("agent/mine.yaml", "policy: !!python/object/apply:os.system ['touch pwned']\n", "plain YAML"),
    ("agent/mine.yaml", "policy: [\n", "cannot be read as YAML"),
    ("env/mine.yaml", "id: module:Env-v0\n", "type it instead"),
    ("env/mine.yaml", "x: &x module:Env-v0\nid: *x\n", "type it instead"),
]


@pytest.mark.parametrize(("path", "text", "said"), POISON, ids=range(len(POISON)))
def test_a_file_that_could_run_code_is_refused_unread(
    command: Command, tmp_path: Path, path: str, text: str, said: str
) -> None:
    file = tmp_path / "theirs" / path
    file.parent.mkdir(parents=True)
    file.write_text(text)
    outcome = command("--config-dir", "theirs", "--cfg", "job")
    assert outcome.code == 2
    assert outcome.out == ""
    assert all(line.startswith(f"error: {Path('theirs') / path}: ") for line in outcome.errors)
    assert said in outcome.err
    assert [entry.name for entry in tmp_path.iterdir()] == ["theirs"]


def test_a_linked_folder_and_a_doubled_key_are_refused(command: Command, tmp_path: Path) -> None:
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "mine.yaml").write_text("id: antigravity:Foo\n")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "env").symlink_to(tmp_path / "hidden")
    outcome = command("--config-dir", str(tmp_path / "linked"), "env=mine")
    assert (outcome.code, len(outcome.errors)) == (2, 1)
    assert "linked/env: is a link to a folder" in outcome.err
    (tmp_path / "double" / "env").mkdir(parents=True)
    (tmp_path / "double" / "env" / "mine.yaml").write_text("id: Pendulum-v1\nid: CartPole-v1\n")
    outcome = command("--config-dir", str(tmp_path / "double"), "env=mine")
    assert (outcome.code, len(outcome.errors)) == (2, 1)
    assert 'env/mine.yaml: has the key "id" twice' in outcome.err


def test_a_harmless_file_of_ones_own_is_a_choice(command: Command, tmp_path: Path) -> None:
    file = tmp_path / "mine" / "env" / "hopper.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("# My hopper\nid: Hopper-v5\nn_envs: 3\n")
    outcome = command("--config-dir", "mine", "--cfg", "job", "env=hopper")
    assert outcome.code == 0
    assert "id: Hopper-v5" in outcome.out
    assert "My hopper" in command("--config-dir", "mine", "--help").out


@pytest.mark.parametrize(
    "word",
    [
        *("hydra.run.dir=x", "+hydra.launcher=x", "hydra/launcher=basic", "agent._target_=os.system"),
        *("agent={_target_: x}", "agent.policy=${oc.env:HOME}", "+x={'()': os.system}"),
    ],
)
def test_an_override_that_could_run_code_is_refused(command: Command, tmp_path: Path, word: str) -> None:
    outcome = command(word)
    assert_refused(outcome, tmp_path)
    assert outcome.err.startswith(f"error: {word}: ")


@pytest.mark.parametrize("method", ["shrink_and_perturb", "[l2,cbp]"])
def test_the_paper_experiment_takes_published_methods_only(command: Command, tmp_path: Path, method: str) -> None:
    outcome = command("experiment=slippery_ant_paper", f"plasticity={method}")
    assert_refused(outcome, tmp_path)
    assert "has published settings for plasticity none, ns, l2, cbp, cbpi, redo, got" in outcome.err


def test_the_paper_experiment_takes_ppo_only(command: Command, tmp_path: Path) -> None:
    outcome = command("experiment=slippery_ant_paper", "agent=sac")
    assert_refused(outcome, tmp_path)
    assert len(outcome.errors) == 1
    assert "has published settings for agent ppo, got sac" in outcome.err


def test_a_run_folder_that_cannot_be_made_is_found_before_anything_is_built(command: Command, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    outcome = command("run.dir=file/below")
    assert outcome.code == 2
    assert "cannot be made" in outcome.err


def test_a_clash_of_package_names_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert name_clash(ROOT) is None
    assert "and not from" in str(name_clash(tmp_path))
    providers = {"agents": ["openai-agents", "pliant_rl"], "envs": ["pliant-rl"]}
    monkeypatch.setattr("importlib.metadata.packages_distributions", lambda: providers)
    assert '"openai-agents" also provides a top-level package "agents"' in str(name_clash(ROOT))


def test_a_clash_ends_the_command_with_one_line(tmp_path: Path) -> None:
    (tmp_path / "stranger-1.0.dist-info").mkdir()
    (tmp_path / "stranger-1.0.dist-info" / "METADATA").write_text("Name: stranger\nVersion: 1.0\n")
    (tmp_path / "stranger-1.0.dist-info" / "top_level.txt").write_text("plasticity\n")
    done = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), "--help"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith('error: the installed distribution "stranger" also provides')
    assert done.stderr.count("\n") == 1


def test_a_file_of_the_users_with_the_name_of_a_built_in_choice_is_refused(command: Command, tmp_path: Path) -> None:
    (tmp_path / "mine" / "plasticity").mkdir(parents=True)
    (tmp_path / "mine" / "plasticity" / "cbp.yaml").write_text("cbp: {}\n")
    outcome = command("--config-dir", "mine")
    assert outcome.code == 2
    assert outcome.errors == ["error: mine/plasticity/cbp.yaml: plasticity=cbp is built in; give the file another name"]


def test_a_reader_who_has_read_enough_is_no_error(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "train.py"), "--help"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(timeout=60) == 0
    process.stderr.close()
