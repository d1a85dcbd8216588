"""The contract of tasks: what targets are, how a network's answers are read and scored, and which run is better."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from repertoire.data import Samples
from repertoire.errors import DataError

if TYPE_CHECKING:
    from repertoire.tasks._maps import MapTally

__all__ = ["Best", "Outputs", "Task"]


@dataclass(frozen=True)
class Outputs:
    """Outputs of a network for each sample of a set, in the order of the set.

    Attributes:
        logits: float32 `[N, K]`, the output of the head; of maps the mean over their pixels.
        embeddings: float32 `[N, d]`.
        labels: the targets, as `Samples.labels` holds them; of maps which classes occur in each, uint8 `[N, K]`.
        answers: the logits in the units of the target, where the loss says how to read them (`Loss.predict`); float32
            `[N, k]`. None where they are to be read as scores of classes or of labels.
        tally: of maps, what is right in them; None otherwise.
    """

    logits: np.ndarray
    embeddings: np.ndarray
    labels: np.ndarray
    answers: np.ndarray | None = None
    tally: MapTally | None = None

    @property
    def probabilities(self) -> np.ndarray:
        """Softmax of the logits, float64 `[N, K]`."""
        from scipy.special import softmax

        return softmax(self.logits.astype(np.float64), axis=1)


@dataclass(frozen=True)
class Best:
    """Order of epochs or runs: which of two is better.

    Attributes:
        key: the metric that decides, a key of what `Task.score` gives.
        higher: whether more of it is better.
        second: the metric that decides between equals, of which less is better; "" for none.
        says: what it is called in a sentence.
    """

    key: str
    higher: bool
    second: str
    says: str

    def rank(self, metrics: dict[str, Any]) -> tuple[float, float]:
        """Larger for the better one; a metric that is missing or not a number is the worst."""

        def value(key: str, sign: int) -> float:
            found = metrics.get(key) if key else 0.0
            return sign * found if isinstance(found, int | float) and np.isfinite(found) else -np.inf

        return value(self.key, 1 if self.higher else -1), value(self.second, -1)


class Task:
    """Kind of targets, with the metrics, loss and width of head that it calls for.

    A task is made from a training set (`task_of`), is stored with a run, and decides the width of the head, the loss
    where none is named, what `evaluate` and the report show, and which epoch is kept.

    Args:
        names: of the classes, labels or numbers.

    Attributes:
        kind: the kind of the targets; "none" where there are none.
        loss: spec of the loss where none is named.
        best: which of two epochs is better.
        headline: the metrics that are shown after each epoch, by key, with how to write them.
    """

    kind: ClassVar[str]
    loss: ClassVar[str]
    best: ClassVar[Best]
    headline: ClassVar[Mapping[str, str]]

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = tuple(names)

    @property
    def outputs(self) -> int:
        """Number of outputs that the targets have: the width of the head, unless the loss wants another."""
        return len(self.names)

    def check(self, samples: Samples) -> None:
        """Raises `DataError` where targets of a set are not of this task."""
        if samples.kind != self.kind:
            raise DataError(f"expected targets of kind {self.kind!r}, found {samples.kind!r}")

    def encode(self, labels: np.ndarray) -> np.ndarray:
        """Targets as the loss gets them."""
        return labels

    def decode(self, answers: np.ndarray) -> np.ndarray:
        """Brings what the loss reads out of the logits (`Loss.predict`) into the units of the data."""
        return answers

    def score(self, outputs: Outputs) -> dict[str, Any]:
        """All metrics over the samples with a target; plain numbers and lists, ready for JSON."""
        raise NotImplementedError

    def info(self) -> dict[str, Any]:
        """Record that a run stores of it beside the names; `task_from` gives it back."""
        return {"kind": self.kind}
