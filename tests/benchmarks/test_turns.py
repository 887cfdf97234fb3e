"""Contestants take turns as they should, in order and one at a time, and what they tell becomes a table and a page."""

from __future__ import annotations

import io
import json
import runpy
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import benchmarks.__main__ as command
from benchmarks import parts, report, rows, scaling, settings, turns
from benchmarks.contestant import Caller, Stopwatch, serve
from benchmarks.draw import BARS, CURVES, draw
from benchmarks.turns import Child, ContestantFailed, Entry, children, gains, speeds, spread, take_turns

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


class Fake:
    """Takes turns of given seconds, and notes in `order` when."""

    def __init__(self, name: str, seconds: list[float], order: list[str], steps: int = 100):
        self.name, self.seconds, self.order, self.steps = name, iter(seconds), order, steps

    def turn(self) -> dict[str, Any]:
        self.order.append(self.name)
        return {"seconds": next(self.seconds), "steps": self.steps}


def test_every_other_round_goes_backwards_and_the_first_is_dropped() -> None:
    order: list[str] = []
    advanced: list[float] = []
    fakes = [Fake("a", [9, 1, 2], order), Fake("b", [9, 4, 4], order)]
    one, other = take_turns(fakes, 2, advanced.append)
    assert "".join(order) == "abbaab"
    assert [turn["seconds"] for turn in one] == [1, 2]
    assert [turn["seconds"] for turn in other] == [4, 4]
    assert sum(advanced) == pytest.approx(1)
    assert gains(one, other) == [4, 2]
    assert speeds(one) == [100, 50]


def test_ratios_are_of_steps_a_second() -> None:
    ours, peer = [{"seconds": 1.0, "steps": 200}], [{"seconds": 1.0, "steps": 100}]
    assert gains(ours, peer) == [2]


def test_the_spread_is_the_median_and_the_quartiles() -> None:
    assert vars(spread([5, 1, 3, 2, 4])) == {"value": 3, "low": 2, "high": 4}
    assert vars(spread([7.0])) == {"value": 7, "low": 7, "high": 7}


def test_a_contestant_speaks_when_it_is_ready_and_once_a_turn() -> None:
    words, answers = io.StringIO("turn\nturn\n"), io.StringIO()
    serve(Caller(words, answers), lambda: {"steps": 3})
    ready, *told = map(json.loads, answers.getvalue().splitlines())
    assert ready == {"ready": True}
    assert [turn["steps"] for turn in told] == [3, 3]
    assert all(turn["seconds"] >= 0 and turn["peak_mib"] >= 0 for turn in told)


def test_a_stopwatch_runs_only_within_what_it_is_around() -> None:
    class Sleeper:
        def sleep(self, seconds: float) -> str:
            time.sleep(seconds)
            return "slept"

    watch, sleeper = Stopwatch(), Sleeper()
    watch.around(sleeper, "sleep")
    assert sleeper.sleep(0.01) == "slept"
    assert watch.take() >= 0.01
    assert watch.take() == 0
    with pytest.raises(TypeError):
        sleeper.sleep("no")  # type: ignore[arg-type]
    assert watch.seconds > 0


@pytest.fixture
def fake_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package `benchmarks` of fakes, with the real protocol, for child processes."""
    package = tmp_path / "benchmarks"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "contestant.py").write_text((ROOT / "benchmarks" / "contestant.py").read_text())
    (package / "fakes.py").write_text(
        "from benchmarks.contestant import serve\n"
        "def steady(caller, steps):\n"
        "    print('a library says hello')\n"
        "    serve(caller, lambda: {'steps': steps})\n"
        "def breaks(caller):\n"
        "    caller.calls()\n"
        "    raise ValueError('out of paper')\n"
        "def never(caller):\n"
        "    import no_such_peer\n"
    )
    monkeypatch.setattr(turns, "ROOT", tmp_path)


@pytest.mark.usefixtures("fake_module")
def test_children_compute_when_they_are_called() -> None:
    with children([Entry("fakes.steady", {"steps": 5}), Entry("fakes.steady", {"steps": 7})]) as pair:
        one, other = take_turns(pair, 2)
    assert [turn["steps"] for turn in (*one, *other)] == [5, 5, 7, 7]
    assert all(child._process.returncode == 0 for child in pair)


@pytest.mark.usefixtures("fake_module")
def test_children_take_their_turns_together() -> None:
    with children([Entry("fakes.steady", {"steps": 5})] * 2) as pair:
        turn = scaling.Together(pair).turn()
    assert turn["steps"] == 10
    assert turn["seconds"] > 0


@pytest.mark.usefixtures("fake_module")
def test_what_a_child_died_of_is_said() -> None:
    with pytest.raises(ContestantFailed, match=r"fakes\.never: ModuleNotFoundError: No module named 'no_such_peer'"):
        Child(Entry("fakes.never", {}))
    with children([Entry("fakes.breaks", {})]) as (child,):
        with pytest.raises(ContestantFailed, match=r"fakes\.breaks: ValueError: out of paper"):
            child.turn()
        with pytest.raises(ContestantFailed):
            child.turn()


@pytest.mark.parametrize(
    ("name", "value", "verdict"),
    [
        ("ppo", 3.0, "aim"),
        ("ppo", 2.9, "must"),
        ("ppo", 2.2, "must"),
        ("ppo", 2.1, "missed"),
        ("cbp", 0.02, "aim"),
        ("cbp", 0.05, "must"),
        ("cbp", 0.051, "missed"),
        ("adam", -0.3, "aim"),
        ("ppo_update", 1.0, "none"),
    ],
)
def test_a_row_knows_whether_it_reaches_its_targets(name: str, value: float, verdict: str) -> None:
    assert rows.ROWS[name].verdict(value) == verdict


def test_a_row_of_the_table() -> None:
    numbers = rows.result([2.0, 2.5, 3.0], ours_steps=spread([2500.0]), peer_steps=spread([1000.0]))
    assert report.cells(rows.ROWS["ppo"], numbers) == [
        rows.PPO,
        "SB3 PPO, DummyVecEnv of 8",
        "2.50 x (2.25 x to 2.75 x)",
        "2,500 to 1,000 steps/s",
        "2.20 x",
        "3.00 x",
    ]
    console = Console(width=300, record=True, file=io.StringIO())
    console.print(report.table({"ppo": numbers}))
    assert "must reached" in console.export_text()


def test_every_row_is_measured_by_one_part() -> None:
    named = [name for part in parts.PARTS for name in part.rows]
    assert sorted(named) == sorted(rows.ROWS)


def test_ours_and_the_peers_get_the_same_settings() -> None:
    from benchmarks.ours import configuration

    for n_envs in (1, 8):
        config, _ = configuration(settings.ppo_words(n_envs=n_envs), [])
        given = vars(config.agent) | {"net_arch": [*config.agent.net_arch]}
        for name, value in settings.ppo(n_envs).items():
            assert given[name] == value, name
        assert config.agent.net_arch == (settings.WIDTH,) * settings.DEPTH
        assert config.env.n_envs * config.agent.n_steps == settings.ROLLOUT
        assert config.agent.backend == "auto"
    off, _ = configuration(settings.ppo_words(settings.NO_CBP), [])
    assert vars(off.agent) == vars(config.agent)  # so that they differ in continual backprop alone
    assert not off.plasticity
    sac, _ = configuration(settings.SAC_WORDS, [])
    assert (sac.env.n_envs, sac.agent.net_arch) == (1, (256, 256))


def measured() -> dict[str, Any]:
    """A whole result, made up."""
    numbers = rows.result([1.0, 1.5, 2.0], ours_steps=2000.0, peer_steps=1000.0)
    point = {who: spread([10.0, 20.0]).as_dict() for who in ("ours", "peer")}
    return {
        "machine": {"processor": "a processor", "cores": 2},
        "versions": {"ours": {"torch": "1"}, "peers": {"torch": "1"}},
        "load_before": 0.0,
        "date": "2026-01-01",
        "rows": dict.fromkeys(reversed(rows.ROWS), numbers),
        "scaling": {axis: {str(value): point for value in values} for axis, (_, values) in scaling.AXES.items()},
    }


def test_what_is_measured_again_joins_what_was_measured(tmp_path: Path) -> None:
    path, found = tmp_path / "performance.json", measured()
    report.write(path, found)
    assert list(json.loads(path.read_text())["rows"]) == list(rows.ROWS)
    conditions = {name: found[name] for name in ("machine", "versions", "load_before", "date")}
    assert report.merged(path, conditions, whole=True)["rows"] == {}
    assert report.merged(path, conditions, whole=False)["rows"] == found["rows"]
    assert report.merged(tmp_path / "none.json", conditions, whole=False)["rows"] == {}
    with pytest.raises(report.OtherConditions, match="another machine"):
        report.merged(path, conditions | {"machine": {"cores": 64}}, whole=False)


def test_pictures_are_drawn(tmp_path: Path) -> None:
    draw(measured(), tmp_path)
    assert all((tmp_path / name).stat().st_size > 10_000 for name in (BARS, CURVES))


def test_the_command_measures_what_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fine(plan: parts.Plan, advance: parts.Advance) -> dict[str, rows.Result]:
        advance(1.0)
        return {"adam": rows.result([-0.25] * plan.turns(20))}

    def broken(plan: parts.Plan, advance: parts.Advance) -> dict[str, rows.Result]:
        raise ContestantFailed("peers.sbx.sac: gone")

    fakes = (parts.Part(("adam",), 1, fine), parts.Part(("sac",), 1, broken), parts.Part(("cbp",), 1, broken))
    monkeypatch.setattr(command, "PARTS", fakes)
    monkeypatch.setattr(report, "RESULT", path := tmp_path / "performance.json")
    published: list[dict[str, Any]] = []
    monkeypatch.setattr(command, "publish", lambda found, console: published.append(found))
    console = Console(width=200, record=True, file=io.StringIO())
    words = [f"--peers={sys.executable}", "--only=adam", "--only=sac"]
    assert command.main(words, console) == 1
    said = console.export_text()
    assert "-25.0 %" in said
    assert "not measured: peers.sbx.sac: gone" in said
    assert published[0]["rows"]["adam"]["turns"] == 20
    assert json.loads(path.read_text())["rows"].keys() == {"adam"}
    assert command.main([*words, "--quick"], console) == 1
    assert len(published) == 1  # a quick look writes nothing
    with pytest.raises(SystemExit, match="make bench"):
        command.main([f"--peers={tmp_path / 'none'}"], console)


def test_the_page_is_up_to_date() -> None:
    written = runpy.run_path(str(DOCS / "make_performance.py"))["page"]()
    page = (DOCS / "performance.md").read_text("utf-8")
    assert written == page, "run: python docs/make_performance.py"
    assert "<!--" not in page


def test_the_page_says_what_the_numbers_say() -> None:
    found = json.loads((DOCS / "data" / "performance.json").read_text("utf-8"))
    page = (DOCS / "performance.md").read_text("utf-8")
    for name, numbers in found["rows"].items():
        row = rows.ROWS[name]
        (line,) = [line for line in page.splitlines() if line.startswith(f"| {row.what} | {row.peer} |")]
        assert f"| {row.written(numbers['value'])} (" in line
        assert ("**missed**" in line) == (row.verdict(numbers["value"]) == "missed")
        assert numbers["low"] <= numbers["value"] <= numbers["high"]
    for name in rows.ROWS.keys() - found["rows"].keys():
        assert f"Not measured: {rows.ROWS[name].what}, against {rows.ROWS[name].peer}." in page
