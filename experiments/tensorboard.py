"""What TensorBoard shows of a run beyond plain scalars: one page that puts the story together, and hyper-parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import HParam, Logger, TensorBoardOutputFormat, make_output_format

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
        "average return on the regimes met": ["Multiline", ["evaluation/average_return"]],
        "forgetting and transfer": ["Multiline", [r"evaluation/(forgetting|(backward|forward)_transfer)"]],
        "recovery (mean environment steps)": ["Multiline", ["evaluation/recovery_steps"]],
        "gap to a fresh agent": ["Multiline", ["evaluation/gap_to_fresh"]],
    }
}
METRICS = ("rollout/ep_rew_mean", "rollout/ep_len_mean")


def make_logger(folder: Path, tensorboard: bool) -> Logger:
    """SB3's logger, writing `progress.csv` and, if asked, TensorBoard events into the run's folder."""
    formats = ["csv", "tensorboard"] if tensorboard else ["csv"]
    return Logger(folder=str(folder), output_formats=[make_output_format(name, str(folder)) for name in formats])


class RunPage(BaseCallback):
    """Writes the custom-scalars layout and the hyper-parameters when training starts."""

    def __init__(self, config: Config):
        super().__init__()
        self.config = config

    def _on_training_start(self) -> None:
        for writer in (f.writer for f in self.logger.output_formats if isinstance(f, TensorBoardOutputFormat)):
            writer.add_custom_scalars(LAYOUT | (EVALUATION if self.config.evaluation.episodes else {}))
        hparams = dict(flat(learned_part(self.config)))
        networks = list(getattr(self.model.policy, "networks", {}))
        metrics = [*METRICS, *(f"plasticity/{n}/{m}" for n in networks for m in ("dead_fraction", "effective_rank"))]
        self.logger.record(
            "hparams",
            HParam(hparam_dict=hparams, metric_dict=dict.fromkeys(metrics, 0.0)),
            exclude=("stdout", "log", "json", "csv"),
        )

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
