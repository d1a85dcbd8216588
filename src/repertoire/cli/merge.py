"""`repertoire merge`: several runs into one, by their weights."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from repertoire.cli._options import DeviceOption, PluginOption, folder_out

__all__ = ["merge"]


class Learned(StrEnum):
    """What has a factor of its own, where the factors of task vectors are learned."""

    tensors = "tensors"
    blocks = "blocks"
    whole = "whole"


def learned(by: str, what: Learned) -> str:
    """The operator that learns what task arithmetic is told."""
    from repertoire import registry
    from repertoire.errors import ConfigError

    spec = registry.parse(by)
    scale = spec.kwargs.get("scale", spec.args[0] if spec.args else "0.3")
    if spec.name != "task-arithmetic" or spec.kwargs.keys() - {"scale"} or len(spec.args) > 1:
        raise ConfigError(f"--learn goes with --by task-arithmetic, whose scale the factors begin at; found --by {by}")
    named = {Learned.tensors: "tensor", Learned.blocks: "module", Learned.whole: "whole"}[what]
    return f"anisotropic:learn={named},start={scale}"


def nearby(path: str | Path) -> str:
    """A path as one would type it here: relative where it lies below."""
    path = Path(path)
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def merge(
    runs: Annotated[list[Path], typer.Argument(help="Directories of two runs or more.", show_default=False)],
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            parser=folder_out,
            metavar="PATH",
            help="Directory of the new run.",
            show_default="runs/NAME-merged-1, or the next number",
        ),
    ] = None,
    by: Annotated[
        str, typer.Option("--by", "--operator", help="How; see 'repertoire list weight-operators'.")
    ] = "greedy-soup",
    base: Annotated[
        Path | None,
        typer.Option(
            help="The run that all of them started from, for operators on what was changed since.",
            show_default="found out",
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="Images to measure the result on, and to merge by; needed where the runs have other classes.",
            show_default="that of the runs",
        ),
    ] = None,
    learn: Annotated[
        Learned | None,
        typer.Option(
            help="With --by task-arithmetic: learn the factors of what was changed, one for each tensor, block or run.",
            show_default="one for all, by hand",
        ),
    ] = None,
    device: DeviceOption = "auto",
    plugin: PluginOption = None,
    report: Annotated[bool, typer.Option(help="Write the report.")] = True,
) -> None:
    """Merge the weights of several runs of one network into one run.

    For runs that started from the same weights, unless the operator matches their units. Runs of other classes become
    one that knows the classes of all. The result costs no more to use than one of them, where its form is the same.
    """
    from repertoire.errors import ascii_path
    from repertoire.train import merge as merge_runs

    merged = merge_runs(
        runs,
        out,
        operator=by if learn is None else learned(by, learn),
        base=base,
        data=data,
        device=device,
        plugins=tuple(plugin or ()),
        report=lambda line: typer.echo(line, err=True),
    )
    made = merged.info["merged"]
    for number, (path, value) in enumerate(zip(made["runs"], made["before"], strict=True)):
        used = "" if number in made["ingredients"] else "  (left out)"
        typer.echo(f"validation {made['key']} {value:.4f}  {ascii_path(nearby(path))}{used}")
    typer.echo(
        f"validation {made['key']} {made['after']:.4f}  {ascii_path(nearby(merged.path))}, by {made['operator']}"
    )
    for part in made.get("parts", ()):
        name = ascii_path(nearby(part["run"]))
        typer.echo(f"test accuracy among the classes of {name}: {part['alone']:.4f} alone, {part['merged']:.4f} merged")
    typer.echo(f"test {made['key']} {merged.metrics[made['key']]:.4f}")
    if report:
        from repertoire.report import write_report

        typer.echo(f"report: {write_report(merged)}")
