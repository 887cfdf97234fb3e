"""`python -m experiments.report RUNS -o report.html`: what some runs found, as a page, a table or a picture.

RUNS are folders; all runs in and below them are compared, those of one environment with each other. Reads only, also
while runs go on. Exit code 0; 2 where there is nothing to compare.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from experiments import errors
from experiments.analysis import Comparison, Options, Unreadable, compare, find
from experiments.analysis.comparison import AGGREGATES
from experiments.command_line import Parser, answer

PROGRAM = "python -m experiments.report"
EPILOG = """\
examples
  python -m experiments.report runs/sac_pendulum -o report.html
      one file that any browser shows, without a network
  python -m experiments.report runs --table
      the numbers in the terminal
  python -m experiments.report runs/continual_cartpole --picture curves.png
      the curves, for a page of one's own
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the process's exit code."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    return answer(lambda: _main(words), interrupted="stopped, nothing was written")


def _main(words: Sequence[str]) -> int:
    flags = _parser().parse_args(words)
    faults = []
    if not (flags.output or flags.table or flags.picture):
        faults.append("nothing is asked for: -o FILE.html writes the page, --table prints, --picture FILE.png draws")
    for name, value in {"--steps": flags.steps, "--bin": flags.bin}.items():
        if value is not None and value < 1:
            faults.append(f"{name} must be at least 1, got {value}")
    for name, path, ending in (("-o", flags.output, ".html"), ("--picture", flags.picture, ".png")):
        if path is not None and path.suffix != ending:
            faults.append(f"{name} must end in {ending}, got {path}")
        elif path is not None and not path.absolute().parent.is_dir():
            faults.append(f"{name} {path}: there is no folder {path.absolute().parent}")
    if faults:
        raise errors.BadInput(faults)
    runs, unreadable = find(flags.runs)
    comparisons = list(compare(runs, Options(flags.aggregate, flags.steps, flags.baseline, flags.bin)))
    console = Console()
    if flags.table:
        from experiments.report.terminal import tables

        for part in tables(comparisons, unreadable):
            console.print(part, highlight=False, markup=False, soft_wrap=isinstance(part, str))
    if flags.picture:
        from experiments.report.picture import draw

        draw(comparisons, flags.picture)
        _said(flags.picture, console)
    if flags.output:
        _write(flags, words, comparisons, unreadable)
        _said(flags.output, console)
    return errors.DONE


def _write(
    flags: argparse.Namespace,
    words: Sequence[str],
    comparisons: Sequence[Comparison],
    unreadable: Sequence[Unreadable],
) -> None:
    from experiments.report.page import Page, render

    title = flags.title or _title(comparisons)
    command = shlex.join([*PROGRAM.split(), *words])
    page = Page(title, flags.question, command, [str(folder) for folder in flags.runs], unreadable)
    partial = flags.output.with_suffix(".partial")
    partial.write_text(render(page, comparisons), "utf-8")
    os.replace(partial, flags.output)  # whole at every moment, also for a browser that has it open


def _title(comparisons: Sequence[Comparison]) -> str:
    names = list(dict.fromkeys(method.name for one in comparisons for method in one.methods))
    methods = " against ".join(reversed(names)) if len(names) < 3 else f"{len(names)} methods"
    where = comparisons[0].name if len(comparisons) == 1 else f"{len(comparisons)} environments"
    return f"{methods} on {where}"


def _said(path: Path, console: Console) -> None:
    console.print(f"{path} ({path.stat().st_size / 1e6:.1f} MB)", highlight=False, markup=False, soft_wrap=True)


def _parser() -> Parser:
    parser = Parser(
        prog=PROGRAM,
        allow_abbrev=False,
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUNS", help="folders of runs, or above them")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE.html", help="the page, one file")
    parser.add_argument("--table", action="store_true", help="print the numbers")
    parser.add_argument("--picture", type=Path, metavar="FILE.png", help="draw the curves")
    parser.add_argument("--title", help="of the page")
    parser.add_argument("--question", metavar="TEXT", help="that the page answers; else what differs between the runs")
    parser.add_argument("--baseline", metavar="METHOD", help="to compare with; else `none`, or the first method")
    parser.add_argument("--aggregate", choices=AGGREGATES, default="iqm", help="of runs (iqm: interquartile mean)")
    parser.add_argument("--steps", type=int, metavar="N", help="compare the first N; else as many as all methods have")
    parser.add_argument("--bin", type=int, metavar="N", help="environment steps in a point of the curves")
    return parser
