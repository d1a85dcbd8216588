"""A page for each paper."""

from __future__ import annotations

import html

from repertoire import papers
from repertoire.claims import Claim, Evidence
from site_build.catalogue import Catalogue
from site_build.components import status_badge, try_it
from site_build.figure import differences_figure
from site_build.text import markdown, plain

__all__ = ["paper_page"]

_STATUS = {
    "open": "Nothing in Repertoire performs it yet.",
    "built": "It can be performed; no evidence for its claim is stored yet.",
    "holds": "It can be performed, and the check below came out in its favour.",
    "does not hold": "It can be performed, and the check below came out against it.",
    "inconclusive": "It can be performed; the check below decides nothing.",
}


def paper_page(card: papers.Card, catalogue: Catalogue) -> str:
    """The Markdown of a paper's page."""
    described = plain(card.summary).replace('"', "'")
    parts = [
        f"---\ntitle: {_quote(plain(card.title))}\ndescription: {_quote(described)}\n---",
        f"# {markdown(card.title)}",
        f"{status_badge(card.status)} paper {card.id} · {card.year} · {card.kind} · "
        f"{family_link(card.family)}\n{{ .paper-facts }}",
        markdown(card.summary),
        f"## What it claims\n\n> {markdown(card.claim)}\n\n{_STATUS[card.status]}",
    ]
    if card.slug in catalogue.evidence:
        parts.append(_evidence(catalogue.evidence[card.slug], catalogue.claims.get(card.slug)))
    elif card.slug in catalogue.claims:
        parts.append(f"The check is written and was not measured here yet:\n\n{_check(catalogue.claims[card.slug])}")
    parts.append(_try(card, catalogue))
    facts = [f"- **Keywords:** {', '.join(markdown(keyword) for keyword in card.keywords)}"]
    if card.code:
        facts.append(f"- **Released code:** <{card.code}>")
    facts.append(f"- **In the catalogue:** `repertoire papers show {card.slug}`")
    parts.append("## More\n\n" + "\n".join(facts))
    return "\n\n".join(parts) + "\n"


def family_link(slug: str) -> str:
    """The table of papers, filtered. In HTML, because the anchor is one that only the script of that page knows."""
    return f'<a href="index.html#family={slug}">{html.escape(papers.family(slug).title)}</a>'


def _quote(text: str) -> str:
    """A YAML string."""
    return "'" + text.replace("'", "''") + "'"


def _check(claim: Claim) -> str:
    return (
        f"> {markdown(claim.statement)}\n\n"
        f"{markdown(claim.metric)} of {markdown(claim.method)} against {markdown(claim.baseline)}, "
        f"on {markdown(claim.data)}; threshold {claim.threshold:+g}."
    )


def _evidence(evidence: Evidence, claim: Claim | None) -> str:
    interval = (
        ""
        if evidence.interval is None
        else f" (95 % interval {evidence.interval[0]:+.4f} to {evidence.interval[1]:+.4f})"
    )
    method, baseline = markdown(evidence.method), markdown(evidence.baseline)
    rows = [
        f"| seed | {method} | {baseline} | difference |",
        "| ---: | ---: | ---: | ---: |",
    ]
    values = zip(evidence.seeds, evidence.method_values, evidence.baseline_values, evidence.differences, strict=True)
    rows += [
        f"| {seed} | {value:.4f} | {reference:.4f} | {difference:+.4f} |"
        for seed, value, reference, difference in values
    ]
    stale = ""
    if claim is not None and evidence.is_stale(claim):
        stale = '\n\n!!! warning "Stale"\n    The check has changed since this was measured.'
    extra = "".join(
        f"\n- {markdown(name)}: {', '.join(f'{value:.4f}' for value in numbers)}"
        for name, numbers in evidence.extra.items()
    )
    return "\n\n".join(
        [
            "## What was measured",
            f"> {markdown(evidence.statement)}",
            f"**{evidence.verdict.capitalize()}**: {markdown(evidence.metric)} of {method}, less that of {baseline}: "
            f"{evidence.mean:+.4f}{interval}, on {markdown(evidence.data)}.{stale}",
            differences_figure(evidence),
            '<details markdown="1"><summary>The numbers</summary>',
            "\n".join(rows),
            *([f"Measured beside it, seed by seed:\n{extra}"] if extra else []),
            f"Budget {evidence.budget}, {evidence.seconds:.0f} s in all, {evidence.measured[:10]}, commit "
            f"{markdown((evidence.commit or 'unknown')[:12])}, torch {markdown(evidence.versions['torch'])}, "
            f"{markdown(evidence.machine)}.",
            "</details>",
        ]
    )


def _try(card: papers.Card, catalogue: Catalogue) -> str:
    if not card.components:
        return (
            "## Try it\n\nNo component performs this paper yet. [Contributing](../contributing.md) says how to add "
            f"one; what is near it: {family_link(card.family)}."
        )
    lines = [try_it(dotted, catalogue.entries.get(dotted)) for dotted in card.components]
    commands = [command for _, command in lines if command]
    if card.slug in catalogue.claims:
        commands.append(f"repertoire claims run {card.slug} --budget small")
    names = ", ".join(f"[`{dotted.rpartition('.')[2]}`][{dotted}]" for dotted in card.components)
    python = "\n".join(line for line, _ in lines)
    shell = f"\n\n```sh\n{chr(10).join(commands)}\n```" if commands else ""
    return f"## Try it\n\nPerformed by {names}.\n\n```python\n{python}\n```{shell}"
