"""`repertoire train --protocol`: training in stages."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
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
    if run_options["learner"] is not None:
        _observe(run_options, fields)
        return
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


def _observe(run_options: Mapping[str, Any], fields: Mapping[str, Any]) -> None:
    """An estimator on frozen features in the place of a network that is trained."""
    from repertoire.data import load
    from repertoire.errors import ConfigError, ascii_path
    from repertoire.protocols import observe
    from repertoire.recipe import embed_data, load_splits, make_config, stem

    config = make_config(**fields)
    for name in ("method", "loss", "head"):
        if fields.get(name) not in (None, "auto"):
            raise ConfigError(f"--learner is fitted to features and not trained: leave --{name} out")
    splits = load_splits(config)
    root = run_options["out"] or f"runs/{stem(config.data)}-stages"
    backbone = "auto"
    if splits.train.noun == "image":
        backbone = "lite0" if config.backbone == "auto" else config.backbone
        file = Path(root) / f"features-{stem(backbone)}.npz"
        file.parent.mkdir(parents=True, exist_ok=True)
        embed_data(config.model_copy(update={"backbone": backbone}), file)
        splits = load(f"features:{file}")
    outcome = observe(
        run_options["protocol"],
        run_options["learner"],
        splits,
        config.seed,
        out=root,
        bounds=run_options["bounds"],
    )
    assert outcome.path is not None
    page = None
    if run_options["report"] is not False:
        from repertoire.report import write_stages

        page = write_stages(outcome)
    typer.echo(str(outcome))
    if page is not None:
        typer.echo(f"report: {ascii_path(str(page))}")
    typer.echo(f"numbers: {ascii_path(str(outcome.path / 'outcome.json'))}")
    last = ascii_path(str(outcome.path / f"{len(outcome.names) - 1:02d}"))
    typer.echo(f"the estimator that has seen all stages: {last}")
    first = "" if backbone == "auto" else f"repertoire embed PHOTOS/ --backbone {backbone} --out more.npz   and then   "
    typer.echo(f"try next: {first}repertoire fit-features more.npz --fitted {last}")
