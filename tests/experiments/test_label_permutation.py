"""The loop is a plain torch loop, methods are attached as agents attach them, and the statistics are textbook ones."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from experiments import label_permutation as experiment
from experiments.errors import BAD_INPUT, DONE, NUMERIC_FAILURE
from experiments.label_permutation import LEARNERS, SETTINGS, Learner, learner_config, train
from experiments.label_permutation_report import (
    Recorded,
    half_width,
    markdown,
    ranked,
    read_accuracies,
    student,
    table_rows,
    write_accuracies,
)
from plasticity import METHODS, CReLU, Intervention, Network, Randomness, method_config


def test_plain_is_a_plain_loop_with_torchs_adam() -> None:
    draw = Randomness(3, "label_permutation", "data").generator
    inputs = torch.randn(256, 32, generator=draw)
    model = Learner(None, 3).model
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    wanted = []
    for _ in range(2):
        labels, hits = torch.randint(10, (256,), generator=draw), 0.0
        for _ in range(4):
            for batch in torch.randperm(256, generator=draw).split(64):
                output = model(inputs[batch])
                hits += float((output.argmax(1) == labels[batch]).float().mean()) / 16
                optimizer.zero_grad()
                F.cross_entropy(output, labels[batch]).backward()
                optimizer.step()
        wanted.append(hits)
    assert train(None, 3, tasks=2, epochs=4) == pytest.approx(wanted, abs=1e-9)
    assert wanted[0] > 0.12


@pytest.mark.parametrize("method", LEARNERS)
def test_every_method_runs(method: str) -> None:
    hidden = () if method == "linear" else (8, 8)
    accuracies = train(learner_config(method), 0, hidden=hidden, tasks=2, epochs=2)
    assert len(accuracies) == 2
    assert all(0 < accuracy < 1 for accuracy in accuracies)


def test_settings_are_of_known_methods_and_no_defaults() -> None:
    for method, settings in SETTINGS.items():
        default = METHODS[method]()
        assert all(getattr(default, name) != value for name, value in settings.items()), method


def test_same_seed_same_numbers_whatever_came_before() -> None:
    config = method_config("cbp", {"replacement_rate": 0.1, "maturity": 2})
    first = train(config, 0, tasks=2, epochs=2)
    torch.randn(7)
    assert train(config, 0, tasks=2, epochs=2) == first
    assert train(config, 1, tasks=2, epochs=2) != first


def test_architecture_and_betas_are_applied_before_training() -> None:
    doubled = Learner(method_config("crelu"), 0)
    assert [layer.out_features for layer in doubled.model if isinstance(layer, nn.Linear)] == [32, 32, 10]
    assert sum(isinstance(module, CReLU) for module in doubled.model.modules()) == 2
    normalised = Learner(method_config("layer_norm"), 0)
    gains = [module.weight for module in normalised.model.modules() if isinstance(module, nn.LayerNorm)]
    normalised.learn(torch.randn(8, 32), torch.arange(8))
    assert len(gains) == 2
    assert all(bool((gain != 1).any()) for gain in gains)  # the optimizer has them
    assert Learner(method_config("ns"), 0).optimizer.param_groups[0]["betas"] == (0.99, 0.99)


def test_methods_are_told_of_each_change_but_not_of_the_start() -> None:
    calls = []

    class Listener(nn.Module, Intervention):
        def after_step(self, network: Network) -> None:
            calls.append("step")

        def notice_change(self) -> None:
            calls.append("change")

    class Config:
        def build(self, network: Network, seed: int) -> nn.Module:
            return Listener()

    train(Config(), 0, hidden=(4,), tasks=3, epochs=1)
    assert calls == [*["step"] * 4, "change", *["step"] * 4, "change", *["step"] * 4]


@pytest.mark.parametrize(("freedom", "quantile"), [(2, 4.3027), (4, 2.7764), (9, 2.2622), (19, 2.0930), (99, 1.9842)])
def test_students_quantile_is_the_tables(freedom: int, quantile: float) -> None:
    assert student(freedom) == pytest.approx(quantile, rel=0.035 if freedom == 2 else 0.003)


def test_intervals_by_hand() -> None:
    values = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    assert float(half_width(values)) == pytest.approx(2.776 * 1.5811 / 5**0.5, rel=0.003)


def accuracies(*means: float) -> dict[str, Any]:
    """For the names plain, a, b, ...: three seeds, ten tasks, all tasks of a seed alike."""
    names = ("plain", "a", "b")
    return {
        name: np.full((3, 10), mean) + np.array([[-0.01], [0], [0.01]])
        for name, mean in zip(names, means, strict=False)
    }


def test_table_is_sorted_and_compares_seed_by_seed() -> None:
    results = accuracies(0.2, 0.5, 0.1)
    assert ranked(results) == ["a", "plain", "b"]
    best, plain, worst = table_rows(results)
    assert best[1:] == ("50.0 ± 2.4", "50.0 ± 2.4", "+0.0 ± 0.0", "+30.0 ± 0.0")  # paired: seeds differ alike
    assert (plain[-1], worst[-1]) == ("-", "-10.0 ± 0.0")
    assert markdown(results).splitlines()[2] == "| `a` | 50.0 ± 2.4 | 50.0 ± 2.4 | +0.0 ± 0.0 | +30.0 ± 0.0 |"


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "accuracies.csv"
    assert read_accuracies(path) == {}
    write_accuracies(path, {name: Recorded(f'{{"of": "{name}"}}', rows) for name, rows in accuracies(0.2, 0.5).items()})
    read = read_accuracies(path)
    assert list(read) == ["plain", "a"]
    assert read["a"].conditions == '{"of": "a"}'
    np.testing.assert_allclose(read["a"].accuracies, accuracies(0.2, 0.5)["a"], atol=1e-6)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experiment, "TASKS", 2)
    real = train

    def shorter(config: Any, seed: int, **settings: Any) -> list[float]:
        return real(config, seed, **{**settings, "tasks": 2, "epochs": 1})

    monkeypatch.setattr(experiment, "train", shorter)


@pytest.mark.usefixtures("short")
def test_command_writes_and_goes_on_from_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "folder"
    arguments = ["--seeds", "3", "--jobs", "1", "--out", str(out), "--methods"]
    assert experiment.main([*arguments, "plain", "cbp"]) == DONE
    printed = capsys.readouterr().out
    for words in ("plain", "cbp", "last 5 tasks", "accuracies.png", "table.md"):
        assert words in printed
    assert (out / "accuracies.png").read_bytes().startswith(b"\x89PNG")
    with (out / "accuracies.csv").open() as file:
        before = list(csv.DictReader(file))
    assert len(before) == 2 * 3 * 2

    trained: list[Any] = []
    real = experiment.train

    def watched(config: Any, seed: int, **settings: Any) -> list[float]:
        trained.append((type(config).__name__, seed))
        return real(config, seed, **settings)

    monkeypatch.setattr(experiment, "train", watched)
    assert experiment.main([*arguments, "l2", "cbp", "plain"]) == DONE
    assert trained == [("L2Config", seed) for seed in range(3)]
    with (out / "accuracies.csv").open() as file:
        after = list(csv.DictReader(file))
    assert [row for row in after if row["method"] != "l2"] == before

    trained.clear()
    monkeypatch.setitem(SETTINGS, "cbp", {"replacement_rate": 1e-2})  # other settings: run again
    assert experiment.main([*arguments, "cbp"]) == DONE
    assert trained == [("ContinualBackpropConfig", seed) for seed in range(3)]
    assert list(read_accuracies(out / "accuracies.csv")) == ["plain", "cbp", "l2"]


@pytest.mark.usefixtures("short")
def test_weights_that_are_not_finite_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(experiment, "LEARNING_RATE", 1e36)
    arguments = ["--methods", "plain", "--seeds", "3", "--jobs", "1", "--out", str(tmp_path)]
    assert experiment.main(arguments) == NUMERIC_FAILURE
    assert "error: plain: weights are no longer finite after task 1 with seed 0" in capsys.readouterr().err


def test_command_names_every_fault_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    taken = tmp_path / "file"
    taken.touch()
    arguments = ["--methods", "cpb", "--seeds", "2", "--jobs", "0", "--out", str(taken)]
    assert experiment.main(arguments) == BAD_INPUT
    shown = capsys.readouterr().err
    assert 'error: unknown method "cpb": allowed are plain, linear, cbp' in shown
    assert 'did you mean "cbp"?' in shown
    assert "error: --seeds must be at least 3" in shown
    assert "error: --jobs must be at least 1, got 0" in shown
    assert f"error: --out must be a folder, but {taken} is a file" in shown


@pytest.mark.slow
def test_plain_loses_plasticity_and_a_new_network_does_not() -> None:
    """A minute of a core: the last tasks against the first, mean of 3 seeds."""
    plain, reset = (np.array([train(learner_config(name), seed) for seed in range(3)]) for name in ("plain", "reset"))
    assert plain[:, -5:].mean() < 0.5 * plain[:, :5].mean()
    assert reset[:, -5:].mean() > 0.9 * reset[:, :5].mean()


@pytest.mark.slow
def test_processes_of_their_own_give_the_same_numbers(tmp_path: Path) -> None:
    for jobs in ("1", "2"):
        arguments = ["--methods", "plain", "linear", "--seeds", "3", "--jobs", jobs, "--out", str(tmp_path / jobs)]
        assert experiment.main(arguments) == DONE
    assert (tmp_path / "1/accuracies.csv").read_bytes() == (tmp_path / "2/accuracies.csv").read_bytes()
