"""SPCL: supervised contrast with a prototype of every class in every batch."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor

from repertoire.errors import ConfigError, ShapeError
from repertoire.losses.contracts._base import EmbeddingLoss, check_embeddings
from repertoire.losses.contracts._positives import check_dimensions, group, mean_over, warn_if_none
from repertoire.ops import Memory, class_index, pair_logsumexp, unit_rows
from repertoire.ranges import AtLeast, Positive, checked
from repertoire.registry import register

__all__ = ["SPCL", "spcl_loss"]

#: Added to the logarithm of a term that is to vanish: its exponential is zero in float64.
_NOTHING = -1e4


@checked
def spcl_loss(
    embeddings: Tensor,
    labels: Tensor,
    prototypes: Tensor | None = None,
    prototype_labels: Tensor | None = None,
    *,
    temperature: Annotated[float, Positive] = 0.08,
    reference: Tensor | None = None,
    reference_labels: Tensor | None = None,
) -> Tensor:
    r"""SPCL: the supervised contrastive loss over a batch and a prototype of each class.

    Song et al., *Supervised Prototypical Contrastive Learning for Emotion Recognition in Conversation* (2022). With
    P(i) the other rows with the label of i and its prototype, and A(i) all other rows and all prototypes:

    .. math::
        \ell_i = -\log \Bigl(\frac{1}{|P(i)|}
            \frac{\sum_{p \in P(i)} \exp(G(z_i, z_p) / \tau)}{\sum_{a \in A(i)} \exp(G(z_i, z_a) / \tau)}\Bigr), \qquad
        G(u, v) = \frac{1 + \cos(u, v)}{2}

    so that even a sample whose class occurs once in the batch has a positive, and every other class is a negative. The
    loss is the mean over the rows with a positive; the released code takes it over those above 0.3.

    No pair is ever stored: two passes over all pairs are streamed.

    Args:
        embeddings: float `[N, d]` of any length.
        labels: int64 `[N]` of any values.
        prototypes: float `[K, d]` of any length; none if None.
        prototype_labels: int64 `[K]`; below 0 for a prototype that does not count.
        temperature: tau, positive; the released code uses 0.08.
        reference: float `[M, d]`, what the embeddings are compared with in place of each other.
        reference_labels: int64 `[M]`.

    Returns:
        A scalar; float32 for half-precision embeddings. Zero, with a zero gradient, if no row has a positive.

    Raises:
        ShapeError: shapes or dtypes that do not fit.
        ConfigError: the temperature is not positive.

    Example:
        >>> import torch
        >>> from repertoire.losses import spcl_loss
        >>> spcl_loss(torch.eye(4)[:2], torch.tensor([0, 1]), torch.eye(4)[2:], torch.tensor([0, 1]))  # one in three
        tensor(1.0986)
    """
    check_embeddings(embeddings, labels, reference, reference_labels)
    z = unit_rows(embeddings)
    exclude = None
    if reference is None or reference_labels is None:
        exclude = torch.arange(len(z), device=z.device)
        y, y_labels = z, labels.long()
    else:
        y, y_labels = unit_rows(reference), reference_labels.long()
    missing = torch.zeros_like(y_labels, dtype=torch.bool)
    if prototypes is not None:
        if prototype_labels is None or prototype_labels.shape != prototypes.shape[:1]:
            raise ShapeError(f"prototype_labels must be [{len(prototypes)}], one for each prototype")
        if prototypes.ndim != 2 or prototypes.shape[1] != z.shape[1]:
            raise ShapeError(f"prototypes must be [K, {z.shape[1]}], found {list(prototypes.shape)}")
        y, y_labels = torch.cat([y, unit_rows(prototypes.to(z.dtype))]), torch.cat([y_labels, prototype_labels.long()])
        missing = torch.cat([missing, prototype_labels < 0])
    # What does not count weighs nothing, and is of a class that nothing else has.
    y_labels = y_labels.masked_fill(missing, torch.iinfo(torch.int64).min)
    out = torch.zeros_like(y[:, 0]).masked_fill(missing, _NOTHING)
    groups = group(labels.long(), y_labels, warn=False)
    positives = groups.positives if exclude is None else groups.positives - 1
    warn_if_none(positives > 0)
    # Half the cosine over the temperature; the constant half cancels.
    scale = 1 / (2 * temperature)
    everything = pair_logsumexp(z, y, scale=scale, y_bias=out, bound=scale, exclude=exclude)
    own = pair_logsumexp(z, y, scale=scale, y_bias=out, bound=scale, **groups.pairs("same", exclude=exclude))
    return mean_over(everything - own + positives.clamp_min(1).to(z).log(), positives > 0)


@register("losses", "spcl", paper="spcl")
class SPCL(EmbeddingLoss, Memory):
    r"""SPCL: the supervised contrastive loss over a batch and a prototype of each class.

    The module form of :func:`repertoire.losses.spcl_loss`, which gives the paper and the formula, with the paper's
    memory: the last embeddings of each class. In every step the prototype of a class is the mean of a random few of
    them, drawn from torch's random state; a class that was not seen yet has none. The memory is part of the state;
    while training, `after_update` adds the embeddings of the last call to it.

    The paper's curriculum, which draws easy samples first, concerns how batches are drawn and is no part of the loss.

    Args:
        num_classes: C, positive.
        dimensions: d; told by the method if None.
        temperature: tau, positive; the released code uses 0.08.
        memory: embeddings to remember of each class, positive; the released code uses 512.
        draw: how many of them make a prototype, positive; the released code uses 64.

    Attributes:
        pool: float `[C, memory, d]`, a ring for each class.
        pushed: int64 `[C]`, how many embeddings of each class were ever remembered.

    Shapes:
        embeddings float `[N, d]`, labels int64 `[N]`, where those in 0..C-1 have prototypes; a reference set float
        `[M, d]` with labels int64 `[M]`.

    Raises:
        ConfigError: a size out of range, or called before the dimensions are known.
        ConfigError: the temperature is not positive.

    Example:
        >>> import torch
        >>> from repertoire.losses import SPCL
        >>> loss = SPCL(num_classes=2, dimensions=4)
        >>> loss(torch.eye(4), torch.tensor([0, 0, 1, 1])).item() > 1  # no prototypes yet
        True
        >>> loss.after_update()
        >>> loss.prototypes()[1]
        tensor([0, 1])
    """

    random = True
    remembers: ClassVar[dict[str, Literal["rows", "mean"]]] = {"rows": "rows", "labels": "rows"}
    pool: Tensor
    pushed: Tensor

    def __init__(
        self,
        num_classes: Annotated[int, AtLeast(1)],
        dimensions: Annotated[int, AtLeast(1)] | None = None,
        temperature: Annotated[float, Positive] = 0.08,
        memory: Annotated[int, AtLeast(1)] = 512,
        draw: Annotated[int, AtLeast(1)] = 64,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.temperature = temperature
        self.memory = memory
        self.draw = draw
        self.register_buffer("pool", None)
        self.register_buffer("pushed", torch.zeros(num_classes, dtype=torch.int64))
        if dimensions is not None:
            self.prepare(dimensions)

    def prepare(self, dimensions: int) -> None:
        """Makes the memory, empty."""
        check_dimensions(dimensions, None if self.pool is None else self.pool.shape[2])
        if self.pool is None:
            self.pool = torch.zeros(self.num_classes, self.memory, dimensions)

    def prototypes(self) -> tuple[Tensor, Tensor]:
        """The mean of a few remembered embeddings of each class, float `[C, d]`, and the class, int64 `[C]`, or -1
        where nothing is remembered of it."""
        there = torch.arange(self.memory, device=self.pool.device) < self.pushed[:, None]
        lot = torch.rand(there.shape, device=self.pool.device).masked_fill(~there, -1.0)
        value, chosen = lot.topk(min(self.draw, self.memory), dim=1)
        weight = (value >= 0).to(self.pool.dtype)
        rows = self.pool.gather(1, chosen[..., None].expand(-1, -1, self.pool.shape[2]))
        means = (rows * weight[..., None]).sum(1) / weight.sum(1, keepdim=True).clamp_min(1)
        classes = torch.arange(self.num_classes, device=self.pool.device)
        return means, classes.masked_fill(self.pushed == 0, -1)

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor,
        reference: Tensor | None = None,
        reference_labels: Tensor | None = None,
    ) -> Tensor:
        """The loss of embeddings `[N, d]` with labels `[N]`, among themselves or against a reference set."""
        if self.pool is None:
            raise ConfigError("dimensions of the embeddings are not known yet: give dimensions, or call prepare")
        value = spcl_loss(
            embeddings,
            labels,
            *self.prototypes(),
            temperature=self.temperature,
            reference=reference,
            reference_labels=reference_labels,
        )
        self.remember(len(embeddings), rows=embeddings, labels=labels)
        return value

    def commit(self, rows: Tensor, labels: Tensor) -> None:
        """Puts the embeddings of a step in place of the oldest of their classes."""
        known = (labels >= 0) & (labels < self.num_classes)
        rows, labels = rows[known].to(self.pool.dtype), labels[known].long()
        # How many of its class come before and after each row: of more rows than there is room for, the last ones stay.
        index, counts = class_index(labels)
        order = index.sort(stable=True).indices
        before = torch.empty_like(index)
        before[order] = torch.arange(len(index), device=index.device) - (counts.cumsum(0) - counts)[index[order]]
        stays = counts[index] - before <= self.memory
        place = (self.pushed[labels] + before) % self.memory
        self.pool[labels[stays], place[stays]] = rows[stays]
        self.pushed.index_add_(0, labels, torch.ones_like(labels))
