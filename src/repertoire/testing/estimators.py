"""What every estimator on features must do, beside what scikit-learn asks of its own."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.base import clone

from repertoire.estimators import FeatureEstimator, load_estimator, save_estimator
from repertoire.testing._check import Check, checks, described, example_options, refused

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
        """An estimator with the options of its example; with a seed, where it has chance and the example has none."""
        built = self.factory(**self.options)
        if hasattr(built, "get_params") and built.get_params(deep=False).get("random_state", 0) is None:
            built.set_params(random_state=0)
        return built

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
        twin = clone(self.build())
        assert type(twin) is type(self.build())
        assert twin.get_params() == self.build().get_params()

    def check_what_scikit_learn_asks(self) -> None:
        from sklearn.utils.estimator_checks import estimator_checks_generator

        failed = []
        # Its labels are -1 and 1; it is not run on scikit-learn's own estimators that take -1 for no label either.
        unfit = {"check_classifiers_classes": "-1 is no label"} if self.takes_unlabelled() else {}
        for estimator, check in estimator_checks_generator(self.build(), expected_failed_checks=unfit, mark="skip"):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    check(estimator)
                except Exception as error:
                    if type(error).__name__ not in ("SkipTest", "SkipTestWarning"):
                        failed.append(f"{getattr(check, 'func', check).__name__}: {error}")
        assert not failed, "\n".join(failed)

    def check_rows_without_a_label(self) -> None:
        """What learns from them is told by -1 or "", labels them all, and names them alike."""
        if not self.takes_unlabelled():
            return
        generator = np.random.default_rng(0)
        x = np.concatenate([generator.normal(size=(20, 6)) + 8 * np.eye(6)[c] for c in range(3)])
        true = np.repeat(np.arange(3), 20)
        seen = np.where(np.arange(60) % 20 < 3, true, -1)
        seed = {"random_state": 0} if "random_state" in self.build().get_params() else {}
        model = self.build().set_params(**seed)
        fitted = clone(model).fit(x, seen)
        np.testing.assert_array_equal(fitted.classes_, np.arange(3))
        np.testing.assert_array_equal(fitted.transduction_[seen >= 0], true[seen >= 0])
        assert (fitted.transduction_ == true).mean() > 0.9, "three classes far apart"
        assert (fitted.predict(x + 0.01) == true).mean() > 0.9
        names = np.array(["a", "b", "c", ""])[seen]
        found = clone(model).fit(x, names).transduction_
        np.testing.assert_array_equal(found, np.array(["a", "b", "c"])[fitted.transduction_])
        refused(ValueError, "unlabelled", model.fit, x, np.where(seen == 0, 0, -1))

    def takes_unlabelled(self) -> bool:
        return bool(getattr(self.build(), "learns_unlabelled", False))

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

    def check_piece_by_piece_it_goes_on_from_what_was_kept(self) -> None:
        """What learns in pieces knows new classes beside the old ones, and goes on from the disk in the same bits."""
        if not hasattr(self.build(), "partial_fit") or not isinstance(self.build(), FeatureEstimator):
            return
        generator = np.random.default_rng(0)
        centres = 6 * np.eye(8, dtype=np.float32)[:6]
        x = np.repeat(centres, 20, axis=0) + generator.normal(size=(120, 8)).astype(np.float32) / 2
        y = np.repeat(np.array(list("fbdcae")), 20)
        pieces = [(x[40 * t : 40 * t + 40], y[40 * t : 40 * t + 40]) for t in range(3)]
        kept = clone(self.build())
        with tempfile.TemporaryDirectory() as folder:
            for number, (features, labels) in enumerate(pieces):
                if number:
                    kept = load_estimator(folder)
                kept.partial_fit(features, labels)
                assert list(kept.classes_) == sorted({label for _, some in pieces[: number + 1] for label in some})
                save_estimator(kept, folder)
        through = clone(self.build())
        for features, labels in pieces:
            through.partial_fit(features, labels)
        np.testing.assert_array_equal(kept.predict_proba(x), through.predict_proba(x))
        assert (through.predict(x) == y).mean() > 0.7, "six classes far apart"
        refused(ValueError, "not among", clone(self.build()).partial_fit, x, y, classes=["a", "b"])
