"""Class scores that are looked up under the nearest keys, and learned there alone."""

from __future__ import annotations

import functools
from typing import Any, Self

import numpy as np
import torch
from sklearn.preprocessing import normalize
from sklearn.utils.validation import validate_data
from torch import Tensor
from torch.nn import functional as F

from repertoire.estimators._incremental import Incremental, grown
from repertoire.ops import draw_keys, nearest_keys
from repertoire.registry import register

__all__ = ["KeyValueClassifier"]

_ROWS = 512
"""Rows that are compared with all keys at once."""


@functools.lru_cache(maxsize=2)
def _projection(seed: int, books: int, inputs: int, width: int) -> Tensor:
    """The projections: a function of the seed, whose generator is promised to give the same numbers for ever."""
    drawn = np.random.RandomState(seed).standard_normal((books, inputs, width))
    return torch.from_numpy(drawn.astype(np.float32))


@register("feature-estimators", "key-value", paper="dkvb")
class KeyValueClassifier(Incremental):
    r"""Discrete key-value bottleneck: each row changes what is stored under its nearest keys, and nothing else.

    Träuble et al., *Discrete Key-Value Bottleneck* (2023). Each of C codebooks projects the features by a matrix
    :math:`P_c` that is drawn once, finds the nearest of its K keys, and fetches the scores of all classes there:

    .. math::
        f = \frac{1}{C} \sum_c v_{c,\,k_c(z)}, \qquad k_c(z) = \arg\min_k \lVert \bar z P_c - e_{ck} \rVert_2

    The values v are learned by gradient descent on the cross-entropy of f, without momentum, so that a step changes
    fetched values only: what was learned elsewhere stays. Nobody has to say where a stage ends. Classes that are yet to
    come take part in the cross-entropy, as in the paper, which knows from the start how many there will be: they are
    alike until they come, so one row of values stands for all of them, and a new class begins with it. Keys e are made
    of features without labels (:func:`repertoire.ops.draw_keys`): those given to `prepare`, or else those of the first
    stage, in which case rows of later classes share the keys that happen to be nearest. They are frozen afterwards.

    Args:
        codebooks: C, 1 or more; 256 by default. The more, the less a single key matters.
        keys: K of each codebook, 1 or more; 64 by default, for a few thousand samples.
        width: of the projected features, 1 or more.
        rate: learning rate of the values, times C, so that it does not depend on how many are averaged; positive. The
            paper finds that large rates serve this model well.
        epochs: how often each stage is gone through, 1 or more.
        batch_size: 1 or more.
        ahead: classes that are reckoned with beside the known ones where nobody has announced them, 0 or more; those
            that come later should have a rival from the start, or they are learned with more force than the first.
        normalize: scale each feature vector to unit length first; a zero vector stays zero.
        random_state: seed of projections, keys and order.

    Attributes:
        classes_: the labels, sorted, `[Y]`.
        keys_: e, float32 `[C, K, width]`.
        values_: v, float32 `[Y, C, K]`, zero where nothing was learned.
        unseen_: v of each class that has not come yet, float32 `[C, K]`.
        prepared_: whether keys were made by `prepare`.
        stages_: how many stages there have been.
        n_features_in_: d.

    Raises:
        ValueError: when fitted: values that are not finite, labels that are no classes. ConfigError: an option out of
            range.

    Example:
        >>> import numpy as np
        >>> from repertoire.estimators import KeyValueClassifier
        >>> x, y = np.repeat(np.eye(3), 10, axis=0), np.repeat(["a", "b", "c"], 10)
        >>> model = KeyValueClassifier(codebooks=8, keys=4).prepare(x)
        >>> for name in "abc":
        ...     _ = model.partial_fit(x[y == name], y[y == name])
        >>> model.predict(np.eye(3)).tolist()
        ['a', 'b', 'c']
    """

    keys_: np.ndarray
    values_: np.ndarray
    unseen_: np.ndarray
    prepared_: bool

    def __init__(
        self,
        codebooks: int = 256,
        keys: int = 64,
        width: int = 8,
        rate: float = 0.1,
        epochs: int = 10,
        batch_size: int = 64,
        ahead: int = 10,
        normalize: bool = True,
        random_state: int = 0,
    ) -> None:
        self.codebooks = codebooks
        self.keys = keys
        self.width = width
        self.rate = rate
        self.epochs = epochs
        self.batch_size = batch_size
        self.ahead = ahead
        self.normalize = normalize
        self.random_state = random_state

    @classmethod
    def example_options(cls) -> dict[str, int]:
        """Few keys for few rows."""
        return {"codebooks": 16, "keys": 16}

    def _check_options(self) -> None:
        for name in ("codebooks", "keys", "width", "epochs", "batch_size"):
            self._require(name, getattr(self, name) >= 1, "1 or more")
        self._require("ahead", self.ahead >= 0, "0 or more")
        self._require("rate", 0 < self.rate < np.inf, "a positive number")

    def prepare(self, X: Any) -> Self:
        """Makes the keys of features float `[N, d]` that need no labels, before the first stage.

        Stages that come later leave them alone, and so does `fit`. Whatever was learned under other keys is forgotten.
        """
        self._check_options()
        X = validate_data(self, X, dtype=(np.float64, np.float32))
        self.keys_, self.prepared_ = self._made(X), True
        for name in ("classes_", "values_", "unseen_", "stages_", "announced_"):
            self.__dict__.pop(name, None)
        return self

    def _made(self, X: np.ndarray) -> np.ndarray:
        generator = torch.Generator().manual_seed(self.random_state)
        return draw_keys(self._projected(X), self.keys, generator=generator).numpy()

    def _begin(self, width: int) -> None:
        shape = (self.codebooks, self.keys, self.width)
        if not getattr(self, "prepared_", False) or self.keys_.shape != shape:
            self.keys_, self.prepared_ = np.zeros((0, *shape[1:]), dtype=np.float32), False
        self.values_ = np.zeros((0, self.codebooks, self.keys), dtype=np.float32)
        self.unseen_ = np.zeros((self.codebooks, self.keys), dtype=np.float32)

    def _make_room(self, place: np.ndarray, count: int) -> None:
        values = grown(self.values_, place, count)
        values[np.setdiff1d(np.arange(count), place)] = self.unseen_
        self.values_ = values

    def _learn(self, X: np.ndarray, index: np.ndarray) -> None:
        if not len(self.keys_):
            self.keys_ = self._made(X)
        cells = torch.from_numpy(self._cells(X))
        y = torch.from_numpy(index)
        classes, books, keys = self.values_.shape
        # A row for each key, so that what a step fetches lies together.
        every = np.concatenate([self.values_, self.unseen_[None]])
        table = torch.from_numpy(every.reshape(classes + 1, books * keys).T.copy())
        ahead = max(self.announced_ - classes, 0) if self.announced_ else self.ahead
        # The last column counts as often as there are classes that it stands for.
        times = torch.cat([torch.zeros(classes), torch.tensor([float(ahead)]).log()])
        seed = np.random.SeedSequence([self.random_state, self.stages_]).generate_state(1)[0]
        generator = torch.Generator().manual_seed(int(seed))
        for _ in range(self.epochs):
            for rows in torch.randperm(len(y), generator=generator).split(self.batch_size):
                fetched = cells[rows]
                wrong = (table[fetched].mean(1) + times).softmax(1) - F.one_hot(y[rows], classes + 1)
                wrong[:, -1] /= max(ahead, 1)
                change = wrong * (-self.rate / len(rows))
                table.index_add_(0, fetched.flatten(), change.repeat_interleave(books, 0))
        every = np.ascontiguousarray(table.numpy().T).reshape(classes + 1, books, keys)
        self.values_, self.unseen_ = every[:-1].copy(), every[-1].copy()

    def _projected(self, X: np.ndarray) -> Tensor:
        z = normalize(X) if self.normalize else X
        matrix = _projection(self.random_state, self.codebooks, X.shape[1], self.width)
        return torch.einsum("nd,cdm->ncm", torch.from_numpy(z.astype(np.float32)), matrix)

    def _cells(self, X: np.ndarray) -> np.ndarray:
        """Which rows of the table are fetched, int64 `[N, C]`: that of the nearest key of each codebook."""
        keys = torch.from_numpy(self.keys_)
        first = torch.arange(self.codebooks) * self.keys
        parts = [nearest_keys(self._projected(X[at : at + _ROWS]), keys) + first for at in range(0, len(X), _ROWS)]
        return torch.cat([first[None][:0], *parts]).numpy()

    def _logits(self, X: np.ndarray) -> np.ndarray:
        table = self.values_.reshape(len(self.values_), -1).T
        cells = self._cells(X)
        parts = [table[cells[at : at + _ROWS]].mean(1) for at in range(0, len(X), _ROWS)]
        return np.concatenate([np.zeros((0, len(self.values_))), *parts])
