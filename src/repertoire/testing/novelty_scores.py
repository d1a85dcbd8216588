"""What every novelty score must do: a number for each sample by itself, lower for what lies far from all classes."""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from repertoire import registry
from repertoire.errors import ConfigError, ShapeError
from repertoire.metrics import auroc
from repertoire.openset import NoveltyScore
from repertoire.testing._check import Check, checks, described, example_options, refusal_of, refused, supplied

__all__ = ["check_novelty_score"]

_CLASSES, _WIDTH, _EACH = 3, 8, 60

Rows = tuple[np.ndarray, np.ndarray, np.ndarray]


def check_novelty_score(factory: Callable[..., NoveltyScore], **options: Any) -> list[Check]:
    """Checks of a novelty score: `factory(**options).fit(features, logits, labels)`, then `score(features, logits)`.

    What its signature names of weight and bias is supplied.

    Args:
        factory: the class.
        options: options to build it with.

    Returns:
        The checks; each is called without arguments.

    Example:
        >>> from repertoire.openset import Energy
        >>> from repertoire.testing import check_novelty_score
        >>> for check in check_novelty_score(Energy):
        ...     check()
    """
    return checks(_NoveltyScores(factory, options))


def _head() -> tuple[np.ndarray, np.ndarray]:
    return 2 * np.eye(_CLASSES, _WIDTH), np.full(_CLASSES, 2.0)


def _known(seed: int, classes: int = _CLASSES) -> Rows:
    """Samples around a corner for each class, with the logits of a linear layer."""
    labels = np.arange(_EACH * classes) % classes
    x = 6 * np.eye(_CLASSES, _WIDTH)[labels] + 0.5 * np.random.default_rng(seed).normal(size=(len(labels), _WIDTH))
    weight, bias = _head()
    return x, (x @ weight.T + bias)[:, :classes], labels


def _noise() -> tuple[np.ndarray, np.ndarray]:
    """Samples in directions that no class has, as long as those of classes."""
    x = np.random.default_rng(9).normal(size=(60, _WIDTH))
    x[:, :_CLASSES] *= 0.1
    x *= 6 / np.linalg.norm(x, axis=1, keepdims=True)
    weight, bias = _head()
    return x, x @ weight.T + bias


class _NoveltyScores:
    def __init__(self, factory: Callable[..., NoveltyScore], options: dict[str, Any]) -> None:
        self.factory, self.options = factory, {**example_options(factory), **options}

    def build(self, classes: int = _CLASSES) -> NoveltyScore:
        weight, bias = _head()
        return self.factory(**supplied(self.factory, weight=weight[:classes], bias=bias[:classes]), **self.options)

    def fitted(self) -> NoveltyScore:
        return self.build().fit(*_known(0))

    def check_it_is_documented_and_says_what_it_reads(self) -> None:
        described(self.factory)
        score = self.build()
        assert isinstance(score, NoveltyScore), "a novelty score derives from NoveltyScore"
        assert frozenset() < score.reads <= {"features", "logits", "labels"}, f"it reads {sorted(score.reads)}"
        given = dict.fromkeys((*registry.KINDS["novelty-scores"].supplied, *self.options))
        for name, parameter in registry.options(self.factory, given).items():
            assert parameter.default is not inspect.Parameter.empty, f"option {name} has no default"

    def check_what_is_far_from_all_classes_scores_lower_than_what_was_learned(self) -> None:
        score = self.fitted()
        known, noise = score(*_known(1)[:2]), score(*_noise())
        assert known.dtype == np.float64, f"scores are float64, found {known.dtype}"
        assert known.shape == (_CLASSES * _EACH,), f"a score for each sample, found {list(known.shape)}"
        both = np.concatenate([known, noise])
        assert np.isfinite(both).all(), "a score is not finite"
        found = auroc(both, np.arange(len(both)) < len(known))
        assert found > 0.9, f"AUROC of known samples against noise far from them: {found:.3f}"

    def check_the_same_samples_give_the_same_scores(self) -> None:
        given = _known(1)[:2]
        first = self.fitted()(*given)
        np.random.seed(1)
        torch.manual_seed(1)
        before = np.random.get_state()[1].copy(), torch.random.get_rng_state()  # type: ignore[index]
        np.testing.assert_array_equal(self.fitted()(*given), first)
        after = np.random.get_state()[1], torch.random.get_rng_state()  # type: ignore[index]
        np.testing.assert_array_equal(after[0], before[0], "it draws from NumPy's own random state")
        assert torch.equal(after[1], before[1]), "it draws from torch's own random state"

    def check_a_sample_does_not_depend_on_the_others(self) -> None:
        score = self.fitted()
        x, f = _noise()
        whole = score(x, f)
        np.testing.assert_allclose(score(x[::-1], f[::-1]), whole[::-1], rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(score(x[7:8], f[7:8]), whole[7:8], rtol=1e-6, atol=1e-6)
        assert score(x[:0], f[:0]).shape == (0,), "no samples have no scores"

    def check_tensors_of_any_precision_are_taken_and_stay_as_they_were(self) -> None:
        given = [torch.from_numpy(each) for each in _known(0)]
        x, f = (torch.from_numpy(each) for each in _known(1)[:2])
        before = [each.clone() for each in (*given, x, f)]
        score = self.build().fit(*given)
        np.testing.assert_allclose(score(x, f), self.fitted()(x.numpy(), f.numpy()), rtol=1e-9, atol=1e-9)
        half = self.build().fit(given[0].half(), given[1].half(), given[2])
        assert np.isfinite(half(x.half(), f.bfloat16())).all()
        assert all(torch.equal(now, then) for now, then in zip((*given, x, f), before, strict=True))

    def check_its_state_gives_the_same_score_again(self) -> None:
        from safetensors.numpy import load_file, save_file

        score = self.fitted()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "score.safetensors"
            save_file({name: np.ascontiguousarray(value) for name, value in score.state().items()}, path)
            again = self.build().restore(load_file(path))
        x, f = _noise()
        np.testing.assert_array_equal(again(x, f), score(x, f))
        refused(ShapeError, "as in fit", again, x[:, :-1], f[:, :-1])

    def check_one_class_is_enough_or_refused_with_the_reason(self) -> None:
        score, given = self.build(1), _known(0, classes=1)
        said = refusal_of(score.fit, *given)
        if said is None:
            assert np.isfinite(score(*given[:2])).all()
            assert len(np.unique(score(*given[:2]))) > 1, "of one class every sample scores the same: refuse it"
        else:
            assert "class" in said, f"the message should say that there are too few classes, found {said!r}"

    def check_what_does_not_fit_is_refused(self) -> None:
        x, f, y = _known(0)
        refused(ConfigError, "not fitted", self.build(), x, f)
        reads = self.build().reads
        for name, at in (("features", 0), ("logits", 1)):
            if name not in reads:
                continue
            spoilt = [x.copy(), f.copy(), y]
            spoilt[at][3, 0] = np.nan
            refused(ShapeError, f"{name} must be finite, and row 3", self.build().fit, *spoilt)
            refused(ShapeError, f"{name} must be finite, and row 3", self.fitted(), *spoilt[:2])
            missing = [None if place == at else each for place, each in enumerate((x, f, y))]
            refused(ConfigError, f"needs {name}", self.build().fit, *missing)
        if "labels" in reads:
            refused(ShapeError, "known classes", self.build().fit, x, f, np.where(y == 0, -1, y))
