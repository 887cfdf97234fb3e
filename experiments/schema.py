"""The whole configuration as frozen dataclasses. `validate` finds every fault at once and touches no disk.

A step is an environment step, all sub-environments together, unless a field says "gradient steps".
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

from experiments.agent_settings import PPOSettings, SACSettings
from experiments.errors import BadInput
from experiments.run_settings import RunSettings
from experiments.trackers import TRACKERS
from plasticity import METHODS, method_config
from plasticity.settings import SettingsError, check, from_mapping, setting, unknown

VECTORIZATIONS = ("auto", "dummy", "batched", "subproc")
DEVICES = ("cpu", "cuda", "mps", "auto")


@dataclass(frozen=True)
class EnvSettings:
    """id: any registered one. kwargs go to `gymnasium.make`. changes: make a stationary environment non-stationary.

    vectorization: how the copies are stepped. dummy: one after the other; batched: MuJoCo's simulations at once, with
        the same results to the last bit; auto: batched where it can be, else dummy; subproc: a process each.
    schedule_seed: what the world goes through; null in a file stands for the run's seed.
    normalize_observations, normalize_rewards: by running statistics, as SB3's VecNormalize does.
    """

    id: str = ""
    n_envs: int = setting(1, within="[1, 1024]")
    vectorization: str = setting("auto", choices=VECTORIZATIONS)
    kwargs: Any = field(default_factory=dict)
    changes: Any = ()
    schedule_seed: int = setting(0, within="[0, inf)")
    boundary: str = setting("episode", choices=("episode", "step", "truncate"))
    context: str = setting("hidden", choices=("hidden", "info", "obs"))
    normalize_observations: bool = False
    normalize_rewards: bool = False

    def __post_init__(self) -> None:
        errors = [] if self.id else ["id must be given, such as env.id=Hopper-v5"]
        if not isinstance(self.kwargs, Mapping):
            errors.append(f"kwargs must be a mapping of names to values, got {self.kwargs!r}")
        if isinstance(self.changes, str | Mapping):  # one change, as in Python
            object.__setattr__(self, "changes", (self.changes,))
        if not isinstance(self.changes, list | tuple):
            errors.append(f"changes must be a change or a list of them, got {self.changes!r}")
        for name in ("kwargs", "changes"):
            errors += not_finite(getattr(self, name), name)
        try:
            check(self)
        except SettingsError as error:
            errors += error.errors
        if errors:
            raise SettingsError(errors)


@dataclass(frozen=True)
class LoggingSettings:
    """What is measured and written; none of it changes what is learned. See `agents.PlasticityMonitor`.

    monitor_every: steps between plasticity measurements; None: every rollout (PPO), every 1000 steps (SAC).
    probe_every: measurements from one plasticity probe to the next, and one after each change; None: never.
    landscape: also gradient rank, kernel rank and curvature; histograms: also of the units' age and utility.
    alarms: say when a layer loses plasticity, at once and in the summary.
    trackers: services that also get what TensorBoard gets; see `experiments.trackers`.
    """

    monitor_every: int | None = setting(None, within="[1, inf)")
    probe_every: int | None = setting(None, within="[1, inf)")
    landscape: bool = False
    histograms: bool = False
    alarms: bool = True
    tensorboard: bool = True
    trackers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        given: Any = self.trackers
        if isinstance(given, str):  # one of them
            object.__setattr__(self, "trackers", (given,))
        check(self)
        if wrong := [name for name in self.trackers if name not in TRACKERS]:
            raise SettingsError(unknown("tracker", name, TRACKERS) for name in wrong)
        if self.histograms and not self.tensorboard:
            raise SettingsError(["histograms can only be seen in TensorBoard: they need tensorboard true, got false"])


@dataclass(frozen=True)
class EvaluationSettings:
    """Tests on frozen regimes; none of it changes what is learned. See `agents.ForgettingEvaluation`.

    episodes: on each regime at the end of each regime; 0: no evaluation at all.
    regimes: those tested are 0, ..., regimes - 1; None: those met so far and the next.
    every: steps between further tests within a regime; None: none.
    fresh: also train a fresh agent on each regime, for as many steps as it lasted, to compare with.
    fraction, window: recovered is when the mean return of `window` episodes is back to this share of what it was.
    """

    episodes: int = setting(0, within="[0, inf)")
    regimes: int | None = setting(None, within="[1, inf)")
    every: int | None = setting(None, within="[1, inf)")
    fresh: bool = False
    fraction: float = setting(0.9, within="(0, 1]")
    window: int = setting(10, within="[1, inf)")

    def __post_init__(self) -> None:
        check(self)
        if self.episodes == 0:
            asked = [name for name in ("regimes", "every", "fresh") if getattr(self, name)]
            errors = [f"{name} needs evaluation.episodes of at least 1, got 0 (no evaluation)" for name in asked]
            if errors:
                raise SettingsError(errors)


@dataclass(frozen=True)
class Config:
    """A run's whole configuration. plasticity: method -> its settings, in the order in which the methods act."""

    agent: PPOSettings | SACSettings
    env: EnvSettings
    plasticity: dict[str, dict[str, Any]]
    total_steps: int
    seed: int
    device: str
    run: RunSettings
    logging: LoggingSettings
    evaluation: EvaluationSettings

    def as_dict(self) -> dict[str, Any]:
        """Plain dicts, lists and scalars, as they are written to config.yaml."""
        plain: dict[str, Any] = _plain(asdict(self))
        return plain


@dataclass(frozen=True)
class _Scalars:
    total_steps: int = setting(0, within="[1, inf)")
    seed: int = setting(0, within="[0, 4294967295]")
    device: str = setting("cpu", choices=DEVICES)

    def __post_init__(self) -> None:
        check(self)


_NOT_FINITE = re.compile(r"[+-]?\.?(nan|inf|infinity)", re.IGNORECASE)  # typed, .nan arrives as text
Section = TypeVar("Section")
SECTIONS = ("agent", "env", "plasticity", "run", "logging", "evaluation")
ALGORITHMS: dict[str, type[PPOSettings] | type[SACSettings]] = {"ppo": PPOSettings, "sac": SACSettings}


def validate(tree: Mapping[str, Any]) -> Config:
    """The configuration in `tree`, numbers converted; raises `BadInput` with one line for each fault in all of it."""
    errors: list[str] = []
    known = [*SECTIONS, *_Scalars.__dataclass_fields__]
    errors += [unknown("setting", key, known) for key in tree if key not in known]
    parts = {name: _section(tree, name, errors) for name in SECTIONS}
    if parts["env"].get("schedule_seed", 0) is None:  # the run's own seed
        parts["env"] = {**parts["env"], "schedule_seed": tree.get("seed", 0)}
    agent = _agent(parts["agent"], errors)
    env = _read(EnvSettings, parts["env"], "env", errors)
    methods = _methods(parts["plasticity"], errors)
    run = _read(RunSettings, parts["run"], "run", errors)
    logging = _read(LoggingSettings, parts["logging"], "logging", errors)
    evaluation = _read(EvaluationSettings, parts["evaluation"], "evaluation", errors)
    scalars = _read(_Scalars, {k: tree[k] for k in _Scalars.__dataclass_fields__ if k in tree}, "", errors)
    if agent is not None and env is not None:
        errors += _between_sections(agent, env, methods)
    if errors or not (agent and env and run and logging and evaluation and scalars):
        raise BadInput(dict.fromkeys(errors))
    return Config(agent, env, methods, scalars.total_steps, scalars.seed, scalars.device, run, logging, evaluation)


def not_finite(value: Any, path: str) -> Iterator[str]:
    """One sentence for each NaN or infinity in a nested value."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from not_finite(item, f"{path}.{key}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from not_finite(item, f"{path}[{index}]")
    elif (isinstance(value, float) and not math.isfinite(value)) or _NOT_FINITE.fullmatch(str(value)):
        yield f"{path} must be finite, got {value}"


def _section(tree: Mapping[str, Any], name: str, errors: list[str]) -> Mapping[str, Any]:
    value = tree.get(name)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        errors.append(f"{name} must be a mapping of settings, got {value!r}")
        return {}
    return value


def _read(cls: type[Section], settings: Mapping[str, Any], where: str, errors: list[str]) -> Section | None:
    try:
        return from_mapping(cls, settings, where)
    except SettingsError as error:
        errors += error.errors
        return None


def _agent(settings: Mapping[str, Any], errors: list[str]) -> PPOSettings | SACSettings | None:
    algorithm = settings.get("algorithm")
    if algorithm not in ALGORITHMS:
        errors.append(f"agent.{unknown('algorithm', algorithm, ALGORITHMS)}")
        return None
    return _read(ALGORITHMS[algorithm], settings, "agent", errors)


def _methods(section: Mapping[str, Any], errors: list[str]) -> dict[str, dict[str, Any]]:
    """Every method's settings, checked by its own config; unknown methods and settings are named with the nearest."""
    methods = {}
    for name, settings in section.items():
        if name not in METHODS:
            errors.append(f"plasticity: {unknown('method', name, METHODS)}")
        elif not isinstance(settings, Mapping):
            errors.append(f"plasticity.{name} must be a mapping of settings, got {settings!r}")
        else:
            try:
                config: Any = method_config(name, settings, f"plasticity.{name}")
                methods[name] = asdict(config)
            except SettingsError as error:
                errors += error.errors
    return methods


def _between_sections(agent: PPOSettings | SACSettings, env: EnvSettings, methods: Mapping[str, Any]) -> Iterator[str]:
    if methods and agent.policy == "MlpPolicy" and not agent.net_arch:
        yield f"agent.net_arch must name at least one hidden layer for {', '.join(methods)} to act on, got []"
    if isinstance(agent, PPOSettings):
        rollout = agent.n_steps * env.n_envs
        if agent.batch_size > rollout:
            yield (
                f"agent.batch_size must be at most the rollout of {rollout:,} steps "
                f"(agent.n_steps {agent.n_steps:,} x env.n_envs {env.n_envs:,}), got {agent.batch_size:,}"
            )
        elif agent.normalize_advantage and agent.batch_size < 2:
            yield "agent.batch_size must be at least 2 to normalise advantages over a minibatch, got 1"
    elif agent.batch_size > agent.buffer_size:
        yield f"agent.batch_size must be at most agent.buffer_size {agent.buffer_size:,}, got {agent.batch_size:,}"
    if isinstance(agent, SACSettings) and agent.gradient_steps == 0:
        yield "agent.gradient_steps must be at least 1, or -1 for as many as steps were taken, got 0"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
