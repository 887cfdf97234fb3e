"""What the report says of a trend over regimes: not better or worse where the start may be all there is to it."""

from __future__ import annotations

import html
from functools import partial

import pytest

from experiments.analysis import compare, find
from experiments.report import sentences
from experiments.report.command import main
from experiments.report.rows import blocks
from tests.experiments.run_folders import config, write_run


def return_at(regimes, seed, step):
    return regimes[(step - 1) // 250] + 5 * seed


def trends(path, returns):
    """Runs of `none`, which learns at first and loses it, and of `l2`: regime -> return."""
    for seed in range(5):
        for name, of in (("none", (400, 200, 100, 100)), ("l2", returns)):
            write_run(path / f"{name}-{seed}", config(name, seed), partial(return_at, of, seed))
    (comparison,) = compare(find([path])[0])
    l2 = comparison.methods[1]
    told = [text for _, text in sentences.findings(comparison) if text.startswith("Trend over regimes")]
    block = next(one for one in blocks(comparison) if one.measure.name == "regime_slope")
    assert l2.name == block.rows[1].method == "l2"
    return " ".join(told), block


def test_a_trend_that_starts_low_is_not_called_better(tmp_path):
    told, block = trends(tmp_path, (80, 20, 20, 20))
    why = (
        "The trend does not say that l2 is better: its first regime is already below none's (mean difference by seed "
        "−320 [−320, −320]), so it has less to lose."
    )
    assert told == (
        "Trend over regimes: l2 is above none (mean difference by seed +82.0, 95 % interval [+82.0, +82.0] over "
        f"5 seeds, excludes 0). {why}"
    )
    cell = block.rows[1].cell
    assert (cell.mark, cell.kind) == ("▲", "other")
    assert cell.verdict == f"above none: the interval of the difference by seed excludes 0. {why}".rstrip(".")
    assert block.rows[1].probability == ""
    assert block.caveats == [why]
    out = tmp_path / "report.html"
    assert main([str(tmp_path), "-o", str(out)]) == 0
    text = html.unescape(out.read_text())
    assert text.count(f"excludes 0). {why}</li>") == 1  # among the findings
    assert text.count(f'<p class="note">{why}</p>') == 1  # below the measure
    assert text.count(f'<span class="sr"> {cell.verdict}</span>') == 1  # in the table


def test_a_trend_that_starts_high_is_not_called_worse(tmp_path):
    told, block = trends(tmp_path, (900, 200, 100, 100))
    assert "which is worse" not in told
    assert "does not say that l2 is worse: its first regime is above none's" in told
    assert block.rows[1].cell.kind == "other"


@pytest.mark.parametrize(
    ("returns", "kind"),
    [
        ((400, 300, 300, 300), "better"),  # from the same start
        ((300, 300, 300, 300), "better"),  # from below to above
        ((450, 450, 450, 450), "better"),  # from above
        ((400, 100, 20, 20), "worse"),
        ((450, 100, 20, 20), "worse"),  # from above to below
    ],
)
def test_a_trend_that_the_start_does_not_explain_is_better_or_worse(tmp_path, returns, kind):
    told, block = trends(tmp_path, returns)
    assert f"which is {kind} (" in told
    assert told.endswith("excludes 0).")
    assert block.rows[1].cell.kind == kind
    assert block.rows[1].probability
    assert not block.caveats
