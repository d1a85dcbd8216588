"""A page for each paper."""

from __future__ import annotations

import html
import urllib.parse

from repertoire import papers
from site_build.catalogue import Catalogue
from site_build.components import family_link, status_badge, try_it
from site_build.text import markdown, plain
from site_build.verdicts import check_section, evidence_sections

__all__ = ["paper_page"]

_STATUS = {
    "open": "Nothing in Repertoire performs it yet.",
    "built": "Repertoire implements it; no evidence for its claim is stored yet.",
    "holds": "Repertoire implements it. The central check below came out in its favour.",
    "does not hold": "Repertoire implements it. The central check below came out against it.",
    "undecided": "Repertoire implements it; the check below could not decide.",
    "no answer": "Repertoire implements it; what it was checked on could not show the effect.",
}

#: A survey has no experiment of its own to check.
_SURVEYED = {
    **_STATUS,
    "holds": "Repertoire implements an idea that it describes. The check of it below came out in its favour.",
    "does not hold": "Repertoire implements an idea that it describes. The check of it below came out against it.",
    "undecided": "Repertoire implements an idea that it describes; the check of it below could not decide.",
}


def paper_page(card: papers.Card, catalogue: Catalogue) -> str:
    """The Markdown of a paper's page."""
    described = plain(card.summary).replace('"', "'")
    said = _SURVEYED if card.kind == "survey" else _STATUS
    lead = said[card.status].replace("implements it", "measures it") if card.kind == "finding" else said[card.status]
    parts = [
        f"---\ntitle: {_quote(plain(card.title))}\ndescription: {_quote(described)}\n---",
        f"# {markdown(card.title)}",
        f"{status_badge(card.status)} {_cited(card)} · {card.kind} · {family_link(card.family, '../')} · "
        f"{_address(card)}\n{{ .paper-facts }}",
        markdown(card.summary),
        f"## What it claims\n\n> {markdown(card.claim)}\n\n{lead}{_others(card.slug, catalogue)}",
    ]
    if card.slug in catalogue.evidence:
        parts.append(evidence_sections(card.slug, catalogue))
    elif card.slug in catalogue.claims:
        check = check_section(catalogue.claims[card.slug])
        parts.append(f"The check is written and was not measured here yet:\n\n{check}")
    parts.append(_try(card, catalogue))
    facts = [f"- **Keywords:** {', '.join(markdown(keyword) for keyword in card.keywords)}"]
    if card.code:
        facts.append(f"- **Released code:** <{card.code}>")
    facts.append(f"- **In the catalogue:** paper {card.id}, `repertoire papers show {card.slug}`")
    parts.append("## More\n\n" + "\n".join(facts))
    return "\n\n".join(parts) + "\n"


def _others(slug: str, catalogue: Catalogue) -> str:
    """What came of the checks beside the central one."""
    verdicts = [item.verdict for name, item in catalogue.evidence.items() if name.startswith(f"{slug}:")]
    if len(verdicts) == 1:
        return f" One further check: {verdicts[0]}."
    return f" Of {len(verdicts)} further checks, {papers.tally(verdicts)}." if verdicts else ""


def _cited(card: papers.Card) -> str:
    return f"{html.escape(card.authors)}, {card.year}" if card.authors else str(card.year)


def _address(card: papers.Card) -> str:
    """A link to the paper or, where its card has none, to a search for its title."""
    if card.url:
        return f'<a href="{html.escape(card.url)}">the paper</a>'
    query = urllib.parse.urlencode({"q": f'"{plain(card.title)}"'})
    return f'<a href="https://scholar.google.com/scholar?{query}">find the paper by its title</a>'


def _quote(text: str) -> str:
    """A YAML string."""
    return "'" + text.replace("'", "''") + "'"


def _try(card: papers.Card, catalogue: Catalogue) -> str:
    if not card.components:
        return (
            "## Try it\n\nNo component performs this paper yet. [Contributing](../contributing.md) says how to add "
            f"one; what is near it: {family_link(card.family, '../')}."
        )
    lines = [try_it(dotted, catalogue.entries.get(dotted)) for dotted in card.components]
    commands = [command for _, command in lines if command]
    if card.slug in catalogue.claims:
        commands.append(f"repertoire claims run {card.slug} --budget small")
    names = ", ".join(f"[`{dotted.rpartition('.')[2]}`][{dotted}]" for dotted in card.components)
    python = "\n".join(line for line, _ in lines)
    shell = f"```sh\n{chr(10).join(commands)}\n```\n\n" if commands else ""
    return f"## Try it\n\nImplemented in {names}.\n\n{shell}```python\n{python}\n```"
