"""Classes that come, go and overlap, in stages of random sizes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np

from repertoire.data import Samples, Splits
from repertoire.errors import DataError
from repertoire.protocols._base import Protocol, StageData
from repertoire.protocols._memory import Keep, Store
from repertoire.ranges import AtLeast, Between, Share
from repertoire.registry import register

__all__ = ["SiBlurry"]

STAGES = 5
PARTS = (("train", "training"), ("val", "validation"), ("test", "test"))


@register("protocols", "si-blurry", paper="si-blurry-mvp")
class SiBlurry(Protocol):
    r"""Stages without neat boundaries: some classes come once, others leak into all stages, and nothing is of one size.

    Moon et al., *Online Class Incremental Learning on Stochastic Blurry Task Boundary via Mask and Visual Prompt
    Tuning* (2023). A share :math:`m` of the classes, drawn, is disjoint: such a class comes in its own stage alone. The
    others are blurry: they have a stage of their own too, and a share :math:`n` of their training samples is taken out
    and scattered over all stages. How many classes a stage has, and how many of the scattered samples, is drawn: stages
    are of very different sizes. Train for one epoch (`--epochs 1`) and every sample is seen once, as in the paper.

    After a stage, the classes are tested whose own stage it was or has been: a class of which a few samples have leaked
    in advance is known to the network, and tested from its own stage on. The paper draws sizes that may be zero; here
    each stage has a class of its own, so that there is something to test.

    Args:
        stages: how many, at least 2; 5 by default, or one a class where there are fewer.
        disjoint: m, the share of classes that are disjoint; at least one for each stage.
        blurry: n, the share of the training samples of all other classes that is scattered.
        memory: samples that may be kept for methods with a memory: a number, or an amount such as 20MB.
        keep: "reservoir" (default) or "herding"; see :class:`repertoire.protocols.Memory`.
        store: in which form: "whole" (default), or "patches", for a method that draws what is missing; see
            :class:`repertoire.protocols.Patches`.
        share: of the patches of an image that are kept.

    Raises:
        DataError: the targets are not one class each, there are fewer classes than stages, or a class has no sample to
            be trained on, validated or tested with.

    Example:
        >>> from repertoire.data import load
        >>> from repertoire.protocols import SiBlurry
        >>> stages = list(SiBlurry(stages=3, blurry=0.2).stages(load("digits"), seed=0))
        >>> len(stages), len(stages[-1].classes), sum(len(stage.train) for stage in stages) == len(load("digits").train)
        (3, 10, True)
    """

    def __init__(
        self,
        stages: Annotated[int, AtLeast(2)] | None = None,
        disjoint: Annotated[float, Share] = 0.5,
        blurry: Annotated[float, Share] = 0.1,
        memory: int | str = 200,
        keep: Keep = "reservoir",
        store: Store = "whole",
        share: Annotated[float, Between(0, 1, "()")] = 0.25,
    ) -> None:
        super().__init__(memory, keep, store, share)
        self.number = stages or STAGES
        self.fewer = stages is None
        self.disjoint = disjoint
        self.blurry = blurry

    @classmethod
    def example_options(cls) -> dict[str, Any]:
        """Options for an example of five classes."""
        return {"stages": 2}

    def stages(self, splits: Splits, seed: int) -> Iterator[StageData]:
        if splits.kind != "classes":
            raise DataError("protocol 'si-blurry' needs a class for each sample, and this data has other targets")
        count = len(splits.classes)
        number = max(2, min(self.number, count)) if self.fewer else self.number
        if count < number:
            raise DataError(
                f"protocol 'si-blurry' with {number} stages needs as many classes, and this data has {count}: "
                "give fewer stages"
            )
        for part, called in PARTS:
            present = np.unique(getattr(splits, part).labels)
            missing = np.setdiff1d(np.arange(count), present)
            if len(missing):
                raise DataError(
                    f"class {splits.classes[missing[0]]!r} has no {called} {splits.train.noun}s, and a stage needs some"
                )
        draw = np.random.Generator(np.random.Philox(seed))
        order = draw.permutation(count)
        alone = min(count, max(number, round(self.disjoint * count)))
        home = np.empty(count, dtype=np.int64)
        home[order[:alone]] = np.repeat(np.arange(number), _sizes(draw, number, alone, least=1))
        home[order[alone:]] = np.repeat(np.arange(number), _sizes(draw, number, count - alone, least=0))
        stage_of = self._scatter(draw, number, splits.train, home, order[alone:])
        yield from self._staged(splits, home, stage_of)

    def _scatter(
        self, draw: np.random.Generator, number: int, train: Samples, home: np.ndarray, blurry: np.ndarray
    ) -> np.ndarray:
        """The stage of each training sample: that of its class, or a drawn one."""
        stage_of = home[train.labels]
        loose = []
        for label in np.sort(blurry):
            rows = draw.permutation(np.flatnonzero(train.labels == label))
            # One stays, so that a class is there in its own stage.
            loose.append(rows[: min(len(rows) - 1, round(self.blurry * len(rows)))])
        scattered = draw.permutation(np.concatenate(loose)) if loose else np.zeros(0, dtype=np.int64)
        sizes = _sizes(draw, number, len(scattered), least=0)
        stage_of[scattered] = np.repeat(np.arange(number), sizes)
        return stage_of

    def _staged(self, splits: Splits, home: np.ndarray, stage_of: np.ndarray) -> Iterator[StageData]:
        known: list[int] = []
        evaluate: dict[str, Samples] = {}
        for t in range(int(home.max()) + 1):
            train = splits.train.subset(np.flatnonzero(stage_of == t))
            new = [label for label in np.unique(train.labels).tolist() if label not in known]
            # Those of this stage before those that leak into it.
            new.sort(key=lambda label: (home[label] != t, label))
            start, known = len(known), known + new
            own = np.flatnonzero(home == t)
            name = "+".join(splits.classes[label] for label in own)
            evaluate[name] = splits.test.subset(np.flatnonzero(np.isin(splits.test.labels, own)))
            val = splits.val.subset(np.flatnonzero(np.isin(splits.val.labels, own)))
            yield StageData(
                name,
                _placed(train, known),
                _placed(val, known),
                {earlier: _placed(samples, known) for earlier, samples in evaluate.items()},
                tuple(splits.classes[label] for label in known),
                tuple(range(start, len(known))),
            )


def _placed(samples: Samples, known: Sequence[int]) -> Samples:
    """The samples with labels as positions among the classes that are known."""
    place = np.full(len(samples.classes), -1)
    place[list(known)] = np.arange(len(known))
    return replace(samples, labels=place[samples.labels], classes=tuple(samples.classes[label] for label in known))


def _sizes(draw: np.random.Generator, number: int, total: int, *, least: int) -> np.ndarray:
    """Sizes of so many stages, which are drawn and sum to the total."""
    spare = total - least * number
    cuts = np.sort(draw.integers(0, spare + 1, number - 1))
    return least + np.diff(np.concatenate([[0], cuts, [spare]]))
