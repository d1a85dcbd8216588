"""What every estimator on features must do, beside what scikit-learn asks of its own."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from repertoire.testing._check import Check, checks, described, example_options

__all__ = ["check_estimator"]


def check_estimator(factory: Callable[..., Any], **options: Any) -> list[Check]:
    """Checks of an estimator on features: those of scikit-learn, and what features of networks need.

    Args:
        factory: the class.
        options: options to build it with; whatever makes it fast on little data.

    Returns:
        The checks; each is called without arguments.

    Example:
        >>> from repertoire.estimators import NearestCentroid
        >>> from repertoire.testing import check_estimator
        >>> [str(check) for check in check_estimator(NearestCentroid)][:2]
        ['it is documented', 'it can be written again from its options']
    """
    return checks(_Estimators(factory, options))


class _Estimators:
    def __init__(self, factory: Callable[..., Any], options: dict[str, Any]) -> None:
        self.factory, self.options = factory, {**example_options(factory), **options}

    def build(self) -> Any:
        return self.factory(**self.options)

    def data(self, dtype: Any = np.float32) -> tuple[np.ndarray, np.ndarray]:
        """One sample a class for a classifier, and a number of each sample for a regressor."""
        from sklearn.base import is_classifier

        x = np.eye(5, 8, dtype=dtype)
        return x, np.array(["e", "a", "d", "b", "c"]) if is_classifier(self.build()) else np.arange(5.0)

    def check_it_is_documented(self) -> None:
        from sklearn.base import BaseEstimator

        described(self.factory)
        assert isinstance(self.build(), BaseEstimator)

    def check_it_can_be_written_again_from_its_options(self) -> None:
        from sklearn.base import clone

        twin = clone(self.build())
        assert type(twin) is type(self.build())
        assert twin.get_params() == self.build().get_params()

    def check_what_scikit_learn_asks(self) -> None:
        from sklearn.utils.estimator_checks import estimator_checks_generator

        failed = []
        for estimator, check in estimator_checks_generator(self.build()):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    check(estimator)
                except Exception as error:
                    if type(error).__name__ not in ("SkipTest", "SkipTestWarning"):
                        failed.append(f"{getattr(check, 'func', check).__name__}: {error}")
        assert not failed, "\n".join(failed)

    def check_half_single_and_double_precision(self) -> None:
        """Features are often stored in half precision; what is easy is learned from them all the same."""
        for dtype in (np.float16, np.float32, np.float64):
            x, y = self.data(dtype)
            before = x.copy()
            fitted = self.build().fit(x, y)
            np.testing.assert_array_equal(x, before)
            found = fitted.predict(x + dtype(0.05))
            assert len(found) == len(x)
            if not hasattr(fitted, "classes_"):
                assert np.isfinite(found).all()
                continue
            np.testing.assert_array_equal(found, y)
            assert list(fitted.classes_) == sorted(y)
            np.testing.assert_allclose(fitted.predict_proba(x).sum(1), 1, rtol=1e-5)

    def check_the_same_data_give_the_same_answers(self) -> None:
        x, y = self.data()
        answers = [self.build().fit(x, y).predict(x) for _ in range(2)]
        if self.build().get_params().get("random_state", 0) is not None:
            np.testing.assert_array_equal(*answers)
