"""SAC with plasticity."""

from __future__ import annotations

import stable_baselines3

from agents.algorithm import PlasticAlgorithm


class SAC(PlasticAlgorithm, stable_baselines3.SAC):
    """SB3's SAC whose actor and critics keep their plasticity: `SAC("MlpPolicy", env, plasticity="cbp")`.

    Rates and maturities count gradient steps: SAC makes one for each environment step by default, so `maturity=10_000`
    means 10,000 environment steps, where the published PPO needs about 128,000 for as many.
    """
