"""The documentation is whole and true: every method and metric has its page, code runs, links lead somewhere."""

from __future__ import annotations

import html
import importlib
import inspect
import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import markdown
import pytest
import torch
import yaml
from stable_baselines3.common.logger import Logger
from torch import nn

import plasticity
from agents import PPO, SAC, PlasticityMonitor
from experiments.compose import compose
from experiments.schema import validate
from plasticity import METHODS, Network, UnitAdam, hidden_layers, method_config

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
sys.path.insert(0, str(DOCS))  # where the pages are written: not a package, and no part of one
method_pages, metric_pages, prose, telemetry = (
    importlib.import_module(name) for name in ("method_pages", "metric_pages", "prose", "telemetry")
)

WRITTEN = method_pages.pages() | metric_pages.pages()
IN_DOCS = {str(path.relative_to(DOCS)): path.read_text() for path in DOCS.glob("*.md")}
NAV = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]


def leaves(nav):
    if isinstance(nav, str):
        return [nav]
    parts = nav if isinstance(nav, list) else nav.values()
    return [page for part in parts for page in leaves(part)]


def fenced(page, language):
    return re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)


def rendered(text):
    """What a reader sees of Markdown text, without spaces."""
    shown = re.sub(r"<[^>]+>", "", markdown.markdown(text, extensions=["tables", "fenced_code", "sane_lists"]))
    return re.sub(r"\s", "", html.unescape(shown))


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_its_page_its_facts_and_every_setting_explained(name):
    page, facts = WRITTEN[f"methods/{name}.md"], method_pages.facts()[name]
    assert set(facts) == {"title", "acts", "needs", "steady_state"}
    assert all(facts.values())
    assert page.startswith(f"# {facts['title']}\n")
    assert f"({name}.md)" in WRITTEN["methods/index.md"]
    meanings = prose.entries(prose.docstring(METHODS[name]))
    for field in fields(METHODS[name]):
        assert meanings.get(field.name), f"the docstring of {METHODS[name].__name__} does not explain {field.name}"
        (row,) = re.findall(rf"^\| `{field.name}` \|.*", page, re.MULTILINE)
        assert row.count(" | ") == 4


def test_the_facts_are_of_methods_that_exist():
    assert set(method_pages.facts()) <= set(METHODS)


@pytest.mark.parametrize("name", METHODS)
def test_what_a_method_page_shows_is_understood(name):
    page = WRITTEN[f"methods/{name}.md"]
    (command,) = fenced(page, "sh")
    choice, *overrides = shlex.split(command)[2:]
    assert choice == f"plasticity={name}"
    for override in overrides:
        setting, value = override.removeprefix(f"plasticity.{name}.").split("=")
        assert method_config(name, {setting: yaml.safe_load(value)}) == method_config(name)
    assert method_config(name, yaml.safe_load(fenced(page, "yaml")[0])[name]) == method_config(name)
    agent, torch_loop = fenced(page, "python")
    exec(agent, space := {})
    assert [type(method) for method in space["model"].policy.plasticity["pi"]]
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    optimizer = UnitAdam(model.parameters())
    exec(
        torch_loop,
        {"model": model, "optimizer": optimizer, "network": Network("net", hidden_layers(model), [optimizer])},
    )


@pytest.mark.parametrize("name", ["cbp", "rigl"])
def test_the_command_on_a_method_page_composes(name):
    (command,) = fenced(WRITTEN[f"methods/{name}.md"], "sh")
    assert set(validate(compose(shlex.split(command)[2:]).tree).plasticity) == {name}


def test_methods_by_configuration_files_alone_are_shown():
    assert "plasticity=cbpi" in WRITTEN["methods/cbp.md"]


def logged(model, steps):
    seen = set()
    logger = Logger(None, [])
    record = logger.record
    logger.record = lambda key, value, **kwargs: (seen.add(key), record(key, value, **kwargs))
    model.set_logger(logger)
    model.learn(steps, callback=PlasticityMonitor(every=15, probe_every=100, probe_size=16, landscape=True))
    return {key.rpartition("/")[2].removeprefix("probe_") for key in seen if key.startswith("plasticity/")}


def test_every_number_that_is_logged_has_its_page():
    small = {"net_arch": [8, 8]}
    ppo = PPO("MlpPolicy", "CartPole-v1", plasticity=["cbp"], n_steps=64, policy_kwargs=small, seed=0, device="cpu")
    sac = SAC("MlpPolicy", "Pendulum-v1", learning_starts=10, policy_kwargs=small, seed=0, device="cpu")
    found = logged(ppo, 128) | logged(sac, 40) | telemetry.every_name()
    described = {tag for name, fact in metric_pages.facts().items() if fact for tag in fact.get("tags", [name])}
    assert {"dead_fraction", "churn", "policy_entropy", "plasticity_gap", "replaced_interval"} <= found
    assert found <= described, "docs/metrics.toml needs an entry"
    assert described <= found, "docs/metrics.toml describes what nothing logs"


def test_every_public_function_that_measures_has_its_page():
    explained = {
        name for fact in metric_pages.facts().values() if "title" in fact for name in fact.get("functions", ())
    }
    assert set(metric_pages.public_functions()) <= explained, "name it in docs/metrics.toml"
    assert {"dead_units", "plasticity_probe", "StepMetrics"} <= set(metric_pages.public_functions())


@pytest.mark.parametrize("name", metric_pages.facts())
def test_every_metric_page_says_what_and_on_which_batch(name):
    fact, page = metric_pages.facts()[name], WRITTEN[f"metrics/{name}.md"]
    assert (
        {"title", "section", "batch", "text"}
        <= set(fact)
        <= {*("title", "section", "batch", "text", "tags", "places", "functions", "network")}
    )
    assert fact["section"] in metric_pages.SECTIONS
    assert "| measured on | " in page
    assert "TensorBoard" in page
    for function in fact.get("functions", ()):
        assert rendered(inspect.getdoc(getattr(plasticity, function)).split("\n")[0]) in rendered(page)


def test_every_page_is_in_the_navigation():
    written = leaves(method_pages.nav()) + leaves(metric_pages.nav())
    assert len(written) == len(set(written))
    assert {*written, "methods/index.md", "metrics/index.md"} == set(WRITTEN)
    assert {"methods/index.md", "metrics/index.md", *IN_DOCS} == set(leaves(NAV))


def test_links_lead_to_pages():
    pages = WRITTEN | IN_DOCS
    for place, text in pages.items():
        for link in re.findall(r"\]\(([^)]+)\)", text):
            if not link.startswith("https://"):
                target = os.path.normpath(Path(place).parent / link.partition("#")[0])
                assert target in pages or (DOCS / target).is_file(), f"{place} links to {link}"


@pytest.mark.parametrize("name", [name for name in plasticity.__all__ if inspect.getdoc(getattr(plasticity, name))])
def test_docstrings_keep_every_character(name):
    text = inspect.getdoc(getattr(plasticity, name))
    assert rendered(prose.markdown(text)).replace("•", "") == re.sub(r"\s", "", text).replace("`", "")


def test_the_cost_of_every_method_was_measured():
    data = json.loads((DOCS / "data" / "method_cost.json").read_text())
    assert set(data["methods"]) == set(METHODS), "run: python benchmarks/method_cost.py <the methods that differ>"
    for numbers in data["methods"].values():
        for size in method_pages.SIZES:
            assert numbers[size]["low"] <= numbers[size]["share"] <= numbers[size]["high"]
            assert numbers[size]["plain_ms"] > 0
    assert set(data["machine"]) == {"processor", "cores", "threads used"}
    assert method_pages.UNKNOWN not in WRITTEN["methods/index.md"]


def test_the_benchmark_runs(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    method_cost = importlib.import_module("method_cost")
    small = {"REPEATS": 2, "TURNS": 1, "STEPS": 2, "SETTLE": 2, "SIZES": (8, 16), "RESULT": tmp_path / "cost.json"}
    for name, value in small.items():
        monkeypatch.setattr(method_cost, name, value)
    monkeypatch.setattr(sys, "argv", ["method_cost.py", "redo", "plasticity_injection"])
    threads = torch.get_num_threads()
    try:
        method_cost.main(say=lambda text: None)
    finally:
        torch.set_num_threads(threads)
    found = json.loads((tmp_path / "cost.json").read_text())["methods"]
    assert set(found) == {"redo", "plasticity_injection"}
    assert found["plasticity_injection"]["memory"] == pytest.approx(2.0, abs=0.02)  # two frozen copies
    assert found["redo"]["memory"] < 0.05


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_asks_nobody_else(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr  # with --quiet MkDocs would not count warnings
    assert "WARNING" not in done.stderr
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > len(METHODS)
    loaded = (
        r'<(?:script|img|iframe|source)[^>]*\ssrc="?(?:https?:)?//|<link rel="?(?!canonical)[^>]*href="?(?:https?:)?//'
    )
    for page in pages:
        assert not re.search(loaded, page.read_text()), page
    assert not list(tmp_path.rglob("*.py"))
    assert not list(tmp_path.rglob("*.toml"))
