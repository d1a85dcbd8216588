"""What `predict --classes` answers: classes that a run was never trained on, by distances to its own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from repertoire.train import Run

__all__ = ["Nearby"]


class Nearby:
    """The answers of a table of distances, for the probabilities of a run.

    Args:
        path: of the table.
        run: whose classes it must know.

    Raises:
        DataError: the table cannot be read, or lacks a class of the run.
        ConfigError: the run does not predict classes.
    """

    def __init__(self, path: Path, run: Run) -> None:
        from repertoire.errors import ConfigError
        from repertoire.zeroshot import read_class_distances

        if run.task.kind != "classes":
            raise ConfigError(f"--classes is for runs that give one class, and {run.directory} gives {run.task.kind}")
        self.names, distances = read_class_distances(path).to(run.classes)
        self.squares = distances**2

    def ranked(self, probabilities: np.ndarray, count: int) -> list[tuple[str, float]]:
        """The likeliest answers, each with the root of its mean squared distance to the truth."""
        squares = self.squares @ probabilities.astype(float)
        order = squares.argsort(kind="stable")[:count]
        return [(self.names[place], float(squares[place] ** 0.5)) for place in order]
