"""`repertoire list`: what there is to choose from."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["list_components"]


def list_components(
    kind: Annotated[
        str | None,
        typer.Argument(
            metavar="[KIND]",
            help="losses, heads, backbones, rules, data, ...; all of them if left out.",
            show_default=False,
        ),
    ] = None,
    family: Annotated[
        str | None,
        typer.Option(
            help="Only what answers the needs of this family: long-tail, ssl, continual, ... ('papers families').",
            show_default=False,
        ),
    ] = None,
) -> None:
    """List components by name, with their options."""
    from repertoire import papers, registry
    from repertoire.errors import UnknownName

    if kind is not None and kind not in registry.KINDS:
        # In the singular too: `repertoire list loss`.
        plural = {known.singular: name for name, known in registry.KINDS.items()}
        if kind not in plural:
            raise UnknownName("kind of component", kind, list(registry.KINDS))
        kind = plural[kind]
    rooms = [kind] if kind else list(registry.KINDS)
    if family is not None:
        papers.family(family)
    found = {name: [e for e in registry.entries(name) if family in (None, papers.family_of(e))] for name in rooms}
    if not any(found.values()):
        typer.echo(f"Nothing performs it yet; the papers are listed with: repertoire papers list --family {family}")
    for name, entries in found.items():
        if len(rooms) > 1 and entries:
            typer.echo(f"\n{name}")
        width = max((len(entry.name) for entry in entries), default=0)
        for entry in entries:
            typer.echo(f"{entry.name.ljust(width)}  {entry.summary}")
            chosen = registry.user_options(entry)
            if chosen:
                typer.echo(f"{'':{width}}  options: {', '.join(chosen)}")
