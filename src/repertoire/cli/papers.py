"""`repertoire papers`: the catalogue."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from repertoire.cli._listing import Format, FormatOption, print_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from repertoire.papers import Card

__all__ = ["app"]

app = typer.Typer(help="Find the paper, and the component, for a need.", no_args_is_help=True)


@app.command()
def search(
    query: Annotated[list[str], typer.Argument(help="A need in plain words: few labels, long-tailed classes.")],
    limit: Annotated[int, typer.Option(min=1, help="At most this many.")] = 10,
    format: FormatOption = Format.table,
) -> None:
    """Find papers and components for a need put in plain words; what can be performed comes first."""
    from repertoire import papers
    from repertoire.errors import ConfigError

    if not " ".join(query).strip():
        raise ConfigError("say what you need, in plain words: repertoire papers search few labels")
    found = papers.find(" ".join(query), limit)
    if not found and format is Format.table:
        typer.echo("Nothing was found; try other words, or browse with: repertoire papers list --family FAMILY")
        return
    if format is Format.json:
        typer.echo(json.dumps([dataclasses.asdict(hit) for hit in found], indent=2, ensure_ascii=False))
        return
    rows = [(hit.name, hit.kind, hit.status, ", ".join(hit.use) or "-", hit.title) for hit in found]
    print_table(("name", "kind", "status", "performed by", "what it is"), rows)


@app.command("list")
def list_(
    family: Annotated[str | None, typer.Option(help="Only this family.")] = None,
    status: Annotated[
        str | None, typer.Option(help="open, built, holds, 'does not hold', undecided or 'no answer'.")
    ] = None,
    format: FormatOption = Format.table,
) -> None:
    """List the papers, or those of a family or status."""
    from repertoire import papers
    from repertoire.errors import UnknownName

    if family is not None:
        papers.family(family)
    wanted = status.replace("-", " ") if status else None
    if wanted is not None and wanted not in papers.STATUSES:
        raise UnknownName("status", wanted, papers.STATUSES)
    cards = [card for card in papers.load() if family in (None, card.family) and wanted in (None, card.status)]
    _print(cards, format)


@app.command()
def families() -> None:
    """List the families of papers, each with what it is for."""
    from repertoire import papers

    cards = papers.load()
    rows = [(f.slug, str(sum(card.family == f.slug for card in cards)), f.description) for f in papers.families()]
    print_table(("family", "papers", "what it is for"), rows)


@app.command()
def show(
    paper: Annotated[str, typer.Argument(help="A slug or a number: supcon, 292.")],
    format: FormatOption = Format.table,
) -> None:
    """Show one paper: what it does, what performs it, and whether its claim holds."""
    from repertoire import papers

    card = papers.get(paper)
    if format is Format.json:
        typer.echo(json.dumps(_record(card), indent=2, ensure_ascii=False))
        return
    lines = [
        f"{card.title} ({card.year})",
        f"paper {card.id}, {card.slug}; {card.kind}; family {card.family} ({papers.family(card.family).title})",
        "",
        card.summary,
        "",
        f"Claim: {card.claim}",
        f"Status: {card.status}",
    ]
    if card.components:
        lines.append(f"Components: {', '.join(card.components)}")
    if card.code:
        lines.append(f"Released code: {card.code}")
    lines.append(f"Keywords: {', '.join(card.keywords)}")
    typer.echo("\n".join(lines))


def _record(card: Card) -> dict[str, Any]:
    return {**dataclasses.asdict(card), "status": card.status}


def _print(cards: Sequence[Card], format: Format) -> None:
    if format is Format.json:
        typer.echo(json.dumps([_record(card) for card in cards], indent=2, ensure_ascii=False))
        return
    print_table(
        ("id", "paper", "year", "family", "status", "title"),
        [(str(c.id), c.slug, str(c.year), c.family, c.status, c.title) for c in cards],
    )
