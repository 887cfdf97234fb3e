"""Alarms: sentences for a run that is losing plasticity, said once and again only when it got much worse."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

RANK_FELL = 2.0  # to less than one half of its highest value so far
DORMANT = 0.5  # more than this share of a layer's units
WARM_UP = 10  # measurements after which a rank counts: learning anything at all takes rank from a fresh network
WEIGHTS_GREW = 10.0  # to more than ten times their first value


@dataclass(frozen=True)
class _Finding:
    """badness: above 1 is an alarm, and twice as much is twice as bad."""

    badness: float
    text: str


class Alarms:
    """Looks at the numbers of every measurement; `raised` are the (environment step, sentence) so far.

    For each layer, on the frozen probe batch: its effective rank is below half of its highest value after the first ten
    measurements; more than half of its units are dormant (tau 0.025); its mean |weight| is above ten times its first
    value. Each is said once, and again only when it is twice as bad: half the rank, half as many active units, twice
    the weights. The thresholds are ours.
    """

    def __init__(self) -> None:
        self.raised: list[tuple[int, str]] = []
        self._seen = 0
        self._highest_rank: dict[str, tuple[int, float]] = {}
        self._first_weights: dict[str, tuple[int, float]] = {}
        self._said: dict[str, float] = {}

    def check(self, step: int, numbers: Mapping[str, float]) -> list[str]:
        """New sentences, one a layer. numbers: as `PlasticityMonitor.measure` gives them; step: environment steps."""
        sentences = []
        self._seen += 1
        for layer in _layers(numbers):
            findings = self._findings(layer, step, numbers)
            if new := [finding.text for kind, finding in findings.items() if self._is_news(f"{layer}/{kind}", finding)]:
                sentences.append(f"{layer}: {'; '.join(new)}")
        self.raised += [(step, sentence) for sentence in sentences]
        return sentences

    def _is_news(self, key: str, finding: _Finding) -> bool:
        if not finding.badness > self._said.get(key, 1.0):
            return False
        self._said[key] = 2 * finding.badness
        return True

    def _findings(self, layer: str, step: int, numbers: Mapping[str, float]) -> dict[str, _Finding]:
        found = {}
        rank = numbers.get(f"{layer}/probe_effective_rank")
        if rank is not None and self._seen > WARM_UP:
            since, highest = self._highest_rank.get(layer, (step, rank))
            if rank >= highest:
                since, highest = self._highest_rank[layer] = (step, rank)
            text = f"effective rank on the probe batch fell from {highest:.3g} to {rank:.3g} since step {since:,}"
            found["rank"] = _Finding(_ratio(highest, rank) / RANK_FELL, text)
        dormant = numbers.get(f"{layer}/probe_dormant_fraction")
        if dormant is not None:
            text = f"{dormant:.0%} of its units are dormant"
            found["dormant"] = _Finding(_ratio(1 - DORMANT, 1 - dormant), text)
        weights = numbers.get(f"{layer}/weight_magnitude")
        if weights is not None:
            since, first = self._first_weights.setdefault(layer, (step, weights))
            text = f"mean |weight| grew from {first:.3g} to {weights:.3g} since step {since:,}"
            found["weights"] = _Finding(_ratio(weights, first) / WEIGHTS_GREW, text)
        return found

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint of a run must keep: plain numbers and text."""
        return {
            "raised": list(self.raised),
            "seen": self._seen,
            "highest_rank": dict(self._highest_rank),
            "first_weights": dict(self._first_weights),
            "said": dict(self._said),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self.raised, self._said, self._seen = list(state["raised"]), dict(state["said"]), state["seen"]
        self._highest_rank, self._first_weights = dict(state["highest_rank"]), dict(state["first_weights"])


def _layers(numbers: Iterable[str]) -> list[str]:
    """`pi/0`, `pi/1`, ...: whatever has a weight magnitude of its own, in order."""
    suffix = "/weight_magnitude"
    return [key.removesuffix(suffix) for key in numbers if key.endswith(suffix) and key.count("/") == 2]


def _ratio(one: float, other: float) -> float:
    """one / other; infinite if only `other` is 0."""
    if other > 0:
        return one / other
    return float("inf") if one > 0 else 1.0
