"""What every zero-shot classifier must do: reach classes that it had no row of, by their descriptions alone."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from repertoire import registry
from repertoire.errors import ShapeError
from repertoire.testing._check import Check, checks, described, example_options, refused

__all__ = ["check_zero_shot"]

_CLASSES, _SEEN, _EACH = 16, 13, 6


def check_zero_shot(factory: Callable[..., Any], **options: Any) -> list[Check]:
    """Checks of a zero-shot classifier: `fit(X, y, descriptions)` and `predict(X, descriptions)`.

    Args:
        factory: the class.
        options: options to build it with; whatever makes it fast on little data.

    Returns:
        The checks; each is called without arguments.

    Example:
        >>> from repertoire.testing import check_zero_shot
        >>> from repertoire.zeroshot import ESZSL
        >>> for check in check_zero_shot(ESZSL):
        ...     check()
    """
    return checks(_ZeroShot(factory, options))


class _ZeroShot:
    def __init__(self, factory: Callable[..., Any], options: dict[str, Any]) -> None:
        self.factory, self.options = factory, {**example_options(factory), **options}

    def build(self) -> Any:
        return self.factory(**self.options)

    def data(self, noise: float = 0.05) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows that follow from descriptions by a linear map: each class has one of four colours and of four shapes."""
        generator = np.random.default_rng(0)
        pairs = generator.permutation(_CLASSES)
        descriptions = np.concatenate([np.eye(4)[pairs // 4], np.eye(4)[pairs % 4]], 1)
        descriptions += 0.02 * generator.normal(size=descriptions.shape)
        y = np.repeat(np.arange(_CLASSES), _EACH)
        x = descriptions[y] @ generator.normal(size=(8, 10))
        return x + noise * generator.normal(size=x.shape), y, descriptions

    def fitted(self) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray]:
        x, y, descriptions = self.data()
        seen = y < _SEEN
        return self.build().fit(x[seen], y[seen], descriptions), x, y, descriptions

    def check_it_is_documented(self) -> None:
        described(self.factory)
        for name, parameter in registry.options(self.factory, self.options).items():
            assert parameter.default is not parameter.empty, f"option {name} has no default"

    def check_it_can_be_written_again_from_its_options(self) -> None:
        from sklearn.base import clone

        twin = clone(self.build())
        assert twin.get_params() == self.build().get_params()

    def check_it_tells_classes_apart_that_it_never_saw(self) -> None:
        model, x, y, descriptions = self.fitted()
        unseen = y >= _SEEN
        right = model.predict(x[unseen], descriptions[_SEEN:]) == y[unseen] - _SEEN
        assert right.mean() > 0.9, f"rows follow from descriptions, and {right.mean():.0%} of unseen ones are right"

    def check_it_says_which_classes_it_saw(self) -> None:
        model, _, _, descriptions = self.fitted()
        np.testing.assert_array_equal(model.is_seen(), np.arange(_CLASSES) < _SEEN)
        turned = descriptions[::-1]
        np.testing.assert_array_equal(model.is_seen(turned), np.arange(_CLASSES)[::-1] < _SEEN)

    def check_the_order_of_the_classes_does_not_matter(self) -> None:
        model, x, _, descriptions = self.fitted()
        order = np.random.default_rng(1).permutation(_CLASSES)
        plain, turned = model.decision_function(x, descriptions), model.decision_function(x, descriptions[order])
        assert plain.shape == (len(x), _CLASSES)
        np.testing.assert_allclose(turned, plain[:, order], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(model.decision_function(x), plain, rtol=1e-4, atol=1e-5)

    def check_a_row_is_answered_by_itself(self) -> None:
        model, x, _, descriptions = self.fitted()
        if model.transductive:
            return  # it says that it looks at all rows that are asked
        whole = model.decision_function(x, descriptions)
        np.testing.assert_allclose(model.decision_function(x[3:4], descriptions), whole[3:4], rtol=1e-6, atol=1e-8)
        assert model.decision_function(x[:0], descriptions).shape == (0, _CLASSES)

    def check_the_same_data_give_the_same_answers(self) -> None:
        torch.manual_seed(1)
        np.random.seed(1)
        state, other = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index]
        scores = []
        for _ in range(2):
            model, x, _, descriptions = self.fitted()
            scores.append(model.decision_function(x, descriptions))
        np.testing.assert_array_equal(*scores)
        assert torch.equal(torch.random.get_rng_state(), state), "it draws from torch's own random state"
        np.testing.assert_array_equal(np.random.get_state()[1], other)  # type: ignore[index]

    def check_what_it_is_given_stays_as_it_was(self) -> None:
        given = self.data()
        before = [each.copy() for each in given]
        x, y, descriptions = given
        seen = _SEEN * _EACH  # slices, which are no copies
        self.build().fit(x[:seen], y[:seen], descriptions).decision_function(x, descriptions)
        for now, then in zip(given, before, strict=True):
            np.testing.assert_array_equal(now, then)

    def check_half_and_single_precision(self) -> None:
        """Features are often stored in half precision, and descriptions are often whole numbers."""
        x, y, descriptions = self.data()
        seen = y < _SEEN
        for dtype in (np.float16, np.float32):
            low = x.astype(dtype)
            model = self.build().fit(low[seen], y[seen].astype(np.uint8), np.rint(descriptions).astype(np.int8))
            found = model.decision_function(low)
            assert found.dtype == np.float64, f"scores are float64, found {found.dtype}"
            assert np.isfinite(found).all()

    def check_the_unit_of_the_features_does_not_matter(self) -> None:
        x, y, descriptions = self.data()
        seen = y < _SEEN
        plain = self.build().fit(x[seen], y[seen], descriptions).predict(x)
        scaled = self.build().fit(1000 * x[seen], y[seen], descriptions).predict(1000 * x)
        assert (plain == scaled).mean() > 0.95, "features in another unit give other answers"

    def check_it_can_be_kept(self) -> None:
        from repertoire.estimators import load_estimator, save_estimator

        model, x, _, descriptions = self.fitted()
        if not any(entry.factory is self.factory for entry in registry.entries("zero-shot-classifiers")):
            twin = self.build().restore(model.fitted_state())
        else:
            with tempfile.TemporaryDirectory() as folder:
                save_estimator(model, folder)
                twin = load_estimator(folder)
        np.testing.assert_array_equal(twin.decision_function(x, descriptions), model.decision_function(x, descriptions))

    def check_what_does_not_fit_is_refused(self) -> None:
        from sklearn.exceptions import NotFittedError

        x, y, descriptions = self.data()
        refused(NotFittedError, "not fitted", self.build().predict, x)
        refused(ShapeError, "finite", self.build().fit, np.full_like(x, np.nan), y, descriptions)
        refused(ShapeError, "finite", self.build().fit, x, y, np.full_like(descriptions, np.inf))
        refused(ShapeError, r"numbers \[N", self.build().fit, x[:, 0], y, descriptions)
        refused(ShapeError, "whole numbers", self.build().fit, x, y[:5], descriptions)
        refused(ShapeError, "has no description", self.build().fit, x, y + 1, descriptions)
        refused(ShapeError, "two classes or more", self.build().fit, x[:4], y[:4], descriptions)
        model = self.fitted()[0]
        refused(ShapeError, r"numbers \[N, 8\]", model.predict, x, descriptions[:, :4])
        refused(ShapeError, r"numbers \[N, 10\]", model.predict, x[:, :7])
