"""PPO with plasticity."""

from __future__ import annotations

import stable_baselines3

from agents.algorithm import PlasticAlgorithm


class PPO(PlasticAlgorithm, stable_baselines3.PPO):
    """SB3's PPO whose policy and value networks keep their plasticity: `PPO("MlpPolicy", env, plasticity="cbp")`."""
