"""What every data source must do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from repertoire.data import Samples, SourceRequest, Splits, digest, kind_of
from repertoire.testing._check import Check, checks, described

__all__ = ["check_source"]


def check_source(source: Callable[..., Splits], *, request: SourceRequest | None = None, **options: Any) -> list[Check]:
    """Checks of a data source: `source(request, **options)` gives three parts with the same classes and shape.

    Args:
        source: the function. Its data must be at hand.
        request: what to ask for; the defaults if None.
        options: options of the source, such as the path of a file.

    Returns:
        The checks; each is called without arguments.

    Example:
        >>> from repertoire.data import digits
        >>> from repertoire.testing import check_source
        >>> for check in check_source(digits):
        ...     check()
    """
    return checks(_Sources(source, request or SourceRequest(), options))


class _Sources:
    def __init__(self, source: Callable[..., Splits], request: SourceRequest, options: dict[str, Any]) -> None:
        self.source, self.request, self.options = source, request, options

    def load(self, **wishes: Any) -> Splits:
        return self.source(replace(self.request, **wishes), **self.options)

    @cached_property
    def splits(self) -> Splits:
        return self.load()

    @property
    def parts(self) -> tuple[Samples, ...]:
        return self.splits.train, self.splits.val, self.splits.test

    def check_it_is_documented(self) -> None:
        described(self.source)
        assert isinstance(self.splits, Splits)
        assert self.splits.source

    def check_parts_are_alike_and_not_empty(self) -> None:
        train = self.splits.train
        for part in self.parts:
            assert isinstance(part, Samples)
            assert len(part) > 0, "a part is empty"
            assert part.classes == train.classes
            assert part.shape == train.shape
            assert kind_of(part.labels) == train.kind

    def check_every_sample_has_what_it_must(self) -> None:
        for part in self.parts:
            assert len(part.labels) == len(part.names) == len(part.keys) == len(part)
            stored = part.inputs(np.arange(min(8, len(part))))
            assert stored.dtype in (np.uint8, np.float16, np.float32)
            assert np.isfinite(stored.astype(np.float32)).all()
            assert part[0][0].shape == part.shape
            if part.kind == "classes":
                assert part.labels.min() >= -1
                assert part.labels.max() < len(part.classes)
                assert part.counts().sum() == (part.labels >= 0).sum()

    def check_no_sample_is_in_two_parts(self) -> None:
        keys = [set(part.keys.tolist()) for part in self.parts]
        assert sum(map(len, keys)) == len(set.union(*keys)), "two parts share a sample, or copies of one"

    def check_the_same_request_gives_the_same_samples(self) -> None:
        again = self.load()
        assert digest(again) == digest(self.splits)
        for part, twin in zip(self.parts, (again.train, again.val, again.test), strict=True):
            np.testing.assert_array_equal(part.labels, twin.labels)
            assert list(part.names) == list(twin.names)

    def check_the_seed_decides_the_parts_and_nothing_else(self) -> None:
        other = self.load(seed=self.request.seed + 1)
        assert other.classes == self.splits.classes
        assert other.train.shape == self.splits.train.shape
        total = sum(map(len, self.parts))
        assert len(other.train) + len(other.val) + len(other.test) == total

    def check_samples_can_be_chosen(self) -> None:
        for part in self.parts:
            order = np.arange(len(part))[::-1][:5]
            chosen = part.subset(order)
            np.testing.assert_array_equal(chosen.labels, part.labels[order])
            np.testing.assert_array_equal(chosen.inputs(np.arange(len(order))), part.inputs(order))

    def check_it_draws_nothing_from_the_random_state(self) -> None:
        import torch

        np.random.seed(0)
        torch.manual_seed(0)
        self.load()
        after = np.random.random(), float(torch.rand(()))
        np.random.seed(0)
        torch.manual_seed(0)
        assert after == (np.random.random(), float(torch.rand(()))), "loading changes the global random state"
