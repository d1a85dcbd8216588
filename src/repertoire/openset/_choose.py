"""Which score to take, found without unknown samples: by classes that are held out in turn."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np

from repertoire import registry
from repertoire.errors import ConfigError, ShapeError, UnknownName
from repertoire.metrics import auroc
from repertoire.openset._base import NoveltyScore, Values, check_head, rows
from repertoire.ranges import AtLeast, checked
from repertoire.statistics import interval

__all__ = ["QUICK", "Choice", "HeldOut", "build_score", "choose"]

QUICK = ("max-softmax", "max-logit", "energy", "mahalanobis", "knn", "costarr")
"""Scores that are chosen among where none are named: those that are fitted in no time."""


def build_score(spec: str, weight: Values | None = None, bias: Values | None = None) -> NoveltyScore:
    """Builds a registered novelty score.

    Args:
        spec: "energy", "knn:neighbours=5".
        weight: of the last layer, `[K, d]`, for those that need it; None where there is no such layer.
        bias: of the last layer, `[K]`; None for none.

    Raises:
        UnknownName: there is no such score. ConfigError: it needs the weight of a last layer, and none is given.

    Example:
        >>> from repertoire.openset import build_score
        >>> build_score("energy:temperature=2").temperature
        2.0
    """
    parsed = registry.parse(spec)
    named = inspect.signature(registry.get("novelty-scores", parsed.name).factory).parameters
    if weight is None and "weight" in named:
        raise ConfigError(
            f"novelty score {parsed.name!r} needs the weight of a linear last layer, and this network has none"
        )
    built: NoveltyScore = registry.build("novelty-scores", parsed, weight=weight, bias=bias)
    return built


@dataclass(frozen=True)
class HeldOut:
    """How well a score told classes that were held out from the others.

    Attributes:
        spec: of the score.
        auroc: mean over the groups of classes; NaN where it could not be used.
        interval: 95 %, over the groups.
        groups: AUROC of each group.
        reason: why it could not be used; "" where it could.
    """

    spec: str
    auroc: float
    interval: tuple[float, float]
    groups: tuple[float, ...]
    reason: str = ""


@dataclass(frozen=True)
class Choice:
    """Scores compared on held-out classes.

    Attributes:
        best: spec of the score with the largest mean AUROC; of equal ones, the first.
        scores: all of them, the best first.
        groups: the classes that were held out together, by number.
    """

    best: str
    scores: tuple[HeldOut, ...]
    groups: tuple[tuple[int, ...], ...]


@checked
def choose(
    features: Values,
    logits: Values,
    labels: Any,
    scores: Sequence[str] = QUICK,
    *,
    fit_on: tuple[Values, Values, Any] | None = None,
    weight: Values | None = None,
    bias: Values | None = None,
    folds: Annotated[int, AtLeast(2)] = 10,
    seed: int = 0,
) -> Choice:
    """Finds the score that tells classes best which it has not been fitted to, without any unknown sample.

    Classes are held out in turn, each once: their logits and rows of the last layer are taken away, the score is fitted
    to samples of the others, and asked to tell other samples of these from samples of the classes held out. The network
    itself has learned all classes, so the numbers are larger than those of true unknowns will be; what they are for is
    the order of the scores.

    Args:
        features: float `[N, d]`, of samples of known classes; best of validation samples.
        logits: float `[N, K]`.
        labels: whole numbers `[N]` in 0..K-1.
        scores: specs of novelty scores.
        fit_on: features, logits and labels of training samples to fit to; without, half of the samples are fitted to
            and the other half is measured on.
        weight, bias: of the last layer, `[K, d]` and `[K]`, for scores that need it.
        folds: how many times classes are held out, 2 or more; each class alone where there are no more classes.
        seed: of the groups of classes and of the halves.

    Raises:
        ConfigError: no scores, fewer than two classes, or no score that can be used; the message says why.
        ShapeError: shapes that do not fit. UnknownName: there is no such score.

    Example:
        >>> import numpy as np
        >>> from repertoire.openset import choose
        >>> y = np.arange(60) % 3
        >>> x = 5 * np.eye(3)[y] + np.random.default_rng(0).normal(size=(60, 3))
        >>> choose(x, 0 * x, y, ("max-softmax", "knn")).best  # of logits that say nothing
        'knn'
    """
    if not scores:
        raise ConfigError("no scores are named; name one or more")
    x, f, y = rows("features", features), rows("logits", logits), _labels(labels)
    _same(x, f, y)
    classes = np.unique(y)
    if len(classes) < 2:
        raise ConfigError("a class can only be held out where there are two or more; name a score instead")
    head = (None, None) if weight is None else check_head(weight, bias)
    generator = np.random.default_rng(seed)
    if fit_on is None:
        half = _half(y, generator)
        given = (x[half], f[half], y[half])
        x, f, y = x[~half], f[~half], y[~half]
    else:
        given = (rows("features", fit_on[0]), rows("logits", fit_on[1]), _labels(fit_on[2]))
        _same(*given)
    order = generator.permutation(classes)
    groups = tuple(tuple(sorted(part.tolist())) for part in np.array_split(order, min(folds, len(classes))))
    found = [_measured(spec, groups, given, (x, f, y), head) for spec in scores]
    if all(each.reason for each in found):
        raise ConfigError("no score can be used: " + "; ".join(f"{each.spec}: {each.reason}" for each in found))
    ranked = sorted(found, key=lambda each: math.inf if each.reason else -each.auroc)
    return Choice(ranked[0].spec, tuple(ranked), groups)


def _labels(labels: Any) -> np.ndarray:
    if hasattr(labels, "detach"):
        labels = labels.detach().cpu().numpy()
    found = np.asarray(labels)
    if found.ndim != 1 or found.dtype.kind not in "iu":
        raise ShapeError(f"labels must be whole numbers [N], found {found.dtype} {list(found.shape)}")
    return found.astype(np.int64)


def _same(x: np.ndarray, f: np.ndarray, y: np.ndarray) -> None:
    if not len(x) == len(f) == len(y):
        raise ShapeError(f"features, logits and labels must be of the same samples, found {len(x)}, {len(f)}, {len(y)}")
    if len(y) and not 0 <= y.min() <= y.max() < f.shape[1]:
        raise ShapeError(f"labels must lie in 0..{f.shape[1] - 1}, as the logits do, found {y.min()} to {y.max()}")


def _half(y: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Which samples to fit to: of each class every other one, in a random order."""
    order = generator.permutation(len(y))
    ranks = np.zeros(len(y), np.int64)
    for label in np.unique(y):
        own = order[y[order] == label]
        ranks[own] = np.arange(len(own))
    return ranks % 2 == 0


def _measured(
    spec: str,
    groups: Sequence[tuple[int, ...]],
    given: tuple[np.ndarray, np.ndarray, np.ndarray],
    asked: tuple[np.ndarray, np.ndarray, np.ndarray],
    head: tuple[np.ndarray | None, np.ndarray | None],
) -> HeldOut:
    values = []
    try:
        build_score(spec, *head)
        for group in groups:
            kept = np.setdiff1d(np.arange(given[1].shape[1]), group)
            place = np.full(given[1].shape[1], -1)
            place[kept] = np.arange(len(kept))
            known = place[given[2]] >= 0
            weight, bias = (None if part is None else part[kept] for part in head)
            score = build_score(spec, weight, bias)
            score.fit(given[0][known], given[1][known][:, kept], place[given[2][known]])
            values.append(auroc(score(asked[0], asked[1][:, kept]), place[asked[2]] >= 0))
    except UnknownName:
        raise
    except ConfigError as error:
        return HeldOut(spec, math.nan, (math.nan, math.nan), (), str(error))
    counted = [value for value in values if not math.isnan(value)]
    if not counted:
        return HeldOut(spec, math.nan, (math.nan, math.nan), (), "no group of classes has samples to measure on")
    return HeldOut(spec, float(np.mean(counted)), interval(counted, bounds=(0, 1)), tuple(values))
