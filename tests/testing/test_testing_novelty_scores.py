"""Each check of a novelty score finds what it is there for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from broken import every_check_is_tried, failing

from repertoire.openset import MaxSoftmax, NoveltyScore
from repertoire.testing import check_novelty_score


class Whole(NoveltyScore):
    """The distance to the nearest class mean of the features, below zero."""

    reads = frozenset({"features", "labels"})

    def _fit(self, x, f, y):
        self.means_ = np.stack([x[y == label].mean(0) for label in np.unique(y)])

    def _score(self, x, f):
        return -np.linalg.norm(x[:, None] - self.means_, axis=2).min(1)


class Undocumented(Whole):
    def __init__(self, power: float = 1.0) -> None:
        self.power = power


class Reversed(Whole):
    """The distance to the nearest class mean, so that higher is unknown."""

    def _score(self, x, f):
        return -super()._score(x, f)


class OfItsOwnDice(Whole):
    """The distance to the nearest class mean, and noise of NumPy's own random state."""

    def _score(self, x, f):
        return super()._score(x, f) + 0.01 * np.random.normal(size=len(x))


class Ranked(Whole):
    """The rank of the distance among those that are scored together."""

    def _score(self, x, f):
        return super()._score(x, f).argsort().argsort().astype(float)


class Careless(Whole):
    """The distance to the nearest class mean, and the samples are set to zero afterwards."""

    def fit(self, features=None, logits=None, labels=None):
        super().fit(features, logits, labels)
        if isinstance(features, torch.Tensor):
            features.zero_()
        return self


class Forgetful(Whole):
    """The distance to the nearest class mean, which is kept under a name that is no state."""

    def _fit(self, x, f, y):
        super()._fit(x, f, y)
        self.means = self.__dict__.pop("means_")

    def _score(self, x, f):
        return -np.linalg.norm(x[:, None] - self.means, axis=2).min(1)


class Constant(MaxSoftmax):
    """The largest probability, also where there is one class, with a temperature."""

    fewest = 1


class Trusting(Whole):
    """The distance to the nearest class mean, of whatever comes."""

    def fit(self, features=None, logits=None, labels=None):
        keep = np.isfinite(np.asarray(features.double() if hasattr(features, "double") else features)).all(1)
        return super().fit(features[keep], logits, labels[keep])


BROKEN = {
    "it is documented and says what it reads": Undocumented,
    "what is far from all classes scores lower than what was learned": Reversed,
    "the same samples give the same scores": OfItsOwnDice,
    "a sample does not depend on the others": Ranked,
    "tensors of any precision are taken and stay as they were": Careless,
    "its state gives the same score again": Forgetful,
    "one class is enough or refused with the reason": Constant,
    "what does not fit is refused": Trusting,
}


def test_a_whole_one_passes_and_every_check_is_tried():
    every_check_is_tried(check_novelty_score, Whole, BROKEN)


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_found(name: str):
    assert name in failing(check_novelty_score, BROKEN[name])
