"""Soft contrastive loss: as similar as the labels are."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from repertoire.errors import ConfigError, ShapeError
from repertoire.losses.contracts._base import EmbeddingLoss, check_embeddings
from repertoire.losses.contracts._positives import full_precision, group, mean_over
from repertoire.losses.embeddings._supcon import supcon_loss
from repertoire.ops import class_sums, pair_logsumexp, unit_rows
from repertoire.ranges import Positive, checked
from repertoire.registry import register

__all__ = ["SoftContrastive", "soft_contrastive_loss"]


@checked
@full_precision
def soft_contrastive_loss(
    embeddings: Tensor,
    labels: Tensor,
    label_embeddings: Tensor,
    *,
    temperature: Annotated[float, Positive] = 0.05,
    label_temperature: Annotated[float, Positive] = 0.25,
    reference: Tensor | None = None,
    reference_labels: Tensor | None = None,
) -> Tensor:
    r"""Soft contrastive loss: the similarities of a row should be distributed as those of its label are.

    Burdisso et al., *Dialog2Flow: Pre-training Soft-Contrastive Action-Driven Sentence Embeddings for Automatic Dialog
    Flow Extraction* (2024). With z the embeddings scaled to unit length, delta the cosine of two labels' embeddings and
    A(i) all other rows:

    .. math::
        \ell_i = -\sum_{j \in A(i)} t_{ij} \log
            \frac{\exp(z_i \cdot z_j / \tau)}{\sum_{k \in A(i)} \exp(z_i \cdot z_k / \tau)}, \qquad
        t_{ij} = \frac{\exp(\delta(y_i, y_j) / \tau')}{\sum_{k \in A(i)} \exp(\delta(y_i, y_k) / \tau')}

    As tau' goes to zero this becomes the supervised contrastive loss. The loss is the mean over the rows with another
    row of their label; a row that is alone with its label takes no part as an anchor, as in every loss here, where the
    paper makes batches in which there is none. The paper compares two towers, which is the reference set here.

    No pair is ever stored: denominators are streamed, and the targets need the sum of each class, and of K classes in
    the batch a K x K matrix.

    Args:
        embeddings: float `[N, d]` of any length.
        labels: int64 `[N]` in 0..C-1, rows of the label embeddings. Labels below 0 are like themselves only.
        label_embeddings: float `[C, e]`, what the labels mean: sentence embeddings of their names, or attributes.
        temperature: tau, positive; the released code uses 0.05.
        label_temperature: tau', positive; the configuration of the released code says 0.25,
            its commands 0.35.
        reference: float `[M, d]`, what the embeddings are compared with in place of each other.
        reference_labels: int64 `[M]` in 0..C-1.

    Returns:
        A scalar; float32 for half-precision embeddings. Zero, with a zero gradient, if no row has a positive.

    Raises:
        ShapeError: shapes or dtypes that do not fit, or (on the CPU) a label without an embedding.
        ConfigError: a temperature is not positive.

    Example:
        >>> import torch
        >>> from repertoire.losses import soft_contrastive_loss
        >>> meanings = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> soft_contrastive_loss(torch.eye(4), torch.tensor([0, 0, 1, 1]), meanings)  # all equally similar: log 3
        tensor(1.0986)
    """
    check_embeddings(embeddings, labels, reference, reference_labels)
    _check_meanings(labels, label_embeddings)
    if reference_labels is not None:
        _check_meanings(reference_labels, label_embeddings)
    groups = group(labels, reference_labels)
    z = unit_rows(embeddings)
    y = None if reference is None else unit_rows(reference)
    everything = labels if reference_labels is None else torch.cat([labels, reference_labels])
    index = groups.own if groups.within else torch.cat([groups.own, groups.other])
    # As many as there are, for which an accelerator is waited for: padded to the rows, the matrix would be N x N.
    classes = int(index.max()) + 1 if len(index) else 0
    # The label of each class, to look its meaning up.
    label = everything.new_zeros(classes).scatter_(0, index, everything).long()
    meaning = unit_rows(label_embeddings.to(z.dtype))[label.clamp_min(0)] * (label >= 0)[:, None]
    own = torch.eye(classes, dtype=torch.bool, device=z.device)
    delta = (meaning @ meaning.T).masked_fill(own, 1.0) / label_temperature
    # The largest delta is one over the temperature, which the ratio does not see.
    likeness = (delta - 1 / label_temperature).exp()
    counts = groups.counts[:classes].to(z)
    mass = (likeness @ counts)[groups.own]
    sums = likeness @ class_sums(z if y is None else y, groups.other, classes)
    pulled = (z * sums[groups.own]).sum(1)
    if groups.within:  # A row is no pair of its own.
        pulled, mass = pulled - z.square().sum(1), mass - 1
    scale = 1 / temperature
    lse = pair_logsumexp(z, y, scale=scale, bound=scale, exclude_self=y is None)
    return mean_over(lse - scale * pulled / mass.clamp_min(torch.finfo(z.dtype).tiny), groups.anchors)


def _check_meanings(labels: Tensor, label_embeddings: Tensor) -> None:
    if label_embeddings.ndim != 2 or not label_embeddings.is_floating_point():
        raise ShapeError(
            f"label_embeddings must be a floating point [C, e], found {label_embeddings.dtype} "
            f"{list(label_embeddings.shape)}"
        )
    if labels.device.type == "cpu" and len(labels) and (most := int(labels.max())) >= len(label_embeddings):
        raise ShapeError(
            f"label {most} has no embedding: label_embeddings has {len(label_embeddings)} rows, for the labels "
            f"0..{len(label_embeddings) - 1}"
        )


@register("losses", "soft-contrastive", paper="dialog2flow")
class SoftContrastive(EmbeddingLoss):
    r"""Soft contrastive loss: the similarities of a row should be distributed as those of its label are.

    The module form of :func:`repertoire.losses.soft_contrastive_loss`, which gives the paper and the formula. What the
    labels mean is said by embeddings of them, or by groups. Without either, every label is like itself only, and this
    is the supervised contrastive loss, as in the released code.

    Args:
        temperature: tau, positive; the released code uses 0.05.
        label_temperature: tau', positive; the configuration of the released code says 0.25,
            its commands 0.35.
        groups: the group of each class, C integers: classes of a group have a similarity of 0.5, others of 0.
        label_embeddings: float `[C, e]`, in place of groups. Kept as a buffer.

    Shapes:
        embeddings float `[N, d]`, labels int64 `[N]`; a reference set float `[M, d]` with labels int64 `[M]`.

    Raises:
        ConfigError: both groups and label embeddings are given.
        ShapeError: label embeddings that are no floating point matrix.
        ConfigError: a temperature is not positive.

    Example:
        >>> import torch
        >>> from repertoire.losses import SoftContrastive
        >>> loss = SoftContrastive(groups=[0, 0, 1])  # the first two classes are alike
        >>> loss(torch.eye(4), torch.tensor([0, 0, 1, 2]))  # all equally similar: log 3
        tensor(1.0986)
    """

    label_embeddings: Tensor | None

    def __init__(
        self,
        temperature: Annotated[float, Positive] = 0.05,
        label_temperature: Annotated[float, Positive] = 0.25,
        groups: list[int] | None = None,
        label_embeddings: Tensor | None = None,
    ) -> None:
        super().__init__()
        if groups is not None and label_embeddings is not None:
            raise ConfigError("give groups or label_embeddings, not both")
        if groups is not None:
            members = torch.tensor(groups)
            same = (members[:, None] == members).float()
            # One coordinate for each class and one for each group: cosines are 1, 0.5 in a group, and 0.
            label_embeddings = torch.cat([torch.eye(len(same)), same / same.sum(1, keepdim=True).sqrt()], dim=1)
        if label_embeddings is not None:
            _check_meanings(torch.zeros(0, dtype=torch.int64), label_embeddings)
        self.temperature = temperature
        self.label_temperature = label_temperature
        self.register_buffer("label_embeddings", label_embeddings)

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor,
        reference: Tensor | None = None,
        reference_labels: Tensor | None = None,
    ) -> Tensor:
        """The loss of embeddings `[N, d]` with labels `[N]`, among themselves or against a reference set."""
        others = {"reference": reference, "reference_labels": reference_labels}
        if self.label_embeddings is None:
            return supcon_loss(embeddings, labels, temperature=self.temperature, **others)
        return soft_contrastive_loss(
            embeddings,
            labels,
            self.label_embeddings,
            temperature=self.temperature,
            label_temperature=self.label_temperature,
            **others,
        )
