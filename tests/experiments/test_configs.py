"""The YAML files: every choice composes, validates and builds; what is typed wins; the paper's settings are its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from experiments.build import build_model, gradient_steps_per_step, planned_steps
from experiments.compose import CONFIGS, GROUPS, available, compose
from experiments.environment import environment_faults, make_vec_env
from experiments.folder import config_hash, run_folder
from experiments.schema import Config, validate
from plasticity import METHODS
from tests.experiments.conftest import Outcome

CHOICES = {group: sorted(path.stem for path in (CONFIGS / group).glob("*.yaml")) for group in GROUPS}
PAIRS = sorted(path.stem for path in (CONFIGS / "experiment/quick/agent_env").glob("*.yaml"))
SINGLES = [
    f"{group}={name}"
    for group in ("agent", "env", "plasticity", "experiment")
    for name in CHOICES[group]
    if f"ppo_{name}" not in PAIRS  # the default is PPO and the quick experiment: such an environment is among the pairs
]
PUBLISHED = ("none", "ns", "l2", "cbp", "cbpi", "redo")


@cache
def configured(*words: str) -> Config:
    composed = compose(words)
    assert composed.errors == ()
    return validate(composed.tree)


def built(config: Config) -> Iterator[Any]:
    env = make_vec_env(config)
    try:
        yield build_model(config, env)
    finally:
        env.close()


def words_for(single: str) -> list[str]:
    if single == "env=gym":
        return [
            single,
            "env.id=Pendulum-v1",
            "env.changes=[{target: gravity, when: 'every:5e4', to: 'uniform:0.5,1.5'}]",
        ]
    return [single]


@pytest.mark.parametrize("single", SINGLES)
def test_every_choice_builds_an_environment_and_an_agent(single: str) -> None:
    config = configured(*words_for(single))
    assert environment_faults(config) == []
    for model in built(replace(config, env=replace(config.env, n_envs=1))):
        assert_complete(model, config)


def assert_complete(model: Any, config: Config) -> None:
    assert set(model.policy.networks) >= ({"pi", "vf"} if config.agent.algorithm == "ppo" else {"actor", "qf0"})
    chains = [list(chain) for chain in model.policy.plasticity.values()]
    assert all(len(chain) == len(config.plasticity) for chain in chains)


@pytest.mark.parametrize("pair", PAIRS)
def test_every_pair_of_the_quick_experiment_builds(pair: str) -> None:
    agent, _, env = pair.partition("_")
    config = configured(f"agent={agent}", f"env={env}")
    assert environment_faults(config) == []
    assert planned_steps(config) == config.total_steps
    assert config.total_steps >= 4 * config.env.kwargs["period"]
    mature = config.plasticity["cbp"]["maturity"] / gradient_steps_per_step(config)
    assert mature < config.total_steps / 4
    for model in built(config):
        assert model.n_envs == config.env.n_envs
        assert_complete(model, config)


def test_every_quick_pair_and_method_file_belongs_to_a_choice() -> None:
    for pair in PAIRS:
        agent, _, env = pair.partition("_")
        assert agent in CHOICES["agent"]
        assert env in CHOICES["env"]
    for folder in ("quick", "slippery_ant_paper"):
        names = {path.stem for path in (CONFIGS / "experiment" / folder / "plasticity").glob("*.yaml")}
        assert names <= set(CHOICES["plasticity"])


def test_every_choice_is_described() -> None:
    for names in available().values():
        assert all(text and not text.startswith("@") for text in names.values())


@pytest.mark.parametrize("method", sorted(METHODS))
def test_a_method_s_file_holds_its_published_defaults(method: str) -> None:
    settings = configured("experiment=none", f"plasticity={method}").plasticity
    assert settings == {method: asdict(METHODS[method]())}
    assert set(yaml.safe_load((CONFIGS / "plasticity" / f"{method}.yaml").read_text())[method]) == set(settings[method])


@pytest.mark.parametrize("agent", ["ppo", "sac"])
def test_without_an_experiment_the_agent_s_defaults_are_those_of_its_file(agent: str) -> None:
    """Each field is in the file, so that `--cfg job` and a reader of the file see the same."""
    config = configured("experiment=none", f"agent={agent}", "env=ns_pendulum", "plasticity=none")
    assert set(yaml.safe_load((CONFIGS / "agent" / f"{agent}.yaml").read_text())) == set(asdict(config.agent))


def test_no_method_is_an_empty_mapping_and_several_keep_their_order() -> None:
    assert configured("plasticity=none").plasticity == {}
    assert list(configured("plasticity=[l2,cbp]").plasticity) == ["l2", "cbp"]
    assert list(configured("plasticity=[cbp,l2]").plasticity) == ["cbp", "l2"]


@pytest.mark.parametrize("method", CHOICES["plasticity"])
@pytest.mark.parametrize("experiment", ["quick", "none"])
def test_a_choice_of_method_changes_nothing_of_the_agent(method: str, experiment: str) -> None:
    baseline = configured(f"experiment={experiment}", "plasticity=none")
    config = configured(f"experiment={experiment}", f"plasticity={method}")
    assert config.agent == baseline.agent
    assert config.env == baseline.env
    assert config.total_steps == baseline.total_steps


def test_equal_beta_adam_replaces_the_optimizers_betas_and_combines() -> None:
    config = configured("experiment=none", "plasticity=[ns,cbp]")
    assert list(config.plasticity) == ["ns", "cbp"]
    for model in built(config):
        assert [group["betas"] for group in model.policy.optimizer.param_groups] == [(0.99, 0.99)]


# Hand-typed from methods.md section 2 and the Nature paper's repository: betas, Adam's own decay, methods.
PAPER: dict[str, tuple[tuple[float, float], float, dict[str, dict[str, Any]]]] = {
    "none": ((0.9, 0.999), 0.0, {}),
    "ns": ((0.99, 0.99), 0.0, {"ns": {"beta": 0.99}}),
    "l2": ((0.99, 0.99), 0.0, {"l2": {"strength": 1e-3, "decoupled": False, "biases": True, "log_std": True}}),
    "cbp": (
        (0.99, 0.99),
        1e-4,
        {
            "cbp": {
                "replacement_rate": 1e-4,
                "maturity": 10_000,
                "decay": 0.99,
                "utility": "contribution",
                "init": "lecun",
            }
        },
    ),
    "cbpi": (
        (0.99, 0.99),
        1e-4,
        {
            "cbp": {
                "replacement_rate": 1e-4,
                "maturity": 10_000,
                "decay": 0.0,
                "utility": "contribution",
                "init": "lecun",
            }
        },
    ),
    "redo": ((0.99, 0.99), 1e-4, {"redo": {"threshold": 0.1, "period": 100}}),
}


@pytest.mark.parametrize("method", PUBLISHED)
def test_the_paper_s_settings(method: str) -> None:
    config = configured("experiment=slippery_ant_paper", f"plasticity={method}")
    betas, decay, methods = PAPER[method]
    agent: Any = config.agent
    assert (agent.betas, agent.weight_decay, agent.decoupled) == (betas, decay, False)
    assert set(config.plasticity) == set(methods)
    for name, settings in methods.items():
        assert {key: config.plasticity[name][key] for key in settings} == settings
    assert config.total_steps == 20_000_000
    assert (config.env.id, config.env.n_envs) == ("SlipperyAnt-v5", 1)
    assert (config.env.kwargs["period"], config.env.kwargs["legacy_obs"]) == (2_000_000, True)
    assert config.env.boundary == "episode"
    assert (agent.algorithm, agent.learning_rate, agent.eps) == ("ppo", 1e-4, 1e-8)
    assert (agent.n_steps, agent.batch_size, agent.n_epochs) == (2048, 128, 10)
    assert (agent.gamma, agent.gae_lambda, agent.clip_range, agent.clip_range_vf) == (0.99, 0.95, 0.2, None)
    assert (agent.vf_coef, agent.ent_coef, agent.max_grad_norm, agent.target_kl) == (1.0, 0.0, 1e9, None)
    assert (agent.net_arch, agent.critic_net_arch) == ((256, 256), (256, 256))
    assert (agent.activation, agent.init, agent.log_std_init) == ("relu", "lecun", 0.0)
    labelled = "stationary Ant" in " ".join(config.run.notes.values())
    assert labelled == (method in ("cbpi", "redo"))


def test_in_the_paper_s_experiment_each_seed_meets_frictions_of_its_own() -> None:
    assert configured("experiment=slippery_ant_paper", "seed=5").env.schedule_seed == 5
    assert configured("experiment=slippery_ant_paper", "seed=5", "env.schedule_seed=2").env.schedule_seed == 2
    assert configured("experiment=none", "seed=5").env.schedule_seed == 0


def test_the_paper_s_settings_reach_the_optimizer_and_the_environment() -> None:
    config = configured("experiment=slippery_ant_paper", "plasticity=cbp")
    for model in built(config):
        (group,) = model.policy.optimizer.param_groups
        assert (group["lr"], tuple(group["betas"]), group["eps"]) == (1e-4, (0.99, 0.99), 1e-8)
        assert group["weight_decay"] == 1e-4
        assert (model.n_steps, model.batch_size, model.n_epochs, model.max_grad_norm) == (2048, 128, 10, 1e9)
        assert model.env.observation_space.shape == (27,)
        schedule = model.env.get_attr("schedules")[0]["friction"]
        assert (str(schedule.when), schedule.first) == ("every:2000000", "draw")
        assert schedule.bounds() == (0.02, 2.0)
        widths = [m.out_features for m in model.policy.mlp_extractor.value_net if isinstance(m, torch.nn.Linear)]
        assert widths == [256, 256]
        bound = (3 / 256) ** 0.5  # lecun's uniform bound for 256 inputs
        hidden = model.policy.networks["pi"].layers[1].linear.weight.detach().abs().max().item()
        assert 0.9 * bound < hidden <= bound


@pytest.mark.parametrize("experiment", ["quick", "slippery_ant_paper"])
def test_what_is_typed_wins_over_the_experiment(experiment: str) -> None:
    config = configured(
        "agent.learning_rate=0.02",
        "total_steps=4_096",
        "env.kwargs.period=777",
        "plasticity.cbp.replacement_rate=0.5",
        "agent.betas=[0.5,0.6]",
        f"experiment={experiment}",
        "env.n_envs=2",
        "agent.n_steps=64",
    )
    agent: Any = config.agent
    assert (agent.learning_rate, agent.betas, agent.n_steps) == (0.02, (0.5, 0.6), 64)
    assert (config.total_steps, config.env.n_envs, config.env.kwargs["period"]) == (4096, 2, 777)
    assert config.plasticity["cbp"]["replacement_rate"] == 0.5


@pytest.mark.parametrize("text", ["20_000", "2e4", "'2e4'", "'20_000'", "20000", "2.0e4"])
def test_step_counts_are_read_as_people_write_them(text: str) -> None:
    assert configured(f"total_steps={text}").total_steps == 20_000
    assert type(configured(f"total_steps={text}").total_steps) is int


@pytest.mark.parametrize("text", ["1e-4", "'1e-4'", "0.0001"])
def test_a_learning_rate_read_as_text_is_a_number(text: str) -> None:
    assert configured(f"agent.learning_rate={text}").agent.learning_rate == 1e-4


def test_planned_steps_are_whole_rollouts() -> None:
    assert planned_steps(configured("total_steps=3000", "env.n_envs=1", "agent.n_steps=2048")) == 4096
    assert planned_steps(configured("total_steps=4096", "env.n_envs=1", "agent.n_steps=2048")) == 4096
    sac = ("agent=sac", "env=ns_pendulum")
    assert planned_steps(configured(*sac, "total_steps=1001", "env.n_envs=4", "agent.train_freq=2")) == 1008


def test_gradient_steps_per_environment_step() -> None:
    assert gradient_steps_per_step(configured("experiment=slippery_ant_paper")) == pytest.approx(160 / 2048)
    sac = ("agent=sac", "env=ns_pendulum")
    assert gradient_steps_per_step(configured(*sac)) == 1.0
    assert gradient_steps_per_step(configured(*sac, "agent.train_freq=4", "env.n_envs=2")) == 1 / 8
    assert gradient_steps_per_step(configured(*sac, "agent.train_freq=4", "agent.gradient_steps=-1")) == 1.0


def test_the_hash_stands_for_what_is_learned() -> None:
    usual = config_hash(configured())
    same = ("total_steps=9", "logging.monitor_every=7", "run.root=x", "run.name=x", "run.dir=y")
    for word in (*same, "env.vectorization=dummy", "env.vectorization=subproc"):
        assert config_hash(configured(word)) == usual, word
    assert config_hash(configured("env.kwargs.period=3.2768e4")) == usual
    others = [
        "seed=1",
        "agent.gamma=0.9",
        "plasticity=none",
        "plasticity.cbp.decay=0.5",
        "env.kwargs.period=5",
        "device=auto",
    ]
    hashes = [config_hash(configured(word)) for word in others]
    hashes += [config_hash(configured("plasticity=[l2,cbp]")), config_hash(configured("plasticity=[cbp,l2]"))]
    assert len({usual, *hashes}) == len(hashes) + 1


def test_a_folder_s_name_says_what_ran() -> None:
    def name(*words: str) -> str:
        composed = compose(words)
        return str(run_folder(validate(composed.tree), composed.choices))

    assert name().startswith("runs/quick-ppo-slippery_ant-cbp-seed0-")
    assert name("plasticity=[ns,cbp]", "seed=4", "run.root=else").startswith(
        "else/quick-ppo-slippery_ant-ns+cbp-seed4-"
    )
    assert name("experiment=none", "env=gym", "env.id=Hopper-v5").startswith("runs/ppo-Hopper-v5-cbp-seed0-")
    assert name("run.name=my run/1").startswith("runs/my-run-1-seed0-")
    assert name("run.dir=here/it/is") == "here/it/is"


def test_cfg_job_prints_what_would_run_and_runs_nothing(command: Callable[..., Outcome], tmp_path: Path) -> None:
    outcome = command("--cfg", "job", "agent=sac")
    assert (outcome.code, outcome.err) == (0, "")
    printed = yaml.safe_load(outcome.out)
    assert printed == configured("agent=sac").as_dict()
    assert validate(printed).as_dict() == printed
    assert list(tmp_path.iterdir()) == []


def test_help_names_every_choice_and_the_commands(command: Callable[..., Outcome], tmp_path: Path) -> None:
    outcome = command("--help")
    assert (outcome.code, outcome.err) == (0, "")
    for group, names in CHOICES.items():
        assert f"{group}=" in outcome.out
        assert all(f"  {name} " in outcome.out for name in names)
    assert "experiment=slippery_ant_paper plasticity=none seed=0" in outcome.out
    assert all(len(line) <= 120 for line in outcome.out.splitlines())
    assert list(tmp_path.iterdir()) == []


def test_every_command_of_the_help_is_valid() -> None:
    import shlex

    from experiments.command_line import EXAMPLES
    from experiments.sweep.cells import cells, plan

    for text, _ in EXAMPLES:
        words = [word for word in shlex.split(text)[2:] if word not in ("--cfg", "job")]
        if words[:1] == ["-m"]:
            assert len(cells(plan(words[1:]))) > 1
        else:
            configured(*words)
