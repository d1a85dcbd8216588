"""Triplet losses: each anchor nearer to its own class than to the others, by a margin."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from repertoire.errors import ConfigError
from repertoire.losses.contracts._base import EmbeddingLoss, check_embeddings
from repertoire.losses.contracts._positives import Groups, group, mean_over, poison, warn_once
from repertoire.ops import pair_hardest, pair_rows, transformed, unit_rows
from repertoire.ranges import AtLeast, checked
from repertoire.registry import register

__all__ = ["Triplet", "triplet_loss"]

Mining = Literal["batch-hard", "semi-hard", "batch-all"]
Distance = Literal["euclidean", "sqeuclidean", "cosine"]


def _check(mining: str, margin: float | None, nonzero: bool) -> None:
    if nonzero and (mining != "batch-all" or margin is None):
        raise ConfigError(
            "nonzero is for mining='batch-all' with a margin: other losses of a triplet are never zero, or few"
        )


@checked(also=_check)
def triplet_loss(
    embeddings: Tensor,
    labels: Tensor,
    *,
    mining: Mining = "batch-hard",
    margin: Annotated[float, AtLeast(0)] | None = None,
    distance: Distance = "euclidean",
    normalize: bool = False,
    nonzero: bool = False,
    reference: Tensor | None = None,
    reference_labels: Tensor | None = None,
) -> Tensor:
    r"""Triplet loss: each anchor should be nearer to its own class than to all others, by a margin.

    With `mining="batch-hard"`, the loss of Hermans, Beyer and Leibe, *In Defense of the Triplet Loss for Person
    Re-Identification* (2017): for each anchor a only the farthest row p of its class and the nearest row n of another

    .. math:: \ell_a = \Bigl[m + \max_{p} D(a, p) - \min_{n} D(a, n)\Bigr]_+

    or, without a margin (the default, and the paper's best), the soft margin
    :math:`\log(1 + \exp(\max_p D(a, p) - \min_n D(a, n)))`. D is the Euclidean distance, not squared, between
    embeddings that are not normalised. The loss is the mean over the anchors that have both a positive and a negative;
    the paper writes the sum.

    With `mining="semi-hard"`, that of Schroff, Kalenichenko and Philbin, *FaceNet: A Unified Embedding for Face
    Recognition and Clustering* (2015): for each pair of an anchor and a positive, the nearest negative that is farther
    from the anchor than the positive. The loss is the mean over the pairs that have one. FaceNet squares the distances
    of unit rows: `distance="sqeuclidean", normalize=True`, with a margin of 0.2.

    With `mining="batch-all"`, the mean of the loss over all triplets of the batch, or, with `nonzero`, over those that
    are not zero, which Hermans et al. found better.

    No matrix of pairs is ever stored. Batch-hard streams two searches (:func:`repertoire.ops.pair_hardest`), that for
    the positives over the pairs of a class only. The others sort a strip of rows at a time
    (:func:`repertoire.ops.pair_rows`); batch-all with the soft margin alone takes time in proportion to the triplets.

    Args:
        embeddings: float `[N, d]`.
        labels: int64 `[N]` of any values.
        mining: which triplets of a batch count: "batch-hard" (default), "semi-hard" or "batch-all".
        margin: m, 0 or more, in units of the distance; None (default) for the soft margin.
        distance: D: "euclidean" (default), "sqeuclidean", or "cosine" for one less the cosine.
        normalize: brings the embeddings to unit length first.
        nonzero: for "batch-all" with a margin, the mean over the triplets whose loss is not zero.
        reference: float `[M, d]`, where positives and negatives are looked for in place of the batch.
        reference_labels: int64 `[M]`.

    Returns:
        A scalar; float32 for half-precision embeddings. Zero, with a zero gradient, if no row has both a positive and a
        negative (which is warned about once, where the labels are on the CPU).

    Raises:
        ShapeError: shapes or dtypes that do not fit.
        ConfigError: an unknown mining or distance, a negative margin, or `nonzero` where it has no meaning.

    Example:
        >>> import torch
        >>> from repertoire.losses import triplet_loss
        >>> x = torch.tensor([[0.0], [1.0], [3.0]])
        >>> triplet_loss(x, torch.tensor([0, 0, 1]), margin=1.5)  # 1.5 + 1 - 3 is below zero, 1.5 + 1 - 2 is not
        tensor(0.2500)
    """
    check_embeddings(embeddings, labels, reference, reference_labels)
    groups = group(labels, reference_labels)
    x = unit_rows(embeddings) if normalize else embeddings
    y = reference if reference is None or not normalize else unit_rows(reference)
    if mining == "batch-hard":
        loss = _batch_hard(x, y, groups, margin, distance)
    else:
        function, strip = _strip_loss(mining, groups, margin, distance)
        total, triplets, active = pair_rows(
            x, y, function, similarity="cosine" if distance == "cosine" else distance, strip=strip
        ).unbind(1)
        _warn_without(triplets > 0, groups)
        loss = total.sum() / (active if nonzero else triplets).sum().clamp_min(1)
    return loss + poison(x, y)


def _batch_hard(x: Tensor, y: Tensor | None, groups: Groups, margin: float | None, distance: Distance) -> Tensor:
    own, other = pair_hardest(
        x, y, groups=groups.own, y_groups=None if groups.within else groups.other, similarity=distance
    )
    # The farthest of cosines is the least similar.
    gap = other.values - own.values if distance == "cosine" else own.values - other.values
    found = other.indices >= 0
    chosen = groups.anchors & found
    _warn_without(found, groups)
    return mean_over(_hinge(gap.masked_fill(~chosen, 0.0), margin), chosen)


def _hinge(gap: Tensor, margin: float | None) -> Tensor:
    return F.softplus(gap) if margin is None else F.relu(gap + margin)


def _strip_loss(
    mining: Mining, groups: Groups, margin: float | None, distance: Distance
) -> tuple[Callable[[Tensor, slice], Tensor], int | None]:
    """A function of all distances of some anchors, and how many anchors it takes at a time.

    It gives, for each, the sum of its losses, the number of its triplets, and the number of those that are not zero.
    """
    own, other = groups.own, groups.other

    def classes(strip: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
        same = own[rows, None] == other
        positive = same
        if groups.within:
            positive = same.clone()
            positive.diagonal(rows.start or 0).fill_(False)
        return same, positive

    def distances(strip: Tensor) -> Tensor:
        return 1 - strip if distance == "cosine" else strip

    def semi_hard(strip: Tensor, rows: slice) -> Tensor:
        d = distances(strip)
        same, positive = classes(strip, rows)
        ordered = F.pad(d.masked_fill(same, torch.inf).sort(1).values, (0, 1), value=torch.inf)
        # The first negative beyond each positive.
        place = torch.searchsorted(ordered.detach(), d.detach().contiguous(), right=True)
        nearest = ordered.gather(1, place.clamp_max(d.shape[1]))
        found = positive & nearest.isfinite()
        losses = _hinge((d - nearest).masked_fill(~found, 0.0), margin).masked_fill(~found, 0.0)
        counts = found.sum(1).to(d.dtype)
        return torch.stack([losses.sum(1), counts, counts], dim=1)

    def batch_all(strip: Tensor, rows: slice) -> Tensor:
        d = distances(strip)
        same, positive = classes(strip, rows)
        ordered = d.masked_fill(same, torch.inf).sort(1).values
        limit = d + (margin or 0.0)
        # The negatives within the margin of each positive come first in the order: their sum is a prefix.
        count = torch.searchsorted(ordered.detach(), limit.detach().contiguous())
        prefix = F.pad(ordered.masked_fill(ordered == torch.inf, 0.0).cumsum(1, dtype=torch.float64), (1, 0))
        losses = count * limit.double() - prefix.gather(1, count)
        total = losses.masked_fill(~positive, 0.0).sum(1).to(d.dtype)
        triplets = positive.sum(1) * (~same).sum(1)
        active = count.masked_fill(~positive, 0).sum(1)
        return torch.stack([total, triplets.to(d.dtype), active.to(d.dtype)], dim=1)

    most = max(1, int(groups.counts.max())) if len(groups.counts) else 1

    def soft_batch_all(strip: Tensor, rows: slice) -> Tensor:
        d = distances(strip)
        same, positive = classes(strip, rows)
        chosen, place = positive.to(d.dtype).topk(min(most, d.shape[1]), dim=1)
        triplet = (chosen > 0)[:, :, None] & ~same[:, None]
        losses = F.softplus(d.gather(1, place)[:, :, None] - d[:, None]).masked_fill(~triplet, 0.0)
        counts = triplet.sum((1, 2)).to(d.dtype)
        return torch.stack([losses.sum((1, 2)), counts, counts], dim=1)

    if mining == "semi-hard":
        return semi_hard, None
    if margin is not None:
        return batch_all, None
    return soft_batch_all, max(1, _TRIPLETS // (most * max(1, len(other))))


#: Triplets that are held at a time where each is looked at.
_TRIPLETS = 2**21


def _warn_without(found: Tensor, groups: Groups) -> None:
    """Warns once if there are positives, but no negatives. That there are no positives was warned about already."""
    if found.device.type != "cpu" or torch.compiler.is_compiling() or transformed() or not len(found):
        return
    if bool(found.any()) or not bool(groups.anchors.any()):
        return
    warn_once(
        "negatives",
        "no embedding of the batch has a negative for the triplet loss, because all have one label or none is as far "
        "as the mining asks for: the loss is zero and nothing is learned from it; use batches with several classes",
    )


@register("losses", "triplet", paper="batch-hard-triplet")
class Triplet(EmbeddingLoss, function=triplet_loss):
    """Module form of `triplet_loss`."""
