"""A page for each family of needs: what can be performed, then what is still open."""

from __future__ import annotations

import html

from repertoire import papers, registry
from site_build.catalogue import Catalogue
from site_build.components import component_uri, status_badge
from site_build.text import markdown, plain

__all__ = ["families_page", "family_page", "performable_first"]


def performable_first(cards: list[papers.Card]) -> list[papers.Card]:
    """Cards with a component before those without, each in the order of their numbers."""
    return sorted(cards, key=lambda card: (not card.components, card.id))


def families_page(catalogue: Catalogue) -> str:
    """The Markdown of the list of families."""
    rows = []
    for family in papers.families():
        cards = [card for card in catalogue.cards if card.family == family.slug]
        built = sum(bool(card.components) for card in cards)
        rows.append(
            f"| [{markdown(family.title)}]({family.slug}.md) | {markdown(family.description)} | "
            f"{len(_components(family.slug))} | {built} of {len(cards)} |"
        )
    table = "\n".join(
        ["| family | what it is for | components | papers performed |", "| --- | --- | --: | --: |", *rows]
    )
    return (
        "---\ntitle: Families\nhide: [toc]\n---\n\n# Families\n\nComponents and papers, grouped by the need that they "
        f"answer. On the command line: `repertoire list --family long-tail`.\n\n{table}\n"
    )


def family_page(family: papers.Family, catalogue: Catalogue) -> str:
    """The Markdown of a family's page."""
    components = _components(family.slug)
    parts = [
        f"---\ntitle: {_quote(family.title)}\ndescription: {_quote(family.description)}\n---",
        f"# {markdown(family.title)}",
        markdown(family.description),
        "## What can be performed",
    ]
    if components:
        rows = [
            f"| [`{entry.name}`](../{component_uri(entry)}) | {registry.KINDS[entry.kind].singular} | "
            f"{entry.summary.replace('|', chr(92) + '|')} | {_paper(entry)} |"
            for entry in components
        ]
        parts.append("\n".join(["| name | kind | what it is | paper |", "| --- | --- | --- | --- |", *rows]))
        parts.append(f"The same list: `repertoire list --family {family.slug}`.")
    else:
        parts.append("Nothing yet. [Contributing](../contributing.md) says how to add it.")
    cards = performable_first([card for card in catalogue.cards if card.family == family.slug])
    rows = [
        f"| [{markdown(plain(card.title))}](../papers/{card.slug}.md) | {card.year} | {status_badge(card.status)} |"
        for card in cards
    ]
    parts += ["## Papers", "\n".join(["| paper | year | status |", "| --- | --- | --- |", *rows])]
    return "\n\n".join(parts) + "\n"


def _components(family: str) -> list[registry.Entry]:
    """What is registered and belongs to a family, kind by kind."""
    return [e for room in registry.KINDS for e in registry.entries(room) if papers.family_of(e) == family]


def _paper(entry: registry.Entry) -> str:
    if entry.paper is None:
        return ""
    card = papers.get(entry.paper)
    return f"[{html.escape(card.authors or card.slug)}, {card.year}](../papers/{card.slug}.md)"


def _quote(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
