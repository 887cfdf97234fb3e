"""From the words of a command line to one plain dict, by Hydra's compose API and its override grammar.

Only this module knows Hydra. `@hydra.main` is not used: it writes folders, and its exit codes are not ours. Two further
differences. Every fault is collected, not only the first. And an experiment may carry settings for particular choices:
`configs/experiment/quick/plasticity/cbp.yaml` applies when `experiment=quick plasticity=cbp` is chosen, and
`configs/experiment/quick/agent_env/sac_ns_pendulum.yaml` for that pair. They come after the experiment's own file and
before anything typed, so what is typed wins.
"""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from experiments.errors import BadInput
from experiments.refuse import faults_in_files, faults_in_key, faults_in_text
from plasticity.settings import unknown

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
GROUPS = ("agent", "env", "plasticity", "experiment")
BENCHMARKS = ("slowly_changing_regression", "label_permutation")  # modules beside this one


@dataclass(frozen=True)
class Composed:
    """A configuration not yet validated, the choices it came from (group -> names), and faults found on the way."""

    tree: dict[str, Any]
    choices: dict[str, tuple[str, ...]]
    errors: tuple[str, ...] = ()


def available(directories: Sequence[Path] = ()) -> dict[str, dict[str, str]]:
    """group -> choice -> the first comment of its file. `directories`: the user's own, beside `configs/`."""
    choices: dict[str, dict[str, str]] = {group: {} for group in GROUPS}
    for group in GROUPS:
        for directory in (CONFIGS, *directories):
            for path in sorted((directory / group).glob("*.yaml")):
                comments = [
                    line[1:].strip() for line in path.read_text(encoding="utf-8").splitlines() if line[:1] == "#"
                ]
                choices[group][path.stem] = next((line for line in comments if not line.startswith("@")), "")
    return choices


def compose(words: Sequence[str], directories: Sequence[Path] = ()) -> Composed:
    """Compose `words` such as `agent=sac` and `agent.gamma=0.9`; raises `BadInput` where no tree can be made."""
    for directory in directories:
        if not directory.is_dir():
            raise BadInput(f"--config-dir {directory} is not a folder")
    if faults := faults_in_files((CONFIGS, *directories)):
        raise BadInput(faults)
    if faults := _shadowing(directories):
        raise BadInput(faults)
    errors: list[str] = []
    chosen, values = _split(words, available(directories), errors)
    tree, choices = _compose(chosen, directories)
    errors += _beyond_the_experiment(tree, choices)
    if tree.get("published") and errors:  # its settings do not fit what was chosen: judging them would only add noise
        raise BadInput(errors)
    if 1 < len(choices["plasticity"]) > len(tree.get("plasticity") or {}):
        errors.append(
            f"plasticity={','.join(choices['plasticity'])}: two of these are one method with "
            "different settings; choose one of them"
        )
    values = [value for value in values if not _method_not_chosen(value, tree, choices, errors)]
    lines = [value.input_line or "" for value in values]
    typed = [
        line if line[0] == "~" else f"++{line.lstrip('+')}" for line in lines
    ]  # unknown keys: the schema's to judge
    if added := [*_variants(choices, directories), *typed]:
        tree, _ = _compose([*chosen, *added], directories)
    tree.pop("published", None)
    return Composed(tree, choices, tuple(errors))


def _shadowing(directories: Sequence[Path]) -> list[str]:
    """One sentence for each file of the user's whose choice is built in: Hydra would quietly take the built-in one."""
    return [
        f"{path}: {group}={path.stem} is built in; give the file another name"
        for group in (*GROUPS, "sweep")
        for directory in directories
        for path in sorted((directory / group).glob("*.yaml"))
        if (CONFIGS / group / path.name).is_file()
    ]


def to_yaml(tree: Mapping[str, Any]) -> str:
    """A plain tree as YAML text."""
    return OmegaConf.to_yaml(OmegaConf.create(dict(tree)))


def _split(
    words: Sequence[str], known: Mapping[str, Mapping[str, str]], errors: list[str]
) -> tuple[list[str], list[Override]]:
    """The choices of groups, checked, and the overrides of single values; what cannot be used goes to `errors`."""
    chosen: list[str] = []
    values: list[Override] = []
    for word in words:
        key = word.partition("=")[0].lstrip("+~")
        faults = [*faults_in_key(key), *faults_in_text(word)]
        if "_target_" in word and not faults:
            faults = ['sets "_target_", which could call any function: settings only']
        try:
            override = OverridesParser.create().parse_override(word)
        except HydraException:
            advice = "write key=value, and quote what holds spaces, commas or colons"
            faults = faults or [f"is not an override; {_quoting(word) or advice}"]
        else:
            if override.is_sweep_override():
                advice = "write a list as key=[a,b]; -m makes a run of each value"
                quoting = _quoting(word) if ":" in word else None  # a schedule, and not several values
                faults.append(f"has several values; {quoting}" if quoting else f"has several values: {advice}")
        if faults:
            errors += [f"{word}: {fault}" for fault in faults]
        elif word[0] == "~" and key not in known:
            errors.append(f"{word}: nothing can be deleted; choose what you mean, such as plasticity=none")
        elif key.startswith("published"):
            errors.append(f"{word}: what was published cannot be overridden; use experiment=none and set what you mean")
        elif key not in known:
            values.append(override)
        elif word[0] in "+~":
            errors.append(f"{word}: {key} is a group and always has a choice; write {key}=NAME")
        else:
            chosen += _checked_choice(key, override.value(), known[key], errors)
    return chosen, values


def values_of(word: str, known: Mapping[str, Mapping[str, str]]) -> list[str] | None:
    """The values of a word such as `seed=range(3)`, each as it would be typed; None where it has a single one.

    What is no override is not judged here. known: as from `available`, for `glob(*)`. Raises `BadInput`.
    """
    try:
        override = OverridesParser.create().parse_override(word)
    except HydraException:
        return None
    key = word.partition("=")[0].lstrip("+~")
    value: Any = override._value  # which value() does not give where there are several
    if not override.is_sweep_override():
        return None
    if isinstance(value, Glob):
        if key not in known:
            raise BadInput(f"{word}: glob(...) chooses among the names of a group, and {key} is none")
        return list(map(str, value.filter(list(known[key]))))
    try:
        values = list(override.sweep_string_iterator())
    except HydraException:
        raise BadInput(
            f"{word}: a stretch of numbers has no end of values; name some, as in {key}=1e-4,1e-3, or search it: "
            "python -m experiments.tune"
        ) from None
    if any(":" in text for text in values) and any(re.fullmatch(r"[-+\d.e]+", text) for text in values):
        advice = _quoting(word)  # a schedule, sine:2000,0.5,1.5, and not several values
        raise BadInput(f"{word}: {advice or 'write a text with commas in quotes'}")
    return values


def value_of(word: str) -> Any:
    """What a word with one value sets, as plain Python; None where it is no override."""
    try:
        return OverridesParser.create().parse_override(word).value()
    except HydraException:
        return None


def _quoting(word: str) -> str | None:
    """How to type a text of which the grammar of overrides makes something else, such as a schedule; None: no way."""
    key, _, text = word.partition("=")
    quoted = f'{key}="{text}"'
    try:
        works = bool(text) and OverridesParser.create().parse_override(quoted).value() == text
    except HydraException:
        works = False
    return f"as one text it is {shlex.quote(quoted)}" if works else None


def _checked_choice(group: str, value: Any, known: Mapping[str, str], errors: list[str]) -> list[str]:
    names = value if isinstance(value, list) else [value]
    faults = [_unknown_choice(group, name, known) for name in names if name not in known]
    if not names:
        faults.append(
            f"{group} must name a choice, such as {group}={'none' if group == 'plasticity' else next(iter(known))}"
        )
    if group == "plasticity":
        if len(set(map(str, names))) < len(names):
            faults.append(f"plasticity={','.join(map(str, names))} names a method twice")
        if "none" in names and len(names) > 1:
            faults.append('plasticity: "none" cannot be combined with a method')
    elif isinstance(value, list):
        faults.append(f"{group} takes one name, got {value}; only plasticity takes several")
    errors += faults
    if faults:  # go on with the nearest name, so that the other settings are judged by what was meant
        near = difflib.get_close_matches(str(value), known, n=1, cutoff=0.5)
        return [f"{group}={near[0]}"] if near else []
    return [f"{group}=[{','.join(names)}]" if isinstance(value, list) else f"{group}={value}"]


def _unknown_choice(group: str, name: Any, known: Mapping[str, str]) -> str:
    if group == "experiment" and name in BENCHMARKS:
        return f"experiment={name} trains no agent and is a script of its own: python -m experiments.{name}"
    return unknown(group, name, known)


def _compose(words: Sequence[str], directories: Sequence[Path]) -> tuple[dict[str, Any], dict[str, tuple[str, ...]]]:
    paths = ",".join("'file://{}'".format(str(path.resolve()).replace("'", "\\'")) for path in directories)
    search = [f"hydra.searchpath=[{paths}]"] if directories else []
    try:
        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            composed = hydra_compose("config", [*search, *words], return_hydra_config=True)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise BadInput(_sentence(error)) from error
    runtime = composed.hydra.runtime.choices
    names = {group: runtime.get(group) for group in GROUPS}
    if names["plasticity"] is None:  # Hydra leaves a choice of several out of its record
        names["plasticity"] = next(word.partition("=")[2] for word in words if word.startswith("plasticity="))
    tree: dict[str, Any] = {str(key): composed[key] for key in composed if key != "hydra"}
    plain = OmegaConf.to_container(OmegaConf.create(tree))
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}, {
        group: tuple(re.split(r"[\[\], ]+", str(name).strip("[] "))) for group, name in names.items()
    }


def _variants(choices: Mapping[str, tuple[str, ...]], directories: Sequence[Path]) -> list[str]:
    """The experiment's own settings for what was chosen, as words that add their files."""
    (experiment,) = choices["experiment"]
    candidates = [(group, choices[group]) for group in ("agent", "env", "plasticity")]
    candidates.append(("agent_env", (f"{choices['agent'][0]}_{choices['env'][0]}",)))
    words = []
    for group, names in candidates:
        folder = f"experiment/{experiment}/{group}"
        present = [n for n in names if any((d / folder / f"{n}.yaml").is_file() for d in (CONFIGS, *directories))]
        if present:
            words.append(f"+{folder}=[{','.join(present)}]")
    return words


def _beyond_the_experiment(tree: Mapping[str, Any], choices: Mapping[str, tuple[str, ...]]) -> list[str]:
    """An experiment that lists what was published for it refuses the rest: it would mix in settings of its own."""
    errors = []
    for group, allowed in (tree.get("published") or {}).items():
        got = choices[group]
        if len(got) > 1 or got[0] not in allowed:
            errors.append(
                f"experiment={choices['experiment'][0]} has published settings for {group} {', '.join(allowed)}, "
                f"got {','.join(got)}; for others use experiment=none and set what you mean"
            )
    return errors


def _method_not_chosen(
    value: Override, tree: Mapping[str, Any], choices: Mapping[str, tuple[str, ...]], errors: list[str]
) -> bool:
    """Whether a setting belongs to a method that was not chosen: setting it must not quietly switch the method on."""
    parts = value.get_key_element().lstrip("+~").split(".")
    methods = tree.get("plasticity") or {}
    if parts[0] != "plasticity" or len(parts) == 1 or parts[1] in methods:
        return False
    chosen = ",".join(choices["plasticity"])
    errors.append(
        f'{value.input_line}: the method "{parts[1]}" is not chosen (plasticity={chosen}); the chosen have '
        f"settings under {', '.join(f'plasticity.{name}' for name in methods) or 'nothing'}"
    )
    return True


def _sentence(error: BaseException) -> str:
    """Hydra's first line, and what it was caused by, in plain words."""
    lines = [str(e).strip().splitlines()[0] for e in (error, error.__cause__) if e is not None and str(e).strip()]
    return ": ".join(lines).replace("DictConfig", "a mapping").replace("ListConfig", "a list") or repr(error)
