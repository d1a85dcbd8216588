"""The table of all claims: verdict, effect, what it is worth, and what chance would give."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from repertoire import papers
from repertoire.claims._claim import Claim, entries
from repertoire.claims._evidence import freshness
from repertoire.errors import UnknownName
from repertoire.papers import Evidence, evidence
from repertoire.statistics import benjamini_hochberg

__all__ = ["ALPHA", "Table", "TableRow", "among_all", "table"]

ALPHA = 0.05
"""Error of a verdict that holds or does not, both ways; `holds` alone has half of it."""


@dataclass(frozen=True)
class TableRow:
    """A claim as the table shows it.

    Attributes:
        claim: slug, or slug and part.
        family, paper_kind: of the paper.
        verdict: of the evidence; "not measured" without any.
        note: "stale", "aged" or "".
        effect: of the method over the baseline, positive where the method is better; the largest error of an identity;
            None without evidence.
        threshold: what it has to be; see `kind`.
        kind: how it is decided: "better", "equivalent", "trend", "ordering", "identity" or "optimum".
        low, high: its interval; None for a single seed.
        metric, data, tier: what was measured on what, and what that is worth.
        seeds: how many.
        minutes: of CPU time.
        survives: whether it holds and stands among all claims (Benjamini and Hochberg at 5 %).
        reduction: what of the paper is left out or replaced.
        statement: what is checked.
        changed: what made the evidence stale.
    """

    claim: str
    family: str
    paper_kind: str
    verdict: str
    note: str
    effect: float | None
    low: float | None
    high: float | None
    threshold: float
    kind: str
    metric: str
    data: str
    tier: str
    seeds: int
    minutes: float
    survives: bool
    reduction: str
    statement: str
    changed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """All claims.

    Attributes:
        rows: one for each, by name.
        tested: how many were tested by their seeds: those that are no identity, and whose bed did not fail.
        by_chance: how many of these would hold if every true effect stood at its threshold.
        surviving: how many hold and stand after the correction for their number.
    """

    rows: tuple[TableRow, ...]
    tested: int
    by_chance: float
    surviving: int

    @property
    def sentences(self) -> list[str]:
        """Sentences that sum up the table."""
        said = papers.tally(row.verdict for row in self.rows)
        stale = sum(row.note == "stale" for row in self.rows)
        tiers = Counter(row.tier for row in self.rows if row.seeds)
        return [
            f"{len(self.rows)} claims: {said}. {stale} of them are stale: the claim or a component has changed since.",
            "Measured on: " + ", ".join(f"{tiers[tier]} {tier}" for tier in papers.TIERS if tiers[tier]) + ".",
            f"{self.tested} were tested by their seeds; {self.by_chance:.1f} of these ({ALPHA / 2:.1%} each) would "
            f"hold by chance if every true effect stood exactly at its threshold. {self.surviving} of those that hold "
            "survive the correction for their number (Benjamini and Hochberg at 5 %).",
        ]

    def to_csv(self) -> str:
        """All columns, with a head, for a spreadsheet."""
        out = io.StringIO()
        names = [name for name in TableRow.__dataclass_fields__ if name != "changed"]
        writer = csv.DictWriter(out, names, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        for row in self.rows:
            writer.writerow({key: "" if value is None else value for key, value in asdict(row).items()})
        return out.getvalue()


def table(*, folder: Path | None = None) -> Table:
    """The table of all claims and their evidence.

    Args:
        folder: of the evidence; by default that which comes with Repertoire.
    """
    claims = entries()
    found = {claim.name: evidence(claim.slug, part=claim.part, folder=folder) for claim in claims}
    tested, surviving = among_all({name: item for name, item in found.items() if item is not None})
    rows = tuple(_row(claim, found[claim.name], claim.name in surviving) for claim in claims)
    return Table(rows, len(tested), ALPHA / 2 * len(tested), len(surviving))


def among_all(evidence: Mapping[str, Evidence]) -> tuple[list[str], set[str]]:
    """Names of the claims that were tested by their seeds, and of those that hold and still do when the number of all
    these tests is allowed for (Benjamini and Hochberg at 5 %).

    Args:
        evidence: by name of the claim.
    """
    tested = [
        name
        for name, item in evidence.items()
        if item.interval is not None and item.kind != "identity" and item.verdict != "no answer"
    ]
    adjusted = zip(tested, benjamini_hochberg([evidence[name].p for name in tested]), strict=True)
    # One-sided p values, of which half the level is the error of "holds".
    return tested, {name for name, p in adjusted if evidence[name].verdict == "holds" and p <= ALPHA / 2}


def _row(claim: Claim, found: Evidence | None, survives: bool) -> TableRow:
    card: papers.Card | None
    try:
        card = papers.get(claim.slug)
    except UnknownName:  # a claim of the user's own
        card = None
    fresh = None if found is None else freshness(found, claim)
    span = (None, None) if found is None or found.interval is None else found.interval
    return TableRow(
        claim=claim.name,
        family=card.family if card else "",
        paper_kind=card.kind if card else "",
        verdict="not measured" if found is None else found.verdict,
        note="" if fresh is None or fresh.state == "fresh" else fresh.state,
        effect=None if found is None else found.mean,
        low=span[0],
        high=span[1],
        threshold=claim.threshold if found is None else found.threshold,
        kind=claim.kind,
        metric=claim.metric,
        data=claim.data if found is None else found.data,
        tier=claim.tier if found is None else found.tier,
        seeds=0 if found is None else len(found.seeds),
        minutes=0.0 if found is None else round(found.seconds / 60, 2),
        survives=survives,
        reduction=card.reduction if card else "",
        statement=claim.statement,
        changed=() if fresh is None else fresh.changed,
    )
