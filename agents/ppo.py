"""PPO with plasticity."""

from __future__ import annotations

import stable_baselines3

from agents.algorithm import PlasticAlgorithm
from agents.backend import ByHand
from agents.fast_ppo import FastPPO, why_not_fast


class PPO(PlasticAlgorithm, stable_baselines3.PPO):
    """SB3's PPO whose policy and value networks keep their plasticity: `PPO("MlpPolicy", env, plasticity="cbp")`."""

    by_hand = ByHand(why_not_fast, FastPPO)

    def train(self) -> None:
        """One update from the rollout."""
        fast = self._backend.of(self)
        if fast is None:
            super().train()
        else:
            fast.train(self)
