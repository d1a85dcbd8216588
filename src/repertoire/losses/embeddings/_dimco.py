"""DIMCO: short discrete codes that say as much as possible about the class."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from torch import Tensor

from repertoire.errors import ConfigError, ShapeError
from repertoire.losses.contracts._base import EmbeddingLoss, check_embeddings
from repertoire.losses.contracts._classes import at_least_float32
from repertoire.losses.contracts._positives import full_precision, group, poison
from repertoire.ops import class_sums
from repertoire.ranges import AtLeast, checked
from repertoire.registry import register

__all__ = ["DIMCO", "dimco_codes", "dimco_loss"]


@checked
@full_precision
def dimco_loss(
    embeddings: Tensor,
    labels: Tensor,
    *,
    symbols: Annotated[int, AtLeast(2)] = 16,
    independence: Annotated[float, AtLeast(0)] = 0.1,
    reference: Tensor | None = None,
    reference_labels: Tensor | None = None,
) -> Tensor:
    r"""DIMCO: the symbols of a code should tell the class, and no two positions of it the same.

    Lee, Kim, Park and Choi, *Discrete Infomax Codes for Supervised Representation Learning* (2019). An embedding holds
    the logits of d positions with k symbols each. With X_i the symbol at position i, whose distributions are the means
    of the samples' softmaxes over the batch, over a class, and of the products of two positions' softmaxes:

    .. math::
        \ell = -\frac{1}{d} \sum_i I(X_i; Y) + \frac{\lambda}{d (d - 1)} \sum_{i \ne j} I(X_i; X_j), \qquad
        I(X_i; Y) = H(X_i) - H(X_i \mid Y)

    in nats. With one position of as many symbols as there are classes the first term is that of a classifier. The paper
    sums where this takes means, so that lambda does not depend on the length of the code. It weighs estimates over one
    batch: batches should have several samples of a class, which is why a sample whose class occurs once takes no part.

    Memory is O((dk)²) for the products, and does not grow with the square of the batch.

    Args:
        embeddings: float `[N, d * k]`, the logits of the first position, then those of the second, ...
        labels: int64 `[N]` of any values.
        symbols: k, 2 or more.
        independence: lambda, 0 or more: how much to punish positions for saying the same.
        reference: float `[M, d * k]`, further samples, of a memory or another rank.
        reference_labels: int64 `[M]`.

    Returns:
        A scalar, at least -log k; float32 for half-precision embeddings. Zero, with a zero gradient, if no row has a
        positive: another row of its class, in the reference set where there is one.

    Raises:
        ShapeError: shapes or dtypes that do not fit, or a width that is no multiple of the symbols.
        ConfigError: options out of range.

    Example:
        >>> import torch
        >>> from repertoire.losses import dimco_loss
        >>> logits = 100 * torch.eye(2).repeat_interleave(2, dim=0)  # one position; a symbol for each class
        >>> dimco_loss(logits, torch.tensor([0, 0, 1, 1]), symbols=2)  # -log 2
        tensor(-0.6931)
    """
    check_embeddings(embeddings, labels, reference, reference_labels)
    groups = group(labels, reference_labels)
    index, takes_part, rows = groups.own, groups.anchors, at_least_float32(embeddings)
    if reference is not None:
        rows = torch.cat([rows, at_least_float32(reference)])
        index = torch.cat([index, groups.other])
        takes_part = torch.cat([takes_part, torch.ones_like(groups.other, dtype=torch.bool)])
    p = _positions(rows, symbols).softmax(2)
    weight = takes_part.to(p)
    length, count = p.shape[1], weight.sum().clamp_min(1)
    flat = p.flatten(1) * weight[:, None]
    entropies = _entropy((flat.sum(0) / count).view(-1, symbols))
    # Conditioned on the class, the entropy of each class's mean, weighted by its size.
    sizes = weight.new_zeros(len(groups.counts)).index_add(0, index, weight)
    means = class_sums(flat, index, len(sizes)) / sizes.clamp_min(1)[:, None]
    conditional = (_entropy(means.view(len(means), length, symbols)) * (sizes / count)[:, None]).sum(0)
    loss = (conditional - entropies).mean()
    if independence and length > 1:
        joint = (flat.T @ p.flatten(1)) / count
        joint = joint.view(length, symbols, length, symbols).transpose(1, 2).flatten(2)
        shared = entropies[:, None] + entropies - _entropy(joint)
        off = shared.sum() - shared.diagonal().sum()
        loss = loss + independence * off / (length * (length - 1))
    return torch.where(groups.anchors.any(), loss, 0.0 * loss) + poison(rows)


@checked
def dimco_codes(embeddings: Tensor, symbols: Annotated[int, AtLeast(2)] = 16) -> Tensor:
    """The code of each embedding: its most probable symbol at each position.

    Lee et al. (2019), see :func:`repertoire.losses.dimco_loss`. Codes are compared by the number of positions at
    which they agree; a query whose embedding is known, by the sum of its log-probabilities of a code's symbols.

    Args:
        embeddings: float `[N, d * k]`, logits.
        symbols: k, 2 or more.

    Returns:
        int64 `[N, d]` in 0..k-1.

    Raises:
        ShapeError: a width that is no multiple of the symbols.
        ConfigError: fewer than two symbols.

    Example:
        >>> import torch
        >>> from repertoire.losses import dimco_codes
        >>> dimco_codes(torch.tensor([[0.0, 1.0, 2.0, -1.0]]), symbols=2)
        tensor([[1, 0]])
    """
    if embeddings.ndim != 2:
        raise ShapeError(f"embeddings must be [N, d * {symbols}], found {list(embeddings.shape)}")
    return _positions(embeddings, symbols).argmax(2)


def _positions(rows: Tensor, symbols: int) -> Tensor:
    if rows.shape[1] % symbols or not rows.shape[1]:
        raise ShapeError(
            f"embeddings must be [N, d * k] with k = {symbols} symbols, found {list(rows.shape)}; choose symbols, or a "
            "width, so that one divides the other"
        )
    return rows.view(len(rows), rows.shape[1] // symbols, symbols)


def _entropy(p: Tensor) -> Tensor:
    # Clamped, so that the logarithm of a probability of zero is a number.
    return -(p * p.clamp_min(torch.finfo(p.dtype).tiny).log()).sum(-1)


@register("losses", "dimco", paper="dimco")
class DIMCO(EmbeddingLoss, function=dimco_loss):
    """Module form of `dimco_loss`."""

    symbols: int

    @classmethod
    def example_options(cls) -> dict[str, Any]:
        return {"symbols": 3}

    def prepare(self, dimensions: int) -> None:
        """Checks that a whole number of positions fits."""
        if dimensions % self.symbols:
            raise ConfigError(
                f"the embeddings have {dimensions} dimensions, which is no multiple of the {self.symbols} symbols of "
                "the loss: choose dimensions of the method or symbols of the loss"
            )
