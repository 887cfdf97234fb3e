"""What is trained here: small networks, a few rollouts, and units that are replaced all the time."""

ROLLOUT = 128  # environment steps
ONE = "run.threads=1"  # whatever machine this is, and as many tests at a time as it has cores
SAVING = ["run.dir=run", f"run.checkpoint.every={ROLLOUT}", ONE]
SMALL = ["agent.net_arch=[16,16]", "plasticity.cbp.maturity=5", "plasticity.cbp.replacement_rate=0.02"]
PPO = ["env.n_envs=2", f"agent.n_steps={ROLLOUT // 2}", "agent.n_epochs=2", *SMALL, *SAVING]
CARTPOLE = ["env=ns_cartpole", "env.kwargs.period=500", *PPO]
ANT = ["env=slippery_ant", "env.kwargs.period=300", *PPO]
SAC = [
    *("agent=sac", "env=ns_pendulum", "env.kwargs.period=150", "env.n_envs=2", "env.vectorization=subproc"),
    *("env.normalize_observations=true", "env.normalize_rewards=true"),
    *("agent.learning_starts=60", "agent.batch_size=32", "agent.buffer_size=300", *SMALL),
    *("run.dir=run", "run.checkpoint.every=50", ONE),
]
TOTAL = 10 * ROLLOUT


def with_two_threads(words: list[str]) -> list[str]:
    """The same words with one thread more."""
    return ["run.threads=2" if word == ONE else word for word in words]
