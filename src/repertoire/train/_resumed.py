"""Where work on finished runs keeps what it has done, and how it is found again."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch

import repertoire
from repertoire.data import digest
from repertoire.errors import RunError, option
from repertoire.train._directory import RunDirectory, next_free
from repertoire.train._run import Run
from repertoire.weights import Progress, State, digest_of_states

__all__ = ["begin", "check_free", "key_of"]


def check_free(out: str | os.PathLike[str] | None) -> None:
    """Refuses a directory in which the new run may not lie; None, which asks for a free one, is no such place.

    Raises:
        RunError: it holds a run, which cannot be gone on with by training and is not overwritten, or something else.
    """
    if out is None:
        return
    directory = RunDirectory(Path(out))
    if directory.occupied:
        raise RunError(f"{directory} already holds a run; choose another {option('out')}")
    directory.check_free()


def key_of(told: Sequence[object], runs: Sequence[Run], states: Iterable[State]) -> str:
    """A digest of all that decides what comes of work on runs.

    Args:
        told: what was asked for.
        runs: whose data it looks at.
        states: all weights that it looks at.
    """
    versions = [repertoire.__version__, torch.__version__, runs[0].device.type]
    return digest_of_states(states, [*told, *versions, *(digest(run.splits) for run in runs)])


def begin(
    out: str | os.PathLike[str] | None, stem: str, suffix: str, key: str, report: Callable[[str], None] | None
) -> tuple[RunDirectory, Progress]:
    """The directory of a new run, and the folder beside it in which is kept what was done so far.

    Args:
        out: of the run; None for the place where the same work began and was stopped, or the first free one.
        stem: what the name of a free one begins with.
        suffix: what follows the name of the run in that of the folder beside it.
        key: of the work.
        report: is told what is gone on with, and what cannot be.
    """
    place = Path(out) if out is not None else (_begun(stem, suffix, key) or next_free(stem))
    # "." has no name of its own.
    named = place if place.name not in ("", "..") else Path(os.path.abspath(place))
    return RunDirectory(place), Progress(named.with_name(f".{named.name}{suffix}"), key, report).sift()


def _begun(stem: str, suffix: str, key: str) -> Path | None:
    """Where the same work began, and was stopped."""
    for kept in sorted(Path("runs").glob(f".{stem}-*{suffix}")):
        place = kept.with_name(kept.name.removeprefix(".").removesuffix(suffix))
        if Progress(kept, key).holds() and not RunDirectory(place).occupied:
            return place
    return None
