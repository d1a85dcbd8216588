"""The contract of protocols: the stages that some data is learned in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, TypeVar

import numpy as np

from repertoire.data import Samples, Splits
from repertoire.errors import DataError
from repertoire.methods import REPLAY
from repertoire.protocols._measure import measure
from repertoire.protocols._memory import Keep, Memory, Store
from repertoire.ranges import Between, checked

__all__ = ["Protocol", "StageData", "joined", "options_of"]

S = TypeVar("S", bound=Samples)


@dataclass(frozen=True)
class StageData:
    """Data of a stage: what it brings, and what is evaluated after it.

    Attributes:
        name: for a person.
        train, val: the samples of this stage alone. Their labels are positions in `classes`.
        evaluate: the test samples of each stage that can be evaluated after this one, by name, in the order of the
            stages.
        classes: names of the classes known from this stage on, the known ones first.
        new: positions in `classes` of those that this stage brings; empty where it brings none.
    """

    name: str
    train: Samples
    val: Samples
    evaluate: Mapping[str, Samples]
    classes: tuple[str, ...]
    new: tuple[int, ...] = ()

    def splits(self, whole: Splits, memory: Samples | None = None) -> Splits:
        """The samples of the stage as splits, with what is remembered as the stream `REPLAY`."""
        extra = {} if memory is None or not len(memory) else {REPLAY: memory}
        return replace(
            whole,
            train=self.train,
            val=self.val,
            test=joined(list(self.evaluate.values())),
            source=f"{whole.source}, stage {self.name}",
            notes=(),
            skipped=(),
            extra=extra,
        )


class Protocol:
    """Divides data into stages that are learned one after another.

    Args:
        memory: what may be kept of earlier stages, for methods that want the stream "replay": a number of samples such
            as 200, or an amount such as 20MB; 0 for nothing.
        keep: which samples are kept: "reservoir", "herding" or "typical" (:class:`repertoire.protocols.Memory`).
        store: in which form: "whole" (default), or "patches", a random few of each image, for a method that draws the
            others, such as "mae-cil" (:class:`repertoire.protocols.Patches`).
        share: of the patches of an image that are kept, above 0 and below 1.
    """

    by_factor: ClassVar[bool] = False
    """True if stages are the values of a further variable of the samples, which a directory of images does not have."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "__init__" in vars(cls):
            cls.__init__ = checked(cls.__init__)  # type: ignore[method-assign]

    def __init__(
        self,
        memory: int | str = 200,
        keep: Keep = "reservoir",
        store: Store = "whole",
        share: Annotated[float, Between(0, 1, "()")] = 0.25,
    ) -> None:
        Memory(memory, keep)  # refuses what is out of range
        self.memory = memory
        self.keep = keep
        self.store: Store = store
        self.share = share

    def stages(self, splits: Splits, seed: int) -> Iterator[StageData]:
        """The stages, in their order.

        Args:
            splits: the data.
            seed: decides whatever is drawn: equal seeds give equal stages.

        Raises:
            DataError: the data cannot be divided so.
        """
        raise NotImplementedError

    def measure(self, matrix: np.ndarray) -> dict[str, float]:
        """Summarises the accuracies `[T, T]` after each stage on each; see `repertoire.protocols.measure`."""
        return measure(matrix)


def joined(parts: Sequence[S]) -> S:
    """The samples of several subsets of one set, one subset after the other; nothing is copied.

    Raises:
        DataError: they are no subsets of one set.
    """
    first = parts[0]
    stored = [getattr(part, "images", getattr(part, "features", None)) for part in parts]
    if any(each is not stored[0] for each in stored):
        raise DataError("only subsets of one set of samples can be joined without copying them")
    rows = [np.arange(len(part)) if part.rows is None else part.rows for part in parts]
    return replace(
        first,
        labels=np.concatenate([part.labels for part in parts]),
        names=[name for part in parts for name in part.names],
        keys=np.concatenate([part.keys for part in parts]),
        factors={name: np.concatenate([part.factors[name] for part in parts]) for name in first.factors},
        rows=np.concatenate(rows),
    )


def options_of(protocol: Protocol) -> list[Any]:
    """Class and options of a protocol, for a hash."""
    options = {k: options_of(v) if isinstance(v, Protocol) else v for k, v in sorted(vars(protocol).items())}
    return [type(protocol).__name__, options]
