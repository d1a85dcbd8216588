"""Each check of a discoverer finds what it is there for."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from broken import every_check_is_tried, failing

from repertoire.discover import Discoverer
from repertoire.discover import SemiSupervisedKMeans as Whole
from repertoire.testing import check_discoverer

_COUNT = itertools.count()


class Plain(Discoverer):
    """Groups rows as a whole one does, in which single steps can be broken.

    Args:
        classes: how many.
        random_state: seed.
    """

    def __init__(self, classes: int | str = "auto", random_state: int = 0) -> None:
        self.classes = classes
        self.random_state = random_state

    def fit(self, X, y):
        self.whole = Whole(classes=self.classes, random_state=self.random_state).fit(X, y)
        for name in ("labels_", "n_classes_", "n_classes_interval_", "outlier_scores_", "probabilities_"):
            setattr(self, name, getattr(self.whole, name))
        self.change(X, np.asarray(y))
        return self

    def change(self, X, y):
        pass


class Undocumented(Plain):
    def __init__(self, classes="auto", random_state=0, sharpness=1):
        super().__init__(classes, random_state)
        self.sharpness = sharpness


class Forgetful(Plain):
    __doc__ = Plain.__doc__

    def __init__(self, classes: int | str = "auto", random_state: int = 0) -> None:
        super().__init__(classes, next(_COUNT))


class FromTheSmallest(Plain):
    __doc__ = Plain.__doc__

    def change(self, X, y):
        self.labels_ = np.where(self.labels_ >= 3, self.labels_ + 1, self.labels_)


class Mixing(Plain):
    __doc__ = Plain.__doc__

    def change(self, X, y):
        self.labels_ = np.where(y >= 0, y, np.sort(np.arange(len(y)) % 5)[::-1])


class OneMore(Plain):
    __doc__ = Plain.__doc__

    def change(self, X, y):
        self.n_classes_ += 4 if self.n_classes_interval_ else 0


class TurnedRound(Plain):
    __doc__ = Plain.__doc__

    def change(self, X, y):
        self.outlier_scores_ = -self.outlier_scores_


class Uneven(Plain):
    __doc__ = Plain.__doc__

    def change(self, X, y):
        self.probabilities_ = np.ones((len(y), self.n_classes_), np.float32)


class ByChance(Plain):
    __doc__ = Plain.__doc__

    def change(self, X, y):
        self.outlier_scores_ = self.outlier_scores_ + float(torch.rand(()))


class ByOrder(Plain):
    __doc__ = Plain.__doc__

    def change(self, X, y):
        if (np.diff(np.flatnonzero(y >= 0)) != 1).sum() > 2:
            self.labels_ = np.where(y >= 0, y, 3)


class InPlace(Plain):
    __doc__ = Plain.__doc__

    def change(self, X, y):
        X *= 2


class TakesAnything(Plain):
    __doc__ = Plain.__doc__

    def fit(self, X, y):
        try:
            return super().fit(X, y)
        except ValueError:
            return self


BROKEN = {
    "it is documented": Undocumented,
    "it can be written again from its options": Forgetful,
    "known classes keep their numbers and new groups follow": FromTheSmallest,
    "it finds classes that lie far apart": Mixing,
    "it guesses how many classes there are": OneMore,
    "what fits no group has the highest outlier scores": TurnedRound,
    "probabilities go with the groups": Uneven,
    "the seed alone decides what is drawn": ByChance,
    "no label counts but those that are given": ByOrder,
    "what it is given stays as it was in any precision": InPlace,
    "what does not fit is refused": TakesAnything,
}


def test_a_whole_one_passes_and_every_check_is_tried():
    every_check_is_tried(check_discoverer, Whole, BROKEN)


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_found(name):
    assert name in failing(check_discoverer, BROKEN[name])
