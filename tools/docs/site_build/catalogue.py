"""Everything the generated pages say, gathered once: cards, claims, evidence, registered components."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from repertoire import claims, papers, registry

__all__ = ["Catalogue", "gather"]


@dataclass(frozen=True)
class Catalogue:
    """What the build knows.

    Attributes:
        cards: all papers.
        evidence: by the claim's name, which is the slug for a paper's central claim.
        claims: by name.
        entries: registered components by dotted name.
        freshness: of the evidence, by name.
    """

    cards: list[papers.Card]
    evidence: dict[str, claims.Evidence]
    claims: dict[str, claims.Claim]
    entries: dict[str, registry.Entry]
    freshness: dict[str, claims.Freshness] = field(default_factory=dict)

    @cached_property
    def among_all(self) -> tuple[list[str], set[str]]:
        """Names of the claims that were tested by their seeds, and of those that still hold among so many."""
        return claims.among_all(self.evidence)


def gather() -> Catalogue:
    """Reads the cards, the evidence and the registry. Imports every room, which takes a few seconds."""
    found = {evidence.name: evidence for evidence in claims.stored()}
    known = {claim.name: claim for claim in claims.entries()}
    entries = [entry for room in registry.KINDS for entry in registry.entries(room)]
    return Catalogue(
        cards=papers.load(),
        evidence=found,
        claims=known,
        entries={entry.dotted: entry for entry in entries},
        freshness={name: claims.freshness(found[name], known[name]) for name in found if name in known},
    )
