"""The table of all claims: verdict, effect, what it is worth, and what chance would give."""

from __future__ import annotations

import csv
import io
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

from repertoire import papers
from repertoire.claims._claim import Claim, entries
from repertoire.claims._evidence import freshness
from repertoire.errors import UnknownName
from repertoire.papers import Evidence, evidence
from repertoire.statistics import benjamini_hochberg

__all__ = ["Table", "TableRow", "table"]

ALPHA = 0.05


@dataclass(frozen=True)
class TableRow:
    """A claim as the table shows it.

    Attributes:
        claim: slug, or slug and part.
        family, paper_kind: of the paper.
        verdict: of the evidence; "not measured" without any.
        note: "stale", "aged" or "".
        effect: of the method over the baseline, in the metric's own direction; None without evidence.
        low, high: its interval; None for a single seed.
        metric, data, tier: what was measured on what, and what that is worth.
        seeds: how many.
        minutes: of CPU time.
        survives: whether it holds and stands among all claims (Benjamini and Hochberg at 5 %).
        reduction: what of the paper is not performed.
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
        tested: how many were decided by a test.
        by_chance: how many of these would hold if no method did anything.
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
            f"Of {self.tested} tests {self.by_chance:.1f} would hold by chance if no method did anything; "
            f"{self.surviving} of those that hold survive the correction for their number (Benjamini and Hochberg at "
            "5 %).",
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
    tested = [
        name
        for name, item in found.items()
        if item is not None and item.interval is not None and item.kind != "identity"
    ]
    adjusted = dict(zip(tested, benjamini_hochberg([found[name].p for name in tested]), strict=True))  # type: ignore[union-attr]
    rows = tuple(_row(claim, found[claim.name], adjusted.get(claim.name, 1.0)) for claim in claims)
    return Table(rows, len(tested), ALPHA / 2 * len(tested), sum(row.survives for row in rows))


def _row(claim: Claim, found: Evidence | None, adjusted: float) -> TableRow:
    card: papers.Card | None
    try:
        card = papers.get(claim.slug)
    except UnknownName:  # a claim of the user's own
        card = None
    fresh = None if found is None else freshness(found, claim)
    span = (None, None) if found is None or found.effect_interval is None else found.effect_interval
    return TableRow(
        claim=claim.name,
        family=card.family if card else "",
        paper_kind=card.kind if card else "",
        verdict="not measured" if found is None else found.verdict,
        note="" if fresh is None or fresh.state == "fresh" else fresh.state,
        effect=None if found is None else found.effect,
        low=span[0],
        high=span[1],
        metric=claim.metric,
        data=claim.data if found is None else found.data,
        tier=claim.tier if found is None else found.tier,
        seeds=0 if found is None else len(found.seeds),
        minutes=0.0 if found is None else round(found.seconds / 60, 2),
        # One-sided p values, of which half the level is the error of "holds".
        survives=found is not None and found.verdict == "holds" and adjusted <= ALPHA / 2,
        reduction=card.reduction if card else "",
        statement=claim.statement,
        changed=() if fresh is None else fresh.changed,
    )
