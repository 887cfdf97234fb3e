"""Search for settings with Optuna: `python -m experiments.tune agent.learning_rate='log(1e-5,1e-2)' env=ns_cartpole`.

Every trial is an ordinary run, or one for each of several seeds, of the same words that `train.py` takes. The study is
kept in its folder; the same command again goes on with it, and trials that were under way go on from their checkpoints.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import shlex
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from experiments import errors
from experiments import folder as files
from experiments.announce import tell
from experiments.command_line import Parser, answer, typed
from experiments.lock import RunLock
from experiments.stop import StopOnSignal

if TYPE_CHECKING:
    from experiments.tuning.space import Space

PROGRAM = "python -m experiments.tune"
STUDY = "study.json"
EPILOG = """\
what can be searched
{kinds}
  a,b,c  choice(a,b,c)  range(1,5): one of these
Settings of a method are searched in the trials that choose it: plasticity=none,cbp plasticity.cbp.maturity='int(1,500)'

examples
  python -m experiments.tune env=ns_cartpole experiment=none total_steps=50_000 agent.learning_rate='log(1e-5,1e-2)'
      one setting, 20 trials of one run each, as many at once as there are cores
  python -m experiments.tune env=ns_cartpole agent.learning_rate='log(1e-5,1e-2)' agent.batch_size='choice(32,64)' \\
      plasticity.cbp.replacement_rate='log(1e-6,1e-3)' --trials 30 --seeds 2
      the mean of two seeds each

With DASK_SCHEDULER_ADDRESS set, trials go to the workers of that scheduler, as sweeps do.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the process's exit code."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    return answer(lambda: _main(words), traceback="run.traceback=true" in words)


def _main(words: Sequence[str]) -> int:
    if importlib.util.find_spec("optuna") is None:
        raise errors.BadInput("searching needs Optuna, which is not installed: python -m pip install 'pliant-rl[tune]'")
    from experiments.tuning.search import MEASURES
    from experiments.tuning.space import NUMBERS, parse

    parser = Parser(
        prog=PROGRAM,
        allow_abbrev=False,
        description=__doc__,
        epilog=EPILOG.format(kinds="\n".join(f"  {text}" for text in NUMBERS.values())),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    meant = "; ".join(f"{name}: {text}" for name, text in MEASURES.items()).replace("%", "%%")
    parser.add_argument("overrides", nargs="*", metavar="WORD", help="as for train.py, those to search as below")
    parser.add_argument("--trials", type=int, default=20, metavar="N", help="all in all, earlier ones counted (20)")
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="runs of each trial, from seed= on (1)")
    parser.add_argument("--measure", choices=MEASURES, default="mean", help=f"what is to be large; {meant} (mean)")
    parser.add_argument(
        "--prune",
        action="store_true",
        help="give up trials that are below the median at a tenth of their steps; what pays late is then never seen",
    )
    parser.add_argument("--jobs", type=int, metavar="N", help="runs at once on this machine, else one for each core")
    parser.add_argument("--dashboard", action="store_true", help="serve Dask's page about the workers")
    parser.add_argument(
        "--config-dir", type=Path, action="append", default=[], metavar="DIR", help="look for choices in DIR too"
    )
    flags = parser.parse_intermixed_args(list(words))
    counts = {"--trials": flags.trials, "--seeds": flags.seeds, "--jobs": flags.jobs}
    if faults := [f"{name} must be at least 1, got {n}" for name, n in counts.items() if n is not None and n < 1]:
        raise errors.BadInput(faults)
    space, named = _checked(parse(flags.overrides, flags.config_dir))
    folder = named or _usual_folder(space, flags)
    return _search(space, folder, flags, [*PROGRAM.split(), *words])


def _checked(space: Space) -> tuple[Space, Path | None]:
    """The space, after its ends have been tried; and the folder that was typed, if one was."""
    faults: dict[str, None] = {}
    for values in space.corners():
        try:
            space.runs(values, 1)
        except errors.BadInput as error:
            faults |= dict.fromkeys(error.lines)
    if faults:
        raise errors.BadInput(faults)
    roots = [word.partition("=")[2] for word in space.words if word.startswith("run.root=")]
    return space, Path(roots[-1]) if roots else None


def _usual_folder(space: Space, flags: argparse.Namespace) -> Path:
    run = space.runs(next(space.corners()), 1)[0].folder.name
    text = json.dumps(_said(space, flags), sort_keys=True)
    agent_and_env = run.rpartition("-seed")[0].rpartition("-")[0]
    return Path("runs", f"tune-{agent_and_env}-{hashlib.sha256(text.encode()).hexdigest()[:8]}")


def _said(space: Space, flags: argparse.Namespace) -> dict[str, Any]:
    """What makes a study what it is: trials of another have no place in it."""
    searched = {one.key: [one.kind, *(one.choices or one.ends)] for one in space.dimensions}
    own = [word for word in space.words if not word.startswith("run.")]
    return {"words": own, "searched": searched, "seed": space.seed, "seeds": flags.seeds, "measure": flags.measure}


def _search(space: Space, folder: Path, flags: argparse.Namespace, command: Sequence[str]) -> int:
    from experiments.sweep.crew import Crew
    from experiments.sweep.engine import engine
    from experiments.sweep.watch import Watch, show
    from experiments.tuning import search as tuning

    console = Console()
    files.make(folder)
    if not any(word.startswith("run.root=") for word in space.words):
        space = replace(space, words=(*space.words, f"run.root={files.quoted(str(folder))}"))
    with RunLock(folder), StopOnSignal() as stop:
        _check_same(folder, _said(space, flags))
        study = tuning.open_study(folder, flags.prune)
        search = tuning.Search(study, space, flags.seeds, flags.measure, console)
        lost = at_once = False
        if len(study.trials) < flags.trials or any(not trial.state.is_finished() for trial in study.trials):
            try:
                with engine(flags.jobs, flags.trials * flags.seeds, flags.dashboard) as workers:
                    crew = Crew(workers)
                    title = f"{flags.trials:,} trials of {flags.seeds} in {folder}, {workers.where}"
                    with Watch(crew.statuses, title, console) as watch:
                        search.run(flags.trials, crew, watch, stop)
                    lost = crew.lost
            except KeyboardInterrupt:
                at_once = True
        show(tuning.summary(study, space), console)
        again = shlex.join(command)
        if stop.signal is not None:
            how = "ended at once" if at_once else f"stopped by {signal.Signals(stop.signal).name}"
            tell([f"{how}; go on with: {again}"], console)
            return 128 + stop.signal
        best = tuning.ranked(study)[:1]
        if best:
            values = space.suggest(tuning.Again(best[0].params))
            own = [word for word in space.trial_words(values) if not word.startswith("run.root=")]
            tell(["", "the best, to be trained with seeds that it has not seen"], console)
            unseen = space.seed + flags.seeds
            line = ["python", "train.py", "-m", *typed(own, space.directories), f"seed=range({unseen},{unseen + 5})"]
            tell([f"  {shlex.join(line)}"], console)
    if lost:
        raise errors.WorkersLost(again)
    if not best:
        raise errors.RunError("no trial has come to its end")
    return errors.DONE


def _check_same(folder: Path, said: dict[str, Any]) -> None:
    """Keep what the study is about, or raise `BadInput` where the folder holds another."""
    path = folder / STUDY
    plain = json.loads(json.dumps(said))
    if not path.is_file():
        path.write_text(json.dumps(plain, indent=2) + "\n", "utf-8")
        return
    old = json.loads(path.read_text("utf-8"))
    if differing := [f"{key}: {old.get(key)} -> {plain[key]}" for key in plain if old.get(key) != plain[key]]:
        raise errors.BadInput(
            [f"{folder} holds another search; choose another folder with run.root=FOLDER", *differing]
        )


if __name__ == "__main__":
    sys.exit(main())
