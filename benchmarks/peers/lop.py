"""PPO with continual backprop of the code published with Dohare et al. (2024).

It is no package: a checkout of github.com/shibhansh/loss-of-plasticity is needed, of which nothing is kept here. Its
agent is driven as its own script does it, without what that logs, on gymnasium's Ant, since its environments need an
older gym.
"""

from __future__ import annotations

import sys
import time

import gymnasium as gym
import torch

from benchmarks import settings
from benchmarks.contestant import Caller, Stopwatch


def ppo(caller: Caller, path: str) -> None:
    """path: where the checkout lies."""
    sys.path.insert(0, path)
    from lop.algos.rl.agent import Agent
    from lop.algos.rl.buffer import Buffer
    from lop.algos.rl.ppo import PPO
    from lop.nets.policies import MLPPolicy
    from lop.nets.valuefs import MLPVF

    torch.manual_seed(0)
    env, layers, given = gym.make(settings.ANT), [settings.WIDTH] * settings.DEPTH, settings.PUBLISHED
    observes, acts = (gym.spaces.flatdim(space) for space in (env.observation_space, env.action_space))
    network = {"act_type": "ReLU", "h_dim": layers, "init": "lecun"}
    policy, values = MLPPolicy(observes, acts, **network), MLPVF(observes, **network)
    learner = PPO(
        policy,
        Buffer(observes, acts, settings.ROLLOUT),
        given["learning_rate"],
        g=given["gamma"],
        vf=values,
        lm=given["gae_lambda"],
        Opt=torch.optim.Adam,
        n_itrs=given["n_epochs"],
        n_slices=settings.ROLLOUT // given["batch_size"],
        clip_eps=given["clip_range"],
        max_grad_norm=given["max_grad_norm"],
        betas=(0.99, 0.99),
        wd=1e-4,
        init="lecun",
        replacement_rate=settings.RATE,
        mt=settings.MATURITY,
        vgnt=True,
        pgnt=True,
    )
    agent, updates = Agent(policy, learner), Stopwatch()
    updates.around(learner, "learn")
    observation, _ = env.reset(seed=0)
    while caller.calls():
        start = time.perf_counter()
        updates.take()
        for _ in range(settings.ROLLOUT):
            action, log_prob, distribution, _ = agent.get_action(observation)
            then, reward, terminated, truncated, _ = env.step(action)
            ended = terminated or truncated
            agent.log_update(observation, action, reward, then, log_prob, distribution, ended)
            observation = env.reset()[0] if ended else then
        caller.tell(seconds=time.perf_counter() - start, steps=settings.ROLLOUT, update_seconds=updates.take())
