"""From the words of a sweep to its cells: every combination once, each the run that its words alone would be."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.command_line import configuration
from experiments.errors import BadInput
from experiments.folder import run_folder
from experiments.sweep import named
from experiments.sweep.cells import Plan, cells, combinations, plan
from tests.experiments.conftest import ROOT, Outcome

TINY = ("experiment=none", "env=ns_cartpole", "agent.n_steps=64", "agent.net_arch=[8,8]", "total_steps=100")
Command = Callable[..., Outcome]


def faults(*words: str, directories: Sequence[Path] = ()) -> tuple[str, ...]:
    with pytest.raises(BadInput) as error:
        cells(plan(words, directories), directories)
    return error.value.lines


@given(st.dictionaries(st.sampled_from("abcdef"), st.sets(st.integers(), min_size=1, max_size=4), max_size=4))
def test_cells_are_the_product_of_the_axes_and_seeds_vary_slowest(drawn: dict[str, set[int]]) -> None:
    axes = {key: tuple(map(str, values)) for key, values in drawn.items()} | {"seed": ("3", "1", "2")}
    found = list(combinations(Plan((), axes)))
    assert len(found) == math.prod(map(len, axes.values()))
    assert len({tuple(values.items()) for values in found}) == len(found)
    assert all(list(values) == list(axes) for values in found)
    assert [values["seed"] for values in found] == sorted((v["seed"] for v in found), key="312".index)


def test_a_cell_is_the_run_that_its_words_would_be() -> None:
    found = cells(plan([*TINY, "plasticity=none,[l2,cbp]", "seed=range(2)"]))
    assert [cell.label for cell in found] == [
        "plasticity=none seed=0",
        "plasticity=[l2,cbp] seed=0",
        "plasticity=none seed=1",
        "plasticity=[l2,cbp] seed=1",
    ]
    for cell in found:
        config, choices = configuration(cell.words, ())
        assert cell.folder == run_folder(config, choices)
        assert config.run.threads == 1
        assert cell.steps == 128
    assert found[1].folder.name.startswith("ppo-ns_cartpole-l2+cbp-seed0-")
    assert found[0].command.endswith("total_steps=100 run.threads=1 plasticity=none seed=0")
    assert configuration(cells(plan([*TINY, "run.threads=2"]))[0].words, ())[0].run.threads == 2


def test_settings_of_a_method_are_those_of_the_cells_that_have_it() -> None:
    words = ["plasticity=none,l2,cbp", "plasticity.cbp.maturity=5", "plasticity.cbp.replacement_rate=1e-3,1e-4"]
    found = cells(plan([*TINY, *words]))
    assert [cell.label for cell in found] == [
        "plasticity=none",
        "plasticity=l2",
        "plasticity=cbp plasticity.cbp.replacement_rate=0.001",
        "plasticity=cbp plasticity.cbp.replacement_rate=0.0001",
    ]
    assert ["plasticity.cbp.maturity=5" in cell.words for cell in found] == [False, False, True, True]


@pytest.mark.parametrize("name", named.available())
def test_every_sweep_that_comes_along_can_be_done(name: str) -> None:
    found = cells(plan([f"sweep={name}"]))
    assert all(cell.folder.parent == Path("runs", name) for cell in found)
    assert len({cell.folder for cell in found}) == len(found) >= 10


def test_what_is_typed_wins_over_the_file() -> None:
    file = "sweep=sac_pendulum"
    assert len(cells(plan([file]))) == 10
    (cell,) = cells(plan([file, "plasticity=redo", "seed=7", "total_steps=1000", "run.root=elsewhere"]))
    assert cell.folder.parent == Path("elsewhere")
    assert cell.steps == 1000
    assert "total_steps=40_000" not in cell.words
    found = cells(plan([file, "seed=7,8", "env.kwargs.period=1e3,2e3"]))  # an axis for an axis, and for a word
    assert len(found) == 2 * 2 * 2
    assert {cell.values["seed"] for cell in found} == {"7", "8"}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["seed=1,1"], "seed=1,1: 1 is there twice"),
        (["seed=1,2", "seed=3,4"], "seed is given several values twice"),
        (["total_steps=1e3,2e3"], "two cells would share the folder runs/ppo-ns_cartpole-cbp-seed0-"),
        (["agent.gamma=0.9,0.90"], "agent.gamma=0.9,0.9: 0.9 is there twice"),
        (["run.dir=x", "seed=1,2"], "two cells would share the folder x, as seed=1,2"),
        (["plasticity=cbp,rdo"], 'unknown plasticity "rdo"'),
        (["agent.gama=0.9", "seed=1,2"], 'did you mean "gamma"'),
        (["agent.gamma=interval(0,1)"], "python -m experiments.tune"),
        (["seed=glob(*)"], "glob(...) chooses among the names of a group, and seed is none"),
        (["plasticity=glob(z*)"], "there is no value in it"),
        (["run.overwrite=true", "seed=1,2"], "run.overwrite=true: the runs of a sweep go on with what they have"),
        (["run.resume=must"], "run.resume=must: the runs of a sweep go on with what they have"),
        (["env.kwargs.drift=sine:2000,0.5,1.5"], """as one text it is 'env.kwargs.drift="sine:2000,0.5,1.5"'"""),
        (["env.kwargs.perod=1e3,2e3"], 'unknown keyword of CartPoleEnv "perod"'),
        (["sweep=sac_pendulu"], 'did you mean "sac_pendulum"?; a file of your own is sweep=PATH.yaml'),
        (["sweep=none.yaml"], "sweep=none.yaml: there is no such file"),
        (["sweep=sac_pendulum", "sweep=continual_cartpole"], "one sweep at a time"),
    ],
)
def test_what_cannot_be_swept_is_explained(words: list[str], expected: str) -> None:
    said = faults(*TINY, *words)
    assert any(expected in line.replace("0.90", "0.9") for line in said), said


def test_the_faults_of_all_cells_are_told_at_once_and_each_once() -> None:
    said = faults(*TINY, "plasticity=cbp,rdo", "seed=range(3)", "agent.gamma=0.9,2,3", "agent.learning_rate=-1")
    assert len(said) == len(set(said))
    for part in ('unknown plasticity "rdo"', "agent.gamma must be in [0, 1], got 2", "got 3", "agent.learning_rate"):
        assert sum(part in line for line in said) == 1, (part, said)


def test_glob_names_choices() -> None:
    assert plan(["plasticity=glob(l2*)"]).axes == {"plasticity": ("l2", "l2_init")}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("- a", "must have words (a list) and axes"),
        ("word: []", 'unknown key "word": allowed are words, axes; did you mean "words"?'),
        ("words: agent=sac", "words must be a list of words as one types them"),
        ("words: [sac]", "words: 'sac' must be text such as agent=sac"),
        ("axes: [1, 2]", "axes must be a mapping of keys to values"),
        ("axes: {seed: {a: 1}}", "axes: seed must be values, such as [1, 2, 3] or range(3), got {'a': 1}"),
        ("axes: {1: [2]}", "axes: 1 must be the name of a setting or group"),
        ("axes: {seed: [1, 2]}\nwords: [seed=3]", "seed is both in words and in axes"),
        ("words: ['seed=1,2']", "seed=1,2 has several values: put it under axes"),
        ("words: [env.id=os:Env-v0]", 'names the environment "os:Env-v0", which imports a module'),
        ("axes: {env.id: ['a:B-v0', 'C-v0']}", 'names the environment "a:B-v0", which imports a module'),
        ("axes: {'env.changes': [[{target: tasks, ids: ['a:B-v0']}]]}", 'names the environment "a:B-v0"'),
        ("words: ['run.root=${oc.env:HOME}']", "interpolates"),
        ("words: [hydra.run.dir=x]", "Hydra's own settings"),
        ("words: [", "cannot be read as YAML"),
        ("axes: {seed: [1, 1]}", "1 is there twice"),
    ],
)
def test_a_file_that_is_no_sweep_is_explained(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    said = faults(f"sweep={path}")
    assert any(expected in line for line in said), said


def test_files_of_ones_own_are_found_and_shown(tmp_path: Path, command: Command) -> None:
    (tmp_path / "mine" / "sweep").mkdir(parents=True)
    file = tmp_path / "mine" / "sweep" / "small.yaml"
    words = [*TINY, "env.kwargs.drift='sine:2000,0.5,1.5'", "+env.kwargs.period=null"]
    file.write_text(f"# Small\nwords: {words!r}\naxes: {{plasticity: [none, [l2, cbp]], seed: 4}}\n")
    outcome = command("-m", "--config-dir", "mine", "sweep=small", "--cells", "run.root=there")
    assert outcome.code == 0, outcome.err
    assert "2 cells: 2 to do" in outcome.out
    assert command("-m", f"sweep={file}", "--cells").code == 0
    assert "small                 Small" in command("--config-dir", "mine", "--help").out
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]  # nothing was made
    file.rename(file.with_name("sac_pendulum.yaml"))
    said = command("-m", "--config-dir", "mine", "sweep=sac_pendulum", "--cells").errors
    assert "sac_pendulum.yaml: sweep=sac_pendulum is built in; give the file another name" in said[0]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--jobs", "2"], "--jobs is for sweeps: add -m"),
        (["--cells"], "--cells is for sweeps: add -m"),
        (["--dashboard"], "--dashboard is for sweeps: add -m"),
        (["sweep=sac_pendulum"], "sweep=sac_pendulum: a sweep is many runs: add -m"),
        (["-m", "--jobs", "0"], "--jobs must be at least 1, got 0"),
        (["-m", "--cfg", "job"], "--cfg job shows one run; --cells lists those of a sweep"),
        (["seed=1,2"], "-m makes a run of each value"),
    ],
)
def test_flags_that_do_not_fit_are_explained(words: list[str], expected: str, command: Command) -> None:
    outcome = command(*words)
    assert outcome.code == 2
    assert any(expected in line for line in outcome.errors), outcome.err


DOCUMENTED = re.findall(r"^(?:DASK\S+ )?python train.py -m .*", (ROOT / "docs" / "sweeps.md").read_text(), re.MULTILINE)


@pytest.mark.parametrize("line", DOCUMENTED)
def test_documented_commands_are_understood(line: str, command: Command) -> None:
    outcome = command(*shlex.split(line.partition("train.py ")[2]), "--cells")
    assert (outcome.code, outcome.err) == (0, "")


def test_documented_commands_were_found() -> None:
    assert len(DOCUMENTED) >= 4
