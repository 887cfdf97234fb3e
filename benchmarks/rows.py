"""The table: what is compared with what, what must come out and what we aim at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.turns import Spread, spread

Result = dict[str, Any]  # value, low, high, turns; and the figures of both sides


@dataclass(frozen=True)
class Row:
    """A line of the table.

    what, peer: ours, and what it is compared with. share: of time or memory, where less is better; otherwise how many
    times faster than the peer. must, aim: None where nothing was promised.
    """

    what: str
    peer: str
    must: float | None
    aim: float | None
    share: bool = False

    def reaches(self, value: float, target: float | None) -> bool | None:
        """Whether a value is as good as a target; None where there is none."""
        if target is None:
            return None
        return value <= target if self.share else value >= target

    def verdict(self, value: float) -> str:
        """In a word."""
        for target, word in ((self.aim, "aim"), (self.must, "must")):
            if self.reaches(value, target):
                return word
        return "none" if self.must is None else "missed"

    def written(self, value: float | None) -> str:
        """A number of this row."""
        if value is None:
            return ""
        return f"{100 * value:.1f} %" if self.share else f"{value:.2f} x"


def _shares(name: str, what: str, peer: str, must: float, aim: float) -> dict[str, Row]:
    """A share of ours, at the published size and at others."""
    others = {f"{name}_{size}": f"{what}, {size.replace('_', ' ')}" for size in SIZES}
    return {key: Row(title, peer, must, aim, share=True) for key, title in {name: what, **others}.items()}


SIZES = {"width_64": {"width": 64}, "width_1024": {"width": 1024}, "depth_1": {"depth": 1}, "depth_8": {"depth": 8}}
PPO, SAC = "whole PPO + continual backprop on Slippery Ant", "whole SAC + continual backprop on Slippery Ant"
ROWS = {
    "ppo": Row(PPO, "SB3 PPO, DummyVecEnv of 8", 2.2, 3.0),
    "ppo_one": Row(PPO, "SB3 PPO out of the box (1 environment)", 2.8, 3.8),
    "ppo_sbx": Row(PPO, "SBX PPO (JAX), DummyVecEnv of 8", 2.0, 2.7),
    "ppo_lop": Row(PPO, "PPO + continual backprop of the published code", 2.8, 4.0),
    "sac": Row(SAC, "SB3 SAC", 1.4, 1.9),
    "sac_sbx": Row(SAC, "SBX SAC (JAX)", 1.2, 1.6),
    "ppo_update": Row("PPO's update with continual backprop", "SB3 PPO's update", None, None),
    "sac_update": Row("SAC's update with continual backprop", "SB3 SAC's update", None, None),
    "batched": Row("stepping 8 Slippery Ants at once, bit for bit the same", "DummyVecEnv, same wrappers", 1.7, 2.2),
    **_shares("cbp", "continual backprop", "of our PPO's update", 0.05, 0.02),
    **_shares("metrics", "all metrics and writing them", "of our PPO's training", 0.03, 0.01),
    "wrapper": Row("the wrapper", "of a step of Ant", 0.02, 0.005, share=True),
    "adam": Row("UnitAdam, slower by", "torch's fused Adam", 0.10, 0.0, share=True),
    "memory": Row("peak memory of a PPO run, above", "SB3 PPO, DummyVecEnv of 8", 0.10, 0.0, share=True),
}


def result(numbers: Sequence[float], **facts: Spread | float) -> Result:
    """The median over all turns with its quartiles, and the medians of what it was worked out from."""
    middle = spread(numbers)
    told = {name: fact.as_dict() if isinstance(fact, Spread) else float(f"{fact:.5g}") for name, fact in facts.items()}
    return middle.as_dict() | {"turns": len(numbers)} | told
