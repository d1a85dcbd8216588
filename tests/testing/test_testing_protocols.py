"""Each check of a protocol finds what it is there for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from broken import every_check_is_tried, failing

from repertoire.data import Splits
from repertoire.errors import DataError
from repertoire.protocols import ClassIncremental, Protocol, StageData
from repertoire.testing import check_protocol


class Bent(Protocol):
    """The stages of new classes, bent in one way.

    Args:
        memory: what may be kept.
        keep: which samples are kept.
    """

    def __init__(self, memory: int | str = 200, keep: str = "reservoir") -> None:
        super().__init__(memory, keep)

    def stages(self, splits: Splits, seed: int) -> Iterator[StageData]:
        for number, stage in enumerate(ClassIncremental(2).stages(splits, seed)):
            yield self.bent(stage, number)

    def bent(self, stage: StageData, number: int) -> StageData:
        return stage


class Undocumented(Bent):
    """Stages."""


class Forgetful(Bent):
    """The stages of new classes, with a memory that nobody is asked about.

    Args:
        memory: what may be kept.
        keep: which samples are kept.
    """

    def __init__(self, memory: int | str = 200, keep: str = "reservoir") -> None:
        super().__init__()


class Leaving(Bent):
    __doc__ = Bent.__doc__

    def bent(self, stage: StageData, number: int) -> StageData:
        return replace(stage, train=stage.train.subset(np.arange(len(stage.train) - 1)))


class Renaming(Bent):
    __doc__ = Bent.__doc__

    def bent(self, stage: StageData, number: int) -> StageData:
        return replace(stage, new=stage.new[:-1])


class Disordered(Bent):
    __doc__ = Bent.__doc__

    def bent(self, stage: StageData, number: int) -> StageData:
        return replace(stage, evaluate=dict(reversed(stage.evaluate.items())))


class Moody(Bent):
    __doc__ = Bent.__doc__
    calls = 0

    def stages(self, splits: Splits, seed: int) -> Iterator[StageData]:
        Moody.calls += 1
        return super().stages(splits, Moody.calls)


class Hoarding(Bent):
    __doc__ = Bent.__doc__

    class Kept(StageData):
        def splits(self, whole: Splits, memory: object = None) -> Splits:
            return super().splits(whole, whole.train)

    def bent(self, stage: StageData, number: int) -> StageData:
        return self.Kept(**vars(stage))


class Silent(Bent):
    __doc__ = Bent.__doc__

    def stages(self, splits: Splits, seed: int) -> Iterator[StageData]:
        try:
            yield from super().stages(splits, seed)
        except DataError:
            return


class Untold(Bent):
    __doc__ = Bent.__doc__

    def measure(self, matrix: np.ndarray) -> dict[str, float]:
        return {"accuracy": float(matrix.sum())}


BROKEN = {
    "it is documented": Undocumented,
    "it passes on what may be kept": Forgetful,
    "each sample is in one stage with the class it had": Leaving,
    "classes come and stay in their places": Renaming,
    "what is evaluated is in the order of the stages": Disordered,
    "equal seeds give equal stages": Moody,
    "a stage brings what is remembered": Hoarding,
    "data that cannot be divided is refused": Silent,
    "an estimator goes through it": Untold,
}


def test_a_whole_one_passes_and_every_check_is_tried():
    every_check_is_tried(check_protocol, Bent, BROKEN)


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_found(name: str):
    assert name in failing(check_protocol, BROKEN[name])
