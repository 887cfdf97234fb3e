"""The command `python -m envs.show`: the schedule, its picture, what it does, and a short video."""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import sys
import textwrap
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import gymnasium as gym

from envs.changes import parse_changes
from envs.nonstationary import NonStationary
from envs.parsing import parse_count, parse_steps
from envs.renderer import set_aside_renderer
from envs.show.request import Request, parse_settings
from envs.snapshot import is_mujoco
from envs.tasks import TASKS

DONE, BAD_INPUT = 0, 2
PIPED_WIDTH = 100
REGIMES = 4  # that the video shows
CHOICES = Path(__file__).parents[2] / "configs" / "env"
COLOUR_CODE = "\x1b\\[[0-9;]*m"  # which gymnasium puts around its warnings
DESCRIPTION = """\
Look at what an environment will go through before anything is trained on it: when it changes and to what, as a table
and a picture; what that does, measured (the friction of real contacts, one step from one state); and a short video."""
EXAMPLES = (
    ("python -m envs.show SlipperyAnt-v5", "a registered task, ten changes or so"),
    ("python -m envs.show SlipperyAnt-v5 --steps 2e7 --schedule-seed 3", "what seed 3 brings in 20 million steps"),
    ("python -m envs.show NSCartPole-v1 --set period=5e3 --set target=masspole --no-video", "keyword arguments"),
    ("python -m envs.show Hopper-v5 --change 'gravity=every:5e4|uniform:0.5,1.5'", "any environment, made to change"),
    (
        "python -m envs.show Ant-v5 --change 'friction=every:1e5|loguniform:0.02,2' --change gravity=sine:5e5,0.6,1.4",
        "several changes at once, one of them a drift",
    ),
    ("python -m envs.show my_module:MyEnv-v0", "an environment of one's own: importing my_module registers it"),
)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message}; see python -m envs.show --help")


def main(words: Sequence[str] | None = None) -> int:
    """Do what the words say; the exit code. Faults go to stderr, one line each."""
    renderer = set_aside_renderer()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            flags = _parser().parse_args(words)
            request, env, wrapper, steps = _prepare(flags)
        except ValueError as error:
            print(f"error: {error}", file=sys.stderr)
            return BAD_INPUT
    for text in dict.fromkeys(str(one.message) for one in caught if issubclass(one.category, UserWarning)):
        print(f"warning: {re.sub(COLOUR_CODE, '', text).removeprefix('WARN: ')}", file=sys.stderr)
    try:
        _show(request, env, wrapper, steps, flags.out, video=not flags.no_video, renderer=renderer)
    finally:
        env.close()
    return DONE


def _parser() -> argparse.ArgumentParser:
    examples = "\n".join(f"  {what}\n    {command}" for command, what in EXAMPLES)
    ours = textwrap.fill(", ".join(TASKS), 100, initial_indent="  ", subsequent_indent="  ")
    parser = _Parser(
        prog="python -m envs.show",
        description=DESCRIPTION,
        epilog=f"examples:\n{examples}\n\nregistered here:\n{ours}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("id", help="a registered id, or module:Id-v0")
    parser.add_argument(
        "--change", action="append", default=[], metavar="TARGET=WHEN|TO", help="make a stationary environment change"
    )
    parser.add_argument("--steps", help="how far to look, environment steps of all copies together; about ten changes")
    parser.add_argument("--schedule-seed", metavar="SEED", help="the seed of the schedule; 0")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="a keyword argument of the environment"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/show"), metavar="DIR", help="for pictures; runs/show")
    parser.add_argument("--no-video", action="store_true", help="leave the video out")
    return parser


def _prepare(flags: argparse.Namespace) -> tuple[Request, gym.Env[Any, Any], NonStationary, int | None]:
    settings = parse_settings(flags.set)
    steps = None if flags.steps is None else parse_steps("--steps", flags.steps)
    if flags.change:
        parse_changes(flags.change)  # before anything is built, so that a slip is told in its own words
    request = Request(flags.id, settings, tuple(flags.change))
    if flags.schedule_seed is not None:
        if "schedule_seed" in settings:
            raise ValueError("give --schedule-seed or --set schedule_seed=..., not both")
        if not flags.schedule_seed.isdecimal():
            raise ValueError(f"--schedule-seed must be an integer >= 0, got {flags.schedule_seed!r}")
        settings["schedule_seed"] = parse_count("--schedule-seed", int(flags.schedule_seed))
    env, wrapper = request.build()
    _check_folder(flags.out)
    return request, env, wrapper, steps


def _check_folder(out: Path) -> None:
    """Make the folder for pictures, or say why there can be none."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = "it is a file" if out.exists() else error.strerror or str(error)
        raise ValueError(f"--out takes a folder, and {out} cannot be one: {reason}") from None
    if not os.access(out, os.W_OK | os.X_OK):
        raise ValueError(f"--out takes a folder, and {out} cannot be written to")


def _show(
    request: Request,
    env: gym.Env[Any, Any],
    wrapper: NonStationary,
    steps: int | None,
    out: Path,
    *,
    video: bool,
    renderer: str | None,
) -> None:
    from rich.console import Console  # here and below, so that a wrong flag is told at once

    from envs.show import drawing, report, timeline

    console = Console(highlight=False, width=None if sys.stdout.isatty() else PIPED_WIDTH)
    lives = wrapper.lives
    asked = steps or timeline.default_horizon(lives)
    horizon = timeline.shown_horizon(lives, asked)
    tracks = [timeline.make_track(live, horizon) for live in lives]
    seed = lives[0].schedule.seed
    title = f"{request.id}, schedule seed {seed}"
    report.schedule(console, lives, tracks, horizon, title, TASKS[request.id].says if request.id in TASKS else "")
    if horizon < asked:
        console.print(f"[yellow]Shown up to change {timeline.MOST_CHANGES:,}; give a smaller --steps to look closer.")

    stem = re.sub(r"[^\w.-]+", "_", request.id)
    picture, film = out / f"{stem}.png", out / f"{stem}.gif"
    drawing.draw(picture, tracks, horizon, f"{title}: what is due, and when")
    print(f"\npicture: {picture}")

    report.effects(console, env, wrapper, tracks)
    if video:
        from envs.show.video import make_video

        with console.status("rendering a video"):
            reason = make_video(request, is_mujoco(env), timeline.moments(tracks, REGIMES), film, renderer)
        print(f"\nvideo: {film}" if reason is None else f"\n{reason}")
    sac = " (agent=sac works too)" if isinstance(env.action_space, gym.spaces.Box) else ""
    print(f"\nTo train on it{sac}:\n  {next_command(request, asked)}")


def next_command(request: Request, steps: int) -> str:
    """Return the train.py command for this environment, and for no other: an experiment would set it up anew."""
    settings = dict(request.settings)
    seed = settings.pop("schedule_seed", None)
    name = None if request.changes else _choices().get(request.id)
    words = ["env=gym", f"env.id={request.id}"] if name is None else [f"env={name}"]
    if request.changes or request.id in TASKS:  # for these train.py has names of its own
        words += [f"env.{key}={settings.pop(key)}" for key in ("boundary", "context") if key in settings]
        words += [] if seed is None else [f"env.schedule_seed={seed}"]
        settings = {key: value for key, value in settings.items() if key not in ("stride", "count_resets")}
    elif seed is not None:
        settings["schedule_seed"] = seed
    if name is not None and not {"drift", "table"}.isdisjoint(settings):
        settings["period"] = None  # which the file may set, and which does not go with these
    words += [f"env.kwargs.{key}={_flow(value)}" for key, value in settings.items()]
    if request.changes:
        words.append(f"env.changes={_flow(list(request.changes))}")
    words += ["experiment=none", "agent=ppo", f"total_steps={steps}"]
    return f"python train.py {shlex.join(words)}"


def _choices() -> dict[str, str]:
    """Return what train.py calls the environments that have a file of their own, by id; none without the repository."""
    files = sorted(CHOICES.glob("*.yaml"))
    found = ((path, re.search(r"^id: *(\S+)$", path.read_text("utf-8"), re.MULTILINE)) for path in files)
    return {match[1]: path.stem for path, match in found if match}


def _flow(value: Any) -> str:
    """Return a value as Hydra reads it: JSON, with the keys bare."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return json.dumps(value)
