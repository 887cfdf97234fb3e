"""Write docs/environments.md, all tasks, schedules and targets: `python docs/make_environments.py`.

Numbers come from benchmarks/environment_returns.py and benchmarks/wrapper_cost.py, which write docs/data/.
"""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import gymnasium as gym

sys.path.insert(0, str(Path(__file__).parent))
from prose import inline, table

from envs import TASKS, Drift, TaskRow, parse_schedule
from envs.box2d_physics import LUNAR_LANDER
from envs.classic_control import ACROBOT, CARTPOLE, CONTINUOUS_MOUNTAIN_CAR, MOUNTAIN_CAR, PENDULUM
from envs.grammar import DRIFT, WHAT, WHEN
from envs.mujoco_targets import MUJOCO, MUJOCO_PARTS
from envs.perturbations import PERTURBATIONS
from envs.physics import make_target
from envs.target import METHODS

DOCS = Path(__file__).parent
# What the classes of physics, which serve several quantities each, cannot say in their docstrings.
PHYSICS = {
    "friction": "sliding friction of all geoms, absolute",
    "friction_scale": "sliding friction of all geoms",
    "gravity": "gravity",
    "mass": "mass and inertia of all bodies or links",
    "damping": "damping of all joints",
    "gear": "strength of all actuators",
    "gravity_direction": "gravity turned about the y-axis, in degrees: a slope",
    "push": "a steady force along x on the torso, as a multiple of the robot's weight",
    "masscart": "mass of the cart",
    "masspole": "mass of the pole",
    "length": "length of the pole or the links",
    "force_mag": "force of a push of the cart",
    "max_torque": "largest torque",
    "torque": "torque",
    "force": "force of the motor",
    "wind_power": "wind, in Gymnasium's units; needs `enable_wind=True`",
    "turbulence_power": "turbulence, in Gymnasium's units; needs `enable_wind=True`",
}
CLASSIC = {
    "CartPole": CARTPOLE,
    "Pendulum": PENDULUM,
    "Acrobot": ACROBOT,
    "MountainCar": MOUNTAIN_CAR,
    "MountainCarContinuous": CONTINUOUS_MOUNTAIN_CAR,
    "LunarLander": LUNAR_LANDER,
}


def page() -> str:
    """The page as Markdown."""
    text = (DOCS / "parts" / "environments.md").read_text("utf-8")
    written = {
        "tasks": _tasks,
        "schedules": _schedules,
        "targets": _targets,
        "methods": _methods,
        "example": _example,
        "cost": _cost,
    }
    for name, write in written.items():
        text = text.replace(f"<!-- {name} -->", write())
    return text


def _data(name: str) -> dict[str, Any]:
    return json.loads((DOCS / "data" / f"{name}.json").read_text("utf-8"))


def _tasks() -> str:
    data = _data("environment_returns")
    head = ("id", "when", "to", "random", "trained", "what changes")
    parts = []
    for title, quick in (("Published protocols and long runs", False), ("Quick ones, for tests and first looks", True)):
        rows = [
            (f"`{id}`", *_schedule(row), _random(data["random"].get(id)), _trained(data, id), _says(row))
            for id, row in TASKS.items()
            if row.quick is quick
        ]
        parts += [f"### {title}", table(head, rows)]
    versions = ", ".join(f"{name} {number}" for name, number in data["versions"].items())
    budgets: dict[str, list[str]] = {}  # by budget, the worlds that got it
    for world, numbers in data["trained"].items():
        budgets.setdefault(_budget(numbers), []).append(f"`{world}`")
    episodes = data["episodes"]
    robots = " or ".join(sorted({f"{one['steps']:,}" for name, one in data["trained"].items() if _is_robot(name)}))
    note = (
        f"*Random* is the mean return of random actions in the first {data['regimes']} regimes, in each over "
        f"{episodes['fewest']} episodes or more, until they have {episodes['steps']:,} steps or are "
        f"{episodes['most']}; in brackets the lowest and the highest mean of a regime. All regimes get the same "
        "starts and the same actions, so that the brackets show the world rather than the draw; where both ends are"
        " equal, random actions do not feel the change. *Trained* is the mean return (± standard deviation over "
        f"{data['tests']} episodes) of one agent of Stable-Baselines3, one seed, trained and tested in the first "
        "regime, frozen: what a small budget reaches before anything changes, with settings picked by hand (a "
        f"solved LunarLander has 200, and takes longer). The robots' is after {robots} steps of PPO: a short "
        "training, not a benchmark, for which they take millions (an Ant that stands still has about 1,000, since "
        "each step that it has not fallen pays 1). Most first regimes are the plain environment, so tasks share "
        "agents; where the first is drawn, a task has one of its own. `python benchmarks/environment_returns.py` "
        f"measured both, with these budgets ({versions}):"
    )
    lines = "\n".join(f"* {', '.join(worlds)}: {budget}" for budget, worlds in budgets.items())
    return "\n\n".join(["## Tasks", *parts, note, lines])


def _schedule(row: TaskRow) -> tuple[str, str]:
    text = next(iter(row.changes.values()))
    schedule = parse_schedule(text)
    if isinstance(schedule, Drift):
        return "always", f"`{text}`"
    begins = "; from the start" if schedule.first == "draw" else ""
    return f"every {schedule.start(1):,} steps", f"`{text.split('|')[1]}`{begins}"


def _says(row: TaskRow) -> str:
    names = [f"`{target}`" for target in row.changes]
    others = f" (or {', '.join(names[1:])})" if len(names) > 1 else ""
    return f"`{_plain(row.base)}`, {names[0]}{others}: {inline(row.says)}"


def _plain(base: str) -> str:
    """An id for a reader: sequences are called by that of their first task."""
    if base in gym.registry:
        return base
    (tasks,) = (row.kwargs["tasks"] for row in TASKS.values() if row.base == base)
    return str(tasks[0]["id"])


def _random(numbers: Mapping[str, Any] | None) -> str:
    if numbers is None:
        return "—"
    means = numbers["regimes"]
    return f"{_short(numbers['mean'])} ({_short(min(means))} to {_short(max(means))})"


def _trained(data: Mapping[str, Any], id: str) -> str:
    for numbers in data["trained"].values():
        if id in numbers["tasks"]:
            return f"{_short(numbers['mean'])} ± {_short(numbers['deviation'])}"
    return "—"


def _budget(numbers: Mapping[str, Any]) -> str:
    settings = [f"{key}={value}" for key, value in numbers["settings"].items()]
    settings += ["observations and rewards normalised"] * numbers["normalized"]
    return f"{numbers['algorithm']}, {numbers['steps']:,} steps, copies={numbers['copies']}, {', '.join(settings)}"


def _is_robot(world: str) -> bool:
    base = TASKS[world].base if world in TASKS else world
    return base in gym.registry and "mujoco" in str(gym.spec(base).entry_point)


def _short(value: float) -> str:
    return f"{value:.0f}".replace("-0", "0") if abs(value) >= 10 else f"{value:.2g}"


def _schedules() -> str:
    head = ("written", "such as", "what it is")
    return "\n\n".join(
        [
            "## Schedules",
            "A change is written `target=when|to` or `target=when|to|first`, where `first` is `nominal` (the "
            "environment begins as it came) or `draw` (the first regime draws a value too); a drift is "
            "`target=drift`, or `target=drift|resolution:steps` with how often it is renewed. Or as a dict: "
            '`{"target": "gravity", "when": "every:5e4", "to": "uniform:0.5,1.5", "first": "draw", "boundary": '
            '"step"}`. Numbers may be written `2e6` or `50_000`. `when` may also be `table:path.csv`, which brings '
            "its own values.",
            "### When",
            table(head, _kinds(WHEN)),
            "### To what",
            table(head, _kinds(WHAT)),
            "### Drifts",
            table(head, _kinds(DRIFT)),
        ]
    )


def _kinds(kinds: Mapping[str, tuple[str, Callable[[str], Any]]]) -> Iterable[tuple[str, str, str]]:
    for kind, (example, read) in kinds.items():
        made = read(example.partition(":")[2])
        names = [field.name for field in fields(made) if field.init and field.name != "repeat"]
        yield f"`{kind}:{','.join(names)}`" if names else f"`{kind}`", f"`{example}`", _first(type(made))


def _first(cls: Any) -> str:
    """The first paragraph of a docstring."""
    return inline(str(inspect.getdoc(cls)).split("\n\n")[0])


def _targets() -> str:
    ant = gym.make("Ant-v5")
    robots = [
        (
            f"`{name}`" + (f", `{name}:part`" if name in MUJOCO_PARTS else ""),
            PHYSICS[name],
            _range(make_target(ant, name)),
        )
        for name in MUJOCO
    ]
    classic = [
        (where, f"`{name}`", PHYSICS[name], _range(make()))
        for where, targets in CLASSIC.items()
        for name, make in targets.items()
    ]
    all_ = [(f"`{name}`", _first(make), _range(make())) for name, make in PERTURBATIONS.items()]
    return "\n\n".join(
        [
            "## Targets",
            "Values of physics are multiples of the nominal ones unless it says otherwise. What would do nothing in an "
            "environment (friction in the Swimmer, say) is refused when it is built, with the reason.",
            "### MuJoCo, v4 and v5",
            "A part is a body (`mass:torso`, `push:torso`), a joint (`damping:hip_1`) or an actuator (`gear:hip_1`).",
            table(("target", "what it is", "allowed in Ant"), robots),
            "### Classic control and LunarLander",
            table(("environment", "target", "what it is", "allowed"), classic),
            "### Any environment",
            table(("target", "what it is", "allowed"), all_),
        ]
    )


def _range(target: Any) -> str:
    low, high = getattr(target, "low", None), getattr(target, "high", None)
    if low is None and high is None:
        return "any"
    return f"{low:g} to {high:g}" if high is not None else f"from {low:g}"


def _methods() -> str:
    does = {
        "check": "raises `ValueError` on a value it cannot take",
        "reading": "what infos say of a vector, a float; else its Euclidean norm",
        "begin": "is called at each reset, before the environment's own",
        "action": "returns what the environment gets; t: the clock before the step",
        "observation": "returns what the agent sees; t: the clock after the step, or at the reset",
        "observation_space": "returns the space of those observations",
        "reward": "returns what the agent is paid",
    }
    rows = [(f"`{name}({', '.join(('self', *METHODS[name]))})`", text) for name, text in does.items()]
    return table(("method", "what it does"), rows)


def _example() -> str:
    return "```python\n" + (DOCS.parent / "examples" / "own_environment.py").read_text("utf-8").strip() + "\n```"


def _cost() -> str:
    data = _data("wrapper_cost")
    rows = [
        (
            name,
            f"{numbers['extra_us']:.1f} µs",
            f"{numbers['share']:.1%}",
            f"{numbers['low']:.1%} to {numbers['high']:.1%}",
        )
        for name, numbers in data["cases"].items()
    ]
    plain = min(numbers["step_us"] for numbers in data["cases"].values())
    return "\n\n".join(
        [
            "## What the wrapper costs",
            f"A step of `{data['problem']['environment']}` took {plain:.0f} µs without it "
            f"({data['machine']['processor']}; `python benchmarks/wrapper_cost.py`).",
            table(("wrapped with", "more a step", "share", "range over repeats"), rows).replace("-0.0%", "0.0%"),
        ]
    )


if __name__ == "__main__":
    (DOCS / "environments.md").write_text(page(), "utf-8")
