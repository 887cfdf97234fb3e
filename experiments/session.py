"""A run while it trains: the agent, all that watches it, and what is left when it ends in whatever way."""

from __future__ import annotations

import textwrap
import traceback
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback, CallbackList
from stable_baselines3.common.vec_env import unwrap_vec_wrapper

from agents import GradientGuard, PlasticityMonitor, RegimeClock
from experiments import errors, forgetting, summary
from experiments import folder as files
from experiments.alarm_log import AlarmLog
from experiments.announce import tell
from experiments.build import planned_steps
from experiments.checkpoint.pieces import Stateful, Training, put
from experiments.checkpoint.replay import Segments
from experiments.checkpoint.saver import Saver
from experiments.checkpoint.store import Checkpoint, Store
from experiments.episodes import EpisodeRecorder
from experiments.growing import Losses
from experiments.guard import Guard
from experiments.logs import make_logger
from experiments.normalization import write_normalization
from experiments.plot import plot_run
from experiments.progress import ProgressBar
from experiments.schema import LoggingSettings
from experiments.stop import StopOnSignal
from experiments.tensorboard import RunPage
from experiments.trackers import output as trackers

if TYPE_CHECKING:
    from experiments.run import Run


class Session:
    """Puts a run together, and back to where `checkpoint` was taken; facts: what manifests say of this process."""

    def __init__(
        self,
        run: Run,
        model: BaseAlgorithm,
        console: Console,
        stop: StopOnSignal,
        checkpoint: Checkpoint | None,
        facts: Mapping[str, Any],
    ):
        self.run, self.model, self.console, self.stop = run, model, console, stop
        folder, config = run.folder, run.config
        env = model.env
        assert env is not None
        self.planned = planned_steps(config)
        self.losses = Losses(lambda sentence: tell([f"warning: {sentence}"], console))
        told = trackers.about(config, folder, run.choices["plasticity"])
        self.trackers = trackers.Trackers(config.logging.trackers, told, lambda line: tell([f"  {line}"], console))
        others = [self.trackers] if config.logging.trackers else []
        self.logger = make_logger(folder, config.logging.tensorboard, self.losses, others)
        model.set_logger(self.logger)
        guard = unwrap_vec_wrapper(env, Guard)
        assert guard is not None
        self.guard = guard
        self.recorder = EpisodeRecorder(folder / files.EPISODES, self.losses)
        self.bar = ProgressBar(self.planned, console)
        self.monitor = plasticity_monitor(config.logging)
        self.alarms = AlarmLog(self.monitor, folder / files.ALARMS, console, self.losses)
        self.clock = RegimeClock()
        self.evaluation = forgetting.forgetting_evaluation(config, stop.asked)
        self.training = Training(model, self._parts(), Segments(folder))
        store = Store(folder, config.run.checkpoint.keep)
        settings = config.run.checkpoint
        self.saver = Saver(
            self.training, store, settings, facts, stop.asked, self.is_complete, self._growing, checkpoint
        )
        if checkpoint is not None:
            env.reset()
            put(self.training, checkpoint.read())
            tell([f"  going on from step {model.num_timesteps:,} of {self.planned:,}"], console)

    @property
    def saved(self) -> str:
        """How far the newest checkpoint goes, and the command that goes on from there."""
        if self.saver.saved is None:
            return f"before anything was saved; begin again with: {self.run.again}"
        return f"saved at step {self.saver.saved.step:,}; go on with: {self.run.again}"

    @property
    def at_end(self) -> bool:
        """Whether all steps have been taken."""
        return self.model.num_timesteps >= self.planned

    def is_complete(self) -> bool:
        """Whether all that belongs to the steps so far has been done."""
        return self.evaluation is None or not self.evaluation.incomplete

    def learn(self) -> bool:
        """Train to the end, or to where it is asked to stop; whether it came to the end."""
        config, model = self.run.config, self.model
        tests = [] if self.evaluation is None else [self.evaluation]
        for test in tests:
            tell([f"  {test.plan(self.planned)}"], self.console)
        self.trackers.begin()
        watchers = [
            _SavedAtEnd(self),
            self.clock,
            *tests,
            self.monitor,
            self.alarms,
            RunPage(config),
            self.recorder,
            self.bar,
        ]
        # SAC writes a row whenever this many episodes ended; copies in step then share a row, not repeat its step
        interval = 1 if config.agent.algorithm == "ppo" else config.env.n_envs
        resumed = self.saver.saved is not None
        model.between_rollouts = self.saver  # type: ignore[attr-defined]
        try:
            steps = self.planned - model.num_timesteps
            model.learn(steps, CallbackList(watchers), log_interval=interval, reset_num_timesteps=not resumed)
            if self.at_end:
                _flush(model)
        finally:
            model.between_rollouts = None  # type: ignore[attr-defined]
            self.bar.close()
            self.recorder.close()
            for test in tests:
                test.frozen.close()
            model.logger.close()
            self.saver.close()
        return self.at_end and (self.is_complete() or not self.stop.asked())

    def save_start(self) -> None:
        """Save the run as it is before its first step, and take none."""
        self.saver.stopping = lambda: True
        self.learn()

    def failed(self, error: Exception) -> errors.RunError:
        """Record a failure; it in a sentence or two, with the exit code of its kind."""
        folder, steps = self.run.folder, self.model.num_timesteps
        with suppress(OSError):  # on a full disk what is printed has to do
            files.finish(folder, "failed", steps, self.run.config)
            (folder / files.ERROR_LOG).write_text("".join(traceback.format_exception(error)), "utf-8")
        self.trackers.end("failed")
        explained = _explained(error, f"after {steps:,} steps (traceback in {folder / files.ERROR_LOG})")
        if self.saver.saved is not None:
            explained.resume = f"{self.run.again}  # from step {self.saver.saved.step:,}"
        return explained

    def conclude(self, status: str) -> None:
        """Save the model, then the tables and the picture made from what was written."""
        run, model = self.run, self.model
        folder, config, steps = run.folder, run.config, model.num_timesteps
        model.save(folder / files.MODEL)
        assert model.env is not None
        write_normalization(folder, model.env)
        if self.monitor.probe is not None:
            files.write_probe(folder, self.monitor.probe)
        regimes = list(self.recorder.regimes.values())
        summary.write_regimes(folder / files.REGIMES, regimes, steps)
        methods = ",".join(run.choices["plasticity"])
        title = f"{config.agent.algorithm.upper()} on {config.env.id}, plasticity={methods}, seed {config.seed}"
        tables: list[Table | str] = []
        if self.evaluation is not None:
            forgetting.write(folder, self.evaluation)
            tables += forgetting.summary(self.evaluation)
        matrix = None if self.evaluation is None else self.evaluation.results
        plot_run(folder, folder / files.PICTURE, regimes, steps, title, matrix)
        gaps = self.losses.as_dict()
        files.finish(folder, status, steps, config, **self.guard.counts, **({"gaps": gaps} if gaps else {}))
        self.trackers.end(status)
        more = [*tables, *self.alarms.summary(), *self.guard.summary(), *self.losses.summary()]
        commands = summary.next_commands(folder, run.choices, run.words, config.seed)
        ended = f"{status} after {steps:,} steps"
        summary.render(folder, summary.parts(folder, regimes, ended, commands, more), self.console)

    def _growing(self) -> list[Path]:
        """The files that a checkpoint says how far they go."""
        return [*self.logger.paths(), self.recorder.path]

    def _parts(self) -> dict[str, Stateful]:
        parts: dict[str, Stateful] = {
            "clock": self.clock,
            "monitor": self.monitor,
            "recorder": self.recorder,
            "guard": self.guard,
            "gradients": GradientGuard(self.model),
            "losses": self.losses,
        }
        return parts if self.evaluation is None else parts | {"evaluation": self.evaluation}


class _SavedAtEnd(BaseCallback):
    """Saves a run that has come to its end before anything is done there that a longer run would not do."""

    def __init__(self, session: Session):
        super().__init__()
        self.session = session

    def _on_step(self) -> bool:
        return True

    def _on_training_end(self) -> None:
        if self.session.at_end and self.session.is_complete():
            self.session.saver.save()


def plasticity_monitor(settings: LoggingSettings) -> PlasticityMonitor:
    """What measures plasticity as these settings say."""
    return PlasticityMonitor(
        every=settings.monitor_every,
        probe_every=settings.probe_every,
        landscape=settings.landscape,
        histograms=settings.histograms,
        alarms=settings.alarms,
    )


def _flush(model: BaseAlgorithm) -> None:
    """Write what SAC measured since its last finished episode; PPO has just written its row."""
    pending = {key for key in model.logger.name_to_value if key.startswith(("plasticity/", "nonstationary/"))}
    if pending:
        model.logger.record("time/total_timesteps", model.num_timesteps, exclude="tensorboard")
        model.logger.dump(model.num_timesteps)


def _explained(error: Exception, where: str) -> errors.RunError:
    """The failure in one sentence, with the exit code of its kind."""
    if isinstance(error, errors.EnvironmentFailure):
        return errors.EnvironmentFailure(f"{error}, {where}")
    if isinstance(error, errors.RunError):
        return error
    sentence = textwrap.shorten(f"{type(error).__name__}: {error}", 240)
    if isinstance(error, FloatingPointError):
        return errors.NumericFailure(f"{error}, {where}")
    if "to satisfy the constraint" in str(error):  # what torch's distributions say to NaN and infinity
        return errors.NumericFailure(f"numbers are no longer finite {where}: {sentence}")
    return errors.RunError(f"training failed {where}: {sentence}")
