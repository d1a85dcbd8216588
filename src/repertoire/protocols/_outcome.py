"""What came out of a protocol."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from repertoire.errors import RunError, ascii_path
from repertoire.train import last_state

__all__ = ["Outcome"]


@dataclass(frozen=True)
class Outcome:
    """Accuracy on each stage after each, and what it says.

    Attributes:
        names: of the stages.
        matrix: float `[T, T]`, accuracy after stage t on the test samples of stage i; NaN where nothing was measured.
        within: the same where it is known which stage a sample is from, so that only its classes compete; None where
            stages bring no classes of their own.
        metrics: what `Protocol.measure` says of the matrix; with "joint" and "finetune", the accuracy of training on
            everything at once and of training without anything against forgetting, where these were measured; and
            "memory_bytes", of the samples that were kept, and "state_bytes", of what a method keeps beside its network
            (importance of weights, old networks, prototypes), or of what an estimator keeps.
        path: directory of the stages, a run each; None where nothing was written.
    """

    names: tuple[str, ...]
    matrix: np.ndarray
    within: np.ndarray | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    path: Path | None = None

    @property
    def curve(self) -> list[float]:
        """After each stage, the mean accuracy on the stages learned so far."""
        return [float(row[: t + 1].mean()) for t, row in enumerate(self.matrix)]

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Outcome:
        """Reads the outcome.json that `follow` wrote into a directory.

        Raises:
            RunError: there is no such file, or it is damaged.
        """
        file = Path(path) / "outcome.json"
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
            within = found["within"]
            return cls(
                tuple(map(str, found["stages"])),
                as_matrix(found["matrix"]),
                None if within is None else as_matrix(within),
                {str(name): float(value) for name, value in found["metrics"].items()},
                Path(path),
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise RunError(
                f"{ascii_path(str(file))} cannot be read ({type(error).__name__}: {error}); it is written when all "
                "stages are over"
            ) from None

    def record(self) -> dict[str, Any]:
        """Everything as JSON takes it; what was not measured is null."""
        return {
            "stages": list(self.names),
            "matrix": _plain(self.matrix),
            "within": None if self.within is None else _plain(self.within),
            "curve": self.curve,
            "metrics": dict(self.metrics),
        }

    def __str__(self) -> str:
        """The matrix and the curve as text, in per cent."""
        width = 7
        head = "after".ljust(8) + "".join(str(i + 1).rjust(width) for i in range(len(self.names)))
        rows = [
            str(t + 1).ljust(8) + "".join(_percent(value).rjust(width) for value in row) + f"   {self._bar(t)}"
            for t, row in enumerate(self.matrix)
        ]
        lines = ["accuracy on the test samples of stage", head + "   on all so far", *rows, ""]
        lines += [f"stage {i + 1}: {_short(name)}" for i, name in enumerate(self.names)]
        titles = {
            "accuracy": "average accuracy at the end",
            "forgetting": "forgetting",
            "backward_transfer": "backward transfer",
            "finetune": "bound below, plain training stage by stage",
            "joint": "bound above, everything at once",
        }
        lines += ["", *(f"{title}: {self.metrics[key]:.1%}" for key, title in titles.items() if key in self.metrics)]
        return "\n".join(lines)

    def _bar(self, stage: int) -> str:
        value = self.curve[stage]
        return f"{'#' * round(20 * value)}{'.' * (20 - round(20 * value))} {value:.1%}"


def state_bytes(path: Path) -> int:
    """Bytes of what the method of a finished run keeps beside its network."""
    return sum(value.nbytes for name, value in last_state(path).items() if not name.startswith("model."))


def _plain(matrix: np.ndarray) -> list[list[float | None]]:
    return [[float(value) if np.isfinite(value) else None for value in row] for row in matrix]


def _percent(value: float) -> str:
    return f"{100 * value:.1f}" if np.isfinite(value) else "-"


def _short(name: str, most: int = 72) -> str:
    return name if len(name) <= most else f"{name[: most - 3]}..."


def as_matrix(rows: Sequence[Sequence[float | None]]) -> np.ndarray:
    """The accuracies `[T, T]` of stored rows, which may be shorter."""
    found = np.full((len(rows), len(rows)), np.nan)
    for number, row in enumerate(rows):
        found[number, : len(row)] = [np.nan if value is None else value for value in row]
    return found
