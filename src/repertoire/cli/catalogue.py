"""`repertoire list`: what there is to choose from."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["list_components"]


def list_components(
    room: Annotated[
        str | None,
        typer.Argument(help="losses, heads, backbones, rules, data, ...; all of them if left out.", show_default=False),
    ] = None,
) -> None:
    """List components by name, with their options."""
    from repertoire import registry

    rooms = [room] if room else list(registry.ROOMS)
    for name in rooms:
        entries = registry.entries(name)
        if len(rooms) > 1:
            typer.echo(f"\n{name}")
        width = max((len(entry.name) for entry in entries), default=0)
        for entry in entries:
            typer.echo(f"{entry.name.ljust(width)}  {entry.summary}")
            chosen = registry.user_options(entry)
            if chosen:
                typer.echo(f"{'':{width}}  options: {', '.join(chosen)}")
