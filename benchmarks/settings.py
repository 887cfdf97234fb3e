"""What ours and the peers are given alike: the published settings of Slippery Ant for PPO, Stable-Baselines3's for SAC.

The published Ant sees 27 numbers; here all see the 105 of gymnasium's Ant-v5, contact forces among them. Continual
backprop comes with betas and a weight decay of its own, which are ours alone: the peers have Adam as it is without
them, as in the published runs without continual backprop.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

ANT = "Ant-v5"
ROLLOUT = 2048  # environment steps of a PPO rollout, all sub-environments together: one turn
SAC_STEPS = 100  # environment steps, each with a gradient step, of a turn of SAC
WIDTH, DEPTH, COPIES = 256, 2, 8
# Of continual backprop. Published are 1e-4 and 10,000, by which in the long run a unit is replaced once in 20,000
# steps: so it is here, but from early on, since no measurement can wait for 10,000.
RATE, MATURITY = 5e-5, 100
PUBLISHED: dict[str, Any] = {
    "learning_rate": 1e-4,
    "batch_size": 128,
    "n_epochs": 10,
    "gamma": 0.99,
    "gae_lambda": 0.95,
    "clip_range": 0.2,
    "vf_coef": 1.0,
    "max_grad_norm": 1e9,
}
CBP = ("plasticity=cbp", f"plasticity.cbp.replacement_rate={RATE}", f"plasticity.cbp.maturity={MATURITY}")
NO_CBP = ("plasticity=none", "agent.betas=[0.99,0.99]", "agent.weight_decay=1e-4")  # all that comes with it but itself
SAC_WORDS = ("agent=sac", "experiment=none", *CBP)


def ppo(n_envs: int) -> dict[str, Any]:
    """PPO's settings, with the same rollout whatever the number of environments."""
    return PUBLISHED | {"n_steps": ROLLOUT // n_envs}


def ppo_words(
    methods: Sequence[str] = CBP, *, n_envs: int = COPIES, width: int = WIDTH, depth: int = DEPTH
) -> list[str]:
    """The same for train.py, with continual backprop."""
    layers = str([width] * depth).replace(" ", "")
    return [
        "experiment=slippery_ant_paper",
        "env.kwargs.legacy_obs=false",
        f"env.n_envs={n_envs}",
        f"agent.n_steps={ROLLOUT // n_envs}",
        f"agent.net_arch={layers}",
        f"agent.critic_net_arch={layers}",
        *methods,
    ]
