"""`python -m experiments.publish`: what is written, what the Hub's client is asked for, and what is said without it."""

from __future__ import annotations

import inspect
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import markdown
import pytest
import torch
import yaml
from huggingface_hub import HfApi, ModelCard

from experiments import card, play, publish
from experiments import folder as files
from experiments.command_line import main as train
from experiments.playing import agent
from tests.experiments.conftest import Outcome

Publish = Callable[..., Outcome]
WORDS = [
    *("env=ns_cartpole", "env.n_envs=2", "env.kwargs.period=300", "total_steps=512", "agent.n_steps=128"),
    *("agent.batch_size=64", "agent.net_arch=[8]", "agent.n_epochs=2", "plasticity=[l2,cbp]", "seed=7"),
    *("run.threads=1", "env.normalize_observations=true"),
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published") / "run"
    assert train([*WORDS, f"run.root={folder.parent}", f"run.dir={folder}"]) == 0
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return shutil.copytree(finished, tmp_path / "run")


@pytest.fixture
def published(capsys: pytest.CaptureFixture[str]) -> Publish:
    def call(*words: Any) -> Outcome:
        capsys.readouterr()
        code = publish.main([str(word) for word in words])
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return call


class FakeHub:
    """In place of the Hub's client, with its signatures; keeps what it is given."""

    def __init__(self, error: Exception | None = None):
        self.error = error
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.uploaded: dict[str, bytes] = {}

    def __call__(self, **keywords: Any) -> FakeHub:
        inspect.signature(HfApi).bind(**keywords)
        return self

    def create_repo(self, *words: Any, **keywords: Any) -> str:
        bound = inspect.signature(HfApi.create_repo).bind(self, *words, **keywords)
        self.calls.append(("create_repo", dict(bound.arguments)))
        if self.error is not None:
            raise self.error
        return f"https://huggingface.co/{bound.arguments['repo_id']}"

    def upload_folder(self, **keywords: Any) -> None:
        inspect.signature(HfApi.upload_folder).bind(self, **keywords)
        self.calls.append(("upload_folder", keywords))
        self.uploaded = {path.name: path.read_bytes() for path in Path(keywords["folder_path"]).iterdir()}


def hub(monkeypatch: pytest.MonkeyPatch, fake: FakeHub, token: str | None = "hf_x") -> None:
    monkeypatch.setattr(huggingface_hub, "HfApi", fake)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: token)


def test_a_dry_run_writes_all_that_would_be_uploaded(finished: Path, published: Publish, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    out = tmp_path / "new" / "out"
    outcome = published(finished, "--repo", "jane/pole", "--dry-run", out)
    assert (outcome.code, outcome.err) == (0, "")
    assert "nothing was uploaded" in outcome.out
    names = {"README.md", "config.yaml", "model.zip", "normalization.json", "regimes.csv", "result.json", "summary.png"}
    assert {path.name for path in out.iterdir()} == names
    for name in names - {"README.md", "config.yaml"}:
        assert (out / name).read_bytes() == (finished / name).read_bytes()
    text = "".join(path.read_text() for path in out.iterdir() if path.suffix in (".md", ".yaml", ".json", ".csv"))
    assert str(finished.parent) not in text
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*")} == before


def test_what_is_published_can_be_played(
    finished: Path, published: Publish, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "pole"
    assert published(finished, "--repo", "jane/pole", "--dry-run", out).code == 0
    assert play.main([str(out), "--episodes", "1", "--no-video"]) == 0
    assert "model.zip, finished after 512 steps" in capsys.readouterr().out
    ours, theirs = (agent.load(folder).model.policy.state_dict() for folder in (finished, out))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    (code,) = re.findall(r"```python\n(.*?)```", (out / "README.md").read_text(), re.DOTALL)
    space: dict[str, Any] = {}
    exec(code.replace('Path("pole")', f"Path({str(out)!r})"), space)
    assert space["agent"].num_timesteps == 0


def test_the_card(run: Path, published: Publish, tmp_path: Path) -> None:
    assert play.main([str(run), "--episodes", "2", "--no-video"]) == 0
    (run / files.PLAYED / "play.gif").write_bytes(b"GIF89a")
    out = tmp_path / "out"
    assert published(run, "--repo", "jane/pole", "--dry-run", out).code == 0
    text = (out / "README.md").read_text()
    data = ModelCard(text).data  # as the Hub reads it
    assert data.library_name == "stable-baselines3"
    assert {"reinforcement-learning", "ppo", "NSCartPole-v1", "l2", "cbp"} <= set(data.tags)
    (result,) = data.eval_results
    assert (result.task_type, result.dataset_name, result.metric_type) == (
        *("reinforcement-learning", "NSCartPole-v1", "mean_reward"),
    )
    mean, deviation, which = card.mean_return(run) or (0.0, 0.0, "")
    assert result.metric_value == f"{mean:.2f} +/- {deviation:.2f}"
    assert which == "deterministic policy, 2 episodes in each of 2 frozen regimes"
    assert "![A film of it](replay.gif)" in text
    for said in (
        "cbp.replacement\\_rate",
        "| pi | ",
        "frozen, afterwards",
        "Limits",
        "`PPO.load` would run",
        "torch |",
    ):
        assert said in text
    command = next(line for line in text.splitlines() if line.startswith("python train.py"))
    assert command == "python train.py " + " ".join(f"'{word}'" if "[" in word else word for word in WORDS)


def test_without_playing_the_card_has_the_returns_of_training(run: Path) -> None:
    assert "episodes of training, while it explored" in (card.mean_return(run) or ("", "", ""))[2]
    (run / files.EPISODES).write_text("step,env,regime,return,length\n1,0,0,1.0,1\n2,0,0,3.0,1\n")
    assert card.mean_return(run) == (3.0, 0.0, "the last 1 episodes of training, while it explored")
    (run / files.EPISODES).unlink()
    assert card.mean_return(run) is None


def test_text_of_a_run_cannot_break_out_of_the_card(run: Path, published: Publish, tmp_path: Path) -> None:
    evil = "</td><script>alert(1)</script> | [x](javascript:y) `*_ \n---\nlibrary_name: evil"
    tree = yaml.safe_load((run / files.CONFIG).read_text())
    tree["env"]["kwargs"]["note"] = evil
    (run / files.CONFIG).write_text(yaml.safe_dump(tree))
    (run / files.COMMAND).write_text("python train.py 'env.kwargs.note=```evil'\n")
    out = tmp_path / "out"
    assert published(run, "--repo", "jane/pole", "--dry-run", out).code == 0
    text = (out / "README.md").read_text()
    assert ModelCard(text).data.library_name == "stable-baselines3"
    shown = markdown.markdown(text.split("---\n", 2)[2], extensions=["tables", "fenced_code"])
    assert "<script" not in shown
    assert "javascript:y" not in re.sub(r"<[^>]*>", lambda tag: tag[0], "".join(re.findall(r"<[^>]+>", shown)))
    assert "</td><script>alert(1)</script> | [x](javascript:y)" in card.html.unescape(re.sub(r"<[^>]+>", "", shown))


def test_uploading(finished: Path, published: Publish, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeHub()
    hub(monkeypatch, fake)
    outcome = published(finished, "--repo", "jane/pole", "--private")
    assert (outcome.code, outcome.err) == (0, "")
    assert "published: https://huggingface.co/jane/pole" in outcome.out
    assert "uploading to jane/pole on the Hugging Face Hub: only you can see it" in outcome.out
    (made, first), (sent, second) = fake.calls
    assert (made, sent) == ("create_repo", "upload_folder")
    assert (first["repo_id"], first["private"], first["exist_ok"]) == ("jane/pole", True, True)
    assert second["commit_message"] == "A run of Pliant: run"
    assert fake.uploaded["model.zip"] == (finished / files.MODEL).read_bytes()
    assert json.loads(fake.uploaded["result.json"])["steps"] == 512
    assert not Path(second["folder_path"]).exists()
    assert "anybody can see it" in published(finished, "--repo", "jane/pole").out
    assert fake.calls[2][1]["private"] is None


class Refused(Exception):
    """As the Hub's client raises it."""

    response = SimpleNamespace(status_code=403)


def test_where_the_hub_does_not_take_it(finished: Path, published: Publish, monkeypatch: pytest.MonkeyPatch) -> None:
    hub(monkeypatch, FakeHub(), token=None)
    outcome = published(finished, "--repo", "jane/pole")
    assert outcome.code == 2
    assert "not logged in to the Hugging Face Hub: type hf auth login, or set HF_TOKEN" in outcome.err
    hub(monkeypatch, FakeHub(Refused("Forbidden")))
    outcome = published(finished, "--repo", "jane/pole")
    assert outcome.code == 2
    assert "refuses to write to jane/pole: the token must be one that may write, of jane or of a member" in outcome.err
    hub(monkeypatch, FakeHub(ConnectionError("no route to host")))
    outcome = published(finished, "--repo", "jane/pole")
    assert outcome.code == 7
    (line,) = outcome.errors
    said = "ConnectionError: no route to host; the same command again completes it"
    assert line == f"error: jane/pole was not uploaded, or not all of it: {said}"


def test_without_the_package_a_dry_run_is_possible(
    finished: Path, published: Publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish.importlib.util, "find_spec", lambda name: None)  # type: ignore[attr-defined]
    outcome = published(finished, "--repo", "jane/pole")
    assert outcome.code == 2
    assert "publishing needs huggingface_hub: python -m pip install 'pliant-rl[hub]'" in outcome.err
    assert published(finished, "--repo", "jane/pole", "--dry-run", tmp_path / "out").code == 0


def test_what_cannot_be_published(run: Path, published: Publish, tmp_path: Path) -> None:
    assert "--repo must be USER/NAME of letters" in published(run, "--repo", "../x").err
    assert "the following arguments are required: --repo" in published(run).err
    assert f"--dry-run {tmp_path} is not empty" in published(run, "--repo", "a/b", "--dry-run", tmp_path).err
    (run / files.MODEL).unlink()
    outcome = published(run, "--repo", "a/b", "--dry-run", tmp_path / "out")
    assert outcome.code == 2
    assert "holds no model.zip of a run that has ended: there is nothing to publish" in outcome.err
    assert "there is no config.yaml" in published(tmp_path / "nowhere", "--repo", "a/b").err
