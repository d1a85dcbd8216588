"""Which runs can be merged, and what is said of those that cannot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from repertoire import registry
from repertoire.data import Splits, digest
from repertoire.errors import RunError, option
from repertoire.train._run import Run

__all__ = ["check_data", "check_heads", "check_runs"]

_STARTS = ("zero", "pretrained")
"""Options of components that decide about their first weights and about nothing else."""


def check_runs(runs: Sequence[Run], joined: bool, data: str | None) -> None:
    """Refuses runs that cannot be merged, with the reason."""
    first, *others = runs
    if first.task.kind == "none":
        raise RunError(f"{first.directory} was trained without targets, so nothing says whether merging it helps")
    for run in runs:
        if run.info.get("compressed") or run.stored().form != "dense":
            raise RunError(
                f"{run.directory} was compressed, or merged into another form, and has no weights to merge any more; "
                "merge what it was made of"
            )
    described = ("predicts",) if not joined else ("predicts a",)
    for run in others:
        _compare(first, run, (*described, "takes inputs of shape", "has the backbone", "has the head"))
    if joined and (first.task.kind != "classes" or data is None):
        kind = "" if first.task.kind == "classes" else ", which only classes allow"
        raise RunError(
            f"{first.directory} and {others[0].directory} differ: one predicts {_task(first)}, the other "
            f"{_task(next(run for run in others if run.classes != first.classes))}{kind}. To put their classes "
            f"together, say where images of all of them are: {option('data', 'PHOTOS')}"
        )
    if data is not None:
        return
    held_out = [first.splits.val.keys, first.splits.test.keys]
    for run in others:
        if digest(run.splits) != digest(first.splits):
            seen = int(sum(np.isin(keys, run.splits.train.keys).sum() for keys in held_out))
            if seen:
                raise RunError(
                    f"{run.directory} was trained on {seen} of the samples that {first.directory} holds out, so "
                    f"nothing could say how good the result is; train them on the same parts (the same "
                    f"{option('seed')}, "
                    f"{option('val')} and {option('test')}, or folders train/, val/ and test/)"
                )
        _compare(first, run, ("subtracts the mean", "divides by"))


def check_data(runs: Sequence[Run], splits: Splits, data: str) -> None:
    """Refuses data on which the result could not be measured, with the reason."""
    first = runs[0]
    if splits.train.kind != first.task.kind:
        raise RunError(f"{data} has other targets than {first.directory}")
    wanted = {name for run in runs for name in run.classes}
    if missing := sorted(wanted - set(splits.train.classes)):
        raise RunError(f"{data} has no {', '.join(missing[:5])}, which the runs tell apart")
    if extra := sorted(set(splits.train.classes) - wanted):
        raise RunError(f"{data} has classes that none of the runs knows: {', '.join(extra[:5])}")
    for run in runs:
        held = [splits.val.keys, splits.test.keys]
        if seen := int(sum(np.isin(keys, run.splits.train.keys).sum() for keys in held)):
            raise RunError(
                f"{run.directory} was trained on {seen} of the samples that {data} holds out, so nothing "
                "could say how good the result is; keep test images apart (folders train/, val/ and test/)"
            )


def check_heads(runs: Sequence[Run]) -> None:
    """Refuses heads whose rows cannot be put together."""
    for run in runs:
        head = run.model.head
        alone = set(head.state_dict()) - set(head.per_class)
        if alone or head.takes_maps:
            what = f"its {', '.join(sorted(alone))} belong to no class" if alone else "it looks at maps"
            raise RunError(
                f"{run.directory} has the head {run.config.head}, which cannot be put together with another one: {what}"
            )


def _compare(first: Run, other: Run, what: Sequence[str]) -> None:
    ours, theirs = (_described(run) for run in (first, other))
    for name in what:
        if ours[name] != theirs[name]:
            raise RunError(
                f"{first.directory} and {other.directory} differ: one {name} {ours[name]}, the other {theirs[name]}"
            )


def _described(run: Run) -> dict[str, Any]:
    return {
        "predicts": _task(run),
        "predicts a": run.task.kind,
        "takes inputs of shape": run.facts.shape,
        "has the backbone": _network(run.config.backbone),
        "has the head": _network(run.config.head),
        "subtracts the mean": [round(float(value), 4) for value in run.facts.mean],
        "divides by": [round(float(value), 4) for value in run.facts.std],
    }


def _network(spec: str) -> str:
    """A spec without what only says where the weights start."""
    parsed = registry.parse(spec)
    kept = [*map(str, parsed.args), *(f"{k}={v}" for k, v in parsed.kwargs.items() if k not in _STARTS)]
    return parsed.name + (":" if kept else "") + ",".join(kept)


def _task(run: Run) -> str:
    names = run.classes
    return f"{', '.join(names[:5])}{', ...' if len(names) > 5 else ''} ({len(names)} {run.task.kind})"
