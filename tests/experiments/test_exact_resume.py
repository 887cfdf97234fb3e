"""A killed run that is resumed equals the uninterrupted one to the last bit, whatever it trains on and with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest

from agents import PlasticityMonitor
from experiments import folder as files
from plasticity import METHODS, plasticity_probe
from tests.experiments.sessions import (
    PPO,
    SAC,
    Ended,
    Setup,
    begin,
    differences,
    finish,
    killed,
    resumed,
    uninterrupted,
)
from tests.plasticity.rows import ROWS

# Settings under which a method acts before the checkpoint (after 8 gradient steps of PPO, 16 of SAC) and after it
SETTINGS: dict[str, dict[str, Any]] = {
    **{method: row.active for method, row in ROWS.items()},
    "plasticity_injection": {"period": 10},  # once, after it; before it below
    "magnitude_pruning": {"sparsity": 0.5, "start": 1, "end": 18, "period": 2},
    "rigl": {"sparsity": 0.5, "period": 2, "end": 19},
    "neuroplastic_expansion": {"period": 2, "end": 19, "threshold": 0.9},
}


@pytest.fixture(autouse=True, scope="module")
def versions_are_asked_once() -> Iterator[None]:
    """Git and the packages' metadata take longer than some of these runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "package_versions", cache(files.package_versions))
        patch.setattr(files, "_git", lambda *words: None)
        yield


@dataclass(frozen=True)
class Scenario:
    """saved: the environment step of the checkpoint; at: the one at which the run is killed, the last row before it."""

    setup: Setup
    saved: int = 64
    at: int = 96


def ppo(*words: str, **methods: Any) -> Scenario:
    return Scenario(PPO.and_(*words, **methods))


def sac(*words: str, saved: int = 32, at: int = 43, **methods: Any) -> Scenario:
    return Scenario(SAC.and_(*words, **methods), saved, at)


CBP = SETTINGS["cbp"]
CHANGE = {"reset": {"period": "change", "layers": 1}, "plasticity_injection": {"period": "change"}}
NORMALIZED = ("env.normalize_observations=true", "env.normalize_rewards=true")
PENDULUM = ("env=ns_pendulum", "agent.gae_lambda=0.9")
ANT = ("env=slippery_ant", "env.n_envs=1", "env.kwargs.period=40", "agent.n_steps=32")
SCENARIOS = {
    "gSDE": ppo(*PENDULUM, "agent.use_sde=true", "agent.sde_sample_freq=5", cbp=CBP),
    "normalized": ppo(*NORMALIZED, cbp=CBP),
    "normalized in SAC": sac(*NORMALIZED, "env.n_envs=2", "total_steps=80", saved=40, at=52, cbp=CBP),
    "evaluation": ppo("evaluation.episodes=1", "evaluation.every=48", cbp=CBP),
    "at changes": ppo(**CHANGE),
    "sequence of tasks": ppo("env=frozen_lake_sequence", "env.kwargs.period=40", cbp=CBP),
    "Slippery Ant": Scenario(PPO.and_(*ANT, cbp=CBP)),
    "from the start": Scenario(PPO.and_(cbp=CBP), saved=0, at=32),
}
SLOW = {
    "injected before the checkpoint": ppo(plasticity_injection={"period": 3}),
    "gSDE in SAC": sac("agent.use_sde=true", cbp=CBP),
    "after SAC's buffer is full": sac(saved=50, at=55, cbp=CBP),
    "log_std and its reset": ppo(*PENDULUM, reset={"period": 3, "log_std": True}),
    "a change that waits for the episode's end": ppo("env.kwargs.period=63", **CHANGE),
    "truncated at changes": ppo("env.boundary=truncate", "env.context=obs", "env.kwargs.period=60"),
    "schedule of one's own": ppo(
        "env=gym",
        "env.id=CartPole-v1",
        "env.kwargs={}",
        'env.changes=[{target: gravity, when: "every:30", to: "uniform:0.5,1.5"}]',
    ),
    "before SAC learns": sac(saved=8, at=12, cbp=CBP),
    "SAC with a step for each of four": sac("agent.train_freq=4", "agent.gradient_steps=-1", at=44),
    "one's own optimizer settings": ppo("agent.weight_decay=0.01", "agent.decoupled=true", "agent.ent_coef=0.01"),
    "Slippery Ant with SAC": sac(*ANT[:3], *NORMALIZED, "agent.buffer_size=100", cbp=CBP),
    "workers": ppo("env.vectorization=subproc", cbp=CBP),
    "fresh agents": ppo("evaluation.episodes=1", "evaluation.fresh=true"),
    "drifting Ant": Scenario(PPO.and_("env=drifting_ant", *ANT[1:2], ANT[3])),
    "Hopper with forces": Scenario(PPO.and_("env=slippery_hopper", *ANT[1:])),
    "all replacing methods": ppo(**{name: SETTINGS[name] for name in ("cbp", "redo", "grama", "reset", "upgd")}),
}


def assert_exact(scenario: Scenario, folder: Path) -> Ended:
    expected = uninterrupted(scenario.setup, folder / "whole")
    killed(scenario.setup, folder / "killed", scenario.saved, scenario.at)
    found = resumed(scenario.setup, folder / "killed", scenario.saved)
    assert list(differences(expected.everything(), found.everything())) == []
    assert len(expected.tables["progress"]) > 1
    return expected


def methods(*quick: str) -> list[Any]:
    """Every method; the others are slow."""
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in ["none", *METHODS]]


# those whose state changes while they train; of the others a checkpoint has nothing to say
CHANGING = (
    *("cbp", "redo", "shrink_and_perturb", "upgd", "hare_tortoise", "plasticity_injection", "churn", "grama"),
    *("self_normalised_resets", "reset", "magnitude_pruning", "rigl", "neuroplastic_expansion"),
)


@pytest.mark.parametrize("method", methods("none", *CHANGING))
def test_every_method_with_ppo(method: str, tmp_path: Path) -> None:
    assert_exact(ppo(**({} if method == "none" else {method: SETTINGS[method]})), tmp_path)


@pytest.mark.parametrize("method", methods("cbp"))
def test_every_method_with_sac(method: str, tmp_path: Path) -> None:
    assert_exact(sac(**({} if method == "none" else {method: SETTINGS[method]})), tmp_path)


@pytest.mark.parametrize("name", [*SCENARIOS, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_every_kind_of_run(name: str, tmp_path: Path) -> None:
    assert_exact((SCENARIOS | SLOW)[name], tmp_path)


def test_what_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The probe batch is frozen before the checkpoint, the probe comes on both sides of it, histograms have ages."""
    patch_measurements(monkeypatch, probe_size=48)
    words = ("logging.histograms=true", "logging.probe_every=2", "logging.tensorboard=true")
    ended = assert_exact(ppo(*words, cbp=CBP), tmp_path)
    gaps = [row["plasticity/pi/plasticity_gap"] for row in ended.tables["progress"]]
    assert gaps[1] != ""
    assert any(gaps[2:])
    assert ended.tables["events"]["histograms"]


@pytest.mark.slow
def test_what_is_being_collected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The probe batch is half collected at the checkpoint."""
    patch_measurements(monkeypatch, probe_size=80)
    ended = assert_exact(ppo(cbp=CBP), tmp_path)
    assert ended.tables["progress"][-1]["plasticity/pi/churn"] != ""


@pytest.mark.slow
def test_what_is_measured_with_sac(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    patch_measurements(monkeypatch, probe_size=20)
    ended = assert_exact(sac("logging.probe_every=2", *NORMALIZED, "env.n_envs=2", cbp=CBP), tmp_path)
    assert ended.tables["progress"][-1]["plasticity/qf0/churn"] != ""


def patch_measurements(monkeypatch: pytest.MonkeyPatch, probe_size: int) -> None:
    """Short probes, on batches small enough for these runs."""
    monkeypatch.setattr("agents.measurements.plasticity_probe", partial(plasticity_probe, steps=10))
    monkeypatch.setattr("experiments.session.PlasticityMonitor", partial(PlasticityMonitor, probe_size=probe_size))


def test_again_and_again(tmp_path: Path) -> None:
    """Killed twice, the second time in a run that was resumed: its segments and tables have two beginnings."""
    setup = SAC.and_("total_steps=90", cbp=CBP)
    expected = uninterrupted(setup, tmp_path / "whole")
    folder = tmp_path / "killed"
    killed(setup, folder, 23, 30)
    killed(setup, folder, 23, 60)
    found = resumed(setup, folder, 46)
    assert list(differences(expected.everything(), found.everything())) == []


LONGER = {
    "PPO, tested at its end": PPO.and_(
        "evaluation.episodes=1", "evaluation.regimes=3", "evaluation.fresh=true", cbp=CBP
    ),
    "SAC, between two rows": SAC.and_("total_steps=90", cbp=CBP),
}


@pytest.mark.parametrize("name", LONGER)
def test_a_finished_run_that_is_made_longer(name: str, tmp_path: Path) -> None:
    """Of what is done at a run's end nothing is left."""
    setup, at = LONGER[name], 64
    expected = uninterrupted(setup, tmp_path / "whole")
    finish(begin(setup.and_(f"total_steps={at}"), tmp_path / "longer"), tmp_path / "longer")
    found = resumed(setup, tmp_path / "longer", at)
    assert list(differences(expected.everything(), found.everything())) == []
