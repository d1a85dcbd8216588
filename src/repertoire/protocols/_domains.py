"""The same classes in every stage, from other places."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

import numpy as np

from repertoire.data import Samples, Splits
from repertoire.errors import DataError
from repertoire.protocols._base import Protocol, StageData
from repertoire.protocols._memory import Keep, Store
from repertoire.ranges import Between
from repertoire.registry import register

__all__ = ["DomainIncremental"]


@register("protocols", "domains")
class DomainIncremental(Protocol):
    """The same classes in every stage, seen in another domain: domain-incremental learning.

    Van de Ven and Tolias, *Three Scenarios for Continual Learning* (2019). A domain is a value of a further variable of
    the samples: a site, a camera, a speaker. After each stage all domains are tested, those to come too.

    Args:
        factor: the variable whose values are the domains; "domain" or "group", whichever there is, if empty.
        order: "drawn" (default): by the seed; "given": sorted by value.
        memory: samples that may be kept for methods with a memory: a number, or an amount such as 20MB.
        keep: "reservoir" (default), "herding" or "typical"; see :class:`repertoire.protocols.Memory`.
        store: in which form: "whole" (default), or "patches", for a method that draws what is missing; see
            :class:`repertoire.protocols.Patches`.
        share: of the patches of an image that are kept.

    Raises:
        DataError: the data has no such variable, or one value of it; or a part has no samples of a domain.

    Example:
        >>> from repertoire.data import load
        >>> from repertoire.protocols import DomainIncremental
        >>> splits = load("shapes:count=400", size=16)
        >>> [stage.name for stage in DomainIncremental("background", order="given").stages(splits, seed=0)][:2]
        ['background=0', 'background=1']
    """

    by_factor = True

    def __init__(
        self,
        factor: str = "",
        order: Literal["drawn", "given"] = "drawn",
        memory: int | str = 200,
        keep: Keep = "reservoir",
        store: Store = "whole",
        share: Annotated[float, Between(0, 1, "()")] = 0.25,
    ) -> None:
        super().__init__(memory, keep, store, share)
        self.factor = factor
        self.order = order

    def stages(self, splits: Splits, seed: int) -> Iterator[StageData]:
        if splits.kind != "classes":
            raise DataError("protocol 'domains' needs a class for each sample, and this data has other targets")
        factor = self._factor(splits.train)
        values = np.unique(splits.train.factors[factor])
        if len(values) < 2:
            raise DataError(f"protocol 'domains' needs two domains or more, and {factor!r} has one value: {values[0]}")
        if self.order == "drawn":
            values = np.random.Generator(np.random.Philox(seed)).permutation(values)
        parts = {
            f"{factor}={value}": tuple(
                _of(getattr(splits, part), factor, value, part) for part in ("train", "val", "test")
            )
            for value in values
        }
        evaluate = {name: test for name, (_, _, test) in parts.items()}
        for number, (name, (train, val, _)) in enumerate(parts.items()):
            new = tuple(range(len(splits.classes))) if number == 0 else ()
            yield StageData(name, train, val, evaluate, splits.classes, new)

    def _factor(self, samples: Samples) -> str:
        wanted = (self.factor,) if self.factor else ("domain", "group")
        found = next((name for name in wanted if name in samples.factors), None)
        if found is None:
            known = ", ".join(sorted(name for name, v in samples.factors.items() if v.ndim == 1)) or "none"
            raise DataError(
                f"protocol 'domains' needs a variable {' or '.join(map(repr, wanted))} that says which domain a sample "
                f"is from; the variables of this data: {known}. Name one with domains:factor=NAME"
            )
        if samples.factors[found].ndim != 1:
            raise DataError(f"the variable {found!r} has several values a sample, and a domain is one")
        return found


def _of(samples: Samples, factor: str, value: object, part: str) -> Samples:
    index = np.flatnonzero(samples.factors[factor] == value)
    if not len(index):
        raise DataError(f"domain {factor}={value} has no {part} {samples.noun}s, and a stage needs some")
    return samples.subset(index)
