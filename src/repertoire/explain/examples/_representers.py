"""The training samples behind a prediction of a regularised linear model, and the nearest examples of an embedding."""

from __future__ import annotations

import warnings
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from repertoire.errors import ConfigError, ShapeError
from repertoire.ops import Extreme, Similarity, pair_topk

__all__ = ["LinearModel", "Penalty", "Representers", "fit_linear", "nearest_examples", "representers"]

Penalty = Literal["l1", "l2"]
#: Entries of the matrix of queries and training samples that are looked at together.
ENTRIES = 2**24


class LinearModel(NamedTuple):
    """A linear classifier with its penalty."""

    coef: Tensor
    """theta, `[C, d]`; `[1, d]` for two classes, whose one logit speaks for class 1."""
    intercept: Tensor
    """b, `[C]`, not penalised."""
    strength: float
    """lambda."""
    penalty: Penalty
    residual: float
    """Largest violation of the conditions of a minimum, in units of the gradient."""

    def __call__(self, features: Tensor) -> Tensor:
        """Logits `[N, C]`, or `[N, 1]` for two classes, of features `[N, d]`."""
        return features.to(self.coef.dtype) @ self.coef.T + self.intercept


def fit_linear(
    features: Tensor,
    targets: Tensor,
    *,
    strength: float = 0.01,
    penalty: Penalty = "l1",
    tolerance: float = 1e-9,
    max_iter: int = 20_000,
    start: LinearModel | None = None,
) -> LinearModel:
    r"""A linear classifier on features with an l1 or l2 penalty, as close to its minimum as representers need.

    .. math::
        \min_{\theta, b} \; \frac{1}{n} \sum_i \mathrm{CE}(\theta x_i + b, y_i)
        + \lambda \lVert \theta \rVert_1 \quad \text{or} \quad + \frac{\lambda}{2} \lVert \theta \rVert_2^2

    Solved by accelerated proximal gradient steps with restarts (Beck and Teboulle, 2009; O'Donoghue and Candès, 2015),
    in double precision. Features should be of like scale: the penalty is the same for each.

    Args:
        features: float `[n, d]`.
        targets: int64 `[n]`, classes from 0 to C - 1.
        strength: lambda, positive.
        penalty: "l1" (default) keeps few features, "l2" keeps all small.
        tolerance: largest violation of the conditions of a minimum at which it stops, relative to lambda.
        max_iter: steps at most; reaching it warns.
        start: a model of the same shape to begin from, which saves steps where the data have changed a little.

    Raises:
        ConfigError: strength or penalty out of range.
        ShapeError: features or targets that do not fit each other.

    Example:
        >>> import torch
        >>> from repertoire.explain import fit_linear
        >>> x = torch.tensor([[1.0, 0.1], [2.0, -0.1], [-1.0, 0.1], [-2.0, -0.1]])
        >>> (fit_linear(x, torch.tensor([1, 1, 0, 0]), strength=0.1).coef != 0).tolist()
        [[True, False]]
    """
    if penalty not in ("l1", "l2"):
        raise ConfigError(f"penalty must be l1 or l2, found {penalty!r}")
    if not 0 < strength < float("inf"):
        raise ConfigError(f"strength must be positive, found {strength}")
    x, ways = _checked(features, targets)
    rows = torch.cat([x, x.new_ones(len(x), 1)], 1)
    # An upper bound of the curvature: a quarter of the largest singular value squared for one logit, half for several.
    gram = rows @ rows.T if len(rows) < rows.shape[1] else rows.T @ rows
    largest = float(torch.linalg.eigvalsh(gram)[-1]) / len(x)
    step = 1 / max(largest * (0.25 if ways == 1 else 0.5), 1e-30)
    weights = rows.new_zeros(ways, rows.shape[1])
    if start is not None:
        weights = torch.cat([start.coef, start.intercept[:, None]], 1).to(rows)
    ahead, momentum, residual = weights, 1.0, float("inf")
    for iteration in range(max_iter):
        gradient = _slopes(ahead @ rows.T, targets).T @ rows / len(x)
        moved = ahead - step * gradient
        moved[:, :-1] = _shrunk(moved[:, :-1], step * strength, penalty)
        # A step that goes back on the last one has overshot: forget the momentum.
        again = float(((ahead - moved) * (moved - weights)).sum()) > 0
        following = 1.0 if again else (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        ahead = moved + (0.0 if again else (momentum - 1) / following) * (moved - weights)
        weights, momentum = moved, following
        if iteration % 10 == 9 or iteration == max_iter - 1:
            residual = _violation(weights, rows, targets, strength, penalty)
            if residual <= tolerance * strength:
                break
    else:
        warnings.warn(
            f"after {max_iter} steps the linear model is {residual / strength:.1g} of its strength from a minimum, "
            "and shares of samples add up to no more than that; raise max_iter, or scale the features",
            stacklevel=2,
        )
    return LinearModel(weights[:, :-1], weights[:, -1], strength, penalty, residual)


class Representers(NamedTuple):
    """Decomposition of a linear model's predictions over its training samples; see :func:`representers`."""

    model: LinearModel
    features: Tensor
    """float64 `[n, d]`, of the training samples."""
    importance: Tensor
    """`[n, C]`: how much each sample counts whatever the query, and with which sign."""

    def contributions(self, queries: Tensor, targets: Tensor | int) -> Tensor:
        """Contribution of each training sample to one logit of each query, `[m, n]`; a row sums to the logit less b.

        Args:
            queries: float `[m, d]`.
            targets: which logit, int64 `[m]`, or one for all; 0 for the only one of two classes.
        """
        asked, chosen = self._asked(queries, targets)
        return (asked @ self.features.T) * self.importance.T[chosen]

    def top(self, queries: Tensor, targets: Tensor | int, k: int = 5, *, largest: bool = True) -> Extreme:
        """The k training samples that add most to one logit of each query, without the matrix of all.

        Args:
            queries, targets: as above.
            k: how many; as many as there are samples at most.
            largest: False for those that speak most against it.

        Returns:
            values and indices, `[m, k]`.
        """
        if not 1 <= k <= len(self.features):
            raise ShapeError(f"k must be from 1 to the {len(self.features)} training samples, found {k}")
        asked, chosen = self._asked(queries, targets)
        rows = max(k, ENTRIES // max(1, len(asked)))
        values, indices = asked.new_empty(len(asked), 0), chosen.new_empty(len(asked), 0)
        for begin in range(0, len(self.features), rows):
            part = slice(begin, begin + rows)
            found = (asked @ self.features[part].T) * self.importance[part].T[chosen]
            place = torch.arange(begin, begin + found.shape[1], device=found.device).expand(len(found), -1)
            values, indices = torch.cat([values, found], 1), torch.cat([indices, place], 1)
            values, order = values.topk(min(k, values.shape[1]), largest=largest)
            indices = indices.gather(1, order)
        return Extreme(values, indices)

    def _asked(self, queries: Tensor, targets: Tensor | int) -> tuple[Tensor, Tensor]:
        """Queries on the support of their logit, and the logits."""
        coef = self.model.coef
        if queries.ndim != 2 or queries.shape[1] != coef.shape[1]:
            raise ShapeError(f"queries must be [m, {coef.shape[1]}], found {list(queries.shape)}")
        chosen = torch.as_tensor(targets, device=coef.device).expand(len(queries)).long()
        if len(chosen) and not 0 <= int(chosen.min()) <= int(chosen.max()) < len(coef):
            raise ShapeError(f"targets must be logits from 0 to {len(coef) - 1}, found {targets}")
        weight = coef.abs()[chosen] if self.model.penalty == "l1" else 1.0
        return queries.to(coef) * weight, chosen


def representers(model: LinearModel, features: Tensor, targets: Tensor) -> Representers:
    r"""The predictions of a regularised linear model as sums over its training samples.

    Tsai et al., *Representer Point Selection for Explaining Regularized High-dimensional Models* (2023). At the minimum
    of the mean loss with an l1 penalty, the gradient of the loss balances the penalty on each feature that is kept:

    .. math::
        \theta x = \sum_i \underbrace{-\frac{1}{n \lambda} \frac{\partial \ell_i}{\partial f_i}}_{\text{importance}}
        \; \underbrace{\sum_j |\theta_j| \, x_{ij} \, x_j}_{\text{similarity}}

    so each sample counts by its importance, the same for all queries, times a similarity on the features that the model
    keeps. With an l2 penalty the similarity is the plain :math:`x_i \cdot x` (Yeh et al., *Representer Point Selection
    for Explaining Deep Neural Networks*, 2018). Both are exact as far as the model is at its minimum. For
    matrices with a nuclear norm, as recommenders have them, see :func:`low_rank_representers`.

    Args:
        model: what :func:`fit_linear` gave.
        features, targets: what it was given.

    Raises:
        ShapeError: features or targets that do not fit each other or the model.

    Example:
        >>> import torch
        >>> from repertoire.explain import fit_linear, representers
        >>> x, y = torch.tensor([[1.0, 0.1], [2.0, -0.1], [-1.0, 0.1], [-2.0, -0.1]]), torch.tensor([1, 1, 0, 0])
        >>> model = fit_linear(x, y, strength=0.1)
        >>> shares = representers(model, x, y).contributions(x[:1], 0)
        >>> torch.allclose(shares.sum(1) + model.intercept, model(x[:1])[:, 0])
        True
    """
    x, ways = _checked(features, targets)
    if (ways, x.shape[1]) != tuple(model.coef.shape):
        raise ShapeError(f"the model has coefficients {list(model.coef.shape)}; the data call for {[ways, x.shape[1]]}")
    slopes = _slopes((x @ model.coef.T + model.intercept).T, targets)
    return Representers(model, x, -slopes / (len(x) * model.strength))


def nearest_examples(queries: Tensor, examples: Tensor, k: int = 5, *, similarity: Similarity = "cosine") -> Extreme:
    """The examples nearest to each query in an embedding: the plainest explanation of what a network thinks alike.

    Streams over the examples (:func:`repertoire.ops.pair_topk`): there may be millions of them.

    Args:
        queries: float `[m, d]`.
        examples: float `[n, d]`, of the training images, say.
        k: how many.
        similarity: "cosine" (default), "dot", or the distances "euclidean" and "sqeuclidean".

    Returns:
        values and indices of the examples, `[m, k]`, the nearest first; -1 where there are fewer than k.

    Raises:
        ShapeError: shapes or arguments that do not fit each other.

    Example:
        >>> import torch
        >>> from repertoire.explain import nearest_examples
        >>> examples = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
        >>> nearest_examples(torch.tensor([[2.0, 0.1]]), examples, k=2).indices
        tensor([[0, 2]])
    """
    near = similarity in ("cosine", "dot")
    return pair_topk(queries.detach(), examples.detach(), k, largest=near, similarity=similarity)


def _checked(features: Tensor, targets: Tensor) -> tuple[Tensor, int]:
    """Features in double precision, and the number of logits."""
    if features.ndim != 2 or not features.is_floating_point() or not len(features):
        raise ShapeError(f"features must be floating point [n, d], found {features.dtype} {list(features.shape)}")
    if targets.shape != (len(features),) or targets.dtype != torch.int64:
        raise ShapeError(f"targets must be int64 [{len(features)}], found {targets.dtype} {list(targets.shape)}")
    least, ways = int(targets.min()), int(targets.max()) + 1
    if least < 0 or ways < 2:
        raise ShapeError(f"targets must be classes from 0 on, two or more; found {least} to {ways - 1}")
    return features.detach().double(), 1 if ways == 2 else ways


def _slopes(logits: Tensor, targets: Tensor) -> Tensor:
    """The derivative of each sample's loss in its logits `[C, n]`, as `[n, C]`."""
    if len(logits) == 1:
        return (logits[0].sigmoid() - targets)[:, None]
    return logits.T.softmax(1) - F.one_hot(targets, len(logits))


def _shrunk(values: Tensor, amount: float, penalty: Penalty) -> Tensor:
    return F.softshrink(values, amount) if penalty == "l1" else values / (1 + amount)


def _violation(weights: Tensor, rows: Tensor, targets: Tensor, strength: float, penalty: Penalty) -> float:
    """By how much the conditions of a minimum are missed, at most."""
    gradient = _slopes(weights @ rows.T, targets).T @ rows / len(rows)
    coef, slope = weights[:, :-1], gradient[:, :-1]
    if penalty == "l2":
        missed = (slope + strength * coef).abs()
    else:
        missed = torch.where(coef == 0, (slope.abs() - strength).clamp_min(0), (slope + strength * coef.sign()).abs())
    return max(float(missed.max()) if missed.numel() else 0.0, float(gradient[:, -1].abs().max()))
