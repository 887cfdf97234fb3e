"""What MkDocs calls while it builds the site: pages of methods and metrics are written from the code each time."""

from __future__ import annotations

from typing import Any

import method_pages
import metric_pages
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

SECTIONS = {"Methods": method_pages, "Metrics": metric_pages}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put every written page into the navigation."""
    config.nav = [_with_pages(entry) for entry in config.nav or []]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the written pages to those that lie in docs/."""
    for section in SECTIONS.values():
        for path, text in section.pages().items():
            files.append(File.generated(config, path, content=text))
    return files


def _with_pages(entry: dict[str, Any]) -> dict[str, Any]:
    ((title, page),) = entry.items()
    return {title: [page, *SECTIONS[title].nav()]} if title in SECTIONS else entry
