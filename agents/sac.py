"""SAC with plasticity."""

from __future__ import annotations

from typing import Any

import stable_baselines3

from agents import replay
from agents.algorithm import PlasticAlgorithm
from agents.backend import ByHand
from agents.fast_sac import FastSAC, why_not_fast
from agents.optimizers import unit_adam


class SAC(PlasticAlgorithm, stable_baselines3.SAC):
    """SB3's SAC whose actor and critics keep their plasticity: `SAC("MlpPolicy", env, plasticity="cbp")`.

    Rates and maturities count gradient steps: SAC makes one for each environment step by default, so `maturity=10_000`
    means 10,000 environment steps, where the published PPO needs about 128,000 for as many.
    """

    by_hand = ByHand(why_not_fast, FastSAC)

    def _setup_model(self) -> None:
        super()._setup_model()
        entropy: Any = self.ent_coef_optimizer
        if entropy is not None:
            self.ent_coef_optimizer = unit_adam(entropy, {})  # type: ignore[assignment]  # equal, and faster by hand
        replay.fit(self.replay_buffer, self._vec_normalize_env)

    def set_env(self, env: Any, force_reset: bool = True) -> None:
        """As SB3 has it."""
        super().set_env(env, force_reset)
        replay.fit(self.replay_buffer, self._vec_normalize_env)

    def train(self, gradient_steps: int, batch_size: int = 64) -> None:
        """So many gradient steps on transitions from the replay buffer."""
        fast = self._backend.of(self)
        if fast is None:
            super().train(gradient_steps, batch_size)
        else:
            fast.train(self, gradient_steps, batch_size)
