"""Which rollout and update an agent uses: those worked out by hand where they apply, or Stable-Baselines3's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from agents.optimizers import owners
from agents.unchanged import Unchanged
from plasticity import SettingsError, UnitAdam
from plasticity.native import MISSING, NATIVE
from plasticity.settings import unknown

BACKENDS = ("auto", "stock")


def check_backend(choice: str) -> str:
    """Return it; raises `SettingsError` where there is no such backend."""
    if choice not in BACKENDS:
        raise SettingsError([unknown("backend", choice, BACKENDS)])
    return choice


@dataclass(frozen=True)
class ByHand:
    """What an algorithm has in place of SB3's own. why_not: why an agent must use that, or None; make: of a policy."""

    why_not: Callable[[Any], str | None]
    make: Callable[[Any], Any]


class Backend:
    """Looks anew before each rollout and update, since a method may have changed what the networks are made of.

    choice: `auto` or `stock`. by_hand: what there is to choose besides SB3's own, if anything.
    """

    def __init__(self, choice: str, by_hand: ByHand | None):
        self.choice, self._by_hand = choice, by_hand
        self._made: Any = None
        self._unchanged: Unchanged | None = None
        self._told: str | None = None

    def why_stock(self, model: Any) -> str | None:
        """Why SB3's own is used, or None."""
        if self.choice == "stock":
            return "backend=stock was asked for"
        if self._by_hand is None:
            return f"{type(model).__name__} has no other"
        return self._by_hand.why_not(model) if NATIVE else MISSING

    def of(self, model: Any) -> Any:
        """Rollout and update by hand, or None where SB3's own are to be used; the log says why, once."""
        if self._unchanged is not None and self._unchanged(model):
            return self._made
        self._unchanged = None
        reason = self.why_stock(model)
        if reason is not None:
            if self.choice != "stock" and reason != self._told:
                model.logger.info(f"Stable-Baselines3's own update is used: {reason}")
                self._told = reason
            return None
        assert self._by_hand is not None
        self._made = self._by_hand.make(model.policy)
        for optimizer in (*(owner.optimizer for owner in owners(model.policy)), vars(model).get("ent_coef_optimizer")):
            if isinstance(optimizer, UnitAdam):
                optimizer.fused = True
        self._unchanged = Unchanged(model)
        return self._made
