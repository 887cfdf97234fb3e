"""Beginning a run with the weights of somebody else's zip, or being told why not."""

from __future__ import annotations

import hashlib
import json
import pickle
import shlex
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import stable_baselines3 as sb3
import torch
from torch import nn

from experiments import folder as files
from experiments import import_weights
from experiments.checkpoint.store import Checkpoint, Store
from experiments.command_line import main as train
from tests.experiments.conftest import Outcome

PPO = ["env=ns_cartpole", "env.n_envs=1", "total_steps=128", "agent.n_steps=64", "agent.batch_size=32"]
FITS = [*PPO, "agent.net_arch=[16,8]", "agent.activation=tanh", "agent.n_epochs=2"]
SAC = ["agent=sac", "env=ns_pendulum", "total_steps=120", "agent.net_arch=[16]", "agent.batch_size=32"]
Import = Callable[..., Outcome]


@pytest.fixture
def imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Import:
    """The command line in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def call(*words: Any) -> Outcome:
        capsys.readouterr()
        code = import_weights.main([str(word) for word in words])
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return call


@pytest.fixture(scope="module")
def ppo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What SB3's own PPO saves after one rollout."""
    model = sb3.PPO("MlpPolicy", "CartPole-v1", n_steps=64, policy_kwargs={"net_arch": [16, 8]}, seed=1)
    path = tmp_path_factory.mktemp("theirs") / "their ppo.zip"
    model.learn(64).save(path)
    return path


@pytest.fixture(scope="module")
def sac(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = sb3.SAC("MlpPolicy", "Pendulum-v1", learning_starts=10, policy_kwargs={"net_arch": [16]}, seed=1)
    path = tmp_path_factory.mktemp("theirs") / "sac.zip"
    model.learn(15).save(path)
    return path


def newest(folder: Path) -> Checkpoint:
    found, rejected = Store(folder).newest()
    assert found is not None
    assert not rejected
    return found


def tensors(path: Path, name: str = "policy") -> Any:
    with zipfile.ZipFile(path) as archive, archive.open(f"{name}.pth") as file:
        return torch.load(file, weights_only=True)


def rewritten(path: Path, target: Path, **entries: bytes | None) -> Path:
    """A copy of a zip with some entries replaced, or left out."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = entries.get(name.removesuffix(".pth"), old.read(name))
            if content is not None:
                new.writestr(name, content)
    return target


def saved(tree: Any, path: Path) -> bytes:
    torch.save(tree, path)
    content = path.read_bytes()
    path.unlink()
    return content


def test_a_stock_agent_s_weights_are_the_run_s_first_and_training_goes_on_from_them(
    ppo: Path, imported: Import, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = imported(ppo, *FITS)
    assert (outcome.code, outcome.err) == (0, "")
    command = outcome.out.splitlines()[-1]
    words = shlex.split(command)[2:]
    folder = Path(words[-1].removeprefix("run.dir="))
    assert folder.name.endswith("-from-their-ppo")
    start = newest(folder)
    assert start.step == 0
    state = start.read()["policy"]
    for name, tensor in tensors(ppo).items():
        assert torch.equal(state[name], tensor), name
    origin = {"file": ppo.name, "sha256": hashlib.sha256(ppo.read_bytes()).hexdigest(), "optimizer": False}
    assert start.manifest["weights"] == origin
    assert json.loads((folder / files.RESULT).read_text())["status"] == "stopped"
    assert "trained for 64 steps" in outcome.out

    assert train(words) == 0
    assert "going on from step 0 of 128" in capsys.readouterr().out
    end = newest(folder)
    assert end.step == 128
    assert end.manifest["weights"] == origin  # also when the first checkpoint is long gone
    assert not torch.equal(end.read()["policy"]["action_net.weight"], state["action_net.weight"])
    assert files.words(folder) == FITS


def test_sac_takes_adam_s_moments_where_asked(sac: Path, imported: Import) -> None:
    words = [sac, "--optimizer", *SAC, "run.dir=run"]
    outcome = imported(*words)
    assert (outcome.code, outcome.err) == (0, "")
    assert "first 100 steps act at random" in outcome.out
    tree = newest(Path("run")).read()
    for name in ("actor", "critic"):
        theirs, ours = tensors(sac, f"{name}.optimizer")["state"], tree["optimizers"][name]["state"]
        assert len(theirs) == len(ours) > 0
        for index, moments in theirs.items():
            assert torch.equal(ours[index]["exp_avg"], moments["exp_avg"])
            assert torch.equal(ours[index]["exp_avg_sq"], moments["exp_avg_sq"])
            assert ours[index]["step"] == moments["step"] == 5
    plain = imported(sac, *SAC, "run.dir=plain")
    assert plain.code == 0
    assert newest(Path("plain")).read()["optimizers"]["actor"]["state"] == {}
    assert train([*SAC, "run.dir=run"]) == 0
    assert newest(Path("run")).step == 120


def test_a_run_s_own_model_is_imported_like_any_other(ppo: Path, imported: Import) -> None:
    assert train([*FITS, "run.dir=first"]) == 0
    assert imported("first/model.zip", "--optimizer", *FITS, "seed=2", "run.dir=second").code == 0
    first, second = newest(Path("first")).read(), newest(Path("second")).read()
    name = "mlp_extractor.policy_net.0.weight"
    assert torch.equal(first["policy"][name], second["policy"][name])
    assert (first["counters"]["num_timesteps"], second["counters"]["num_timesteps"]) == (128, 0)


def test_shapes_that_differ_are_shown_with_what_would_fit(ppo: Path, imported: Import) -> None:
    outcome = imported(ppo, *PPO, "plasticity=layer_norm")
    assert outcome.code == 2
    assert "error:   mlp_extractor.policy_net.0.weight: (16, 4) -> (64, 4)" in outcome.errors
    assert "error:   mlp_extractor.policy_net.5.bias: none -> (64,)" not in outcome.errors
    fits = "error: it fits with: agent.net_arch=[16,8] agent.activation=tanh plasticity=none"
    assert outcome.errors[-1] == fits
    assert not list(Path("runs").iterdir())  # nothing was made
    assert imported(ppo, *PPO, *fits.partition("with: ")[2].split(), "run.dir=run").code == 0


def test_networks_of_their_own_for_actor_and_critic(tmp_path: Path, imported: Import) -> None:
    kwargs = {"net_arch": {"pi": [8], "qf": [4, 5]}, "n_critics": 3, "activation_fn": nn.ELU, "use_sde": True}
    sb3.SAC("MlpPolicy", "Pendulum-v1", policy_kwargs=kwargs, use_sde=True).save(tmp_path / "theirs.zip")
    outcome = imported("theirs.zip", *SAC, "agent.activation=elu")
    assert outcome.code == 2
    words = "agent.net_arch=[8] agent.critic_net_arch=[4,5] agent.n_critics=3 agent.use_sde=true"
    assert outcome.errors[-1] == f"error: it fits with: {words}"
    assert imported("theirs.zip", *SAC, "agent.activation=elu", *words.split(), "run.dir=run").code == 0


def test_a_run_of_ours_says_which_methods_shaped_its_networks(imported: Import) -> None:
    assert train([*FITS, "plasticity=layer_norm", "run.dir=first", "agent.activation=relu"]) == 0
    outcome = imported("first/model.zip", *PPO, "plasticity=none", "run.dir=second")
    assert outcome.errors[-1] == "error: it fits with: agent.net_arch=[16,8] plasticity=[layer_norm]"


def test_another_environment_is_named(ppo: Path, imported: Import) -> None:
    outcome = imported(ppo, *FITS, "env=ns_pendulum")
    assert outcome.code == 2
    assert "read observations of 4 numbers, NSPendulum-v1 gives 3" in outcome.err
    assert "chooses actions of size 2, NSPendulum-v1 takes 1" in outcome.err
    assert "it fits with" not in outcome.err


def test_another_activation_is_another_function(ppo: Path, imported: Import) -> None:
    outcome = imported(ppo, *FITS, "agent.activation=relu")
    assert outcome.code == 2
    assert len(outcome.errors) == 1
    assert outcome.err.endswith("trained with Tanh; with this agent's ReLU the same weights would be another function: "
                                "agent.activation=tanh\n")  # fmt: skip


def test_another_algorithm_is_named(ppo: Path, sac: Path, imported: Import, tmp_path: Path) -> None:
    assert imported(sac, *PPO).errors == [f"error: {sac} holds an agent of SAC, the words one of PPO: agent=sac"]
    assert imported(ppo, *SAC).errors == [f"error: {ppo} holds an agent of PPO, the words one of SAC: agent=ppo"]
    sb3.TD3("MlpPolicy", "Pendulum-v1", policy_kwargs={"net_arch": [8]}).save(tmp_path / "td3.zip")
    assert "neither PPO nor SAC" in imported("td3.zip", *SAC).err


def test_what_is_no_such_zip(ppo: Path, imported: Import, tmp_path: Path) -> None:
    (tmp_path / "text.zip").write_text("hello")
    torch.save({"weight": torch.zeros(2)}, tmp_path / "weights.pt")
    content = bytearray(ppo.read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "bits.zip").write_bytes(content)
    for name, said in {
        "none.zip": "no such file",
        "text.zip": "is no SB3 checkpoint (a zip file",
        "weights.pt": "holds no policy.pth",
        "bits.zip": "bits.zip",
    }.items():
        outcome = imported(name, *FITS)
        assert outcome.code == 2, name
        assert len(outcome.errors) == 1
        assert said in outcome.err
    assert imported(rewritten(ppo, tmp_path / "odd.zip", policy=saved([1], tmp_path / "x")), *FITS).code == 2


class Harmful:
    """Makes a folder when it is unpickled."""

    def __init__(self, where: Path):
        self.where = where

    def __reduce__(self) -> tuple[object, ...]:
        return Path.mkdir, (self.where / "harm",)


@pytest.mark.parametrize("entry", ["policy", "policy.optimizer", "pytorch_variables"])
def test_code_in_place_of_weights_is_refused_and_never_runs(
    entry: str, ppo: Path, imported: Import, tmp_path: Path
) -> None:
    poisons = [saved({"action_net.weight": Harmful(tmp_path)}, tmp_path / "x"), pickle.dumps(Harmful(tmp_path))]
    for poison in poisons:
        outcome = imported(rewritten(ppo, tmp_path / "poisoned.zip", **{entry: poison}), *FITS)
        assert outcome.code == 2
        assert len(outcome.errors) == 1
        assert "holds other things than tensors" in outcome.err
        assert "model.save()" in outcome.err
    assert [path.name for path in tmp_path.iterdir()] == ["poisoned.zip"]


def test_what_is_pickled_beside_the_weights_is_not_looked_at(ppo: Path, imported: Import, tmp_path: Path) -> None:
    with zipfile.ZipFile(ppo) as archive:
        data = json.loads(archive.read("data"))
    data["policy_class"][":serialized:"] = __import__("base64").b64encode(pickle.dumps(Harmful(tmp_path))).decode()
    poisoned = rewritten(ppo, tmp_path / "poisoned.zip", data=json.dumps(data).encode())
    assert imported(poisoned, *FITS, "run.dir=run").code == 0
    without = imported(rewritten(ppo, tmp_path / "bare.zip", data=None), *FITS, "run.dir=bare")
    assert without.code == 0
    assert "does not say its activation" in without.out
    assert not (tmp_path / "harm").exists()


def test_moments_that_are_missing_or_do_not_fit(ppo: Path, imported: Import, tmp_path: Path) -> None:
    state = tensors(ppo, "policy.optimizer")
    wrong: dict[str, Any] = {
        "missing": None,
        "of another optimizer": {**state, "state": {k: {"step": v["step"]} for k, v in state["state"].items()}},
        "fewer": {**state, "param_groups": [{**state["param_groups"][0], "params": [0]}]},
        "other shapes": {**state, "state": {k: {**v, "exp_avg": torch.zeros(3)} for k, v in state["state"].items()}},
    }
    for name, tree in wrong.items():
        content = None if tree is None else saved(tree, tmp_path / "x")
        path = rewritten(ppo, tmp_path / f"{name}.zip", **{"policy.optimizer": content})
        outcome = imported(path, "--optimizer", *FITS)
        assert outcome.code == 2, name
        assert outcome.err.rstrip().endswith("leave out --optimizer"), name
        assert imported(path, *FITS, f"run.dir={name.replace(' ', '_')}").code == 0


def test_weights_that_are_not_finite(ppo: Path, imported: Import, tmp_path: Path) -> None:
    state = tensors(ppo)
    state["action_net.bias"][0] = torch.nan
    path = rewritten(ppo, tmp_path / "nan.zip", policy=saved(state, tmp_path / "x"))
    assert imported(path, *FITS).errors == [f"error: {path} holds NaN or infinity, in action_net.bias"]


def test_a_folder_in_use_is_left_as_it_is(ppo: Path, imported: Import) -> None:
    words = [ppo, *FITS, "run.dir='my run'"]
    assert imported(*words).code == 0
    before = {path: path.stat().st_mtime_ns for path in Path("my run").rglob("*")}
    outcome = imported(*words)
    assert outcome.code == 2
    assert "my run is not empty" in outcome.err
    assert {path: path.stat().st_mtime_ns for path in Path("my run").rglob("*")} == before
    again = imported(*words, "run.overwrite=true")
    assert again.code == 0
    assert again.out.splitlines()[-1].endswith("'run.dir='\"'\"'my run'\"'\"''")


def test_mistakes_in_the_words_are_those_of_train(ppo: Path, imported: Import) -> None:
    assert "did you mean" in imported(ppo, "agent.gama=0.9").err
    assert imported().code == 2
    assert imported(ppo, "--optimiser").code == 2


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        import_weights.main(["--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    for part in ("ZIP", "--optimizer", "examples", "not taken", "agent.activation=tanh"):
        assert part in said
