"""`repertoire plan`: what a step of training would need, with each way to train."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import typer

from repertoire.cli.train import config_parameters, fields_of, finished, input_parameters

if TYPE_CHECKING:
    from repertoire.plan import Storage

__all__ = ["make_command", "outline"]

SUMMARY = "Predict the memory and the relative time of training, without computing anything."

DETAILS = f"""{SUMMARY}

Takes the options of `train`, and prints a row for back-propagation, for the batch in pieces, for activation
checkpointing, and for local learning with several numbers of blocks. With --memory it says which of them
`train --memory` would pick. Of files of images it says, too, what keeping them decoded takes on the disk and in
memory, and with which --cache they fit."""


def outline() -> None:
    """Stands for the command in the list of commands."""


outline.__doc__ = SUMMARY


def make_command() -> Callable[..., None]:
    """The command, with an option for each field of the configuration."""

    def plan(**given: Any) -> None:
        _plan(given)

    return finished(plan, DETAILS, [*input_parameters(), *config_parameters({"batch_size": "--batch"})])


def _plan(given: dict[str, Any]) -> None:
    from repertoire.errors import ascii_path
    from repertoire.plan import plan
    from repertoire.recipe import format_bytes, make_config

    file = given.pop("config")
    with _looking() as report:
        found = plan(config=make_config(**fields_of(file, given)), report=report)
    typer.echo(
        f"{ascii_path(found.backbone)}, {found.batch} images of {found.size} pixels a step on {found.device}: "
        "predicted peak memory and its parts, and time relative to the first row"
    )
    parts = ("parameters", "average", "optimizer", "gradients", "activations", "images")
    shown = [part for part in parts if any(getattr(row.footprint, part) for row in found.rows)]
    limited = found.budget is not None
    table = [("setting", "peak", *shown, "time", *(["fits"] if limited else []))]
    for row in found.rows:
        amounts = [format_bytes(value) for value in (row.peak, *(getattr(row.footprint, part) for part in shown))]
        fits = ["yes" if found.fits(row) else "no"] if limited else []
        table.append((row.setting, *amounts, f"{row.time:.2f}", *fits))
    _print(table)
    for reason in dict.fromkeys(reason for _, reason in found.refused):
        settings = [setting for setting, why in found.refused if why == reason]
        typer.echo(f"not {settings[0]}{' and others' if len(settings) > 1 else ''}: {reason}")
    if limited:
        typer.echo(found.reason())
    else:
        _card(found.device)
    if found.storage is not None:
        _stored(found.storage)


def _stored(found: Storage) -> None:
    """What the decoded images need on the disk and in memory."""
    from repertoire.errors import ascii_path
    from repertoire.recipe import format_bytes

    typer.echo(
        f"\n{found.images:,} images of {found.size} pixels, decoded in {ascii_path(str(found.folder))} "
        f"({format_bytes(found.free)} free) and read through memory ({format_bytes(found.available)} available)"
    )
    table: list[Sequence[str]] = [("setting", "disk", "fits", "memory", "fits", "decoded an epoch")]
    for row in found.rows:
        fits = ["yes" if good else "no" for good in (found.fits_disk(row), found.fits_memory(row))]
        amounts = [format_bytes(row.disk), fits[0], format_bytes(row.memory), fits[1], f"{row.decoded:,}"]
        table.append((row.setting, *amounts))
    _print(table)
    typer.echo(found.sentence)


@contextlib.contextmanager
def _looking() -> Iterator[Callable[[str], None] | None]:
    """Says on a terminal what is being looked at, in a line that does not stay."""
    if not sys.stderr.isatty():
        yield None
        return
    try:
        yield lambda text: typer.echo(f"\r\x1b[Klooking at {text}", err=True, nl=False)
    finally:
        typer.echo("\r\x1b[K", err=True, nl=False)


def _print(table: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    for row in table:
        cells = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        typer.echo("  ".join([row[0].ljust(widths[0]), *cells]))


def _card(device: str) -> None:
    """What a GPU has, where no budget was given."""
    import torch

    from repertoire.recipe import format_bytes

    if torch.device(device).type == "cuda":
        free, total = torch.cuda.mem_get_info(torch.device(device))
        name = torch.cuda.get_device_name(device)
        typer.echo(
            f"{name}: {format_bytes(total)}, of which {format_bytes(free)} are free; the context takes about half a GiB"
        )
