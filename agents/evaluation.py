"""Watch forgetting and adaptation while training: a callback that tests the agent on frozen regimes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import DISABLED, KVWriter

from agents.adaptation import Adaptation, Floats, recovery_steps
from agents.clock import PREFIX
from agents.frozen import Build, Env, FrozenRegimes, Stopped

UNTRAINED = -1  # in place of the regime that was trained on


@dataclass(frozen=True)
class Evaluation:
    """The agent at one time. trained: the regime trained on, or UNTRAINED; at: start, during or end of it.

    step: environment steps. returns: tested regime -> returns of its episodes.
    """

    step: int
    trained: int
    at: str
    returns: dict[int, list[float]]


@dataclass
class Stretch:
    """A regime as it was met in training. start, end: environment steps; end: as far as training has come.

    episodes: (environment step at which it ended, return) of each; fresh: returns of a fresh agent, if one was trained.
    """

    start: int
    end: int
    episodes: list[tuple[int, float]] = field(default_factory=list)
    fresh: list[float] = field(default_factory=list)


class ForgettingEvaluation(BaseCallback):
    """Tests the agent on frozen regimes at the end of each regime it was trained on, and says what it forgot.

    A regime ends when the first sub-environment enters the next one, and at the end of training. The agent is also
    tested before its first step, for the forward transfer. `results` is all of it, as arrays; `evaluations` and
    `stretches` are what they are made from. Logged, at the step of the test, are `evaluation/return_on_regime_<j>`
    (mean of the episodes) and the numbers of `agents.Adaptation.numbers` that are known by then.
    `best` is the (environment step, average return on the regimes met) of the best test of the trained agent so far,
    logged as `evaluation/best_average_return`. `incomplete` is whether a test was given up,
    which leaves a state that no run would come to that was not stopped.

    make_env: builds a copy of the environment that is trained on, of the same schedule: with its `schedule_seed`.
    episodes: on each regime at each test, with the deterministic policy; the same starts each time.
    regimes: those tested are 0, ..., regimes - 1; None: those met so far and the next.
    every: environment steps between further tests within a regime; None: none.
    fresh: also train a fresh agent on each regime, frozen, for as many steps as it lasted: it builds one for given
        environments (stable_baselines3's VecEnv) and seed. Costs as much again as the training. None: no.
    fraction, window: see `agents.recovery_steps`. Returns are those of SB3's Monitor.
    seed: of the tests' starts and of the fresh agents; no part of the training's seeding.
    stop: asked at each step of an evaluation whether to give it up.

    Training is not disturbed: it ends with the same weights as without. An environment that drifts has no regimes:
    tests are then on the world as it began. Comes after `RegimeClock` among the callbacks.
    """

    def __init__(
        self,
        make_env: Callable[[], Env],
        episodes: int = 5,
        regimes: int | None = None,
        every: int | None = None,
        *,
        fresh: Build | None = None,
        fraction: float = 0.9,
        window: int = 10,
        seed: int = 0,
        stop: Callable[[], bool] = lambda: False,
    ):
        super().__init__()
        for name, value in {"episodes": episodes, "regimes": regimes, "every": every, "window": window}.items():
            if value is not None and value < 1:
                raise ValueError(f"{name} must be in [1, inf), got {value}")
        if not 0 < fraction <= 1:
            raise ValueError(f"fraction must be in (0, 1], got {fraction}")
        self.episodes, self.regimes, self.every, self.fresh = episodes, regimes, every, fresh
        self.fraction, self.window = fraction, window
        self.frozen = FrozenRegimes(make_env, episodes, seed, stop)
        if regimes is not None and not self.frozen.exists(regimes - 1):
            self.frozen.close()
            count = next(k for k in range(1, regimes) if not self.frozen.exists(k))
            raise ValueError(f"regimes must be in [1, {count}], all that the schedule has, got {regimes}")
        self.evaluations: list[Evaluation] = []
        self.stretches: dict[int, Stretch] = {}
        self.best: tuple[int, float] | None = None
        self.incomplete = False
        self._regime = 0
        self._last = 0  # environment steps at the last test
        self._loaded = False

    def plan(self, steps: int) -> str:
        """What will be done in a run of so many environment steps, in a sentence or two."""
        last = int(self.frozen.due(steps)[PREFIX + "regime"])
        if not self.frozen.exists(1):
            return (
                "evaluation: this world has no regimes to go back to (a drift changes it all the time), so there is "
                f"nothing to forget or to recover from; tested is the world as it was at step 0, {self._each()}"
            )
        tested = [self.regimes or k + 2 for k in range(last)] + [len(self._tested(last))]
        total = self.episodes * (sum(tested) + tested[-1] + (steps // self.every * tested[-1] if self.every else 0))
        which = f"regimes 0 to {self.regimes - 1}" if self.regimes else "the regimes met so far and the next"
        fresh = "; a fresh agent is trained on each regime, which doubles the time" if self.fresh else ""
        return (
            f"evaluation: {self._each()} on {which}, at the end of each regime ({last + 1:,} of them): "
            f"{'at most' if self.every else 'about'} {total:,} episodes in all{fresh}"
        )

    @property
    def results(self) -> Adaptation | None:
        """What is known so far; None before the first test of a trained agent."""
        latest = {one.trained: one for one in self.evaluations}
        untrained = latest.pop(UNTRAINED, None)
        if not latest:
            return None
        rows = max(latest) + 1
        columns = 1 + max(regime for one in self.evaluations for regime in one.returns)
        returns = np.full((rows, columns), math.nan)
        for trained, one in latest.items():
            returns[trained] = _row(one, columns)
        fresh, recovery = np.full(rows, math.nan), np.full(rows, math.nan)
        for regime in sorted(self.stretches.keys() & set(range(rows))):
            totals = self.stretches[regime].fresh
            fresh[regime] = np.mean(totals) if totals else math.nan
            recovery[regime] = self._recovery(regime)
        return Adaptation(returns, _row(untrained, columns), fresh, recovery)

    def _on_training_start(self) -> None:
        steps = int(self.locals["total_timesteps"])
        self._check_schedule(steps)
        if self._loaded:
            self._loaded = False
            return
        if self.num_timesteps == 0:  # from the beginning, perhaps once more
            self.evaluations.clear()
            self.stretches.clear()
            self.best = None
        applied = self.training_env.env_method("applied", indices=[0])[0]
        self._regime, self._last = int(applied[PREFIX + "regime"]), self.num_timesteps
        if self._regime < 0:
            raise ValueError("evaluation needs an environment that follows its schedule, this one is pinned to a value")
        self.stretches.setdefault(self._regime, Stretch(self.num_timesteps, self.num_timesteps))
        self.logger.info(self.plan(steps))
        if self.num_timesteps == 0:
            due = int(self.frozen.due(steps)[PREFIX + "regime"])
            self._test(UNTRAINED, "start", self._tested(due))

    def _on_step(self) -> bool:
        infos = self.locals["infos"]
        for info in infos:
            if "episode" in info:  # of the regime in force at its last step, which may lag behind
                stretch = self.stretches.get(int(info[PREFIX + "regime"]), self.stretches[self._regime])
                stretch.episodes.append((self.num_timesteps, float(info["episode"]["r"])))
        regime = max(int(info[PREFIX + "regime"]) for info in infos)
        if regime > self._regime:
            self._end()
            self._regime = regime
            self.stretches[regime] = Stretch(self.num_timesteps, self.num_timesteps)
        elif self.every is not None and self.num_timesteps - self._last >= self.every:
            self._test(self._regime, "during", self._tested(self._regime))
        return True

    def _on_training_end(self) -> None:
        self._end()

    def _end(self) -> None:
        """What there is to do at the end of a regime."""
        stretch = self.stretches[self._regime]
        stretch.end = self.num_timesteps
        self._train_fresh(stretch)
        self._test(self._regime, "end", self._tested(self._regime))

    def _recovery(self, regime: int) -> float:
        earlier = [k for k in self.stretches if k < regime]
        if not earlier:
            return math.nan
        before = [total for _, total in self.stretches[max(earlier)].episodes]
        stretch = self.stretches[regime]
        after, steps = [total for _, total in stretch.episodes], [step for step, _ in stretch.episodes]
        return recovery_steps(before, after, steps, stretch.start, fraction=self.fraction, window=self.window)

    def _train_fresh(self, stretch: Stretch) -> None:
        steps, regime = stretch.end - stretch.start, self._regime
        if self.fresh is None or steps == 0 or regime not in self._tested(regime):
            return
        try:
            agent = self.frozen.train(self.fresh, regime, steps, self.training_env.num_envs)
            stretch.fresh = self.frozen.returns(agent, [regime])[regime].tolist()
        except Stopped:
            self.incomplete = True

    def _test(self, trained: int, at: str, regimes: list[int]) -> None:
        self._last = self.num_timesteps
        try:
            found = self.frozen.returns(self.model, regimes)
        except Stopped:
            self.incomplete = True
            return
        returns = {regime: totals.tolist() for regime, totals in found.items()}
        self.evaluations.append(Evaluation(self.num_timesteps, trained, at, returns))
        numbers = {f"return_on_regime_{regime}": float(np.mean(totals)) for regime, totals in found.items()}
        results = self.results
        known = {} if results is None else {k: v for k, v in results.numbers().items() if not math.isnan(v)}
        if "average_return" in known:
            average = known["average_return"]
            if self.best is None or average > self.best[1]:
                self.best = (self.num_timesteps, average)
            known["best_average_return"] = self.best[1]
        numbers |= known
        self._write({f"evaluation/{name}": value for name, value in numbers.items()})

    def _write(self, numbers: dict[str, float]) -> None:
        """To the logger's outputs, at this very step: its own next row may be thousands of steps away, or none."""
        if self.logger.level == DISABLED:
            return
        step = "time/total_timesteps"
        excluded: dict[str, tuple[str, ...]] = {
            name: ("stdout",) if "return_on_regime" in name else () for name in numbers
        }  # there may be too many of them for the console
        excluded[step] = ("tensorboard",)
        for output in self.logger.output_formats:
            if isinstance(output, KVWriter):
                output.write({**numbers, step: self.num_timesteps}, excluded, self.num_timesteps)

    def _tested(self, regime: int) -> list[int]:
        """The regimes to test at the end of one."""
        if self.regimes is not None:
            return list(range(self.regimes))
        return list(range(regime + 1 + self.frozen.exists(regime + 1)))

    def _each(self) -> str:
        return f"{self.episodes} episode{'s' * (self.episodes > 1)}"

    def _check_schedule(self, steps: int) -> None:
        if not self.training_env.has_attr("due"):
            raise ValueError("evaluation needs an environment that changes to be trained on, this one is stationary")
        for step in (0, steps):
            ours, theirs = self.frozen.due(step), self.training_env.env_method("due", step, indices=[0])[0]
            if ours != theirs:
                raise ValueError(
                    f"make_env builds an environment of another schedule: at step {step:,} {ours} is due there, and "
                    f"{theirs} where the agent is trained; give both the same schedule_seed"
                )

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint of a run must keep: plain numbers and text."""
        return {
            "evaluations": [asdict(one) for one in self.evaluations],
            "stretches": {regime: _packed(stretch) for regime, stretch in self.stretches.items()},
            "best": self.best,
            "regime": self._regime,
            "last": self._last,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken; the `learn` to come tests nothing at its start."""
        self.evaluations = [Evaluation(**one) for one in state["evaluations"]]
        self.stretches = {regime: _unpacked(stretch) for regime, stretch in state["stretches"].items()}
        self.best, self._regime, self._last = state["best"], state["regime"], state["last"]
        self._loaded = True


def _packed(stretch: Stretch) -> dict[str, Any]:
    """Plain numbers, the episodes as two lists: there may be hundreds of thousands."""
    steps, returns = [step for step, _ in stretch.episodes], [total for _, total in stretch.episodes]
    return {"start": stretch.start, "end": stretch.end, "steps": steps, "returns": returns, "fresh": stretch.fresh}


def _unpacked(state: dict[str, Any]) -> Stretch:
    episodes = list(zip(state["steps"], state["returns"], strict=True))
    return Stretch(state["start"], state["end"], episodes, list(state["fresh"]))


def _row(one: Evaluation | None, columns: int) -> Floats:
    row = np.full(columns, math.nan)
    for regime, totals in ({} if one is None else one.returns).items():
        row[regime] = np.mean(totals)
    return row
