"""Hooks of the documentation build. Generated pages exist in memory only; nothing is written into the source tree."""

from __future__ import annotations

import functools
import logging
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from site_build.catalogue import Catalogue, gather
from site_build.components import api, component_page, component_table, component_uri, kinds_table
from site_build.docstrings import DocstringExtension
from site_build.family_pages import families_page, family_page, performable_first
from site_build.feed import component_dates, feed
from site_build.html_tables import label_cells, raw_tables
from site_build.numbers import numbers
from site_build.paper_pages import paper_page
from site_build.tables import papers_page
from site_build.verdicts import evidence_page

from repertoire import papers, registry

_log = logging.getLogger("mkdocs.site_build")

ROOT = Path(__file__).resolve().parents[2]
CARDS = Path(papers.__file__).parent / "cards"
_MARKER = re.compile(r"<!-- (components|numbers|api|kinds): ([\w.-]+) -->")
_EXTERNAL = re.compile(r"<(?:script|img|iframe|source|link)\b[^>]*\b(?:src|href)=[\"']?(?:https?:)?//[^>]*>")
_catalogue = functools.cache(gather)


@event_priority(100)
def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Before mkdocstrings, which takes over the list of extensions for what it renders."""
    config.markdown_extensions.append(DocstringExtension())
    config.nav = _with_generated_pages(config.nav, _catalogue())
    return config


def _with_generated_pages(nav: list[Any], catalogue: Catalogue) -> list[Any]:
    """The navigation of mkdocs.yml, with the components under the page of their kind and the papers by family."""
    kinds: dict[str, list[str]] = {}
    for target, kind in _kind_pages():
        kinds.setdefault(target, []).append(kind)

    def grown(item: Any) -> Any:
        if not isinstance(item, dict):
            return item
        ((title, target),) = item.items()
        if isinstance(target, list):
            below = [_family_section(family, catalogue) for family in papers.families()] if title == "Papers" else []
            return {title: [grown(child) for child in target] + below}
        pages = [component_uri(entry) for kind in kinds.get(target, ()) for entry in registry.entries(kind)]
        return {title: [{"Overview": target}, *pages]} if pages else item

    return [grown(item) for item in nav]


def _kind_pages() -> list[tuple[str, str]]:
    """The pages that list the components of a kind, with the kind."""
    pages = sorted((ROOT / "docs" / "components").glob("*.md"))
    found = ((f"components/{page.name}", _MARKER.findall(page.read_text(encoding="utf-8"))) for page in pages)
    return [(target, name) for target, markers in found for what, name in markers if what == "components"]


def _family_section(family: papers.Family, catalogue: Catalogue) -> dict[str, Any]:
    cards = performable_first([card for card in catalogue.cards if card.family == family.slug])
    pages = [f"papers/{card.slug}.md" for card in cards]
    return {family.title: [{"What can be performed": f"families/{family.slug}.md"}, *pages]}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that are made from the catalogue."""
    catalogue: Catalogue = _catalogue()
    pages = {
        "papers/index.md": papers_page(catalogue),
        "families/index.md": families_page(catalogue),
        "evidence.md": evidence_page(catalogue),
        "feed.xml": feed(catalogue, component_dates(CARDS)),
        "contributing.md": (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"),
        "changelog.md": (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"),
    }
    pages |= {f"papers/{card.slug}.md": paper_page(card, catalogue) for card in catalogue.cards}
    pages |= {f"families/{family.slug}.md": family_page(family, catalogue) for family in papers.families()}
    for room in registry.KINDS:
        pages |= {component_uri(entry): component_page(entry, catalogue) for entry in registry.entries(room)}
    for uri, content in pages.items():
        files.append(File.generated(config, uri, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Replaces the markers for tables of components, their reference, and numbers of benchmarks."""
    page.meta.setdefault("search", {"boost": _boost(page.file.src_uri)})
    made = {
        "components": component_table,
        "api": api,
        "numbers": lambda name: numbers(name, ROOT),
        "kinds": lambda _: kinds_table({kind: target.removeprefix("components/") for target, kind in _kind_pages()}),
    }

    def replace(match: re.Match[str]) -> str:
        what, name = match.groups()
        try:
            return made[what](name)
        except (KeyError, FileNotFoundError) as error:
            _log.warning("%s: %s", page.file.src_uri, error)
            return ""

    return _MARKER.sub(replace, markdown)


def _boost(uri: str) -> float:
    """Of a page in the search: the guide before components, and these before the many papers."""
    section = uri.partition("/")[0]
    return {"guide": 4.0, "components": 2.0, "families": 1.0, "papers": 0.5}.get(section, 1.0)


def on_page_content(html: str, **_: Any) -> str:
    """Tables that can be read on a phone."""
    return label_cells(html)


def on_post_page(output: str, page: Page, **_: Any) -> str:
    """The site must work without a network, so nothing may be fetched from elsewhere; and no table may be left raw."""
    for found in raw_tables(output):
        _log.warning("%s shows a table as it was typed: %s", page.file.src_uri, found[:100])
    for found in _EXTERNAL.findall(output):
        _log.warning("%s fetches from another host: %s", page.file.src_uri, found)
    return output


def on_post_build(config: MkDocsConfig) -> None:
    """The search index as a script, which a page opened from the disk may load where it may not fetch JSON."""
    search = Path(config.site_dir) / "search"
    index = (search / "search_index.json").read_text(encoding="utf-8")
    (search / "search_index.js").write_text(f"var __index = {index}", encoding="utf-8")
