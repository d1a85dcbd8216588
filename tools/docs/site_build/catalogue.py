"""Everything the generated pages say, gathered once: cards, claims, evidence, registered components."""

from __future__ import annotations

from dataclasses import dataclass

from repertoire import claims, papers, registry

__all__ = ["Catalogue", "gather"]


@dataclass(frozen=True)
class Catalogue:
    """What the build knows.

    Attributes:
        cards: all papers.
        evidence: by slug.
        claims: by slug.
        entries: registered components by dotted name.
    """

    cards: list[papers.Card]
    evidence: dict[str, claims.Evidence]
    claims: dict[str, claims.Claim]
    entries: dict[str, registry.Entry]


def gather() -> Catalogue:
    """Reads the cards, the evidence and the registry. Imports every room, which takes a few seconds."""
    cards = papers.load()
    found = {card.slug: claims.evidence(card.slug) for card in cards}
    entries = [entry for room in registry.ROOMS for entry in registry.entries(room)]
    return Catalogue(
        cards=cards,
        evidence={slug: evidence for slug, evidence in found.items() if evidence is not None},
        claims={claim.slug: claim for claim in claims.entries()},
        entries={entry.dotted: entry for entry in entries},
    )
