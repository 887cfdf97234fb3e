"""What can be said of an agent: the `agent` section of the configuration, for each algorithm.

A step is an environment step, all sub-environments together, unless a field says "gradient steps".
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from agents.backend import BACKENDS
from plasticity import INITIALISATIONS
from plasticity.settings import SettingsError, check, setting

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "leaky_relu": nn.LeakyReLU,
}


@dataclass(frozen=True)
class AgentSettings:
    """What PPO and SAC share: discount, networks (hidden widths) and Adam.

    backend: see `agents.PlasticAlgorithm`; results differ by rounding.
    """

    algorithm: str
    backend: str = setting("auto", choices=BACKENDS)
    policy: str = setting("MlpPolicy", choices=("MlpPolicy", "CnnPolicy"))
    learning_rate: float = setting(3e-4, within="(0, inf)")
    gamma: float = setting(0.99, within="[0, 1]")
    net_arch: tuple[int, ...] = setting((256, 256), within="[1, inf)")
    critic_net_arch: tuple[int, ...] | None = setting(None, within="[1, inf)")  # None: the same as net_arch
    activation: str = setting("relu", choices=ACTIVATIONS)
    init: str | None = setting(None, choices=[name for name in INITIALISATIONS if name != "network"])  # None: SB3's own
    betas: tuple[float, float] = setting((0.9, 0.999), within="[0, 1)")
    eps: float = setting(1e-8, within="(0, inf)")
    weight_decay: float = setting(0.0, within="[0, inf)")
    decoupled: bool = False  # False: the decay is added to the gradient, as in Adam; True: as in AdamW
    use_sde: bool = False
    sde_sample_freq: int = setting(-1, within="[-1, inf)")

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class PPOSettings(AgentSettings):
    """n_steps: steps of each sub-environment in a rollout; batch_size: rows of a minibatch."""

    n_steps: int = setting(2048, within="[1, inf)")
    batch_size: int = setting(64, within="[1, inf)")
    n_epochs: int = setting(10, within="[1, inf)")
    gae_lambda: float = setting(0.95, within="[0, 1]")
    clip_range: float = setting(0.2, within="(0, inf)")
    clip_range_vf: float | None = setting(None, within="(0, inf)")
    normalize_advantage: bool = True
    ent_coef: float = setting(0.0, within="[0, inf)")
    vf_coef: float = setting(0.5, within="[0, inf)")
    max_grad_norm: float = setting(0.5, within="(0, inf)")
    target_kl: float | None = setting(None, within="(0, inf)")
    log_std_init: float = setting(0.0, within="[-20, 2]")  # of the actions' Gaussian, when training starts


@dataclass(frozen=True)
class SACSettings(AgentSettings):
    """train_freq: steps of each sub-environment between updates; gradient_steps: -1 for as many as steps were taken."""

    buffer_size: int = setting(1_000_000, within="[1, inf)")
    learning_starts: int = setting(100, within="[0, inf)")
    batch_size: int = setting(256, within="[1, inf)")
    tau: float = setting(0.005, within="[0, 1]")
    train_freq: int = setting(1, within="[1, inf)")
    gradient_steps: int = setting(1, within="[-1, inf)")
    ent_coef: float | str = "auto"
    target_update_interval: int = setting(1, within="[1, inf)")
    n_critics: int = setting(2, within="[1, inf)")
    target_critic: str = setting("leave", choices=("leave", "sync"))

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.ent_coef, str) and self.ent_coef != "auto":
            raise SettingsError([f'ent_coef must be a number or "auto", got {self.ent_coef!r}'])
        if isinstance(self.ent_coef, float) and self.ent_coef < 0:
            raise SettingsError([f"ent_coef must be in [0, inf), got {self.ent_coef}"])
