"""`repertoire claims`: does a paper's claim hold on this machine?"""

from __future__ import annotations

import dataclasses
import json
import os
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from repertoire.cli._listing import Format, FormatOption, print_table
from repertoire.cli._options import folder_out

if TYPE_CHECKING:
    from repertoire.claims import BudgetName
    from repertoire.compare import Backend
    from repertoire.papers import Evidence

__all__ = ["app"]

app = typer.Typer(help="Measure whether a paper's claim holds on this machine.", no_args_is_help=True)


class BudgetChoice(StrEnum):
    """Budget of a measurement."""

    smoke = "smoke"
    small = "small"
    full = "full"


class BackendChoice(StrEnum):
    """Where claims are measured."""

    loky = "loky"
    ray = "ray"
    dask = "dask"


class TableFormat(StrEnum):
    """Format of the table."""

    table = "table"
    csv = "csv"
    json = "json"


def _folder(text: str | Path) -> Path:
    return folder_out(text, "--folder")


BudgetOption = Annotated[BudgetChoice, typer.Option(help="Seconds, minutes, or a GPU.")]
WorkersOption = Annotated[int | None, typer.Option(min=1, help="Processes; by default one a core.")]


@app.command("list")
def list_(format: FormatOption = Format.table) -> None:
    """List the claims that can be run, and what came out."""
    from repertoire import claims

    rows = [(row.claim, row.verdict, row.note, row.statement) for row in claims.table().rows]
    header = ("paper", "verdict", "note", "statement")
    if format is Format.json:
        typer.echo(json.dumps([dict(zip(header, row, strict=True)) for row in rows], indent=2, ensure_ascii=False))
    else:
        print_table(header, rows)


@app.command()
def table(
    format: Annotated[TableFormat, typer.Option(help="How to write it.")] = TableFormat.table,
    verdict: Annotated[str | None, typer.Option(help="Only this verdict: holds.")] = None,
    tier: Annotated[str | None, typer.Option(help="Only this tier: toy.")] = None,
    family: Annotated[str | None, typer.Option(help="Only this family of papers: ssl.")] = None,
) -> None:
    """Show all claims: verdict, effect, what it was measured on, and what chance would give."""
    from repertoire import claims

    whole = claims.table()
    wanted = {"verdict": verdict, "tier": tier, "family": family}
    rows = tuple(
        row for row in whole.rows if all(value is None or getattr(row, name) == value for name, value in wanted.items())
    )
    if format is TableFormat.csv:
        typer.echo(dataclasses.replace(whole, rows=rows).to_csv(), nl=False)
    elif format is TableFormat.json:
        typer.echo(json.dumps([dataclasses.asdict(row) for row in rows], indent=2, ensure_ascii=False))
    else:
        header = ("claim", "verdict", "note", "effect", "interval", "metric", "tier", "seeds", "minutes")
        print_table(
            header,
            [
                (
                    row.claim + ("*" if row.survives else ""),
                    row.verdict,
                    row.note,
                    "" if row.effect is None else f"{row.effect:+.3g}",
                    "" if row.low is None or row.high is None else f"{row.low:+.3g} to {row.high:+.3g}",
                    row.metric,
                    row.tier,
                    str(row.seeds),
                    f"{row.minutes:.1f}",
                )
                for row in rows
            ],
        )
        typer.echo("\n" + "\n".join(whole.sentences) + "\n* survives the correction for the number of tests.")


@app.command()
def run(
    claim: Annotated[
        str | None,
        typer.Argument(help="The paper's slug, or slug and part: squentropy:calibration. All with --priority."),
    ] = None,
    budget: BudgetOption = BudgetChoice.small,
    data: Annotated[
        str, typer.Option(help="Measure on data of your own, where the claim permits it: a folder of images.")
    ] = "",
    store: Annotated[bool, typer.Option(help="Keep the evidence, in your own folder.")] = True,
    folder: Annotated[
        Path | None,
        typer.Option(parser=_folder, metavar="PATH", help="Keep it here instead."),
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Say how far the stored figures move.")] = False,
    priority: Annotated[
        bool, typer.Option("--priority", help="All claims without fresh evidence, the most valuable first.")
    ] = False,
    minutes: Annotated[float | None, typer.Option(min=0, help="With --priority: begin none after so many.")] = None,
    workers: WorkersOption = None,
    backend: Annotated[BackendChoice, typer.Option(help="loky (this machine), ray or dask (a cluster).")] = (
        BackendChoice.loky
    ),
) -> None:
    """Measure a claim: the method and its rivals, seed by seed, until a look decides."""
    from repertoire import claims

    if workers is None:
        workers = (os.cpu_count() or 1) if budget is BudgetChoice.small else 1
    if priority:
        if claim or data or again:
            raise typer.BadParameter("--priority measures all claims; leave the claim, --data and --again out")
        _run_by_priority(budget.value, store, folder, minutes, workers, backend.value)
        return
    if claim is None:
        raise typer.BadParameter("name a claim (repertoire claims list shows them), or give --priority")
    if again:
        moved = claims.again(claim, budget.value, workers=workers, progress=typer.echo, backend=backend.value)
        typer.echo(moved.sentence)
        return
    result = claims.run(
        claim,
        budget.value,
        store=store,
        workers=workers,
        progress=typer.echo,
        folder=folder,
        data=data,
        backend=backend.value,
    )
    typer.echo(_describe(result))
    if data:
        typer.echo(_on_own_data(result))


def _run_by_priority(
    budget: BudgetName, store: bool, folder: Path | None, minutes: float | None, workers: int, backend: Backend
) -> None:
    from repertoire import claims, papers

    own = folder or papers.user_folder()
    wanted = claims.by_priority(claims.missing_or_stale(budget, folder=own), budget, folder=own)
    outcomes = claims.run_all(
        wanted,
        budget,
        store=store,
        workers=workers,
        progress=typer.echo,
        folder=own,
        minutes=minutes,
        backend=backend,
    )
    for outcome in outcomes:
        if isinstance(outcome, claims.ClaimError):
            typer.echo(f"error: {outcome}", err=True)
        else:
            typer.echo(f"{outcome.name}: {outcome.sentence}")


@app.command()
def pilot(
    claim: Annotated[str, typer.Argument(help="The paper's slug, or slug and part.")],
    budget: BudgetOption = BudgetChoice.small,
    seeds: Annotated[int, typer.Option(min=2, help="How many, from 1000 on.")] = 5,
) -> None:
    """Try a claim's bed on seeds that no evidence has, before its threshold is written down."""
    from repertoire import claims

    found = claims.pilot(claim, budget.value, seeds=seeds, progress=typer.echo)
    needed = "more than can be afforded" if found.needed is None else str(found.needed)
    differences = " ".join(f"{value:+.4f}" for value in found.differences)
    typer.echo(
        f"{claim}: differences {differences}, deviation {found.spread:.4f}.\n"
        f"Seeds that would decide, if this is the difference: {needed}. The smallest effect that 20 seeds find: "
        f"{found.smallest:.4f}.\nThe bed {'FAILS: ' + found.failed if found.failed else 'is sound'}; "
        f"{found.seconds:.1f} CPU seconds a seed, {found.seconds * 20 / 60:.1f} minutes for 20."
    )


@app.command()
def show(
    claim: Annotated[
        str | None, typer.Argument(help="The paper's slug, or slug and part; all if none is given.")
    ] = None,
    format: FormatOption = Format.table,
) -> None:
    """Show the stored evidence: what comes with Repertoire, and what was measured here."""
    from repertoire import papers

    if claim is None:
        found = [*papers.stored_evidence(), *papers.stored_evidence(papers.user_folder())]
    else:
        slug, _, part = claim.partition(":")
        ours, own = (papers.evidence(slug, part=part, folder=folder) for folder in (None, papers.user_folder()))
        found = [item for item in (ours, own) if item is not None]
        if not found:
            # Only without evidence is it worth importing torch to find out whether there is such a claim.
            from repertoire import claims

            claims.get(claim)
    if format is Format.json:
        typer.echo(json.dumps([dataclasses.asdict(result) for result in found], indent=2, ensure_ascii=False))
        return
    if not found:
        typer.echo(f"There is no evidence yet; measure with: repertoire claims run {claim or 'CLAIM'}")
        return
    typer.echo("\n\n".join(_describe(result) for result in found))


def _describe(result: Evidence) -> str:
    lines = [f"{result.name}: {result.statement}"]
    if result.budget == "smoke":
        lines.append("One seed shows that the claim runs and decides nothing; for a verdict use --budget small.")
    else:
        lines.append(f"{result.verdict.upper()}. {result.finding}; {result.seconds / 60:.1f} CPU minutes.")
    for i, arm in enumerate(result.arms):
        lines.append(f"  {arm}: " + " ".join(f"{row[i]:.4f}" for row in result.values))
    if result.trivial is not None:
        lines.append("  trivial answer: " + " ".join(f"{value:.4f}" for value in result.trivial))
    for name, values in result.extra.items():
        lines.append(f"  {name}: " + " ".join(f"{value:.4f}" for value in values))
    lines.append(f"  threshold {result.threshold:+g}; budget {result.budget}; {result.machine}; {result.measured[:10]}")
    if result.verdict == "undecided" and result.smallest is not None and result.budget != "smoke":
        lines.append(f"  So many seeds would have found an effect of {result.smallest:.3g} beyond the threshold.")
    return "\n".join(lines)


def _on_own_data(result: Evidence) -> str:
    """What the verdict means for whoever owns the data."""
    if result.budget == "smoke":
        return "On your data this shows that the arms run."
    better, worse = result.method, result.baseline
    return {
        "holds": f"On your data, {better} is the better choice over {worse}, by what stands above.",
        "does not hold": f"On your data there is no reason to prefer {better} to {worse}.",
        "undecided": f"On your data so many divisions cannot tell {better} and {worse} apart: take the simpler one.",
        "no answer": "On your data nothing was learned that could be compared; see the reason above.",
    }[result.verdict]
