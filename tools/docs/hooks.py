"""Hooks of the documentation build. Generated pages exist in memory only; nothing is written into the source tree."""

from __future__ import annotations

import functools
import logging
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page
from site_build.catalogue import Catalogue, gather
from site_build.components import component_table
from site_build.docstrings import DocstringExtension
from site_build.feed import component_dates, feed
from site_build.numbers import numbers
from site_build.paper_pages import paper_page
from site_build.tables import evidence_page, papers_page

from repertoire import papers

_log = logging.getLogger("mkdocs.site_build")

ROOT = Path(__file__).resolve().parents[2]
CARDS = Path(papers.__file__).parent / "cards"
_MARKER = re.compile(r"<!-- (components|numbers): ([\w-]+) -->")
_EXTERNAL = re.compile(r"<(?:script|img|iframe|source|link)\b[^>]*\b(?:src|href)=[\"']?(?:https?:)?//[^>]*>")
_catalogue = functools.cache(gather)


@event_priority(100)
def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Before mkdocstrings, which takes over the list of extensions for what it renders."""
    config.markdown_extensions.append(DocstringExtension())
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that are made from the catalogue."""
    catalogue: Catalogue = _catalogue()
    pages = {
        "papers/index.md": (papers_page(catalogue), InclusionLevel.INCLUDED),
        "evidence.md": (evidence_page(catalogue), InclusionLevel.INCLUDED),
        "feed.xml": (feed(catalogue, component_dates(CARDS)), InclusionLevel.INCLUDED),
        "contributing.md": ((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), InclusionLevel.INCLUDED),
        "changelog.md": ((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), InclusionLevel.INCLUDED),
    }
    for card in catalogue.cards:
        pages[f"papers/{card.slug}.md"] = (paper_page(card, catalogue), InclusionLevel.NOT_IN_NAV)
    for uri, (content, inclusion) in pages.items():
        files.append(File.generated(config, uri, content=content, inclusion=inclusion))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Replaces the markers for tables of components and for numbers of benchmarks."""

    def replace(match: re.Match[str]) -> str:
        what, name = match.groups()
        try:
            return component_table(name) if what == "components" else numbers(name, ROOT)
        except (KeyError, FileNotFoundError) as error:
            _log.warning("%s: %s", page.file.src_uri, error)
            return ""

    return _MARKER.sub(replace, markdown)


def on_post_page(output: str, page: Page, **_: Any) -> str:
    """The site must work without a network: nothing may be fetched from elsewhere."""
    for found in _EXTERNAL.findall(output):
        _log.warning("%s fetches from another host: %s", page.file.src_uri, found)
    return output


def on_post_build(config: MkDocsConfig) -> None:
    """The search index as a script, which a page opened from the disk may load where it may not fetch JSON."""
    search = Path(config.site_dir) / "search"
    index = (search / "search_index.json").read_text(encoding="utf-8")
    (search / "search_index.js").write_text(f"var __index = {index}", encoding="utf-8")
