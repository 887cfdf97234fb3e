"""One run from validated settings to a finished folder."""

from __future__ import annotations

import textwrap
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import torch
from rich.console import Console
from rich.table import Table
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import CallbackList
from stable_baselines3.common.vec_env import VecEnv

from agents import ForgettingEvaluation, PlasticityMonitor, RegimeClock
from experiments import errors, forgetting, summary
from experiments import folder as files
from experiments.alarm_log import AlarmLog
from experiments.announce import announce
from experiments.build import build_model, device_faults, planned_steps
from experiments.environment import environment_faults, make_vec_env
from experiments.episodes import EpisodeRecorder
from experiments.plot import plot_run
from experiments.progress import ProgressBar
from experiments.schema import Config, LoggingSettings
from experiments.stop import StopOnSignal
from experiments.tensorboard import RunPage, make_logger


@dataclass(frozen=True)
class Run:
    """A configuration and how it was asked for.

    choices: group -> names chosen; words: what was typed, to be typed again; command: the whole command line.
    """

    config: Config
    choices: Mapping[str, Sequence[str]]
    words: Sequence[str]
    command: Sequence[str]

    @property
    def folder(self) -> Path:
        """Where everything about this run is kept."""
        return files.run_folder(self.config, self.choices)


def train(run: Run, console: Console | None = None) -> int:
    """Train, write the run's folder, print the summary; the exit code. Raises `RunError` where that is not possible.

    Nothing is made on disk before the settings, the environment and the folder are known to be usable.
    """
    console = console or Console()
    folder, config = run.folder, run.config
    if faults := [*device_faults(config), *environment_faults(config)]:
        raise errors.BadInput(faults)
    if (steps := files.finished_steps(folder, config)) is not None:
        console.print(
            f"{folder} is already complete ({steps:,} steps); nothing to do.",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
        console.print(
            (folder / files.SUMMARY).read_text("utf-8"), highlight=False, markup=False, soft_wrap=True, end=""
        )
        return errors.DONE
    if config.run.threads is not None:
        torch.set_num_threads(config.run.threads)
    env = make_vec_env(config)
    try:
        model = _model(config, env)
        try:
            files.create(folder, config, run.command)
        except OSError as error:
            raise errors.BadInput(f"the run folder {folder} cannot be made: {error}") from error
        announce(config, folder, env, console)
        return _learn(run, model, console)
    finally:
        _close(env)


def _model(config: Config, env: VecEnv) -> BaseAlgorithm:
    try:
        return build_model(config, env)
    except (ValueError, TypeError, AssertionError, RuntimeError, MemoryError) as error:
        sentence = textwrap.shorten(f"{type(error).__name__}: {error}", 240)
        raise errors.BadInput(f"this agent cannot be built for {config.env.id}: {sentence}") from error


def _learn(run: Run, model: BaseAlgorithm, console: Console) -> int:
    folder, config, planned = run.folder, run.config, planned_steps(run.config)
    model.set_logger(make_logger(folder, config.logging.tensorboard))
    recorder = EpisodeRecorder(folder / files.EPISODES)
    bar = ProgressBar(planned, console)
    monitor = plasticity_monitor(config.logging)
    alarms = AlarmLog(monitor, folder / files.ALARMS, console)
    stop = StopOnSignal()
    evaluation = forgetting.forgetting_evaluation(config, lambda: stop.signal is not None)
    tests = [] if evaluation is None else [evaluation]
    for test in tests:
        console.print(f"  {test.plan(planned)}", highlight=False, markup=False, soft_wrap=True)
    callbacks = CallbackList([RegimeClock(), *tests, monitor, alarms, RunPage(config), recorder, bar])
    # SAC writes a row whenever this many episodes ended; copies in step then share a row instead of repeating its step
    interval = 1 if config.agent.algorithm == "ppo" else config.env.n_envs
    status, code = "finished", errors.DONE
    try:
        with stop:
            model.learn(planned, callback=[stop, callbacks], log_interval=interval)
        if stop.signal is not None:
            status, code = "stopped", 128 + stop.signal
    except KeyboardInterrupt:
        status, code = "stopped", errors.INTERRUPTED
    except Exception as error:
        files.finish(folder, "failed", model.num_timesteps, config)
        (folder / files.ERROR_LOG).write_text(traceback.format_exc(), "utf-8")
        raise _explained(error, model, folder) from error
    finally:
        bar.close()
        recorder.close()
        for test in tests:
            test.frozen.close()
        _flush(model)
        model.logger.close()
    if monitor.probe is not None:
        files.write_probe(folder, monitor.probe)
    _conclude(run, model, recorder, alarms, evaluation, status, console)
    return code


def plasticity_monitor(settings: LoggingSettings) -> PlasticityMonitor:
    """What measures plasticity as these settings say."""
    return PlasticityMonitor(
        every=settings.monitor_every,
        probe_every=settings.probe_every,
        landscape=settings.landscape,
        histograms=settings.histograms,
        alarms=settings.alarms,
    )


def _conclude(
    run: Run,
    model: BaseAlgorithm,
    recorder: EpisodeRecorder,
    alarms: AlarmLog,
    evaluation: ForgettingEvaluation | None,
    status: str,
    console: Console,
) -> None:
    """Save the model, then the tables and the picture made from what was written."""
    folder, steps = run.folder, model.num_timesteps
    model.save(folder / files.MODEL)
    regimes = list(recorder.regimes.values())
    summary.write_regimes(folder / files.REGIMES, regimes, steps)
    title = (
        f"{run.config.agent.algorithm.upper()} on {run.config.env.id}, plasticity={','.join(run.choices['plasticity'])}"
    )
    tables: list[Table | str] = []
    if evaluation is not None:
        forgetting.write(folder, evaluation)
        tables = forgetting.summary(evaluation)
    matrix = None if evaluation is None else evaluation.results
    plot_run(folder, folder / files.PICTURE, regimes, steps, f"{title}, seed {run.config.seed}", matrix)
    files.finish(folder, status, steps, run.config)
    commands = summary.next_commands(folder, run.choices, run.words, run.config.seed)
    ended = f"{status} after {steps:,} steps"
    summary.render(folder, summary.parts(folder, regimes, ended, commands, [*tables, *alarms.summary()]), console)


def _flush(model: BaseAlgorithm) -> None:
    """Write what SAC measured since its last finished episode; PPO has just written its row."""
    pending = {key for key in model.logger.name_to_value if key.startswith(("plasticity/", "nonstationary/"))}
    if pending:
        model.logger.record("time/total_timesteps", model.num_timesteps, exclude="tensorboard")
        model.logger.dump(model.num_timesteps)


def _explained(error: Exception, model: BaseAlgorithm, folder: Path) -> errors.RunError:
    """The failure in one sentence, with the exit code of its kind."""
    sentence = textwrap.shorten(f"{type(error).__name__}: {str(error) or 'a worker process died'}", 240)
    where = f"after {model.num_timesteps:,} steps (traceback in {folder / files.ERROR_LOG})"
    finite = all(bool(torch.isfinite(parameter).all()) for parameter in model.policy.parameters())
    if not finite or "to satisfy the constraint" in str(error):  # what torch's distributions say to NaN and infinity
        return errors.NumericFailure(f"numbers are no longer finite {where}: {sentence}")
    if _passed_through(error.__traceback__, ("step_wait", "reset_wait")) or isinstance(
        error, EOFError | BrokenPipeError
    ):
        return errors.EnvironmentFailure(f"the environment failed {where}: {sentence}")
    return errors.RunError(f"training failed {where}: {sentence}")


def _passed_through(trace: TracebackType | None, functions: Sequence[str]) -> bool:
    return any(frame.f_code.co_name in functions for frame, _ in traceback.walk_tb(trace))


def _close(env: VecEnv) -> None:
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):  # a worker that died has nothing left to close
        env.close()
