"""How well a trained network may suit new data, from one pass over it: what a search through all networks computes."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from repertoire.errors import ShapeError

__all__ = ["leep", "log_me", "served"]


def leep(probabilities: Tensor, labels: Tensor) -> float:
    r"""Log expected empirical prediction: how well a network's answers, in its own classes, tell new classes.

    Nguyen et al., *LEEP: A New Measure to Evaluate Transferability of Learned Representations* (2020). With the
    probabilities :math:`\theta_z(x_i)` of the network's own classes z, and their joint distribution with the labels y,

    .. math:: \frac{1}{N} \sum_i \log \sum_z \hat P(y_i \mid z)\,\theta_z(x_i), \qquad
        \hat P(y, z) = \frac{1}{N} \sum_{i:\, y_i = y} \theta_z(x_i)

    Args:
        probabilities: float `[N, Z]`, rows sum to 1.
        labels: int `[N]`, of new classes; which numbers they have does not matter.

    Returns:
        A log likelihood, at most 0; the higher, the better the network suits.

    Raises:
        ShapeError: no rows, or other numbers of them.

    Example:
        >>> import torch
        >>> from repertoire.zoo import leep
        >>> leep(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([7, 3]))
        0.0
    """
    _check("probabilities", probabilities, labels)
    theta = probabilities.double()
    classes, y = labels.unique(return_inverse=True)
    joint = theta.new_zeros(len(classes), theta.shape[1]).index_add_(0, y, theta) / len(theta)
    given = joint / joint.sum(0).clamp_min(torch.finfo(theta.dtype).tiny)
    said = (given[y] * theta).sum(1)
    return float(said.clamp(torch.finfo(theta.dtype).tiny, 1).log().mean())


def served(probabilities: Tensor, labels: Tensor, others: Tensor, other_labels: Tensor) -> float:
    """Accuracy of a network on new classes as it is: what it says stands for what was labelled when it said so.

    The classifier behind :func:`leep`: with the joint distribution of labels and the network's own classes z on
    labelled samples, another sample has the label y of the largest sum over z of P(y | z) times the network's
    probability of z.

    Args:
        probabilities: float `[N, Z]`, for the labelled samples.
        labels: int `[N]`, of new classes.
        others: float `[M, Z]`, for the samples that it is tested on.
        other_labels: int `[M]`; one that no labelled sample has is never right.

    Raises:
        ShapeError: no rows, or other numbers of them.

    Example:
        >>> import torch
        >>> from repertoire.zoo import served
        >>> said = torch.tensor([[0.9, 0.1], [0.2, 0.8]])
        >>> served(said, torch.tensor([5, 6]), said.flip(0), torch.tensor([6, 6]))
        0.5
    """
    _check("probabilities", probabilities, labels)
    _check("others", others, other_labels)
    theta = probabilities.double()
    classes, y = labels.unique(return_inverse=True)
    joint = theta.new_zeros(len(classes), theta.shape[1]).index_add_(0, y, theta)
    given = joint / joint.sum(0).clamp_min(torch.finfo(theta.dtype).tiny)
    guess = classes[(others.double() @ given.T).argmax(1)]
    return float((guess == other_labels).double().mean())


def log_me(features: Tensor, labels: Tensor, *, steps: int = 20) -> float:
    r"""Logarithm of maximum evidence: how well linear models of a network's features explain the labels.

    You et al., *LogME: Practical Assessment of Pre-trained Models for Transfer Learning* (2021). For each class, its
    indicator y is Gaussian round :math:`F w` with precision :math:`\beta`, and w Gaussian round zero with precision
    :math:`\alpha`; both are chosen to make y likeliest, by a fixed point:

    .. math:: \log p(y \mid F, \alpha, \beta) = \tfrac{D}{2} \log \alpha + \tfrac{N}{2} \log \tfrac{\beta}{2 \pi}
        - \tfrac{\beta}{2} \lVert F m - y \rVert^2 - \tfrac{\alpha}{2} \lVert m \rVert^2 - \tfrac{1}{2} \log |A|

    with :math:`A = \alpha I + \beta F^\top F` and :math:`m = \beta A^{-1} F^\top y`.

    Args:
        features: float `[N, D]`, not all zero.
        labels: int `[N]`.
        steps: of the fixed point, at most; it stops where the ratio of the precisions no longer moves.

    Returns:
        The mean over classes of the evidence a sample; the higher, the better the network suits.

    Raises:
        ShapeError: no rows, or other numbers of them.

    Example:
        >>> import torch
        >>> from repertoire.zoo import log_me
        >>> labels = torch.tensor([0, 0, 1, 1])
        >>> told = torch.tensor([[1.0, 0.1], [1.1, 0.0], [0.0, 1.0], [0.1, 1.1]])
        >>> log_me(told, labels) > log_me(told[[0, 2, 1, 3]], labels)
        True
    """
    _check("features", features, labels)
    f = features.double()
    count, width = f.shape
    u, s, _ = torch.linalg.svd(f, full_matrices=False)
    sigma = s.square()
    evidence = []
    for c in labels.unique():
        y = (labels == c).to(f)
        told = (u.T @ y).square()
        # What no direction of the features explains, whatever the weights.
        left = float((y @ y - told.sum()).clamp_min(0))
        alpha = beta = 1.0
        for _ in range(steps):
            ratio = alpha / beta
            gamma = float((sigma / (sigma + ratio)).sum())
            m2 = float((sigma * told / (sigma + ratio).square()).sum())
            r2 = float((told * (ratio / (sigma + ratio)).square()).sum()) + left
            alpha, beta = gamma / max(m2, 1e-12), max(count - gamma, 1e-12) / max(r2, 1e-12)
            if abs(alpha / beta - ratio) <= 1e-3 * ratio:
                break
        ratio = alpha / beta
        m2 = float((sigma * told / (sigma + ratio).square()).sum())
        r2 = float((told * (ratio / (sigma + ratio)).square()).sum()) + left
        log_det = float((alpha + beta * sigma).log().sum()) + (width - len(sigma)) * math.log(alpha)
        evidence.append(
            (width * math.log(alpha) + count * math.log(beta / (2 * math.pi)) - beta * r2 - alpha * m2 - log_det)
            / (2 * count)
        )
    return math.fsum(evidence) / len(evidence)


def _check(name: str, rows: Tensor, labels: Tensor) -> None:
    if rows.ndim != 2 or not rows.is_floating_point() or not len(rows):
        raise ShapeError(f"{name} must be floating point [N, d] with N of 1 or more, found {list(rows.shape)}")
    if labels.shape != rows.shape[:1]:
        raise ShapeError(f"labels must be [{len(rows)}], found {list(labels.shape)}")
