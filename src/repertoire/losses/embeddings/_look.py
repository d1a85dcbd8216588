"""LOOK: a leave-one-out nearest-neighbour classifier as a loss."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from repertoire.losses.contracts._base import check_embeddings
from repertoire.losses.contracts._memory import MemoryLoss
from repertoire.losses.contracts._positives import group, mean_over, poison
from repertoire.ops import pair_max, pair_topk, unit_rows
from repertoire.ranges import AtLeast, Positive, checked
from repertoire.registry import register

__all__ = ["LOOK", "look_loss"]


@checked
def look_loss(
    embeddings: Tensor,
    labels: Tensor,
    *,
    neighbours: Annotated[int, AtLeast(1)] = 20,
    temperature: Annotated[float, Positive] = 0.1,
    reference: Tensor | None = None,
    reference_labels: Tensor | None = None,
    exclude: Tensor | None = None,
) -> Tensor:
    r"""LOOK: the nearest neighbours of a row, itself left out, should have its label.

    Feng et al., *Rethinking Supervised Pre-training for Better Downstream Transferring* (2021). With z the embeddings
    scaled to unit length and kNN(i) the k rows most similar to i, without i:

    .. math::
        \ell_i = -\log \frac{\sum_{j \in \mathrm{kNN}(i),\, y_j = y_i} \exp(z_i \cdot z_j / \tau)}
                            {\sum_{j \in \mathrm{kNN}(i)} \exp(z_i \cdot z_j / \tau)}

    Only neighbours need agree, so that a class may lie in several places, where other contrastive losses draw all of it
    to one. The loss is the mean over the rows with another row of their label. Of such a row the most similar one is
    always among the neighbours, which the paper leaves open: without it the loss of a row that lies among strangers
    would be infinite.

    No pair is ever stored but the k of each row: memory is O(Nk + Nd).

    Args:
        embeddings: float `[N, d]` of any length.
        labels: int64 `[N]` of any values.
        neighbours: k, positive. What is large enough depends on how many rows of a class there are to find; the paper
            searches a queue of many batches.
        temperature: tau, positive.
        reference: float `[M, d]`, where neighbours are looked for in place of the embeddings.
        reference_labels: int64 `[M]`.
        exclude: int64 `[N]`, the row of the reference that is no neighbour of each embedding; -1 for none.

    Returns:
        A scalar; float32 for half-precision embeddings. Zero, with a zero gradient, if no row has a positive.

    Raises:
        ShapeError: shapes or dtypes that do not fit.
        ConfigError: temperature or neighbours are not positive.

    Example:
        >>> import torch
        >>> from repertoire.losses import look_loss
        >>> x = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]])
        >>> look_loss(x, torch.tensor([0, 0, 1, 1]), neighbours=1)
        tensor(0.)
    """
    check_embeddings(embeddings, labels, reference, reference_labels)
    groups = group(labels, reference_labels)
    z = unit_rows(embeddings)
    y = None if reference is None else unit_rows(reference)
    near = pair_topk(z, y, neighbours, exclude_self=y is None, exclude=exclude)
    kin = pair_max(z, y, **groups.pairs("same", exclude=exclude))
    # The index -1, of no neighbour, is that of the class appended here, which nothing has.
    agrees = torch.cat([groups.other, groups.other.new_full((1,), -1)])[near.indices] == groups.own[:, None]
    # The most similar row of the label is one of the neighbours already, or is added to them.
    added = kin.values.masked_fill((near.indices == kin.indices[:, None]).any(1), -torch.inf)
    everything = torch.cat([near.values, added[:, None]], dim=1)
    nothing = torch.cat([near.indices < 0, added[:, None] == -torch.inf], dim=1)
    strangers = torch.cat([~agrees, nothing[:, -1:]], dim=1)
    anchors = kin.indices >= 0
    # Divided before what does not count becomes minus infinity: a temperature may be learned.
    scores = everything.masked_fill(nothing, 0.0) / temperature
    losses = _logsumexp(scores.masked_fill(nothing, -torch.inf), anchors)
    losses = losses - _logsumexp(scores.masked_fill(strangers, -torch.inf), anchors)
    return mean_over(losses, anchors) + poison(z, y)


def _logsumexp(values: Tensor, rows: Tensor) -> Tensor:
    """Log-sum-exp of some rows; zero, with a zero gradient, for the others, which may have nothing to sum."""
    return values.masked_fill(~rows[:, None], 0.0).logsumexp(1)


@register("losses", "look", paper="look")
class LOOK(MemoryLoss, function=look_loss):
    """Module form of `look_loss`."""
