"""Listings: tables for people, tab-separated lines and JSON for programs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated

import typer

__all__ = ["Format", "FormatOption", "print_table"]


class Format(StrEnum):
    """Format of a listing."""

    table = "table"
    json = "json"


FormatOption = Annotated[Format, typer.Option("--format", help="Table for people, JSON for programs.")]


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table that fits the terminal; tab-separated lines, which other programs can read, where there is none."""
    if not sys.stdout.isatty():
        typer.echo("\n".join("\t".join(row) for row in (header, *rows)))
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for position, name in enumerate(header):
        last = position == len(header) - 1
        table.add_column(name, overflow="fold" if last else "ellipsis", no_wrap=not last)
    for row in rows:
        table.add_row(*map(escape, row))
    Console().print(table)
