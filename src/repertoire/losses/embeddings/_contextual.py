"""Contextual loss: samples of a class should have the same neighbours."""

from __future__ import annotations

from typing import Annotated, NamedTuple

import torch
from torch import Tensor

from repertoire.errors import ConfigError
from repertoire.losses.contracts._base import EmbeddingLoss, check_embeddings
from repertoire.losses.contracts._positives import full_precision, group
from repertoire.ops import unit_rows
from repertoire.ranges import AtLeast, Finite, checked
from repertoire.registry import register

__all__ = ["Contextual", "contextual_loss"]


def _step(x: Tensor, slope: float) -> Tensor:
    """One where the input is not negative, with a constant slope in place of the derivative, which is zero."""
    line = slope * x
    return (x >= 0).to(x.dtype) + (line - line.detach())


class _Near(NamedTuple):
    """Which rows are near which: 1 for the k nearest and what is about as near, and for the nearest half of them."""

    all: Tensor
    half: Tensor


def _check(neighbours: int, contextual: float, regularisation: float) -> None:
    if neighbours % 2:
        raise ConfigError(f"neighbours must be an even number, found {neighbours}")
    if contextual + regularisation > 1:
        raise ConfigError(
            f"contextual and regularisation are shares of the loss, at most 1 together; found "
            f"{contextual} and {regularisation}"
        )


@checked(also=_check)
@full_precision
def contextual_loss(
    embeddings: Tensor,
    labels: Tensor,
    *,
    neighbours: Annotated[int, AtLeast(2)] = 4,
    contextual: Annotated[float, AtLeast(0)] = 0.4,
    regularisation: Annotated[float, AtLeast(0)] = 0.1,
    tolerance: Annotated[float, Finite] = 0.05,
    slope: Annotated[float, Finite] = 10.0,
    positive_margin: Annotated[float, Finite] = 0.75,
    negative_margin: Annotated[float, Finite] = 0.6,
    mean_similarity: Annotated[float, Finite] = 0.25,
    reference: Tensor | None = None,
    reference_labels: Tensor | None = None,
) -> Tensor:
    r"""Contextual loss: samples of a class should have the same neighbours, those of different classes different ones.

    Liao, Tsiligkaridis and Kulis, *Supervised Metric Learning to Rank for Retrieval via Contextual Similarity
    Optimization* (2022). With s the cosines of unit rows, N the n x n matrix that says which k rows are nearest to each
    (itself one of them) and R that of which k/2 are nearest both ways:

    .. math::
        \begin{aligned}
        \tilde w_{ij} &= \tfrac{1}{2} \Bigl(\frac{|N_i \cap N_j|}{|N_i|} + \frac{|\bar N_i \cap \bar N_j|}{|\bar N_i|}
            \Bigr) N_{ij}, \qquad
        w_{ij} = \tfrac{1}{2} (\hat w_{ij} + \hat w_{ji}), \quad \hat w_i = \frac{1}{|R_i|} \sum_l R_{il} \tilde w_l \\
        \ell &= \lambda\, \frac{1}{n^2} \sum_{i \ne j} (w_{ij} - [y_i = y_j])^2
              + (1 - \lambda - \gamma)\, \ell_\mathrm{contrastive} + \gamma\, (\bar s - \sigma)^2
        \end{aligned}

    The contrastive loss is the mean of the positive parts of `positive_margin` - s over positives and of s -
    `negative_margin` over negatives. Memberships are steps of the distance, to which a constant slope is given.

    **Memory is O(n²), and time O(n³)**: the loss compares the neighbours of all pairs of a batch. It is meant for
    batches of a few hundred.

    With a reference set of m rows, neighbours are looked for among those, nearest one way is near enough for R, and
    memory is O((n + m) m).

    Args:
        embeddings: float `[N, d]` of any length.
        labels: int64 `[N]` of any values; batches should have `neighbours` samples of a class.
        neighbours: k, an even number; the paper uses the number of samples of a class in a batch.
        contextual: lambda in [0, 1]: weight of the contextual term; the released code uses 0.4.
        regularisation: gamma in [0, 1]: weight of the last term; the released code uses 0.1.
        tolerance: how much further than the k-th neighbour, in squared distance, is near enough.
        slope: what is taken for the derivative of a step.
        positive_margin, negative_margin: cosines beyond which a pair needs no contrast.
        mean_similarity: sigma, what the mean cosine is drawn to.
        reference: float `[M, d]`, what the embeddings are compared with in place of each other.
        reference_labels: int64 `[M]`.

    Returns:
        A scalar; float32 for half-precision embeddings. Zero, with a zero gradient, if no row has a positive; rows
        without take part as neighbours only.

    Raises:
        ShapeError: shapes or dtypes that do not fit.
        ConfigError: options out of range.

    Example:
        >>> import torch
        >>> from repertoire.losses import contextual_loss
        >>> x = torch.eye(2).repeat_interleave(2, dim=0)
        >>> contextual_loss(x, torch.tensor([0, 0, 1, 1]), neighbours=2, regularisation=0.0)
        tensor(0.)
    """
    check_embeddings(embeddings, labels, reference, reference_labels)
    groups = group(labels, reference_labels)
    z = unit_rows(embeddings)
    y = z if reference is None else unit_rows(reference)
    if not len(y):
        return z.sum() * 0 + y.sum() * 0
    s = z @ y.T
    same = (groups.own[:, None] == groups.other).to(s)
    near = _nearest(s, neighbours, tolerance, slope)
    if groups.within:
        context = _expand(_overlap(near.all, near.all), near.half * near.half.T)
        context = (context + context.T) / 2
    else:
        there = _nearest(y @ y.T, neighbours, tolerance, slope)
        context = _expand(_overlap(there.all, there.all), near.half)
    anchors = groups.anchors.to(s)[:, None]
    other = 1 - torch.eye(len(s), dtype=s.dtype, device=s.device) if groups.within else torch.ones_like(s)
    count = anchors.sum().clamp_min(1)
    error = ((context - same).square() * anchors * other).sum() / (count * s.shape[1])
    pulled = (positive_margin - s).relu() * same * anchors * other
    pushed = (s - negative_margin).relu() * (1 - same) * anchors
    contrast = _mean_of_active(pulled) + _mean_of_active(pushed)
    drift = ((s * anchors).sum() / (count * s.shape[1]) - mean_similarity).square() * groups.anchors.any()
    return contextual * error + (1 - contextual - regularisation) * contrast + regularisation * drift


def _nearest(s: Tensor, neighbours: int, tolerance: float, slope: float) -> _Near:
    """Memberships among the columns, from the squared distances 2 - 2s."""
    closeness = -(2 - 2 * s).clamp_min(0)
    found = closeness.detach().topk(min(neighbours, s.shape[1]), dim=1).values
    last, middle = found[:, -1:], found[:, min(neighbours // 2, found.shape[1]) - 1, None]
    return _Near(_step(closeness + tolerance - last, slope), _step(closeness + tolerance - middle, slope))


def _overlap(a: Tensor, b: Tensor) -> Tensor:
    """How much the neighbours, and the strangers, of two rows are the same, where one is a neighbour of the other."""
    far = 1 - a
    shared = a @ b.T / a.sum(1, keepdim=True).detach().clamp_min(1)
    apart = far @ (1 - b).T / far.sum(1, keepdim=True).detach().clamp_min(1)
    return (shared + apart) / 2 * a


def _expand(overlap: Tensor, trusted: Tensor) -> Tensor:
    """The mean of the overlaps of the trusted neighbours of each row: query expansion."""
    return trusted @ overlap / trusted.sum(1, keepdim=True).clamp_min(1)


def _mean_of_active(values: Tensor) -> Tensor:
    return values.sum() / (values > 0).sum().clamp_min(1)


@register("losses", "contextual", paper="contextual-metric")
class Contextual(EmbeddingLoss, function=contextual_loss):
    """Module form of `contextual_loss`."""
