"""Runs found, measured and compared: hand arithmetic on folders that a helper wrote."""

from __future__ import annotations

import csv
import json
import time
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import yaml

from experiments.analysis import MEASURES, Options, compare, find, naming
from experiments.analysis.across import across
from experiments.analysis.changes import changes
from experiments.analysis.curves import by_regime, metric, returns
from experiments.analysis.grid import Grid, band, grid_for, on_grid, rounded_up
from experiments.analysis.measures import binned, mean_return, measure
from experiments.analysis.reading import Tables, read
from experiments.analysis.runs import RunFolder
from experiments.analysis.statistics import mean
from experiments.errors import BadInput
from experiments.history import Series
from experiments.lock import LOCK
from tests.experiments.run_folders import config, write_run, write_sweep


def only(path, **options):
    (found,) = compare(find([path])[0], Options(**options))
    return found


def method(comparison, name):
    return next(one for one in comparison.methods if one.name == name)


def episodes(*rows):
    """(step, return) of each."""
    return np.array([[step, 0, 0, value, 0] for step, value in rows], float)


def test_time_counts_and_not_episodes():
    found = episodes((5, 10), (6, 30), (20, 100))  # two in the first half, one in the second
    assert mean_return(found, 0, 20, 2) == pytest.approx((20 + 100) / 2)
    assert mean_return(found, 0, 20, 1) == pytest.approx(140 / 3)


def test_time_without_an_end_belongs_to_the_episode_that_ends_next():
    found = binned(episodes((30, 3.0), (41, 5.0)), np.arange(0, 70, 10.0))
    assert list(found) == [3, 3, 3, 5, 5, 5]  # (20, 30] holds step 30; after the last one, the last
    assert np.isnan(binned(episodes((99, 1.0)), np.arange(0, 30, 10.0))).all()


def test_measures_of_a_run_by_hand(tmp_path):
    settings = config("cbp", steps=1000)
    path = write_run(
        tmp_path / "run",
        settings,
        lambda step: 100.0 - 20 * ((step - 1) // 250),  # 100, 80, 60, 40
        dead=lambda step: 0.1 + 0.2 * step / 1000,
        rank=lambda step: 8 - 4 * step / 1000,
    )
    (run,), _ = find([path])
    found, regimes = measure(read(run), 1000)
    assert list(regimes) == [100, 80, 60, 40]
    assert found["mean_return"] == pytest.approx(70)
    assert found["last_regimes"] == pytest.approx(50)
    assert found["last_tenth"] == pytest.approx(40)
    assert found["first_regime"] == pytest.approx(100)
    assert found["regime_slope"] == pytest.approx(-20)
    assert found["dead_units_change"] == pytest.approx(0.2)
    assert found["dead_units"] == pytest.approx(0.1 + 0.2 * 0.975)  # measured at 950 and 1000, of which (900, 1000]
    assert found["rank_change"] == pytest.approx(-4)
    assert set(found) <= set(MEASURES)
    assert read(run).seconds == 10


def test_a_regime_that_was_cut_short_counts_from_half_its_length_on(tmp_path):
    path = write_run(tmp_path / "run", config(steps=600), lambda step: float((step - 1) // 250), period=250)
    (run,), _ = find([path])
    found, regimes = measure(read(run), 600)
    assert list(regimes[:2]) == [0, 1]
    assert np.isnan(regimes[2])  # 100 of 250 steps
    assert found["mean_return"] == pytest.approx((250 * 0 + 250 * 1 + 100 * 2) / 600)  # but time is time
    assert "regime_slope" not in found
    assert list(measure(read(run), 630)[1][:1]) == [0]


def test_a_world_that_never_changes_and_a_run_without_measurements():
    tables = Tables(episodes(*((step, 1.0) for step in range(10, 101, 10))), (), {}, 0.0, {})
    assert measure(tables, 100)[0] == {"last_tenth": 1.0}
    series = {"pi": {"dead_fraction": Series(np.array([500.0]), np.array([0.5]))}}
    assert "dead_units" not in measure(replace(tables, scalars=series), 100)[0]  # measured later than that


def test_a_run_that_goes_on_is_read_up_to_the_last_whole_row(tmp_path):
    path = write_run(tmp_path / "run", config(steps=1000), 7.0, reached=500, status=None)
    for name in ("episodes.csv", "progress.csv"):
        with (path / name).open("a") as file:
            file.write("510,0,2")
    (run,), _ = find([path])
    tables = read(run)
    assert len(tables.episodes) == 50
    assert [(one.index, one.start, one.end) for one in tables.regimes] == [(0, 0, 250), (1, 250, 500)]
    assert (run.state, run.steps) == ("killed", 500)


def test_time_of_a_run_that_was_gone_on_with_is_of_all_its_processes(tmp_path):
    path = write_run(tmp_path / "run", config(steps=400))
    with (path / "progress.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    for row, seconds in zip(rows[1:], [10, 20, 30, 5, 15, 1, 2, 4], strict=True):
        row[-1] = seconds
    with (path / "progress.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    assert read(find([path])[0][0]).seconds == 30 + 15 + 4


def test_states(tmp_path, monkeypatch):
    for status in ("finished", "stopped", "failed", None):
        write_run(tmp_path / str(status), config(steps=1000), reached=500, status=status)
    write_run(tmp_path / "killed_later", config(steps=1000), reached=500)
    result = json.loads((tmp_path / "killed_later" / "result.json").read_text())
    (tmp_path / "killed_later" / "result.json").write_text(json.dumps(result | {"status": "stopped", "steps": 300}))
    write_run(tmp_path / "held", config(steps=1000), reached=500, status=None)
    (tmp_path / "held" / LOCK).write_text("{}")
    monkeypatch.setattr("experiments.analysis.runs.holder", lambda path: {} if (path / LOCK).exists() else None)
    runs, unreadable = find([tmp_path])
    assert {run.name: run.state for run in runs} == {
        "None": "killed",
        "failed": "failed",
        "finished": "finished",
        "held": "running",
        "killed_later": "killed",
        "stopped": "stopped",
    }
    assert not unreadable
    assert next(run for run in runs if run.state == "failed").fault == "NumericFailure: weights of pi are not finite"


def test_runs_are_found_once_wherever_they_are(tmp_path):
    write_run(tmp_path / "a" / "b" / "run", config())
    write_run(tmp_path / "a" / "b" / "run" / "checkpoints" / "10", config())  # no run of its own
    write_run(tmp_path / ".trash" / "old", config())
    runs, _ = find([tmp_path, tmp_path / "a", tmp_path / "a" / "b" / "run"])
    assert [run.name for run in runs] == ["a/b/run"]
    (tmp_path / "link").symlink_to(tmp_path / "a" / "b" / "run")
    assert [run.name for run in find([tmp_path, tmp_path / "link"])[0]] == ["a/b/run"]
    assert find([tmp_path / "a" / "b" / "run"])[0][0].name == "run"


def test_runs_of_one_name_in_two_folders_are_two(tmp_path):
    for place in ("first", "second"):
        write_run(tmp_path / place / "run", config(), reached=500, status="stopped")
    runs, _ = find([tmp_path / "first", tmp_path / "second"])
    assert [run.name for run in runs] == ["first/run", "second/run"]
    (comparison,) = compare(runs, Options(steps=1000))
    assert len(comparison.runs) == 2


def test_folders_that_cannot_be_read_are_named(tmp_path):
    write_run(tmp_path / "good", config())
    for name, text in {"list": "- 1", "broken": "a: [", "short": "seed: 1", "text": "agent: x\nenv: y"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text(text)
    runs, unreadable = find([tmp_path])
    assert [run.name for run in runs] == ["good"]
    assert [one.name for one in unreadable] == ["broken", "list", "short", "text"]
    assert "has no agent, env, total_steps" in unreadable[2].reason
    (tmp_path / "good" / "episodes.csv").write_text("step,env,regime,return,length\n10,0,0,what,10\n")
    comparison = only(tmp_path)
    assert "good cannot be read" in comparison.left_out["good"]
    assert not comparison.measures


def test_errors_teach(tmp_path):
    with pytest.raises(
        BadInput, match=r"no run found in or below .*: a run's folder holds config\.yaml, episodes\.csv"
    ):
        find([tmp_path])
    (tmp_path / "sac_pendulum").mkdir()
    with pytest.raises(BadInput, match=r"no such folder; .* has sac_pendulum"):
        find([tmp_path / "sac_pendulun"])
    (tmp_path / "x.html").write_text("")
    with pytest.raises(BadInput, match="that is a file"):
        find([tmp_path / "x.html"])
    write_sweep(tmp_path, {"none": 0, "cbp": 1}, seeds=1)
    with pytest.raises(BadInput, match="--baseline must be one of none, cbp, got cpb"):
        list(compare(find([tmp_path])[0], Options(baseline="cpb")))


def test_methods_are_told_apart_by_what_differs():
    learned = [naming.settings(config(name)) for name in ("none", "cbp")]
    assert naming.method_names(learned) == ["none", "cbp"]
    changed = config("cbp")
    changed["plasticity"] = {"cbp": {"replacement_rate": 1e-3, "maturity": 10_000}}
    both = [*learned, naming.settings(changed)]
    assert naming.method_names(both) == ["none", "cbp, replacement_rate=0.0001", "cbp, replacement_rate=0.001"]
    two = [naming.settings(config("none", learning_rate=rate)) for rate in (1e-3, 3e-4)]
    assert naming.method_names(two) == ["none, learning_rate=0.001", "none, learning_rate=0.0003"]
    assert naming.key(naming.settings(config(seed=1))) == naming.key(naming.settings(config(seed=2)))
    whole = config()
    whole["agent"]["learning_rate"] = 1
    real = {**whole, "agent": {**whole["agent"], "learning_rate": 1.0}}
    assert naming.key(naming.settings(whole)) == naming.key(naming.settings(real))


def test_worlds_that_differ_are_compared_apart(tmp_path):
    for period in (250, 500):
        settings = config()
        settings["env"]["kwargs"]["period"] = period
        write_run(tmp_path / str(period), settings)
    write_run(tmp_path / "other", config(env="Other-v1"))
    names = [one.name for one in compare(find([tmp_path])[0])]
    assert names == ["World-v1, period=250", "World-v1, period=500", "Other-v1"]


def test_methods_are_compared_seed_by_seed(tmp_path):
    comparison = only(write_sweep(tmp_path, {"none": 0, "cbp": 10}))
    assert comparison.baseline == "none"
    assert [one.name for one in comparison.methods] == ["none", "cbp"]
    cbp = method(comparison, "cbp")
    found, difference = cbp.estimates["mean_return"], cbp.differences["mean_return"]
    assert found.runs == difference.pairs == 5
    assert found.value == pytest.approx(method(comparison, "none").estimates["mean_return"].value + 10)
    assert found.low < found.value < found.high
    assert (difference.value, difference.low, difference.high) == pytest.approx((10, 10, 10))
    assert difference.seen
    assert difference.probability == 1
    assert not method(comparison, "none").differences
    assert not comparison.remarks
    assert not comparison.left_out


def test_where_less_is_better_the_chance_is_of_less(tmp_path):
    for seed in range(3):
        write_run(tmp_path / f"none{seed}", config("none", seed), dead=lambda step: 0.5)
        write_run(tmp_path / f"cbp{seed}", config("cbp", seed), dead=lambda step: 0.1)
    difference = method(only(tmp_path), "cbp").differences["dead_units"]
    assert difference.value == pytest.approx(-0.4)
    assert difference.probability == 1
    assert not difference.seen  # of three seeds nothing is concluded


def test_nothing_is_dropped_silently(tmp_path):
    write_sweep(tmp_path, {"none": 0, "cbp": 10}, seeds=4)
    write_run(tmp_path / "none4", config("none", 4), reached=600, status="failed")
    write_run(tmp_path / "cbp5", config("cbp", 5), reached=300, status=None)
    write_run(tmp_path / "l2", config("l2", 0), reached=5, status="stopped")
    write_run(tmp_path / "cbp3again", config("cbp", 3))
    comparison = only(tmp_path, steps=1000)
    assert comparison.left_out == {
        "none4": "failed at step 600 of 1,000 (NumericFailure: weights of pi are not finite): "
        "in the curves up to there, not in the table",
        "cbp5": "ended without a word at step 300 of 1,000: in the curves up to there, not in the table",
        "l2": "was stopped at step 5: no episode has ended",
    }
    remarks = "\n".join(comparison.remarks)
    assert "1 of 5 runs of none failed and are not in its numbers" in remarks
    assert "No run of l2 got to step 1,000: it has no row in the table." in remarks
    assert "cbp has several runs of seed 3; all count, and differences by seed take the first." in remarks
    assert "none has no run of seed 5, which other methods have." in remarks
    assert "l2 has no run of seed 1, 2, 3, 4, 5, which other methods have." in remarks
    assert len(comparison.runs) == 12
    assert method(comparison, "cbp").estimates["mean_return"].runs == 5
    curve = returns(comparison, method(comparison, "cbp"))
    assert curve.runs[0] == 6
    assert curve.runs[-1] == 5  # the one that was killed is in the curve as far as it got


def test_runs_of_unequal_length_are_compared_over_their_common_part(tmp_path):
    write_sweep(tmp_path, {"none": 0}, seeds=2, steps=1000)
    for seed in range(2):
        write_run(tmp_path / f"long{seed}", config("cbp", seed, steps=2000), lambda step: 50.0 if step <= 1000 else 1e6)
    comparison = only(tmp_path)
    assert comparison.steps == 1000
    assert method(comparison, "cbp").estimates["mean_return"].value == pytest.approx(50)
    assert method(comparison, "cbp").estimates["last_tenth"].value == pytest.approx(50)
    assert comparison.remarks[0] == (
        "The table compares the first 1,000 steps, as no run of none got further; 2 of 4 runs went on for longer, "
        "up to step 2,000."
    )
    assert comparison.grid.edges[-1] == 2000  # the curves show all there is
    assert only(tmp_path, steps=500).steps == 500


def test_a_method_with_nothing_but_beginnings_sets_the_common_part(tmp_path):
    write_sweep(tmp_path, {"none": 0}, seeds=2)
    write_run(tmp_path / "cbp", config("cbp", 0), reached=400, status=None)
    comparison = only(tmp_path)
    assert comparison.steps == 400
    assert not comparison.left_out


def test_a_method_that_has_hardly_begun_does_not_shorten_the_comparison(tmp_path):
    write_sweep(tmp_path, {"none": 0}, seeds=2)
    write_run(tmp_path / "cbp", config("cbp", 0), reached=90, status=None)
    write_run(tmp_path / "l2", config("l2", 0), reached=0, status=None)
    comparison = only(tmp_path)
    assert comparison.steps == 1000
    assert set(comparison.left_out) == {"cbp", "l2"}
    assert "No run of cbp got to step 1,000: it has no row in the table." in comparison.remarks


def test_one_run_alone(tmp_path):
    write_run(tmp_path / "run", config(), 5.0)
    comparison = only(tmp_path)
    (alone,) = comparison.methods
    assert comparison.baseline is None
    assert alone.estimates["mean_return"].value == 5
    assert np.isnan(alone.estimates["mean_return"].low)
    assert len(returns(comparison, alone).x)
    assert np.isnan(returns(comparison, alone).low).all()


def test_sac_has_three_networks(tmp_path):
    comparison = only(write_sweep(tmp_path, {"none": 0}, seeds=2, algorithm="sac"))
    assert comparison.networks == ["actor", "qf0", "qf1"]
    curve = metric(comparison, comparison.methods[0], "qf1", "dead_fraction")
    assert curve.value == pytest.approx(np.full(len(curve.x), 0.1))
    assert not metric(comparison, comparison.methods[0], "pi", "dead_fraction")


def test_returns_by_regime(tmp_path):
    for seed in range(3):
        write_run(tmp_path / str(seed), config(seed=seed), lambda step, seed=seed: 10.0 * ((step - 1) // 250) + seed)
    comparison = only(tmp_path, aggregate="mean")
    curve = by_regime(comparison, comparison.methods[0])
    assert list(curve.x) == [0, 1, 2, 3]
    assert curve.value == pytest.approx([1, 11, 21, 31])


def test_moments_of_change_are_shared_or_said_not_to_be(tmp_path):
    write_run(tmp_path / "a", config(seed=0), values=lambda index: f"{index}.5")
    write_run(tmp_path / "b", config(seed=1), values=lambda index: f"{index}.5")
    found = changes(only(tmp_path).runs)
    assert found.moments == [250, 500, 750]
    assert [one.values for one in found.periods] == [f"gravity {index}.5" for index in range(4)]
    assert found.values_shared
    write_run(tmp_path / "c", config(seed=2), values=lambda index: f"{index}.7")
    found = changes(only(tmp_path).runs)
    assert found.moments == [250, 500, 750]
    assert found.periods[1].spread == "gravity 1.5 to 1.7, by seed"
    assert not found.values_shared
    write_run(tmp_path / "d", config(seed=3), period=300)
    found = changes(only(tmp_path).runs)
    assert (found.moments, found.most) == ([], 4)


def test_a_run_that_has_not_got_so_far_does_not_hide_the_changes(tmp_path):
    write_run(tmp_path / "a", config(seed=0))
    write_run(tmp_path / "b", config(seed=1), reached=600, status=None)
    assert changes(only(tmp_path).runs).moments == [250, 500, 750]


def test_the_grid_is_round_and_an_episode_ends_in_each_bin(tmp_path):
    assert [rounded_up(steps) for steps in (1, 1.5, 3, 5, 6, 101, 8002.56)] == [1, 2, 5, 5, 10, 200, 10_000]
    path = write_run(tmp_path / "run", config(steps=1000))
    (run,), _ = find([path])
    assert grid_for([run], 1000) == Grid(20, 50)  # two episodes of ten steps
    assert grid_for([run], 100_000) == Grid(500, 200)
    assert grid_for([run], 1000, width=100) == Grid(100, 10)
    series = Series(np.array([10.0, 30.0]), np.array([1.0, 3.0]))
    assert on_grid(series, Grid(10, 4))[1:3] == pytest.approx([1.5, 2.5])
    assert np.isnan(on_grid(series, Grid(10, 4))[[0, 3]]).all()


def test_a_band_is_of_the_runs_that_are_there():
    rows = np.array([[1.0, 1.0], [3.0, np.nan], [5.0, np.nan]])
    middle, low, high = band(rows, mean)
    assert list(middle) == [3, 1]
    assert low[0] < 3 < high[0]
    assert np.isnan(low[1])


def test_several_environments_have_one_chance_between_them(tmp_path):
    write_sweep(tmp_path, {"none": 0, "cbp": 10}, seeds=3, env="A-v1")
    write_sweep(tmp_path, {"none": 0, "cbp": -10, "l2": 1}, seeds=3, env="B-v1")
    found = list(across(list(compare(find([tmp_path])[0]))))
    assert [(one.method, one.measure.name, one.probability) for one in found] == [
        ("cbp", "mean_return", 0.5),
        ("cbp", "last_regimes", 0.5),
    ]
    assert (found[0].low, found[0].high, found[0].environments) == (0.5, 0.5, 2)


def test_means_of_tests_on_frozen_regimes_are_measures(tmp_path):
    path = write_run(tmp_path / "run", config())
    (path / "adaptation.csv").write_text("regime,forgetting,recovery_steps,gap_to_fresh\n0,10,,\n1,20,300,\n")
    found = only(tmp_path).methods[0].estimates
    assert (found["forgetting"].value, found["recovery_steps"].value) == (15, 300)
    assert "gap_to_fresh" not in found
    assert "forgetting" not in only(tmp_path, steps=500).methods[0].estimates  # that was of the whole run


def test_configurations_are_read_as_data_only(tmp_path):
    path = write_run(tmp_path / "run", config())
    (path / "config.yaml").write_text("!!python/object/apply:os.system ['true']")
    with pytest.raises(BadInput, match="ConstructorError"):
        find([tmp_path])


def test_a_run_says_what_made_it(tmp_path):
    run = RunFolder(tmp_path, "run", config(seed=3), "finished", 1000, "", 10)
    assert (run.seed, run.world, run.asked, run.command(), run.versions()) == (3, (3, 3), 1000, "", {})
    (tmp_path / "versions.json").write_text("nonsense")
    assert run.versions() == {}


@pytest.mark.slow
def test_thousands_of_runs_are_read_one_at_a_time(tmp_path):
    template = write_run(tmp_path / "template", config("none", 0))
    texts = {path.name: path.read_text() for path in template.iterdir()}
    for number in range(2000):
        folder = tmp_path / f"run{number}"
        folder.mkdir()
        for name, text in texts.items():
            (folder / name).write_text(text)
        settings = config(("none", "cbp")[number % 2], number // 2)
        (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    tracemalloc.start()
    begun = time.process_time()
    runs, _ = find([tmp_path])
    (comparison,) = compare(runs)
    held, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(comparison.runs) == 2001
    assert held < 2001 * 20_000  # bytes: what is kept of a run
    assert most < held + 250e6  # and what one run, or the draws of one interval, take meanwhile
    assert time.process_time() - begun < 120  # seconds; tracemalloc takes most of them
