"""One torch thread for every test: results do not depend on the machine, and workers do not fight."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.reliability import scorecard

torch.set_num_threads(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--scorecard docs/reliability.md` writes that page."""
    parser.addoption("--scorecard", type=Path, help="write what came of the cases in tests/reliability to this page")


def pytest_configure(config: pytest.Config) -> None:
    path = config.getoption("scorecard")
    if path is not None and not hasattr(config, "workerinput"):
        config.pluginmanager.register(scorecard.Scorecard(path))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    scorecard.note_cases(config, items)
