"""LOOK: a leave-one-out nearest-neighbour classifier as a loss."""

from __future__ import annotations

import torch
from torch import Tensor

from repertoire.errors import ConfigError
from repertoire.losses.contracts._base import check_embeddings
from repertoire.losses.contracts._memory import MemoryLoss
from repertoire.losses.contracts._positives import check_temperature, group, mean_over, poison
from repertoire.ops import pair_max, pair_topk, unit_rows
from repertoire.registry import register

__all__ = ["LOOK", "look_loss"]


def look_loss(
    embeddings: Tensor,
    labels: Tensor,
    *,
    neighbours: int = 20,
    temperature: float = 0.1,
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
        ValueError: temperature or neighbours are not positive.

    Example:
        >>> import torch
        >>> from repertoire.losses import look_loss
        >>> x = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]])
        >>> look_loss(x, torch.tensor([0, 0, 1, 1]), neighbours=1)
        tensor(0.)
    """
    check_embeddings(embeddings, labels, reference, reference_labels)
    _check(neighbours, temperature)
    groups = group(labels, reference_labels)
    z = unit_rows(embeddings)
    y = None if reference is None else unit_rows(reference)
    near = pair_topk(z, y, neighbours, exclude_self=y is None, exclude=exclude)
    kin = pair_max(z, y, **groups.pairs("same", exclude=exclude))
    # The index -1, of no neighbour, is that of the class appended here, which nothing has.
    agrees = torch.cat([groups.other, groups.other.new_full((1,), -1)])[near.indices] == groups.own[:, None]
    # The most similar row of the label is one of the neighbours already, or is added to them.
    added = kin.values.masked_fill((near.indices == kin.indices[:, None]).any(1), -torch.inf)
    everything = torch.cat([near.values, added[:, None]], dim=1) / temperature
    known = torch.cat([near.values.masked_fill(~agrees, -torch.inf), added[:, None]], dim=1) / temperature
    anchors = kin.indices >= 0
    losses = _logsumexp(everything, anchors) - _logsumexp(known, anchors)
    return mean_over(losses, anchors) + poison(z, y)


def _logsumexp(values: Tensor, rows: Tensor) -> Tensor:
    """Log-sum-exp of some rows; zero, with a zero gradient, for the others, which may have nothing to sum."""
    return values.masked_fill(~rows[:, None], 0.0).logsumexp(1)


def _check(neighbours: int, temperature: float) -> None:
    check_temperature(temperature)
    if neighbours < 1:
        raise ConfigError(f"neighbours must be positive, found {neighbours}")


@register("losses", "look", paper="look")
class LOOK(MemoryLoss):
    r"""LOOK: the nearest neighbours of a row, itself left out, should have its label.

    The module form of :func:`repertoire.losses.look_loss`, which gives the paper and the formula, with its queue of
    earlier embeddings, in which neighbours are looked for too.

    Args:
        neighbours: k, positive.
        temperature: tau, positive.
        queue: earlier embeddings to look in; 0 (default) for none.
        dimensions: d; told by the method if None. Needed only with a queue.

    Shapes:
        embeddings float `[N, d]`, labels int64 `[N]`; a reference set float `[M, d]` with labels int64 `[M]`.

    Raises:
        ConfigError: neighbours, a queue or dimensions out of range, or a queue without dimensions.
        ValueError: the temperature is not positive.

    Example:
        >>> import torch
        >>> from repertoire.losses import LOOK
        >>> x = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]])
        >>> LOOK(neighbours=1)(x, torch.tensor([0, 0, 1, 1]))
        tensor(0.)
    """

    def __init__(
        self, neighbours: int = 20, temperature: float = 0.1, queue: int = 0, dimensions: int | None = None
    ) -> None:
        _check(neighbours, temperature)
        super().__init__(queue, dimensions)
        self.neighbours = neighbours
        self.temperature = temperature

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor,
        reference: Tensor | None = None,
        reference_labels: Tensor | None = None,
    ) -> Tensor:
        """The loss of embeddings `[N, d]` with labels `[N]`, among themselves or against a reference set."""
        check_embeddings(embeddings, labels, reference, reference_labels)
        rows, row_labels, exclude = self.candidates(embeddings, labels, reference, reference_labels)
        return look_loss(
            embeddings,
            labels,
            neighbours=self.neighbours,
            temperature=self.temperature,
            reference=rows,
            reference_labels=row_labels,
            exclude=exclude,
        )
