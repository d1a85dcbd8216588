"""`repertoire claims`: does a paper's claim hold on this machine?"""

from __future__ import annotations

import dataclasses
import json
import os
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from repertoire.cli._listing import Format, FormatOption, print_table

if TYPE_CHECKING:
    from repertoire.claims import Evidence

__all__ = ["app"]

app = typer.Typer(help="Measure whether a paper's claim holds on this machine.", no_args_is_help=True)


class BudgetChoice(StrEnum):
    """How much a measurement may cost."""

    smoke = "smoke"
    small = "small"
    full = "full"


@app.command("list")
def list_(format: FormatOption = Format.table) -> None:
    """List the claims that can be run, and what came out."""
    from repertoire import claims

    rows = []
    for claim in claims.entries():
        found = claims.evidence(claim.slug)
        verdict = "not measured" if found is None else found.verdict
        rows.append((claim.slug, verdict, "stale" if found and found.is_stale(claim) else "", claim.statement))
    header = ("paper", "verdict", "note", "statement")
    if format is Format.json:
        typer.echo(json.dumps([dict(zip(header, row, strict=True)) for row in rows], indent=2, ensure_ascii=False))
    else:
        print_table(header, rows)


@app.command()
def run(
    slug: Annotated[str, typer.Argument(help="The paper's slug: supcon.")],
    budget: Annotated[BudgetChoice, typer.Option(help="Seconds, minutes, or a GPU.")] = BudgetChoice.small,
    store: Annotated[bool, typer.Option(help="Keep the evidence.")] = True,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; by default one a core.")] = None,
) -> None:
    """Measure a claim: the method and the baseline, seed by seed."""
    from repertoire import claims

    if workers is None:
        workers = (os.cpu_count() or 1) if budget is BudgetChoice.small else 1
    result = claims.run(slug, budget.value, store=store, workers=workers, progress=typer.echo)
    typer.echo(_describe(result))


@app.command()
def show(
    slug: Annotated[
        str | None, typer.Argument(help="The paper's slug; all papers with evidence if none is given.")
    ] = None,
    format: FormatOption = Format.table,
) -> None:
    """Show the stored evidence."""
    from repertoire import claims

    if slug is None:
        found = claims.stored()
    else:
        one = claims.evidence(slug)
        # Only without evidence is it worth finding out, at the price of importing torch, whether there is such a claim.
        found = [one] if one is not None else []
        if one is None:
            claims.get(slug)
    if format is Format.json:
        typer.echo(json.dumps([dataclasses.asdict(result) for result in found], indent=2, ensure_ascii=False))
        return
    if not found:
        typer.echo(f"There is no evidence yet; measure with: repertoire claims run {slug or 'SLUG'}")
        return
    typer.echo("\n\n".join(_describe(result) for result in found))


def _describe(result: Evidence) -> str:
    lines = [f"{result.slug}: {result.statement}"]
    if result.interval is None:
        lines.append("One seed shows that the claim runs and decides nothing; for a verdict use --budget small.")
    else:
        low, high = result.interval
        lines.append(
            f"{result.verdict.upper()}: {result.metric} of the method less that of the baseline: {result.mean:+.4f} "
            f"(95 % interval {low:+.4f} to {high:+.4f}, threshold {result.threshold:+.4f}, {len(result.seeds)} seeds)"
        )
    lines.append(f"  {result.method}: " + " ".join(f"{value:.4f}" for value in result.method_values))
    lines.append(f"  {result.baseline}: " + " ".join(f"{value:.4f}" for value in result.baseline_values))
    for name, values in result.extra.items():
        lines.append(f"  {name}: " + " ".join(f"{value:.4f}" for value in values))
    lines.append(f"  on {result.data}; budget {result.budget}, {result.seconds:.0f} s; {result.machine}")
    return "\n".join(lines)
