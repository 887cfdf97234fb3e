"""Watch the agent of a run: `python -m experiments.play RUN`, a table of returns on frozen regimes and a film.

The agent is the run's at its end, or at its newest checkpoint if it has not ended. It plays in copies of the run's
environment that stand still in a regime of its schedule; it does not learn. The folder's own files stay as they are.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from agents.frozen import FrozenRegimes, Played
from envs.renderer import set_aside_renderer
from envs.snapshot import is_mujoco
from experiments import errors
from experiments import folder as files
from experiments.announce import tell
from experiments.command_line import Parser, answer
from experiments.playing import regimes as which
from experiments.playing import table, video
from experiments.playing.agent import Trained, load

EXAMPLES = """\
examples
  python -m experiments.play runs/RUN
      ten episodes in each of the last ten regimes that the run met, and a film
  python -m experiments.play runs/RUN --regimes 0,3,8-11 --episodes 30 --no-video
      certain regimes, also some that the run has not met yet
  python -m experiments.play runs/RUN --checkpoint 250000 --stochastic --video first.gif
      an earlier agent, exploring as it did in training
"""
MEANING = "steps: mean length; in training: mean return of the last tenth of the run's episodes in that regime"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the process's exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    return answer(lambda: _main(words), interrupted="stopped before all episodes were played")


def _main(words: Sequence[str]) -> int:
    flags = _parser().parse_args(words)
    if flags.episodes < 1:
        raise errors.BadInput(f"--episodes must be at least 1, got {flags.episodes}")
    if flags.seed is not None and flags.seed < 0:
        raise errors.BadInput(f"--seed must be at least 0, got {flags.seed}")
    console, renderer = Console(), set_aside_renderer()
    out = flags.out or flags.run / files.PLAYED
    film = None if flags.no_video else video.target(out, flags.video)
    trained = load(flags.run, flags.checkpoint)
    try:
        rows = _play(trained, flags, console)
        _make(out, film)
        _write(out, rows, trained, flags)
        console.print(table.table(rows, _policy(flags)))
        why = _film(trained, [row.regime for row in rows], film, flags, renderer, console)
    finally:
        trained.close()
    written = [table.NAME, *([film.name] if film is not None and why is None and film.parent == out else [])]
    lines = [MEANING]
    lines += [why] if why else []
    lines += ["", f"written to {out}: {', '.join(written)}"]
    lines += [f"film: {film}"] if film is not None and why is None and film.parent != out else []
    lines += ["", "what to type next", *(f"  {command}  # {does}" for command, does in _next(flags, trained, rows))]
    tell(lines, console)
    return errors.DONE


def _parser() -> Parser:
    parser = Parser(
        prog="python -m experiments.play",
        allow_abbrev=False,
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="the folder of a run")
    parser.add_argument(
        "--regimes", metavar="WHICH", help="such as 0,3 or 0-9; all: those the run met; default: the last ten of them"
    )
    parser.add_argument("--episodes", type=int, default=10, metavar="N", help="in each regime; default: 10")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--deterministic", action="store_true", help="take the most likely actions (the default)")
    how.add_argument("--stochastic", action="store_true", help="draw actions, as in training")
    parser.add_argument(
        "--seed", type=int, metavar="N", help="of the starts; default: the run's, as its evaluation has"
    )
    parser.add_argument(
        "--checkpoint", type=int, metavar="STEP", help="the agent as it was then; see experiments.inspect"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help=f"for the table and the film; default: RUN/{files.PLAYED}"
    )
    film = parser.add_mutually_exclusive_group()
    film.add_argument("--video", type=Path, metavar="FILE", help=f"of the film, {' or '.join(video.FORMATS)}")
    film.add_argument("--no-video", action="store_true", help="only the table")
    return parser


def _policy(flags: argparse.Namespace) -> str:
    return "stochastic" if flags.stochastic else "deterministic"


def _seed(flags: argparse.Namespace, trained: Trained) -> int:
    return trained.config.seed if flags.seed is None else int(flags.seed)


def _play(trained: Trained, flags: argparse.Namespace, console: Console) -> list[table.Row]:
    config, seed = trained.config, _seed(flags, trained)
    torch.set_num_threads(1)  # the networks of one step are too small for more
    torch.manual_seed(seed)
    frozen = FrozenRegimes(lambda: which.make_frozen(config.env), flags.episodes, seed, lambda: False)
    try:
        chosen = which.chosen(flags.regimes, trained.met, frozen)
        tell(_plan(trained, frozen), console)
        env = which.make_frozen(config.env)
        values = which.values(frozen, env, chosen)
        env.close()
        episodes = list(_bar(frozen, trained, chosen, flags, console))
    finally:
        frozen.close()
    training = which.in_training(trained)
    return [table.Row(k, values[k], [one for one in episodes if one.regime == k], training.get(k)) for k in chosen]


def _plan(trained: Trained, frozen: FrozenRegimes) -> Iterator[str]:
    config = trained.config
    methods = ", ".join(config.plasticity) or "no method"
    yield f"{config.agent.algorithm.upper()} with {methods} on {config.env.id}, seed {config.seed}: {trained.source}"
    if not frozen.exists(1):
        yield "  this world has no regimes to choose from; it is played as it was at step 0"


def _bar(
    frozen: FrozenRegimes, trained: Trained, regimes: list[int], flags: argparse.Namespace, console: Console
) -> Iterator[Played]:
    with _progress(console) as bar:
        task = bar.add_task("episodes", total=len(regimes) * flags.episodes)
        for one in frozen.play(trained.model, regimes, deterministic=not flags.stochastic):
            yield one
            bar.advance(task)


def _progress(console: Console) -> Progress:
    """A bar on a terminal, gone when it is done; nothing elsewhere."""
    columns = (TextColumn("{task.percentage:>3.0f} %"), BarColumn(bar_width=24), TextColumn("{task.description}"))
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _make(out: Path, film: Path | None) -> None:
    for folder in (out, *([film.parent] if film is not None else [])):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise errors.BadInput(
                f"{folder} cannot be made: {error.strerror}; choose another with --out DIR"
            ) from error


def _write(out: Path, rows: list[table.Row], trained: Trained, flags: argparse.Namespace) -> None:
    try:
        table.write(out / table.NAME, rows, trained.step, _policy(flags))
    except OSError as error:
        raise errors.StorageFailure(f"{out / table.NAME} cannot be written: {error.strerror or error}") from error


def _film(
    trained: Trained,
    regimes: list[int],
    film: Path | None,
    flags: argparse.Namespace,
    renderer: str | None,
    console: Console,
) -> str | None:
    if film is None:
        return None
    shown = video.filmed(regimes)
    assert trained.model.env is not None
    mujoco = is_mujoco(trained.model.env.unwrapped.envs[0])  # type: ignore[attr-defined]
    if len(shown) < len(regimes):
        tell([f"the film shows {len(shown)} of the {len(regimes)} regimes"], console)
    with _progress(console) as bar:
        task = bar.add_task("filming", total=None)

        def progress(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        seed, deterministic = _seed(flags, trained), not flags.stochastic
        return video.make_film(
            flags.run, flags.checkpoint, shown, seed, deterministic, film, mujoco, progress, renderer
        )


def _next(flags: argparse.Namespace, trained: Trained, rows: list[table.Row]) -> Iterator[tuple[str, str]]:
    play = ["python", "-m", "experiments.play", str(flags.run)]
    ahead = max(row.regime for row in rows) + 1
    if rows[0].values and flags.regimes is None:
        yield shlex.join([*play, "--regimes", f"{ahead}-{ahead + 4}"]), "regimes it has not met"
    if not flags.stochastic:
        yield shlex.join([*play, "--stochastic"]), "exploring, as it does in training"
    yield shlex.join(["python", "-m", "experiments.inspect", str(flags.run)]), "its checkpoints, and how to go on"


if __name__ == "__main__":
    sys.exit(main())
