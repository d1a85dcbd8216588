"""Each check of a zero-shot classifier finds what it is there for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from broken import every_check_is_tried, failing

from repertoire.testing import check_zero_shot
from repertoire.zeroshot import ESZSL, EmbeddingRegression


class Undocumented(EmbeddingRegression):
    def __init__(self, strength: float = 0.1) -> None:
        super().__init__(strength)
        self.strength = strength


class Rounded(EmbeddingRegression):
    """Takes the nearest description, by a ridge that it rounds and a nearness."""

    def __init__(self, ridge: float = 0.0012, nearness: Any = "cosine") -> None:
        super().__init__(round(ridge, 3), nearness)


class Constant(EmbeddingRegression):
    """Takes the longest description, whatever ridge or nearness it is given."""

    def _scores(self, Z, descriptions, known):
        return np.tile(np.square(descriptions).sum(1), (len(Z), 1))


class Boastful(EmbeddingRegression):
    """Takes the nearest description by ridge and nearness, and says that it saw every class."""

    def is_seen(self, descriptions=None):
        return np.ones(len(self.descriptions_ if descriptions is None else descriptions), dtype=bool)


class FirstBest(EmbeddingRegression):
    """Prefers what is named first, by a ridge and a nearness."""

    def _scores(self, Z, descriptions, known):
        return super()._scores(Z, descriptions, known) - 1e-3 * np.arange(len(descriptions))


class Sociable(EmbeddingRegression):
    """Looks at all rows of a ridge and a nearness, and does not say so."""

    def _scores(self, Z, descriptions, known):
        scores = super()._scores(Z, descriptions, known)
        return scores - (scores.mean(0) if len(scores) else 0.0) * 0.1


class OfItsOwnDice(EmbeddingRegression):
    """Adds noise of torch's own to the scores of a ridge and a nearness."""

    def _scores(self, Z, descriptions, known):
        return super()._scores(Z, descriptions, known) + 1e-9 * torch.rand(1).item()


class Careless(EmbeddingRegression):
    """Takes the nearest description by ridge and nearness, and centres the caller's rows in place."""

    def fit(self, X, y, descriptions):
        X -= X.mean(0)
        return super().fit(X, y, descriptions)


class Single(EmbeddingRegression):
    """Takes the nearest description by ridge and nearness, and answers in the precision that it likes."""

    def _scores(self, Z, descriptions, known):
        return super()._scores(Z, descriptions, known).astype(np.float32)


class OfOneUnit(EmbeddingRegression):
    """Takes the nearest description by ridge and nearness, of features that must be about 1."""

    def fit(self, X, y, descriptions):
        super().fit(X, y, descriptions)
        self._fit((X - self._centre) * 1e-3, np.searchsorted(self.seen_, y))
        self._length = 1e3
        return self


class Forgetful(EmbeddingRegression):
    """Takes the nearest description by ridge and nearness, and keeps half of what it knows."""

    def fitted_state(self):
        return {**super().fitted_state(), "coef_": np.zeros_like(self.coef_)}


class Trusting(EmbeddingRegression):
    """Takes the nearest description by ridge and nearness, of rows that nobody looked at."""

    def fit(self, X, y, descriptions):
        return super().fit(np.nan_to_num(X), y, descriptions)


BROKEN = {
    "it is documented": Undocumented,
    "it can be written again from its options": Rounded,
    "it tells classes apart that it never saw": Constant,
    "it says which classes it saw": Boastful,
    "the order of the classes does not matter": FirstBest,
    "a row is answered by itself": Sociable,
    "the same data give the same answers": OfItsOwnDice,
    "what it is given stays as it was": Careless,
    "half and single precision": Single,
    "the unit of the features does not matter": OfOneUnit,
    "it can be kept": Forgetful,
    "what does not fit is refused": Trusting,
}


def test_a_whole_one_passes_and_every_check_is_tried():
    every_check_is_tried(check_zero_shot, ESZSL, BROKEN)


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_found(name: str):
    assert name in failing(check_zero_shot, BROKEN[name])
