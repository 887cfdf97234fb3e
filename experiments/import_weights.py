"""Begin a run with the weights of an SB3 zip: `python -m experiments.import_weights ZIP [words of train.py]`.

The file is read as tensors only, so a stranger's can do no harm, and must fit the agent that the words describe, as
they would describe it to `python train.py`. The new run's folder gets a checkpoint of step 0 with these weights; the
command that is printed then trains from there.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from stable_baselines3.common.base_class import BaseAlgorithm

from experiments import errors
from experiments import folder as files
from experiments.agent_settings import SACSettings
from experiments.announce import tell
from experiments.command_line import Parser, answer, configuration, typed
from experiments.foreign_weights import Weights, put_into, read
from experiments.resume import WAYS, Found
from experiments.run import ORIGIN, Run, assembled, build, occupied
from experiments.schema import Config

PROGRAM = "python -m experiments.import_weights"
NOT_TAKEN = """\
not taken: methods' counters, schedules and step counts, which begin anew; SAC's replay buffer and entropy coefficient;
the statistics of VecNormalize, which SB3 keeps in a pickle of their own.

examples
  python -m experiments.import_weights model.zip agent=ppo env=slippery_ant agent.net_arch=[64,64] agent.activation=tanh
      SB3's own PPO, whose networks are tanh networks of 64 units, on Slippery Ant with continual backprop
  python -m experiments.import_weights model.zip agent=sac env=gym env.id=Hopper-v5 plasticity=none --optimizer
      SAC as SB3 trains it, with Adam's moments
  python -m experiments.import_weights runs/RUN/model.zip env=ns_pendulum agent=sac run.dir=runs/second
      the end of one run of ours as the beginning of another

If the networks do not fit, what differs is listed, with the settings that would fit.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the process's exit code."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    return answer(lambda: _main(words), traceback="run.traceback=true" in words)


def _main(words: Sequence[str]) -> int:
    parser = Parser(
        prog=PROGRAM,
        allow_abbrev=False,
        description=__doc__,
        epilog=NOT_TAKEN,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("zip", type=Path, metavar="ZIP", help="written by SB3's model.save, or a run's model.zip")
    parser.add_argument("overrides", nargs="*", metavar="WORD", help="as for train.py: agent=sac agent.gamma=0.9 ...")
    parser.add_argument("--optimizer", action="store_true", help="take Adam's moments and step counts too")
    parser.add_argument(
        "--config-dir", type=Path, action="append", default=[], metavar="DIR", help="look for choices in DIR too"
    )
    flags = parser.parse_intermixed_args(list(words))
    weights = read(flags.zip)
    config, choices = configuration(flags.overrides, flags.config_dir)
    again = typed(flags.overrides, flags.config_dir)
    if config.run.dir is None:  # the usual folder is that of the run that begins with weights of its own
        usual = files.run_folder(config, choices)
        folder = str(usual.with_name(f"{usual.name}-from-{re.sub('[^A-Za-z0-9_.+-]+', '-', flags.zip.stem)}"))
        config = replace(config, run=replace(config.run, dir=folder))
        again.append(f"run.dir={files.quoted(folder)}")
    asked = [*typed(flags.overrides, flags.config_dir), *(["--optimizer"] if flags.optimizer else [])]
    run = Run(config, choices, again, [*PROGRAM.split(), str(flags.zip), *asked])
    return begin(run, weights, flags.optimizer, Console())


def begin(run: Run, weights: Weights, optimizer: bool, console: Console) -> int:
    """Make the run's folder, and a checkpoint of step 0 with these weights; the exit code."""
    folder, config = run.folder, run.config
    with occupied(run) as stop:
        if files.used(folder) and not config.run.overwrite:
            raise errors.BadInput(f"{folder} is not empty, and imported weights begin a new run: {WAYS}")

        def prepare(model: BaseAlgorithm) -> Mapping[str, Any]:
            env = model.env
            assert env is not None
            put_into(model, weights, config, lambda other: build(other, env), optimizer)
            return {ORIGIN: {"file": weights.path.name, "sha256": weights.sha256, "optimizer": optimizer}}

        with assembled(run, Found(), stop, console, prepare) as session:
            try:
                session.save_start()
            except Exception as error:
                raise session.failed(error) from error
            files.finish(folder, "stopped", 0, config)
    tell(["", *_what_was_done(weights, config, optimizer), "", "what to type next", f"  {run.again}"], console)
    return errors.DONE


def _what_was_done(weights: Weights, config: Config, optimizer: bool) -> Iterator[str]:
    steps = weights.said.get("num_timesteps")
    trained = f", trained for {steps:,} steps" if isinstance(steps, int) else ""
    moments = " and Adam's moments" if optimizer else ""
    yield f"{config.run.dir} holds step 0 of a new run with the weights{moments} of {weights.path}{trained}"
    yield f"  SHA-256 {weights.sha256}, kept in the manifests of its checkpoints"
    if weights.activation is None:
        yield f"  the file does not say its activation; this run has agent.activation={config.agent.activation}"
    if isinstance(config.agent, SACSettings):
        start = config.agent.learning_starts
        yield f"  the replay buffer is empty: the first {start:,} steps act at random (agent.learning_starts)"
    if config.env.normalize_observations:
        yield "  observations are normalised by statistics that begin anew, and the weights may know others"


if __name__ == "__main__":
    sys.exit(main())
