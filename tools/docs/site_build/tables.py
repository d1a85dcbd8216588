"""The table of all papers, and that of all evidence."""

from __future__ import annotations

import html

from repertoire import papers
from site_build.catalogue import Catalogue
from site_build.components import status_badge
from site_build.text import plain

__all__ = ["evidence_page", "papers_page"]

_PAPERS = """---
title: Papers
description: All papers of the catalogue, with search and filters.
hide: [toc]
---

# Papers

Repertoire grows out of {total} papers. {built} of them can be performed today. Each has a page: what it says, what
performs it, whether its claim held when it was measured here. A status is computed from the code and the stored
evidence. What becomes performable is announced in an [Atom feed](../feed.xml).

"""

_EVIDENCE = """---
title: Evidence
description: Every claim that was measured, with its verdict.
hide: [toc]
---

# Evidence

A claim runs a paper's method and the obvious baseline on the same data and the same seeds. It **holds** if the whole
95 % interval of the paired differences lies above a threshold that was written down before the first measurement; it
**does not hold** if the whole interval lies below; otherwise it is **inconclusive**. A claim that does not hold is
reported as just that. The budgets are small: a verdict speaks of the data and the sizes that the table names, not of
the paper's own.

"""


def papers_page(catalogue: Catalogue) -> str:
    """Markdown of the searchable table. Without JavaScript it is the whole table."""
    cards = catalogue.cards
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


def evidence_page(catalogue: Catalogue) -> str:
    """Markdown of the table of all claims, measured or not."""
    cards = {card.slug: card for card in catalogue.cards}
    slugs = sorted({*catalogue.claims, *catalogue.evidence})
    if not slugs:
        return _EVIDENCE + "No claim is written yet.\n"
    head = (
        "Paper",
        "Verdict",
        "Difference",
        "95 % interval",
        "Threshold",
        "Seeds",
        "Budget",
        "Measured",
        "Commit",
        "Machine",
    )
    cells = "".join(f'<th scope="col">{name}</th>' for name in head)
    rows = "\n".join(
        _evidence_row(slug, plain(cards[slug].title) if slug in cards else slug, catalogue) for slug in slugs
    )
    return (
        _EVIDENCE
        + f'<div class="wide-table evidence-table"><table>\n<thead><tr>{cells}</tr></thead>\n'
        + f"<tbody>\n{rows}\n</tbody></table></div>\n\n"
        + "Measure on your own machine with `repertoire claims run SLUG`, or all claims with `make evidence`.\n"
    )


def _evidence_row(slug: str, title: str, catalogue: Catalogue) -> str:
    evidence, claim = catalogue.evidence.get(slug), catalogue.claims.get(slug)
    statement = (evidence or claim).statement if evidence or claim else ""
    paper = f'<a href="papers/{slug}.html">{html.escape(title)}</a><small>{html.escape(statement)}</small>'
    if evidence is None:
        return f'<tr><td>{paper}</td><td colspan="9">not measured yet</td></tr>'
    stale = " (stale)" if claim is not None and evidence.is_stale(claim) else ""
    interval = "" if evidence.interval is None else f"{evidence.interval[0]:+.4f} to {evidence.interval[1]:+.4f}"
    cells = (
        status_badge(evidence.verdict) + stale,
        f"{evidence.mean:+.4f}<small>{html.escape(evidence.metric)}</small>",
        interval,
        f"{evidence.threshold:+g}",
        str(len(evidence.seeds)),
        f"{evidence.budget}<small>{evidence.seconds:.0f} s</small>",
        evidence.measured[:10],
        html.escape((evidence.commit or "unknown")[:12]),
        html.escape(evidence.machine),
    )
    return f"<tr><td>{paper}</td>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
