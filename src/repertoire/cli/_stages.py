"""`repertoire train --protocol`: training in stages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import typer

__all__ = ["train_in_stages"]


def train_in_stages(run_options: Mapping[str, Any], fields: Mapping[str, Any]) -> None:
    """Goes through the stages of a protocol, and prints what is left of each.

    Raises:
        ConfigError: an option that is for one run.
    """
    from repertoire.errors import ConfigError, ascii_path
    from repertoire.protocols import follow
    from repertoire.recipe import make_config

    if run_options["overwrite"]:
        raise ConfigError(
            "with --protocol the same command goes on with what is not finished, and another configuration lies beside "
            "it: leave --overwrite out"
        )
    outcome = follow(
        run_options["protocol"],
        make_config(**fields),
        out=run_options["out"],
        bounds=run_options["bounds"],
        quiet=run_options["quiet"],
    )
    assert outcome.path is not None
    last = outcome.path / f"{len(outcome.names) - 1:02d}"
    page = None
    if run_options["report"] is not False:
        from repertoire.report import write_report, write_stages
        from repertoire.train import load

        write_report(load(last))
        page = write_stages(outcome)
    typer.echo(str(outcome))
    if page is not None:
        typer.echo(f"report: {ascii_path(str(page))}")
    typer.echo(f"numbers: {ascii_path(str(outcome.path / 'outcome.json'))}")
    typer.echo(f"the network that has seen all stages: {ascii_path(str(last))}")
    typer.echo(f"try next: repertoire predict {ascii_path(str(last))} IMAGE...")
