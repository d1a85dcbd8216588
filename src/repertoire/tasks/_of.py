"""From data, or from what a run stored, to its task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from repertoire.data import Samples
from repertoire.errors import RunError
from repertoire.tasks._base import Task
from repertoire.tasks._classes import Classes
from repertoire.tasks._labels import Labels
from repertoire.tasks._maps import Maps
from repertoire.tasks._none import NoTargets
from repertoire.tasks._number import Number
from repertoire.tasks._votes import Votes

__all__ = ["TASKS", "task_from", "task_of"]

TASKS: dict[str, type[Task]] = {task.kind: task for task in (Classes, Labels, Number, Votes, Maps, NoTargets)}


def task_of(samples: Samples) -> Task:
    """The task that the targets of a training set call for; none where no sample has a target.

    Example:
        >>> from repertoire.data import load
        >>> task_of(load("digits").train).outputs
        10
    """
    if not samples.known.any():
        return NoTargets(samples.classes)
    if samples.kind == "number":
        return Number.of(samples)
    return TASKS[samples.kind](samples.classes)


def task_from(info: Mapping[str, Any]) -> Task:
    """The task of a run, from its run.json; of runs of version 0.1.0, which knew classes only, that.

    Raises:
        RunError: a kind of task that this version does not know.
    """
    stored = info.get("task")
    if stored is None:
        return Classes(tuple(info["classes"]))
    kind = TASKS.get(stored["kind"])
    if kind is None:
        raise RunError(f"the run is of a task {stored['kind']!r}, which this version does not know: update repertoire")
    options = {name: tuple(value) for name, value in stored.items() if name != "kind"}
    return kind(tuple(info["classes"]), **options)
