"""The model card of a run: what it was trained on, how well it does there, how to use it, and what it is not."""

from __future__ import annotations

import csv
import html
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from experiments import folder as files
from experiments.history import History
from experiments.playing import table as played
from experiments.schema import Config
from experiments.summary import PLASTICITY, number, plasticity_rows
from experiments.tensorboard import flat

SOME = 20  # rows of a table, at most; the files have all
PERSONAL = ("run.root=", "run.dir=", "run.name=")  # words that say where things are on somebody's machine
PYTHON = """\
from pathlib import Path

from experiments.playing.agent import load

agent = load(Path("{name}")).model  # agent.predict(observations, deterministic=True)"""
NORMALIZED = "\n# of normalised ones: agent.get_vec_normalize_env().normalize_obs(observations)"


def card(folder: Path, config: Config, repo: str, film: str | None) -> str:
    """The card as Markdown, with its header. repo: `user/name`; film: the name of the one that is published, if any."""
    result, metric = files.result(folder), mean_return(folder)
    return "\n".join([*_header(config, metric), "", *_body(folder, config, repo, film, result, metric)]) + "\n"


def mean_return(folder: Path) -> tuple[float, float, str] | None:
    """Mean and standard deviation of returns, and of which; None if no episode came to its end."""
    if rows := _frozen(folder):
        means = [float(row["mean_return"]) for row in rows]
        mean = sum(means) / len(means)
        squares = [float(row["std_return"]) ** 2 + (float(row["mean_return"]) - mean) ** 2 for row in rows]
        which = f"{rows[0]['policy']} policy, {rows[0]['episodes']} episodes in each of {len(rows)} frozen regimes"
        return mean, (sum(squares) / len(squares)) ** 0.5, which
    returns = [float(row["return"]) for row in History(folder).episodes]
    if not returns:
        return None
    last = returns[-max(1, len(returns) // 10) :]
    mean = sum(last) / len(last)
    deviation = (sum((each - mean) ** 2 for each in last) / len(last)) ** 0.5
    return mean, deviation, f"the last {len(last)} episodes of training, while it explored"


def _frozen(folder: Path) -> list[dict[str, str]]:
    """What came of playing the agent of the run's end."""
    steps = str(files.result(folder).get("steps"))
    return [row for row in _rows(folder / files.PLAYED / played.NAME) if row["step"] == steps]


def _header(config: Config, metric: tuple[float, float, str] | None) -> Iterator[str]:
    algorithm, env = config.agent.algorithm, config.env.id
    tags = ["reinforcement-learning", "deep-reinforcement-learning", "stable-baselines3", "continual-learning"]
    found: dict[str, Any] = {
        "library_name": "stable-baselines3",
        "tags": [*tags, "plasticity", "pliant", algorithm, env, *config.plasticity],
    }
    if metric is not None:
        mean, deviation, which = metric
        reward = {"type": "mean_reward", "name": f"mean return, {which}", "value": f"{mean:.2f} +/- {deviation:.2f}"}
        task = {"type": "reinforcement-learning", "name": "reinforcement-learning"}
        results = [{"task": task, "dataset": {"name": env, "type": env}, "metrics": [reward | {"verified": False}]}]
        found["model-index"] = [{"name": algorithm.upper(), "results": results}]
    yield "---"
    yield yaml.safe_dump(found, sort_keys=False, allow_unicode=True).rstrip()
    yield "---"


def _body(
    folder: Path,
    config: Config,
    repo: str,
    film: str | None,
    result: Mapping[str, Any],
    metric: tuple[float, float, str] | None,
) -> Iterator[str]:
    algorithm, env = config.agent.algorithm.upper(), config.env.id
    methods = ", ".join(config.plasticity) or "no method that preserves plasticity"
    copies = f", {config.env.n_envs} copies at once" if config.env.n_envs > 1 else ""
    yield f"# {plain(algorithm)} on {plain(env)}"
    yield ""
    yield (
        f"An agent of [Stable-Baselines3](https://github.com/DLR-RM/stable-baselines3) ({algorithm}) with "
        f"{plain(methods)}, trained with Pliant for {result['steps']:,} environment steps{copies}, seed {config.seed}, "
        "in a world that may change while it learns."
    )
    if metric is not None:
        yield ""
        yield f"Return {metric[0]:,.4g} ± {metric[1]:,.3g}: {plain(metric[2])}."
    yield ""
    yield f"![Curves of the run]({files.PICTURE})"
    if film is not None:
        yield ""
        yield f"[A film of it]({film})" if film.endswith(".mp4") else f"![A film of it]({film})"
    yield from ("", "## What it was trained on", "")
    yield from _table(("setting", "value"), flat(_world(config)))
    yield from ("", "## Methods", "")
    settings = [(f"{name}.{key}", value) for name, given in config.plasticity.items() for key, value in flat(given)]
    yield from _table(("setting", "value"), settings) if settings else ["None."]
    yield from ("", "## Regimes", "")
    yield from _regimes(folder)
    yield from ("", "## Plasticity, first to last measurement", "")
    yield from _table(PLASTICITY, plasticity_rows(History(folder)))
    yield from (
        "",
        "## How to use it",
        "",
        *_use(repo, algorithm, config.env.normalize_observations),
        "",
        "## How it was made",
        "",
    )
    yield from _fenced(shlex.join(["python", "train.py", *command(folder)]), "sh")
    yield ""
    yield from _table(("package", "version"), _versions(folder))
    yield from ("", "## Limits", "", *_limits(config, result))


def command(folder: Path) -> list[str]:
    """The words that the run was made with, without those that are about somebody's machine."""
    return [word for word in files.words(folder) if not word.lstrip("+~").startswith((*PERSONAL, "--config-dir="))]


def _world(config: Config) -> dict[str, Any]:
    env = config.as_dict()["env"]
    return {key: value for key, value in env.items() if key not in ("vectorization",) and value not in ({}, [])}


def _regimes(folder: Path) -> Iterator[str]:
    rows = _rows(folder / files.REGIMES)
    frozen = {row["regime"]: row for row in _frozen(folder)}
    targets = [name for name in (rows[0] if rows else {}) if name not in _KNOWN]
    heading = ["regime", "from step", *targets, "episodes", "mean return", "last tenth"]
    lines = []
    for row in rows[-SOME:]:
        values = [re.sub(r"(\.\d{4})\d+", r"\1", row[name]) for name in targets]  # of a drift, from what to what
        line = [row["regime"], row["first_step"], *values, row["episodes"]]
        line += [_short(row["mean_return"]), _short(row["last_return"])]
        lines.append([*line, _short(frozen.get(row["regime"], {}).get("mean_return", ""))] if frozen else line)
    yield from _table([*heading, "frozen, afterwards"] if frozen else heading, lines)
    yield ""
    if len(rows) > SOME:
        yield f"The last {SOME} of {len(rows)}; all are in {files.REGIMES}."
    yield "Returns are those of training, while the agent explored" + (
        "; the last column is its test afterwards in copies that stand still in that regime." if frozen else "."
    )


_KNOWN = ("regime", "first_step", "last_step", "episodes", "mean_return", "last_return")


def _use(repo: str, algorithm: str, normalized: bool) -> Iterator[str]:
    name = repo.rpartition("/")[2]
    yield "In a checkout of Pliant, with its environment:"
    yield ""
    yield from _fenced(f"hf download {repo} --local-dir {name}\npython -m experiments.play {name}", "sh")
    yield ""
    yield "plays it in its regimes, writes a table and films it. In Python:"
    yield ""
    yield from _fenced(PYTHON.format(name=name) + (NORMALIZED if normalized else ""), "python")
    yield ""
    yield (
        f"Both read tensors only. **`model.zip` is a file of Stable-Baselines3, parts of which are pickled: "
        f"`{algorithm}.load` would run whatever code somebody had put there.** Do that only with files of people you "
        "trust. `python -m experiments.import_weights model.zip ...` begins a new run with these weights, also without "
        "unpickling. Look at `env.id` in config.yaml first: an id such as `module:Env-v0` imports that module."
    )


def _limits(config: Config, result: Mapping[str, Any]) -> Iterator[str]:
    yield "* One run with one seed: no evidence for or against a method. Compare seeds."
    yield "* It was tested nowhere but in the regimes above; what it does in other worlds is not known."
    if result["status"] != "finished":
        yield f"* Training was {result['status']} after {result['steps']:,} of {config.total_steps:,} steps."
    if config.env.normalize_observations:
        yield f"* It acts on normalised observations; the statistics are in {files.NORMALIZATION}."
    yield "* Nothing in it was made to be safe outside a simulator."
    yield "* No licence is stated here; ask the author."


def _versions(folder: Path) -> list[tuple[str, str]]:
    found = yaml.safe_load((folder / files.VERSIONS).read_text("utf-8"))  # JSON is YAML
    packages = {name: version for name, version in found["packages"].items() if version}
    return [("python", found["python"]), *packages.items()]


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _short(text: str) -> str:
    return number(float(text)) if text else "-"


def _table(heading: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    yield f"| {' | '.join(map(plain, heading))} |"
    yield "|" + "---|" * len(heading)
    for row in rows:
        yield f"| {' | '.join(map(plain, row))} |"


def _fenced(text: str, language: str) -> Iterator[str]:
    """A code block whose fence is longer than any in the text."""
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    yield from (f"{fence}{language}", text, fence)


def plain(value: object) -> str:
    """Text that Markdown and HTML show as it is, on one line."""
    text = html.escape(" ".join(str(value).split()), quote=False)
    return re.sub(r"([\\`*_{}\[\]|#!~])", r"\\\1", text)
