"""The page, the table and the picture: what they say, and that names cannot do harm."""

from __future__ import annotations

import html
import re

import matplotlib.image
import numpy as np
import pytest
from matplotlib.axes import Axes

from experiments.analysis import MEASURES, Options, compare, find
from experiments.analysis.changes import changes
from experiments.report import provenance, sentences
from experiments.report.command import main
from experiments.report.figures import draw
from experiments.report.numbers import duration, interval, number
from experiments.report.page import Page, render
from experiments.report.rows import blocks
from tests.experiments.run_folders import config, write_run, write_sweep


def comparisons(path, **options):
    return list(compare(find([path])[0], Options(**options)))


def page(path, **options):
    return render(Page("A title", None, "python -m experiments.report", [str(path)]), comparisons(path, **options))


def seen(text):
    """What a reader sees, in one line."""
    body = re.sub(r"<(script|style).*?</\1>", " ", text, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", body)).split())


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    return write_sweep(tmp_path_factory.mktemp("runs"), {"none": 0, "cbp": 10})


def test_the_page_says_what_came_out(sweep):
    text = seen(page(sweep))
    assert "Does PPO learn better, and go on learning, with cbp than with no method on World-v1, a world that" in text
    assert "changes 3 times within 1,000 steps?" in text
    assert "2 methods · 10 runs (10 finished) · 5 seeds · 1,000 steps compared" in text
    assert (
        "cbp is above none, which is better (mean difference by seed +10.0, 95 % interval [+10.0, +10.0] over" in text
    )
    assert "Not seen: no difference between cbp and none can be seen in" in text
    for measure in MEASURES.values():
        if measure.name not in ("forgetting", "recovery_steps", "gap_to_fresh", "dormant_units"):
            assert measure.title in text
    assert "plasticity.cbp.maturity" in text
    assert "e90947ef2322" in text
    assert "wandb not installed" in text
    assert "python train.py plasticity=cbp" in text
    assert "python -m experiments.report" in text


def test_the_page_needs_nothing_from_elsewhere(sweep):
    text = page(sweep)
    without_library = re.sub(r"<script[^>]*>.*?</script>", "", text, flags=re.DOTALL)
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", without_library)
    assert "url(" not in without_library
    assert 1e6 < len(text) < 2e6


def test_few_seeds_conclude_nothing(tmp_path):
    text = seen(page(write_sweep(tmp_path, {"none": 0, "cbp": 10}, seeds=2)))
    assert "Too early to say: cbp and none have 2 seeds in common, and 5 are needed to conclude anything." in text
    assert "Fewer than 5 runs: none (2), cbp (2). Their intervals are rough" in text
    assert "excludes 0" not in text.partition("Curves")[0]


def test_runs_that_are_left_out_are_named(tmp_path):
    write_sweep(tmp_path, {"none": 0, "cbp": 10}, seeds=2)
    write_run(tmp_path / "broken-run", config("cbp", 2), reached=400, status="failed")
    (tmp_path / "not-a-run").mkdir()
    (tmp_path / "not-a-run" / "config.yaml").write_text("[]")
    out = tmp_path / "report.html"
    assert main([str(tmp_path), "-o", str(out)]) == 0
    text = seen(out.read_text())
    assert "1 run is in no number of the table: broken-run failed at step 400 of 1,000" in text
    assert "1 of 3 runs of cbp failed and are not in its numbers" in text
    assert "1 folder looks like a run and cannot be read not-a-run ValueError" in text
    assert "none has no run of seed 2, which other methods have." in text


BAD = "<script>alert(1)</script>'\"&"


def test_names_cannot_do_harm(tmp_path):
    for place, name in enumerate((BAD, "</script><b>", "none")):
        settings = config("none", env=f"World-{BAD}")
        settings["plasticity"] = {name: {"setting": BAD}} if name != "none" else {}
        write_run(tmp_path / f"run-<i>{place}", settings, command=f"python {BAD}", values=lambda index: f"<u>{index}")
    text = render(Page(BAD, BAD, BAD, [BAD], find([tmp_path])[1]), comparisons(tmp_path))
    assert "<script>alert" not in text
    assert "</script><b>" not in text
    assert "<i>0" not in text
    assert "<u>" not in text
    assert html.escape(BAD, quote=False)[:20] in text


def test_one_run_and_no_methods_to_compare(tmp_path):
    write_run(tmp_path / "run", config())
    text = seen(page(tmp_path))
    assert "How does PPO with none fare on World-v1" in text
    assert "1 run" in text
    assert "baseline" not in text.partition("How the numbers are computed")[0]


def test_a_run_that_has_only_begun(tmp_path):
    write_run(tmp_path / "run", config(), reached=5, status=None)
    text = seen(page(tmp_path))
    assert "ended without a word at step 0: no episode has ended" in text
    assert "No run has got far enough for a number." in text


def test_a_run_without_measurements_or_versions(tmp_path):
    path = write_run(tmp_path / "run", config(), period=10_000)
    for name in ("progress.csv", "versions.json", "command.txt"):
        (path / name).unlink()
    text = seen(page(tmp_path))
    assert "How plastic" not in text
    assert "The world never changed in these runs." in text
    assert "command not recorded" in text
    assert "versions not recorded" in text


def test_several_environments_have_a_section_each(tmp_path):
    write_sweep(tmp_path, {"none": 0, "cbp": 10}, seeds=2, env="A-v1")
    write_sweep(tmp_path, {"none": 0, "cbp": 10}, seeds=2, env="B-v1", algorithm="sac")
    text = page(tmp_path)
    assert text.count('<section class="environment"') == 2
    assert '<a href="#env-1">B-v1</a>' in text
    assert "cbp than none mean return 1.00 [1.00, 1.00] 2" in seen(text)
    assert "Dead units, critic 2" in seen(text)


def test_figures_mark_changes_and_hold_every_method(sweep):
    (comparison,) = comparisons(sweep)
    drawn = draw(comparison, changes(comparison.runs), 0)
    assert [one.title for one in drawn[:2]] == ["Return of an episode", "Mean return of each regime"]
    assert len(drawn) == 2 + 2 * 3
    main_figure = drawn[0].figure
    marks = [one.location for one in main_figure.center if "mark" in one.tags]
    assert marks == [250, 500, 750]
    assert [one.name for one in main_figure.renderers if one.name] == ["none", "cbp"]
    assert all(one.figure.x_range is main_figure.x_range for one in drawn if one.title != "Mean return of each regime")
    world = main_figure.renderers[0].data_source.data["world"]
    assert world[0] == "regime 0: gravity 0"
    assert world[-1] == "regime 3: gravity 3"


def test_many_methods_are_all_in_the_table_and_most_in_the_curves(tmp_path):
    for place in range(40):
        settings = config("cbp")
        settings["plasticity"] = {"cbp": {"maturity": place}}
        write_run(tmp_path / str(place), settings, reached=200, status=None)
    text = seen(page(tmp_path))
    assert "7 further methods are in the tables only." in text
    assert text.count("cbp, maturity=39") > 10


def test_settings_that_differ_and_those_in_common(sweep):
    (comparison,) = comparisons(sweep)
    differing = dict(provenance.differing_settings(comparison))
    assert differing == {
        "methods": ["none", "cbp"],
        "plasticity.cbp.replacement_rate": ["–", "0.0001"],
        "plasticity.cbp.maturity": ["–", "10,000"],
    }
    common = dict(provenance.common_settings(comparison))
    assert common["agent.betas"] == "[0.9, 0.999]"
    assert common["env.kwargs.period"] == "250"
    assert not [name for name in common if name.startswith(("run", "logging", "seed"))]
    assert provenance.effort([comparison]) == (
        "10 runs, 10,000 environment steps, 2 minutes of training, as the runs' own clocks have it"
    )


def test_bars_lie_where_their_numbers_are(sweep):
    (comparison,) = comparisons(sweep)
    block = next(blocks(comparison))
    assert block.measure.name == "mean_return"
    none, cbp = block.rows
    assert none.bar.low < none.bar.value < none.bar.high <= cbp.bar.high
    assert none.bar.low == 6
    assert cbp.bar.high == 234
    assert cbp.difference == "+10.0 [+10.0, +10.0]"
    assert cbp.probability == "1.00 [1.00, 1.00]"
    assert block.zero is None


def test_numbers_as_people_read_them():
    share = MEASURES["dead_units"]
    assert [number(value) for value in (1234.5, -12.34, 0.5, 0.0, 0.00123, np.nan)] == [
        *("1,234", "−12.3", "0.50", "0.00", "1.2e−03", "–"),
    ]
    assert number(0.1234, share) == "12.3 %"
    assert number(-0.1234, share, sign=True) == "−12.3 points"
    assert interval(0.1, 0.2, share) == "[10.0, 20.0 %]"
    assert interval(np.nan, np.nan) == ""
    assert [duration(seconds) for seconds in (30, 600, 9000)] == ["30 seconds", "10 minutes", "2.5 hours"]


def test_no_sentence_without_a_baseline(tmp_path):
    write_run(tmp_path / "run", config("cbp"))
    (comparison,) = comparisons(tmp_path)
    assert not list(sentences.findings(comparison))


def test_the_table_in_the_terminal(sweep, capsys):
    assert main([str(sweep), "--table"]) == 0
    out = capsys.readouterr().out
    assert "World-v1, 1,000 steps: interquartile mean over runs" in " ".join(out.split())
    assert "117 ▲" in out
    assert "Mean return: cbp is above none, which is better" in out


def test_bands_leave_curves_in_sight(tmp_path, monkeypatch):
    write_sweep(tmp_path, {"none": 0, "cbp": 1, "l2": 2, "ns": 3})
    (comparison,) = comparisons(tmp_path)
    plot = draw(comparison, changes(comparison.runs), 0)[0].figure
    own = [[one for one in plot.renderers if one.tags == ["method", 0, index]] for index in range(4)]
    for area, low, high, curve in own:
        assert [one.glyph.y for one in (low, high, curve)] == ["low", "high", "value"]
        assert low.glyph.line_color == area.glyph.fill_color == curve.glyph.line_color
        assert low.glyph.line_width == high.glyph.line_width < 0.5 * curve.glyph.line_width
        assert {one.level for one in (area, low, high)} == {"underlay"} != {curve.level}
    assert 1 - np.prod([1 - area.glyph.fill_alpha for area, *_ in own]) < 0.25  # all over one another
    drawn = []
    monkeypatch.setattr(Axes, "fill_between", lambda *_, **options: drawn.append(options))
    assert main([str(tmp_path), "--picture", str(tmp_path / "curves.png")]) == 0
    for options in drawn:
        assert options["facecolor"][0] == options["edgecolor"][0]
        assert options["facecolor"][1] <= 0.06 < options["edgecolor"][1]
        assert 0 < options["linewidth"] < 0.8
    assert len(drawn) == 4 * 5


def test_the_picture(sweep, tmp_path):
    assert main([str(sweep), "--picture", str(tmp_path / "curves.png"), "--aggregate", "mean"]) == 0
    pixels = matplotlib.image.imread(tmp_path / "curves.png")
    assert pixels.shape[0] > 500
    assert pixels.std() > 0.05
    main([str(sweep), "--picture", str(tmp_path / "curves.png"), "--aggregate", "mean"])
    again = matplotlib.image.imread(tmp_path / "curves.png")
    # the same to one level of 255: sums of numbers that lie elsewhere in memory may differ in their last bit
    np.testing.assert_allclose(again, pixels, rtol=0, atol=1.5 / 255)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "nothing is asked for: -o FILE.html writes the page, --table prints, --picture FILE.png draws"),
        (["-o", "x.pdf"], "-o must end in .html, got x.pdf"),
        (["-o", "nowhere/x.html"], "-o nowhere/x.html: there is no folder"),
        (["--table", "--steps", "0"], "--steps must be at least 1, got 0"),
        (["--table", "--bin", "-5"], "--bin must be at least 1, got -5"),
        (["--table", "--baseline", "cbq"], "--baseline must be one of none, cbp, got cbq"),
        (["--table", "--aggregate", "median"], "invalid choice: 'median'"),
    ],
)
def test_errors_teach(sweep, capsys, words, said):
    assert main([str(sweep), *words]) == 2
    assert said in capsys.readouterr().err


def test_nothing_found_is_an_error_that_teaches(tmp_path, capsys):
    assert main([str(tmp_path), "--table"]) == 2
    assert "a run's folder holds config.yaml, episodes.csv and progress.csv" in capsys.readouterr().err


def test_help_shows_examples(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    assert "python -m experiments.report runs/sac_pendulum -o report.html" in capsys.readouterr().out
