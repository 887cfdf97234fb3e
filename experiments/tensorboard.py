"""What TensorBoard shows of a run beyond plain scalars: one page that puts the story together, and hyper-parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import HParam

from experiments.events import EventFiles
from experiments.folder import learned_part
from experiments.schema import Config

# Custom scalars: page -> chart -> kind and tags. Tags are regular expressions, so one layout serves every agent.
LAYOUT = {
    "Plasticity": {
        "return": ["Multiline", ["rollout/ep_rew_mean"]],
        "what changes": ["Multiline", [r"nonstationary/(?!regime|due_regime).*"]],
        "regime": ["Multiline", [r"nonstationary/(due_)?regime"]],
        "dead units (share)": ["Multiline", [r"plasticity/[^/]+/dead_fraction"]],
        "effective rank": ["Multiline", [r"plasticity/[^/]+/effective_rank"]],
        "effective rank on the frozen probe batch": ["Multiline", [r"plasticity/[^/]+/probe_effective_rank"]],
        "lost plasticity (log loss of fitting random functions, less that of the first weights)": [
            "Multiline",
            [r"plasticity/[^/]+/plasticity_gap"],
        ],
        "churn of outputs on the frozen probe batch": ["Multiline", [r"plasticity/[^/]+/churn"]],
        "units replaced": ["Multiline", [r"plasticity/[^/]+/replaced$"]],
        "weight magnitude": ["Multiline", [r"plasticity/[^/]+/weight_magnitude"]],
    }
}
EVALUATION = {
    "Forgetting": {
        "return on each frozen regime": ["Multiline", [r"evaluation/return_on_regime_\d+"]],
        "average return on the regimes met": ["Multiline", [r"evaluation/(best_)?average_return"]],
        "forgetting and transfer": ["Multiline", [r"evaluation/(forgetting|(backward|forward)_transfer)"]],
        "recovery (mean environment steps)": ["Multiline", ["evaluation/recovery_steps"]],
        "gap to a fresh agent": ["Multiline", ["evaluation/gap_to_fresh"]],
    }
}
METRICS = ("rollout/ep_rew_mean", "rollout/ep_len_mean")


class RunPage(BaseCallback):
    """Writes the custom-scalars layout and the hyper-parameters when a run starts; a resumed one has them already."""

    def __init__(self, config: Config):
        super().__init__()
        self.config = config

    def _on_training_start(self) -> None:
        for output in self.logger.output_formats:
            if isinstance(output, EventFiles) and not output.resumed:
                output.writer.add_custom_scalars(LAYOUT | (EVALUATION if self.config.evaluation.episodes else {}))
                output.write({"hparams": self._hparams()}, {"hparams": ()}, self.num_timesteps)

    def _hparams(self) -> HParam:
        networks = list(getattr(self.model.policy, "networks", {}))
        metrics = [*METRICS, *(f"plasticity/{n}/{m}" for n in networks for m in ("dead_fraction", "effective_rank"))]
        return HParam(dict(flat(learned_part(self.config))), dict.fromkeys(metrics, 0.0))

    def _on_step(self) -> bool:
        return True


def flat(tree: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, bool | str | float | int]]:
    """A nested configuration as `agent.gamma` -> value, each of a kind that TensorBoard's table can show."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{path}{key}.")
        elif isinstance(value, bool | str | int | float):
            yield f"{path}{key}", value
        else:
            yield f"{path}{key}", "none" if value is None else str(value)
