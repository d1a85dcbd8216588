"""New classes in every stage."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, Literal

import numpy as np

from repertoire.data import Samples, Splits
from repertoire.errors import DataError
from repertoire.protocols._base import Protocol, StageData
from repertoire.protocols._memory import Keep, Store
from repertoire.ranges import AtLeast, Between
from repertoire.registry import register

__all__ = ["ClassIncremental"]


@register("protocols", "classes")
class ClassIncremental(Protocol):
    """New classes in every stage, and never again samples of the old ones: class-incremental learning.

    Rebuffi et al., *iCaRL: Incremental Classifier and Representation Learning* (2017). The test after a stage is on all
    classes known so far, and nobody says which stage a sample is from.

    Args:
        step: new classes a stage; the last stage may have fewer.
        first: classes of the first stage; `step` if None.
        order: "drawn" (default): by the seed; "given": as the data names them.
        memory: samples that may be kept for methods with a memory: a number, or an amount such as 20MB.
        keep: "reservoir" (default), "herding" or "typical"; see :class:`repertoire.protocols.Memory`.
        store: in which form: "whole" (default), or "patches", for a method that draws what is missing; see
            :class:`repertoire.protocols.Patches`.
        share: of the patches of an image that are kept.

    Raises:
        DataError: the targets are not one class each, or all classes fall into one stage.

    Example:
        >>> from repertoire.data import load
        >>> from repertoire.protocols import ClassIncremental
        >>> [len(stage.classes) for stage in ClassIncremental(step=4).stages(load("digits"), seed=0)]
        [4, 8, 10]
    """

    def __init__(
        self,
        step: Annotated[int, AtLeast(1)] = 2,
        first: Annotated[int, AtLeast(1)] | None = None,
        order: Literal["drawn", "given"] = "drawn",
        memory: int | str = 200,
        keep: Keep = "reservoir",
        store: Store = "whole",
        share: Annotated[float, Between(0, 1, "()")] = 0.25,
    ) -> None:
        super().__init__(memory, keep, store, share)
        self.step = step
        self.first = step if first is None else first
        self.order = order

    def stages(self, splits: Splits, seed: int) -> Iterator[StageData]:
        if splits.kind != "classes":
            raise DataError("protocol 'classes' needs a class for each sample, and this data has other targets")
        count = len(splits.classes)
        if self.first >= count:
            raise DataError(
                f"protocol 'classes' with {self.first} classes in the first stage leaves none of the {count} classes "
                "for a second one: give a smaller step"
            )
        generator = np.random.Generator(np.random.Philox(seed))
        order = generator.permutation(count) if self.order == "drawn" else np.arange(count)
        ends = [*range(self.first, count, self.step), count]
        evaluate: dict[str, Samples] = {}
        start = 0
        for end in ends:
            new, names = order[start:end], tuple(splits.classes[k] for k in order[:end])
            name = "+".join(names[start:])
            evaluate[name] = _of(splits.test, new, order, names, "test")
            yield StageData(
                name,
                _of(splits.train, new, order, names, "training"),
                _of(splits.val, new, order, names, "validation"),
                {earlier: replace(samples, classes=names) for earlier, samples in evaluate.items()},
                names,
                tuple(range(start, end)),
            )
            start = end


def _of(samples: Samples, wanted: np.ndarray, order: np.ndarray, names: tuple[str, ...], part: str) -> Samples:
    """The samples of some classes, with labels as positions in the order in which classes come."""
    place = np.argsort(order)
    found = samples.subset(np.flatnonzero(np.isin(samples.labels, wanted)))
    missing = np.setdiff1d(wanted, found.labels)
    if len(missing):
        raise DataError(f"class {samples.classes[missing[0]]!r} has no {part} {samples.noun}s, and a stage needs some")
    return replace(found, labels=place[found.labels], classes=names)
