"""Shared by the tests of agents."""

from __future__ import annotations

from functools import partial

import pytest

from plasticity import plasticity_probe


@pytest.fixture
def short_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    """Monitors probe for 10 steps in place of 200, where it does not matter what is found."""
    monkeypatch.setattr("agents.measurements.plasticity_probe", partial(plasticity_probe, steps=10))
