"""Neural collapse: how far features have shrunk to their classes' means, and how the means lie."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from repertoire.diagnostics._stream import ClassMoments, Features, blocks, class_moments
from repertoire.errors import ConfigError, ShapeError
from repertoire.registry import register

__all__ = [
    "ClassifierCollapse",
    "FrameLengths",
    "NeuralCollapse",
    "classifier_collapse",
    "neural_collapse",
    "orthogonal_frame",
]


class NeuralCollapse(NamedTuple):
    """Measures of neural collapse: 0 where it is complete, but for `frame`, which is 0 for another geometry."""

    variability: float
    """NC1: the variance within classes relative to that between their means."""
    norms: float
    """NC2: the standard deviation of the lengths of the centred class means, relative to their mean."""
    angles: float
    """NC2: how far the cosines of the centred class means are from -1/(K-1) on average, those of a simplex."""
    nearest_centre: float
    """NC4 without a classifier: share of the rows that are nearer to the mean of another class."""
    frame: float
    """How far the class means as they are, not centred, are from an orthogonal frame whose lengths the classes' sizes
    set: the geometry that imbalanced classes are predicted to end in. In [0, 2]."""


class ClassifierCollapse(NamedTuple):
    """Distances between classifier and features; both are 0 where neural collapse is complete."""

    duality: float
    """NC3: distance of the classifier from the centred class means, both of Frobenius norm 1 then. In [0, 2]."""
    disagreement: float
    """NC4: share of the rows that the classifier gives to another class than that of the nearest mean."""


class FrameLengths(NamedTuple):
    """Squared lengths that imbalanced classes end with, each relative to the largest."""

    features: Tensor
    """Of the class means, float64 `[K]`."""
    classifier: Tensor
    """Of the classifier's rows, float64 `[K]`."""


@register("diagnostics", "neural-collapse", paper="neural-collapse-linear")
@torch.no_grad()
def neural_collapse(features: Features, labels: Tensor | np.ndarray | None = None) -> NeuralCollapse:
    r"""Measures the collapse of features to their classes' means, and of the means to a simplex: NC1, NC2 and NC4.

    Papyan, Han and Donoho, *Prevalence of Neural Collapse during the Terminal Phase of Deep Learning Training* (2020);
    the geometry under imbalance is that of Dang et al., *Neural Collapse in Deep Linear Networks: From Balanced to
    Imbalanced Data* (2023). With the class means :math:`\mu_k`, their mean :math:`\bar\mu` (every class counts the
    same) and :math:`m_k = \mu_k - \bar\mu`:

    .. math::
        \mathrm{NC1} = \tfrac1K \operatorname{tr}(\Sigma_W \Sigma_B^+), \quad
        \Sigma_W = \tfrac1N \sum_i (z_i - \mu_{y_i})(z_i - \mu_{y_i})^\top, \quad
        \Sigma_B = \tfrac1K \sum_k m_k m_k^\top

    .. math::
        \mathrm{NC2} = \frac{\operatorname{std}_k \lVert m_k \rVert}{\operatorname{mean}_k \lVert m_k \rVert}, \quad
        \operatorname{mean}_{k \ne l} \Big| \cos(m_k, m_l) + \tfrac{1}{K - 1} \Big|, \qquad
        \mathrm{frame} = \Big\lVert \frac{M M^\top}{\lVert M M^\top \rVert_F} - \frac{D}{\lVert D \rVert_F} \Big\rVert_F

    with the rows :math:`\mu_k` of M and D the diagonal matrix of :math:`n_k^{-1/2}`, the lengths that
    :func:`repertoire.diagnostics.orthogonal_frame` gives without weight decay. Two passes in double precision: time
    O(Nd(d + K)), memory O(d² + Kd).

    Args:
        features: float `[N, d]`, in memory or not: see :func:`repertoire.diagnostics.eigenvalue_spectrum`.
        labels: integers `[N]`, of any value.

    Returns:
        The five numbers. All but `frame` are nan for fewer than two classes; all are without features. NC1 is infinite
        if no two means differ while the features do.

    Raises:
        ShapeError: shapes or dtypes that do not fit, features and labels of different lengths, or no labels. DataError:
            features that are not finite; their rows are named.

    Example:
        >>> import torch
        >>> from repertoire.diagnostics import neural_collapse
        >>> x = torch.tensor([[0.9, 0.0], [1.1, 0.0], [0.0, 0.9], [0.0, 1.1]])
        >>> [round(value, 4) for value in neural_collapse(x, torch.tensor([0, 0, 1, 1]))]
        [0.005, 0.0, 0.0, 0.0, 0.0]
    """
    found, index = class_moments(features, labels)
    if found is None:
        return NeuralCollapse(*[math.nan] * 5)
    frame = _frame(found)
    if len(found.counts) < 2:
        return NeuralCollapse(math.nan, math.nan, math.nan, math.nan, frame)
    means = found.means
    centred = means - means.mean(0)
    lengths = centred.norm(dim=1)
    scale = lengths.mean()
    norms = float(lengths.std(correction=0) / scale) if scale > _rounding(found) else 0.0
    classes = len(means)
    cosines = torch.nn.functional.normalize(centred, eps=_rounding(found)) @ torch.nn.functional.normalize(centred).T
    apart = (cosines + 1 / (classes - 1)).abs()
    angles = float((apart.sum() - apart.diagonal().sum()) / (classes * (classes - 1)))
    wrong, start = 0, 0
    half = means.square().sum(1) / 2
    for block in blocks(features):
        here = index[start : start + len(block)].to(block.device)
        start += len(block)
        scores = block.double() @ means.T - half
        own = scores.gather(1, here[:, None]).squeeze(1)
        # A tie is no mistake.
        wrong += int((scores.max(1).values > own + 1e-12 * (own.abs() + half.max())).sum())
    return NeuralCollapse(_variability(found, centred), norms, angles, wrong / found.count, frame)


@torch.no_grad()
def classifier_collapse(
    features: Features, labels: Tensor | np.ndarray, weight: Tensor, bias: Tensor | None = None
) -> ClassifierCollapse:
    r"""Measures how far the classifier's rows are from the class means, and its answers from those of the nearest mean.

    NC3 and NC4 of Papyan, Han and Donoho, *Prevalence of Neural Collapse during the Terminal Phase of Deep Learning
    Training* (2020), with the classifier W and the centred class means M as rows:

    .. math::
        \mathrm{NC3} = \Big\lVert \frac{W}{\lVert W \rVert_F} - \frac{M}{\lVert M \rVert_F} \Big\rVert_F, \qquad
        \mathrm{NC4} = \tfrac1N \big| \{ i : \arg\max_k (w_k z_i + b_k) \ne \arg\min_k \lVert z_i - \mu_k \rVert \}
        \big|

    Args:
        features: float `[N, d]`, in memory or not.
        labels: int64 `[N]` in 0..K-1: rows of the classifier. Classes without a row of the features are left out.
        weight: float `[K, d]`.
        bias: float `[K]`.

    Returns:
        Both numbers; nan without features.

    Raises:
        ShapeError: shapes that do not fit, or a label that is no row of the classifier. DataError: features that are
            not finite.

    Example:
        >>> import torch
        >>> from repertoire.diagnostics import classifier_collapse
        >>> x, labels = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 1])
        >>> [round(value, 4) for value in classifier_collapse(x, labels, torch.tensor([[2.0, -2.0], [-2.0, 2.0]]))]
        [0.0, 0.0]
    """
    given = torch.from_numpy(np.asarray(labels)) if isinstance(labels, np.ndarray) else labels
    if weight.ndim != 2 or (bias is not None and bias.shape != weight.shape[:1]):
        raise ShapeError(
            f"weight must be [K, d] and bias [K], found {list(weight.shape)} and "
            f"{'none' if bias is None else list(bias.shape)}"
        )
    found, _ = class_moments(features, given)
    if found is None:
        return ClassifierCollapse(math.nan, math.nan)
    present = given.unique()
    if int(present[0]) < 0 or int(present[-1]) >= len(weight) or found.means.shape[1] != weight.shape[1]:
        raise ShapeError(
            f"weight must have a row for each label and a column for each feature, found {list(weight.shape)} for the "
            f"labels {int(present[0])} to {int(present[-1])} and {found.means.shape[1]} features"
        )
    rows = weight.detach()[present.to(weight.device)].to(found.means)
    offset = torch.zeros(len(rows)).to(rows) if bias is None else bias.detach()[present.to(bias.device)].to(rows)
    means = found.means
    centred = means - means.mean(0)
    duality = (rows / rows.norm().clamp_min(1e-300) - centred / centred.norm().clamp_min(1e-300)).norm()
    half, differ = means.square().sum(1) / 2, 0
    for block in blocks(features):
        here = block.double()
        differ += int(((here @ rows.T + offset).argmax(1) != (here @ means.T - half).argmax(1)).sum())
    return ClassifierCollapse(float(duality), differ / found.count)


def orthogonal_frame(counts: Tensor, *, decay: float = 0.0) -> FrameLengths:
    r"""Lengths of class means and classifier rows with imbalanced classes: orthogonal, with lengths by class size.

    Dang et al., *Neural Collapse in Deep Linear Networks: From Balanced to Imbalanced Data* (2023), for one linear
    layer without a bias on free features, trained by the squared error on one-hot targets with weight decay
    :math:`\lambda_W, \lambda_H`. With :math:`c = N^2 \lambda_W \lambda_H`:

    .. math::
        \lVert \mu_k \rVert^2 \propto \big(1 - \sqrt{c / n_k}\big)_+ \, n_k^{-1/2}, \qquad
        \lVert w_k \rVert^2 \propto \big(1 - \sqrt{c / n_k}\big)_+ \, n_k^{1/2}

    so that a class of at most c samples vanishes.

    Args:
        counts: rows of each class, `[K]`, positive.
        decay: c, 0 or more.

    Raises:
        ShapeError: counts that are no vector of positive numbers. ConfigError: a negative decay.

    Example:
        >>> import torch
        >>> from repertoire.diagnostics import orthogonal_frame
        >>> orthogonal_frame(torch.tensor([100, 25])).features
        tensor([0.5000, 1.0000], dtype=torch.float64)
    """
    if counts.ndim != 1 or not bool((counts > 0).all()):
        raise ShapeError(f"counts must be positive numbers [K], found {counts.tolist()}")
    if not decay >= 0:
        raise ConfigError(f"decay must be 0 or more, found {decay}")
    sizes = counts.double()
    kept = (1 - (decay / sizes).sqrt()).clamp_min(0)
    means, rows = kept / sizes.sqrt(), kept * sizes.sqrt()
    tiny = torch.finfo(torch.float64).tiny
    return FrameLengths(means / means.amax().clamp_min(tiny), rows / rows.amax().clamp_min(tiny))


def _rounding(found: ClassMoments) -> float:
    """Lengths of class means up to this are rounding."""
    return 1e-13 * (float(found.means.abs().max()) + 1e-280)


def _variability(found: ClassMoments, centred: Tensor) -> float:
    _, lengths, directions = torch.linalg.svd(centred, full_matrices=False)
    used = lengths > max(1e-10 * float(lengths[0]), _rounding(found))
    within = found.within / found.count
    if not bool(used.any()):
        return 0.0 if float(within.diagonal().sum()) <= _rounding(found) ** 2 * len(within) else math.inf
    directions = directions[used]
    along = ((directions @ within) * directions).sum(1).clamp_min(0)
    # The between-class covariance has the eigenvalues s² / K; NC1 divides by K once more.
    return float((along / lengths[used].square()).sum())


def _frame(found: ClassMoments) -> float:
    gram = found.means @ found.means.T
    length = gram.norm()
    predicted = orthogonal_frame(found.counts).features
    if not float(length) > 0:
        return 1.0
    return float((gram / length - torch.diag(predicted / predicted.norm())).norm())
