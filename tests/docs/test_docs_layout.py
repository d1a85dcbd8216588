"""What keeps the site's tables in sight: few columns, widths that fit the page, and first what can be performed."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from pages import ROOT
from site_build.catalogue import Catalogue
from site_build.components import component_table
from site_build.tables import papers_page
from site_build.verdicts import evidence_page

from repertoire import papers, registry
from repertoire.claims import stored

CSS = (ROOT / "docs" / "assets" / "site.css").read_text(encoding="utf-8")

#: Of the theme, in rem: the grid, and a sidebar beside the text.
GRID, SIDEBAR = 61.0, 12.1


class Heads(HTMLParser):
    """The columns of a table, and the status of each of its rows."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.columns, self.statuses = 0, []
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.columns += tag == "th"
        status = dict(attributes).get("data-status")
        self.statuses += [] if status is None or tag != "tr" else [status]


def least_width(selector: str) -> float:
    """The least width that the stylesheet gives what a selector chooses, in rem."""
    return float(re.search(rf"{re.escape(selector)} {{[^}}]*min-width: ([\d.]+)rem", CSS)[1])


@pytest.mark.parametrize("kind", list(registry.KINDS))
def test_a_table_of_components_leaves_room_for_what_they_are(kind: str):
    """Options, which do not wrap, stand on the page of each."""
    head, *_ = component_table(kind).split("\n")
    assert head == "| name | what it is | paper |"
    assert least_width(".md-typeset table:not([class]) td:nth-child(2):not(:last-child)") >= 6


def test_papers_that_can_be_performed_come_first():
    found = Heads(papers_page(Catalogue(papers.load(), {}, {}, {}))).statuses
    assert len(found) == len(papers.load())
    performed = sum(status != "open" for status in found)
    assert 50 < performed < len(found)
    assert "open" not in found[:performed]


def test_the_columns_of_the_evidence_fit_beside_the_navigation():
    known = {item.slug: item for item in stored()}
    columns = Heads(evidence_page(Catalogue(papers.load(), known, {}, {}))).columns
    first, middle, last = (
        least_width(f".evidence-table td:{which}") for which in ("first-child", "nth-child(n + 3)", "nth-child(n + 5)")
    )
    assert columns > 5
    # The second column has no least width of its own; it gets what is left, and needs some.
    assert first + 2 * middle + (columns - 4) * last + 4 <= GRID - SIDEBAR
