"""How fast Pliant is beside its peers: `make bench`, or

python -m benchmarks                     # all rows and the scaling curves, about half an hour of two cores
python -m benchmarks --quick             # a first look, about 6 minutes; writes nothing
python -m benchmarks --only ppo --only scaling
python -m benchmarks --lop PATH          # the published code too, from a checkout at PATH

Peers live in an environment of their own, .bench-venv, which `make bench` sets up from benchmarks/peers.txt.
Contestants are child processes that take turns, one of which computes at a time: a turn of PPO is a rollout of 2048
steps and its update, one of SAC 100 steps. Each one's first turn is dropped. A ratio is the median over the rounds'
ratios, each of two turns of the same round, with its quartiles. docs/data/performance.json, docs/performance.md and two
pictures are written from the result; what `--only` leaves out stays as it is.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from benchmarks import conditions, report, scaling
from benchmarks.parts import PARTS, Plan
from benchmarks.rows import ROWS
from benchmarks.turns import ROOT, ContestantFailed

PEERS = ROOT / ".bench-venv" / "bin" / "python"
SCALING = "scaling"


def parsed(words: list[str] | None = None) -> argparse.Namespace:
    """The command line's options."""
    about, _, more = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=about,
        epilog=more,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", action="append", choices=[*ROWS, SCALING], metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--quick", action="store_true", help="a fifth of the turns; writes nothing")
    parser.add_argument("--lop", type=Path, help="a checkout of github.com/shibhansh/loss-of-plasticity")
    parser.add_argument("--peers", default=str(PEERS), help="the interpreter of the peers' environment")
    return parser.parse_args(words)


def main(words: list[str] | None = None, console: Console | None = None) -> int:
    """Measure, print, write; 1 if something could not be measured."""
    given, console = parsed(words), console or Console()
    plan = Plan(given.peers, None if given.lop is None else str(given.lop.resolve()), given.quick)
    load = os.getloadavg()[0]
    now = {"date": date.today().isoformat(), "load_before": round(load, 2)}
    try:
        found = report.merged(report.RESULT, circumstances(plan) | now, whole=not given.only)
    except report.OtherConditions as error:
        raise SystemExit(f"error: {error}") from None
    if load > 0.5:
        console.print(f"[yellow]The machine is busy (load {load:.1f}): expect wide spreads.[/]")
    wanted = set(given.only or [*ROWS, SCALING])
    failed = measure(plan, wanted, found, console)
    shown = {name for part in PARTS if wanted & {*part.rows} for name in part.rows}
    console.print(report.table({name: numbers for name, numbers in found["rows"].items() if name in shown}))
    if plan.lop is None and "ppo" in shown:
        console.print("The published code was left out: it runs with --lop PATH, a checkout of it.")
    for sentence in failed:
        console.print(f"[red]not measured:[/] {sentence}")
    if not given.quick:
        publish(found, console)
    return 1 if failed else 0


def circumstances(plan: Plan) -> dict[str, Any]:
    """What the numbers are measured on and with; raises `SystemExit` where there are no peers."""
    if not Path(plan.peers).exists():
        raise SystemExit(f"error: there is no {plan.peers}, where the peers live: make bench sets it up")
    versions = {
        who: conditions.versions_of(python) for who, python in (("ours", sys.executable), ("peers", plan.peers))
    }
    return {"machine": conditions.machine(), "versions": versions}


def measure(plan: Plan, wanted: set[str], found: dict[str, Any], console: Console) -> list[str]:
    """Put what comes out into `found`, and write it down after each part; what could not be measured."""
    failed = []
    parts = [part for part in PARTS if wanted & {*part.rows}]
    scale = (0.25 if plan.quick else 1.0) * sum(part.seconds for part in parts)
    curves = SCALING in wanted
    total = scale + curves * scaling.SECONDS * (0.25 if plan.quick else 1.0)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, speed_estimate_period=300) as bar:
        task = bar.add_task("", total=total)
        steps: list[tuple[str, float, Callable[..., Any]]] = [
            (part.rows[0], part.seconds, part.measure) for part in parts
        ]
        if curves:
            steps.append((SCALING, scaling.SECONDS, scaling.measure))
        for name, seconds, act in steps:
            length = seconds * (0.25 if plan.quick else 1.0)
            bar.update(task, description=name)
            try:
                new = act(plan, lambda share, length=length: bar.advance(task, share * length))
            except ContestantFailed as error:
                failed.append(str(error))
                continue
            if name == SCALING:
                found["scaling"] = new
            else:
                found["rows"] |= new
            if not plan.quick:
                report.write(report.RESULT, found)
    return failed


def publish(found: dict[str, Any], console: Console) -> None:
    """Write the result, the pictures and the page."""
    from benchmarks.draw import draw

    report.write(report.RESULT, found)
    draw(found, ROOT / "docs" / "images")
    subprocess.run([sys.executable, str(ROOT / "docs" / "make_performance.py")], check=True)
    console.print(f"written: {report.RESULT.relative_to(ROOT)}, docs/performance.md and its pictures")


if __name__ == "__main__":
    sys.exit(main())
