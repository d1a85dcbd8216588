"""The table of all papers."""

from __future__ import annotations

import html

from repertoire import papers
from site_build.catalogue import Catalogue
from site_build.components import status_badge
from site_build.family_pages import performable_first
from site_build.text import plain

__all__ = ["papers_page"]

_PAPERS = """---
title: Papers
description: All papers of the catalogue, with search and filters.
hide: [toc]
---

# Papers

Repertoire grows out of {total} papers. {built} of them can be performed today, and stand first.
Each has a page: what it says, what performs it, whether its claim held when it was measured here. A status is computed
from the code and the stored evidence. What becomes performable is announced in an [Atom feed](../feed.xml).

"""


def papers_page(catalogue: Catalogue) -> str:
    """Markdown of the searchable table. Without JavaScript it is the whole table."""
    cards = performable_first(catalogue.cards)
    families = [family for family in papers.families() if any(card.family == family.slug for card in cards)]
    choices = "".join(
        f'<option value="{f.slug}">{html.escape(f.title)} ({sum(card.family == f.slug for card in cards)})</option>'
        for f in families
    )
    statuses = "".join(
        f'<option value="{status}">{status}</option>'
        for status in papers.STATUSES
        if any(c.status == status for c in cards)
    )
    titles = {family.slug: family.title for family in families}
    rows = "\n".join(_paper_row(card, titles[card.family]) for card in cards)
    built = sum(card.status != "open" for card in cards)
    return (
        _PAPERS.format(total=len(cards), built=built)
        + '<form id="paper-filters" class="paper-filters" hidden>\n'
        + '<label>Search<input type="search" name="text" autocomplete="off" '
        + 'placeholder="few labels, noisy labels, SupCon ..."></label>\n'
        + f'<label>Family<select name="family"><option value="">all</option>{choices}</select></label>\n'
        + f'<label>Status<select name="status"><option value="">all</option>{statuses}</select></label>\n'
        + '<button type="reset">Clear</button>\n</form>\n'
        + f'<p id="paper-count" role="status">{len(cards)} papers</p>\n'
        + '<div class="wide-table"><table id="paper-table">\n'
        + '<thead><tr><th scope="col">Paper</th><th scope="col">Year</th><th scope="col">Family</th>'
        + f'<th scope="col">Status</th></tr></thead>\n<tbody>\n{rows}\n</tbody></table></div>\n'
        + '<script src="../assets/papers.js"></script>\n'
    )


def _paper_row(card: papers.Card, family: str) -> str:
    words = " ".join((card.slug, *card.keywords, plain(card.summary), plain(card.claim), str(card.id)))
    return (
        f'<tr data-family="{card.family}" data-status="{card.status}" data-words="{html.escape(words.lower())}">'
        f'<td><a href="{card.slug}.html">{html.escape(plain(card.title))}</a>'
        f"<small>{html.escape(', '.join(card.keywords))}</small></td>"
        f"<td>{card.year}</td><td>{html.escape(family)}</td><td>{status_badge(card.status)}</td></tr>"
    )
