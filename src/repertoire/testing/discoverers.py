"""What every discoverer must do: known classes keep their numbers, new ones get theirs, and nothing else decides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from repertoire.discover import Discoverer
from repertoire.errors import ConfigError, ShapeError
from repertoire.metrics import clustering_accuracy
from repertoire.testing._check import Check, checks, described, example_options, refused

__all__ = ["check_discoverer"]

_KNOWN, _CLASSES, _EACH = 3, 5, 24


def check_discoverer(factory: Callable[..., Discoverer], **options: Any) -> list[Check]:
    """Checks of a discoverer: `fit_predict(X, y)` gives the group of each row.

    Args:
        factory: the class.
        options: options to build it with; whatever makes it fast on little data.

    Returns:
        The checks; each is called without arguments.

    Example:
        >>> from repertoire.discover import SemiSupervisedKMeans
        >>> from repertoire.testing import check_discoverer
        >>> for check in check_discoverer(SemiSupervisedKMeans):
        ...     check()
    """
    return checks(_Discoverers(factory, options))


def _easy() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Five classes far apart, of which three are known by a third of their rows; rows, labels, and what is true."""
    generator = np.random.default_rng(0)
    truth = np.repeat(np.arange(_CLASSES), _EACH)
    x = 6 * np.eye(_CLASSES, 8)[truth] + generator.normal(size=(len(truth), 8))
    seen = (truth < _KNOWN) & (np.arange(len(truth)) % _EACH < _EACH // 3)
    return x.astype(np.float32), np.where(seen, truth, -1), truth


class _Discoverers:
    def __init__(self, factory: Callable[..., Discoverer], options: dict[str, Any]) -> None:
        self.factory, self.options = factory, {**example_options(factory), **options}
        self._fitted: Discoverer | None = None

    def build(self, **more: Any) -> Discoverer:
        return self.factory(**{**self.options, **more})

    def fitted(self) -> Discoverer:
        """Fitted once, to rows of as many classes as it is told, for all checks that only look."""
        if self._fitted is None:
            x, y, _ = _easy()
            self._fitted = self.build(classes=_CLASSES).fit(x, y)
        return self._fitted

    def check_it_is_documented(self) -> None:
        described(self.factory)
        assert {"classes", "random_state"} <= self.build().get_params().keys(), "it has classes and random_state"

    def check_it_can_be_written_again_from_its_options(self) -> None:
        from sklearn.base import clone

        twin = clone(self.build())
        assert type(twin) is type(self.build())
        assert twin.get_params() == self.build().get_params()

    def check_known_classes_keep_their_numbers_and_new_groups_follow(self) -> None:
        _, y, _ = _easy()
        found = self.fitted().labels_
        assert found.dtype == np.int64
        assert found.shape == y.shape
        np.testing.assert_array_equal(found[y >= 0], y[y >= 0])
        new = np.unique(found[found >= _KNOWN])
        np.testing.assert_array_equal(new, _KNOWN + np.arange(len(new)))
        sizes = [int((found == group).sum()) for group in new]
        assert sizes == sorted(sizes, reverse=True), "new groups are numbered from the largest on"
        assert (found >= 0).all()

    def check_it_finds_classes_that_lie_far_apart(self) -> None:
        _, y, truth = _easy()
        free = y < 0
        found = clustering_accuracy(self.fitted().labels_[free], truth[free], old=range(_KNOWN))
        assert min(found.old, found.new) > 0.9, f"five classes far apart: {found}"
        known = free & (truth < _KNOWN)
        assert (self.fitted().labels_[known] == truth[known]).mean() > 0.9, "a known class is called by its number"
        assert self.fitted().n_classes_ == _CLASSES
        assert self.fitted().n_classes_interval_ is None, "there is no interval where the number is given"

    def check_it_guesses_how_many_classes_there_are(self) -> None:
        x, y, _ = _easy()
        found = self.build(classes="auto").fit(x, y)
        assert abs(found.n_classes_ - _CLASSES) <= 1, f"five classes far apart, and it says {found.n_classes_}"
        assert found.n_classes_interval_ is not None
        low, high = found.n_classes_interval_
        assert low <= found.n_classes_ <= high

    def check_what_fits_no_group_has_the_highest_outlier_scores(self) -> None:
        x, y, _ = _easy()
        # Equally far from all classes, in a direction that none of them has.
        far = np.zeros((3, 8), np.float32)
        far[:, 5:] = 6 * np.eye(3)
        scores = self.build(classes=_CLASSES).fit(np.concatenate([x, far]), np.append(y, [-1] * 3)).outlier_scores_
        assert scores.dtype == np.float64
        assert np.isfinite(scores).all()
        # Three rows may have become a group of their own, and be in its middle: half of the others is enough.
        assert scores[-3:].max() > np.median(scores[:-3]), "what lies far from all classes looks like one of them"

    def check_probabilities_go_with_the_groups(self) -> None:
        found = self.fitted().probabilities_
        if found is None:
            return
        _, y, _ = _easy()
        assert found.shape == (len(y), self.fitted().n_classes_)
        np.testing.assert_allclose(found.sum(1), 1, rtol=1e-4)
        same = found[y < 0].argmax(1) == self.fitted().labels_[y < 0]
        assert same.all(), "a row is in the group that is the most probable"

    def check_the_seed_alone_decides_what_is_drawn(self) -> None:
        x, y, _ = _easy()
        torch.manual_seed(11)
        state, other = torch.random.get_rng_state(), np.random.get_state(legacy=False)
        again = self.build(classes=_CLASSES).fit(x, y)
        assert torch.equal(torch.random.get_rng_state(), state), "it draws from torch's own random state"
        np.testing.assert_equal(np.random.get_state(legacy=False), other, "it draws from NumPy's own random state")
        np.testing.assert_array_equal(again.labels_, self.fitted().labels_)
        np.testing.assert_array_equal(again.outlier_scores_, self.fitted().outlier_scores_)

    def check_no_label_counts_but_those_that_are_given(self) -> None:
        """Which rows have no label is all that it is told of them: their order is that of chance."""
        x, y, truth = _easy()
        order = np.random.default_rng(3).permutation(len(y))
        found = self.build(classes=_CLASSES).fit(x[order], y[order]).labels_
        free = y[order] < 0
        assert clustering_accuracy(found[free], truth[order][free]).all > 0.9, "the order of rows told it something"

    def check_what_it_is_given_stays_as_it_was_in_any_precision(self) -> None:
        x, y, truth = _easy()
        for dtype in (np.float16, np.float64):
            rows, labels = x.astype(dtype), y.copy()
            found = self.build(classes=_CLASSES).fit(rows, labels).labels_
            np.testing.assert_array_equal(rows, x.astype(dtype))
            np.testing.assert_array_equal(labels, y)
            assert clustering_accuracy(found, truth).all > 0.9

    def check_what_does_not_fit_is_refused(self) -> None:
        x, y, _ = _easy()
        fit = self.build(classes=_CLASSES).fit
        refused(ShapeError, "must be floating point", fit, x[0], y)
        refused(ShapeError, "must be floating point", fit, x.astype(np.int64), y)
        refused(ShapeError, "finite", fit, np.where(np.arange(len(x))[:, None] == 4, np.nan, x), y)
        refused(ShapeError, "whole numbers", fit, x, y[:5])
        refused(ConfigError, "two classes or more", fit, x, np.where(y == 0, 0, -1))
        refused(ConfigError, "without a gap", fit, x, np.where(y == 1, 7, y))
        refused(ConfigError, "nothing is left to discover", fit, x, np.arange(len(x)) % 3)
        refused(ConfigError, "classes must lie in", self.build(classes=2).fit, x, y)
