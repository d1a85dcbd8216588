"""`repertoire diagnose`: is a run's representation healthy, and what is wrong in its data?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from repertoire.cli._options import DeviceOption, PluginOption, RunArgument, file_out

__all__ = ["diagnose"]


def diagnose(
    run: RunArgument,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            parser=file_out,
            metavar="PATH",
            help="The page; RUN/diagnosis.html by default.",
            show_default=False,
        ),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(
            "--against", metavar="RUN", help="Another run on the same data to compare with.", show_default=False
        ),
    ] = None,
    landscape: Annotated[
        bool, typer.Option("--landscape", help="Look at the loss about the weights too; takes a while.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print everything that was measured as JSON.")] = False,
    device: DeviceOption = "cpu",
    plugin: PluginOption = None,
) -> None:
    """Print what looks wrong with a run's features, network and data, and write a page that shows it."""
    import json as writer

    from repertoire.cli._options import open_run
    from repertoire.report import diagnose as measure

    opened = open_run(run, device, plugin)
    target = opened.path / "diagnosis.html" if out is None else out
    found = measure(opened, None if against is None else open_run(against, device, plugin), landscape=landscape)
    found.write(target)
    opened.directory.record(target)
    if json:
        findings = [vars(advice) for advice in found.findings]
        typer.echo(writer.dumps({"findings": findings, **found.numbers}, indent=2, ensure_ascii=False, allow_nan=False))
        return
    for number, advice in enumerate(found.findings, 1):
        typer.echo(f"{number}. {advice.title}: {advice.evidence}\n   Try: {advice.remedy}")
    if not found.findings:
        typer.echo("nothing is off among what was looked at")
    typer.echo(f"diagnosis: {target}")
