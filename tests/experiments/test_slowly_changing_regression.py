"""The problem is the published one, the learners learn it right, and continual backprop keeps what backprop loses.

Sources: Dohare et al., Nature 632:768 (2024); arXiv 2108.06325.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from experiments import slowly_changing_regression as experiment
from experiments.errors import BAD_INPUT, DONE
from experiments.seedwise import SGD, Learners
from experiments.seedwise_methods import WINDOW, EachSeed, SeedwiseRandomness
from experiments.slowly_changing_regression import METHODS, Learner, Stream, Target, train
from experiments.slowly_changing_regression_report import band, ratio, windows
from plasticity import ContinualBackpropConfig, ReDoConfig, ShrinkAndPerturbConfig, dormancy_score
from tests.experiments.conftest import Outcome


def published(replacement_rate: float) -> Learner:
    """The published settings of the regression runs, with a rate of one's own."""
    return Learner(
        ContinualBackpropConfig(
            replacement_rate=replacement_rate, maturity=10, utility="adaptable_contribution", init="kaiming"
        )
    )


def standard_errors(values: Tensor) -> float:
    """How many standard errors the mean over seeds lies above 0."""
    return float(values.mean() / (values.std() / math.sqrt(len(values))))


# ---- the problem


@pytest.mark.parametrize("bits", ["0" * 20, "1" * 20, "01" * 10, "1" * 15 + "0" * 5, "11010001110101100010"])
def test_target_counts_agreeing_bits(bits: str) -> None:
    """w x + S is the number of bits that agree with their weight's sign: a unit fires at agreeing + 1.5 b > 14.7."""
    for seed in range(5):
        target = Target(seed)
        wanted = float(target.output_bias)
        for weights, bias, output in zip(
            target.weight.tolist(), target.bias.tolist(), target.output.tolist(), strict=True
        ):
            agreeing = sum((weight == 1) == (bit == "1") for weight, bit in zip(weights, bits, strict=True))
            wanted += output * (agreeing + 1.5 * bias > 14.7)
        assert float(target(torch.tensor([[float(bit) for bit in bits]]))) == wanted


def test_target_weights_are_plus_and_minus_one() -> None:
    target = Target(0)
    assert target.weight.shape == (100, 20)
    for tensor in (target.weight, target.bias, target.output):
        assert set(tensor.unique().tolist()) == {-1.0, 1.0}
    assert not torch.equal(target.weight, Target(1).weight)


def test_fifteen_bits_stay_until_the_change() -> None:
    stream = Stream(0)
    (first, targets), (second, _) = stream.regime(2000), stream.regime(2000)
    assert set(first.unique().tolist()) == {0.0, 1.0}
    assert (first[:, :15] == first[0, :15]).all()
    assert (second[:, :15] == second[0, :15]).all()
    assert not torch.equal(first[0, :15], second[0, :15])
    torch.testing.assert_close(first[:, 15:].mean(0), torch.full((5,), 0.5), atol=0.05, rtol=0)
    torch.testing.assert_close(targets, stream.target(first))


def test_variant_one_flips_one_slow_bit_at_each_change() -> None:
    stream = Stream(0, "one")
    slow = torch.stack([stream.regime(3)[0][0, :15] for _ in range(40)])
    assert (slow.diff(dim=0).abs().sum(1) == 1).all()
    assert len(slow.diff(dim=0).abs().argmax(1).unique()) > 8  # not always the same one


# ---- the learners


KINDS = {"relu": (5, nn.ReLU), "tanh": (5, nn.Tanh), "linear": (0, nn.ReLU)}


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_equal_autograd(kind: str) -> None:
    units, activation = KINDS[kind]
    learners = Learners(range(3), 20, units, activation)
    for parameter in learners.parameters():
        parameter.add_(torch.linspace(-0.3, 0.3, parameter.numel()).view_as(parameter))
    bits, targets = (torch.arange(60).view(3, 20, 1) % 3 == 0).float(), torch.tensor([[1.0], [-2.0], [0.5]])
    learners.learn(bits, targets.unsqueeze(-1))
    by_hand = [parameter.grad.clone() for parameter in learners.parameters() if parameter.grad is not None]
    parameters = [parameter.requires_grad_() for parameter in learners.parameters()]
    hidden = bits.squeeze(-1)
    if learners.hidden is not None:
        hidden = activation()((learners.hidden.weight @ bits).squeeze(-1) + learners.hidden.bias)
    output = (learners.output.weight.squeeze(-2) * hidden).sum(-1, keepdim=True) + learners.output.bias
    by_autograd = torch.autograd.grad((output - targets).square().sum(), parameters)
    for ours, theirs in zip(by_hand, by_autograd, strict=True):
        assert theirs.abs().sum() > 0
        torch.testing.assert_close(ours, theirs)


def test_sgd_is_torchs() -> None:
    ours = [nn.Parameter(start, requires_grad=False) for start in (torch.linspace(-1, 1, 12), torch.ones(3))]
    theirs = [nn.Parameter(parameter.clone(), requires_grad=False) for parameter in ours]
    optimizers = SGD(ours, 0.01), torch.optim.SGD(theirs, 0.01)
    for step in range(5):
        for parameters, optimizer in zip((ours, theirs), optimizers, strict=True):
            for parameter in parameters:
                parameter.grad = (parameter + step).sin()
            optimizer.step()
    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(one, other)


def test_initial_weights_follow_the_paper() -> None:
    learners = Learners(range(400), 20, 5)
    assert learners.hidden is not None
    for layer, bound in ((learners.hidden, math.sqrt(2) * math.sqrt(3 / 20)), (learners.output, math.sqrt(3 / 5))):
        assert float(layer.weight.abs().max()) == pytest.approx(bound, rel=0.02)
        assert float(layer.weight.abs().max()) <= bound
        assert float(layer.weight.std()) == pytest.approx(bound / math.sqrt(3), rel=0.05)
        assert not layer.bias.any()


OFTEN = {  # so that a short run sees the method act
    "cbp": published(1e-2),
    "shrink_and_perturb": Learner(ShrinkAndPerturbConfig(period=200)),
    "redo": Learner(ReDoConfig(threshold=0.3, period=50)),
}


@pytest.mark.parametrize("method", METHODS)
def test_a_seed_does_not_depend_on_the_others(method: str) -> None:
    learner = OFTEN.get(method, METHODS[method])
    together = train(learner, range(4), 1000, period=200, bin_size=500)
    alone = train(learner, [2], 1000, period=200, bin_size=500)
    assert torch.equal(together[2:3], alone)
    assert together[0, 0] != together[1, 0]
    if learner.config is not None:  # and the method did something
        assert not torch.equal(together, train(METHODS["backprop"], range(4), 1000, period=200, bin_size=500))


def test_redo_judges_each_seed_by_its_own_recent_examples() -> None:
    """Just those units of just those seeds whose mean |h| over the window is small are replaced."""
    learners = Learners(range(3), 20, 5)
    assert learners.hidden is not None
    network = learners.network(SGD(list(learners.parameters()), 0.0))
    redo = EachSeed(ReDoConfig(threshold=0.5, period=300), network, range(3))
    bits = (torch.rand(300, 3, 20, 1, generator=torch.Generator().manual_seed(0)) < 0.5).float()
    before, seen = learners.hidden.weight.clone(), []
    for one in bits:
        assert torch.equal(learners.hidden.weight, before)
        learners.learn(one, torch.zeros(3, 1, 1))
        seen.append(network.activations["hidden"])
        redo.after_step(network)
    dormant = dormancy_score(torch.stack(seen[-WINDOW:])) <= 0.5
    assert len(dormant.sum(-1).unique()) > 1  # not equally many in each seed
    assert torch.equal((learners.hidden.weight != before).any(-1), dormant)
    assert torch.equal(learners.output.weight.squeeze(-2) == 0, dormant)


def test_seedwise_randomness_shares_equally() -> None:
    both, one = SeedwiseRandomness([3, 7], "x"), SeedwiseRandomness([7], "x")
    assert torch.equal(both.uniform(4, 5, bound=2.0)[2:], one.uniform(2, 5, bound=2.0))
    assert torch.equal(both.unit(2, 5)[1:], one.unit(1, 5))
    assert torch.equal(both.normal(2, 5)[1:], one.normal(1, 5))
    with pytest.raises(ValueError, match="3 rows cannot be shared equally among 2 seeds"):
        both.unit(3, 5)


def test_rate_zero_is_plain_backprop() -> None:
    backprop, off, on = (
        train(learner, range(3), 1000, period=200, bin_size=500)
        for learner in (METHODS["backprop"], published(0.0), published(1e-2))
    )
    assert torch.equal(backprop, off)
    assert not torch.equal(backprop, on)


def test_an_error_that_is_not_finite_is_named() -> None:
    with pytest.raises(experiment.NumericFailure, match="an error is no longer finite between examples 0"):
        train(METHODS["backprop"], range(2), 500, bin_size=500, learning_rate=100.0)


# ---- plasticity

SCALE = {"period": 1000, "bin_size": 1000, "learning_rate": 0.03}  # ten times shorter, so three times the step size


def growth(errors: Tensor) -> Tensor:
    """Each seed's error in the last quarter of the run, less that in the first without its first regime."""
    quarter = errors.shape[1] // 4
    return errors[:, -quarter:].mean(1) - errors[:, 1 : 1 + quarter].mean(1)


def test_continual_backprop_keeps_what_backprop_loses() -> None:
    """20 regimes of 1,000 examples, 80 seeds; at rate 0 the two are the same and the last two lines fail."""
    seeds = range(80)
    backprop = train(METHODS["backprop"], seeds, 20_000, **SCALE)  # type: ignore[arg-type]
    cbp = train(published(1e-3), seeds, 20_000, **SCALE)  # type: ignore[arg-type]
    assert standard_errors(growth(backprop)) > 2.5
    assert standard_errors(growth(cbp)) < 1
    assert standard_errors(growth(backprop) - growth(cbp)) > 4
    assert cbp[:, -5:].mean() < 0.85 * backprop[:, -5:].mean()


@pytest.mark.slow
def test_published_figures() -> None:
    """Twenty minutes of a core: a million examples, 20 seeds."""
    first, last = {}, {}
    for method in ("backprop", "linear", "cbp"):
        errors = train(METHODS[method], range(20), 1_000_000).numpy()
        first[method], last[method] = (float(window.mean()) for window in windows(errors))
    assert last["backprop"] >= 1.4 * first["backprop"]
    assert last["backprop"] > last["linear"]
    assert last["cbp"] <= 0.65 * last["backprop"]
    assert last["cbp"] <= 1.3 * first["cbp"]


# ---- the command and its report


def test_windows_and_ratio_by_hand() -> None:
    errors = np.array([[1.0, *[9.0] * 18, 3.0], [2.0, *[9.0] * 18, 3.0]])
    first, last = windows(errors)
    assert first.tolist() == [5.0, 5.5]
    assert last.tolist() == [6.0, 6.0]
    assert ratio(last, last) == (1.0, 0.0)
    assert ratio(last, first)[0] == pytest.approx(12 / 10.5)


def test_ratio_and_band_agree_with_the_normal_theory() -> None:
    values = np.random.default_rng(1).normal(10, 1, (400, 1))
    low, high = band(values)[:, 0]
    assert (high - low) / 2 == pytest.approx(1.96 * values.std() / 20, rel=0.1)
    assert ratio(values[:, 0], np.full(400, 5.0))[1] == pytest.approx(values.std() / 20 / 5, rel=0.1)


def test_command_writes_errors_and_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(experiment, "BIN", 100)
    out = str(tmp_path / "new" / "folder")
    assert experiment.main(["--seeds", "2", "--examples", "4e2", "--jobs", "1", "--out", out]) == DONE
    printed = capsys.readouterr().out
    for words in (*METHODS, "first 100", "last 100", "errors.png", "Next, "):
        assert words in printed
    with (tmp_path / "new/folder/errors.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(METHODS) * 2 * 4
    assert rows[5] == {**rows[5], "method": "backprop", "seed": "1", "examples": "200"}
    assert (tmp_path / "new/folder/errors.png").read_bytes().startswith(b"\x89PNG")


def test_command_names_every_fault_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    taken = tmp_path / "file"
    taken.touch()
    arguments = ["--methods", "cpb", "--seeds", "1", "--examples", "30_000", "--out", str(taken)]
    assert experiment.main(arguments) == BAD_INPUT
    shown = capsys.readouterr().err
    assert 'error: unknown method "cpb": allowed are backprop, linear, tanh, l2' in shown
    assert 'did you mean "cbp"?' in shown
    assert "error: --seeds must be at least 2" in shown
    assert "error: --examples must be a multiple of 20,000 and at least 40,000, got 30,000" in shown
    assert f"error: --out must be a folder, but {taken} is a file" in shown


def test_settings_can_be_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experiment, "BIN", 100)
    short = ["--methods", "l2", "--seeds", "2", "--examples", "200", "--jobs", "1", "--out", str(tmp_path)]
    written = []
    for more in ([], ["--set", "l2.strength=1e-3"], ["--set", "l2.strength=0.5"], ["--first-seed", "5"]):
        assert experiment.main([*short, *more]) == DONE
        written.append((tmp_path / "errors.csv").read_text())
    assert written[0] == written[1]
    assert len(set(written)) == 3


def test_settings_that_cannot_be_set_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "shrink_and_perturb.period=change",
        "l2.strength=-1",
        "l2.strenth=1",
        "linear.strength=1",
        "l2",
        "redo.period=change",
    ]
    assert experiment.main(["--set", *words]) == BAD_INPUT
    shown = capsys.readouterr().err
    assert "error: --set l2.strength must be in [0, inf), got -1.0" in shown
    assert 'error: --set l2: unknown setting "strenth": allowed are strength' in shown
    assert 'error: --set linear.strength=1: unknown method with settings "linear": allowed are l2' in shown
    assert "error: --set takes METHOD.SETTING=VALUE, got 'l2'" in shown
    assert "error: --set shrink_and_perturb.period must be a number of examples" in shown
    assert "error: --set redo.period must be a whole number, got 'change'" in shown


def test_train_says_where_the_benchmarks_are(command: Callable[..., Outcome]) -> None:
    outcome = command("experiment=slowly_changing_regression")
    assert outcome.code == BAD_INPUT
    assert outcome.errors == [
        "error: experiment=slowly_changing_regression trains no agent and is a script of its own: "
        "python -m experiments.slowly_changing_regression"
    ]


def test_command_refuses_what_is_no_number(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        experiment.main(["--seeds", "many"])
    assert "argument --seeds: it must be a whole number, got 'many'" in capsys.readouterr().err
