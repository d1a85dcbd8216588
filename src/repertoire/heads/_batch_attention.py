"""A classifier for which the samples of a batch look at each other, in prediction too."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from repertoire.heads._base import Head
from repertoire.registry import register

__all__ = ["BatchAttention"]

Position = Literal["relationship", "none"]

LOUDEST = 100.0
"""The signal-to-noise ratio of a sample with itself, in decibels: of features that are equal it would be infinite."""

TINY = 1e-12


@register("heads", "batch-attention", paper="attentive-batch")
class BatchAttention(Head):
    r"""Residual attention over the samples of a batch, then a linear classifier: predictions depend on the batch.

    Le et al., *Enhancing Fine-grained Image Classification through Attentive Batch Training* (2024; arXiv 2412.19606).
    With the features X `[N, d]` of a batch and learned maps Q, K and V:

    .. math:: \mathrm{logits} = W \bigl( X + A V(X) \bigr) + b, \qquad
        A = \mathrm{softmax}\Bigl( \frac{Q(X) K(X)^\top}{\sqrt d} + w\,P \Bigr)

    P is the code of the relation of each pair: the authors derive it from the peak signal-to-noise ratio between the
    two images, normalised. A head has no images, so here it is that of the features,
    :math:`10 \log_{10} (r_{ij}^2 / \operatorname{mse}(x_i, x_j))` with r the larger range of the two, divided by 100,
    at which it ends; how the authors normalise theirs could not be confirmed. w is learned and begins at 1.

    The batch is looked at in prediction as well. A sample alone gives :math:`W(x + V(x)) + b`; among others its answer
    is another one, and better than it deserves where a batch holds one class (a folder read in order, say): what is
    measured there is leakage of the test set. So runs evaluate such a head in an order that knows nothing of classes;
    `predict` asks about the images in the order in which they are given. Compare with batches of one, which is what a
    deployed network sees (`batch_size=1`). A batch in pieces is not the batch, so accumulation is refused.

    Args:
        in_features: d, width of the features `[N, d]`.
        num_classes: C, width of the logits `[N, C]`.
        position: "relationship" (default) or "none", without P.
        bias: whether there is a b.

    Example:
        >>> import torch
        >>> from repertoire.heads import BatchAttention
        >>> head, z = BatchAttention(8, 3), torch.randn(5, 8)
        >>> torch.allclose(head(z[:1]), head.classifier(z[:1] + head.value(z[:1])), atol=1e-6)
        True
        >>> torch.allclose(head(z)[:1], head(z[:1]))
        False
    """

    looks_across = True

    def __init__(
        self, in_features: int, num_classes: int, position: Position = "relationship", bias: bool = True
    ) -> None:
        super().__init__(in_features, num_classes)
        self.query, self.key, self.value = (nn.Linear(in_features, in_features) for _ in range(3))
        self.classifier = nn.Linear(in_features, num_classes, bias=bias)
        self.position = nn.Parameter(torch.ones(())) if position == "relationship" else None
        self.per_class = ("classifier.weight", "classifier.bias") if bias else ("classifier.weight",)

    def attention(self, features: Tensor) -> Tensor:
        """How much each sample looks at each, `[N, N]`, rows of sum one."""
        scores = self.query(features) @ self.key(features).T / math.sqrt(self.in_features)
        if self.position is not None:
            scores = scores + self.position * relations(features)
        return scores.softmax(1)

    def forward(self, features: Tensor, targets: Tensor | None = None) -> Tensor:
        self.check_features(features)
        return self.classifier(features + self.attention(features) @ self.value(features))


def relations(features: Tensor) -> Tensor:
    """The signal-to-noise ratio of each pair of rows `[N, d]`, as a share of `LOUDEST`, `[N, N]`; it is no parameter,
    and takes no gradient."""
    x = features.detach()
    x = x if x.dtype == torch.float64 else x.float()
    # Not by a matrix product: what is equal is to be at a distance of exactly 0.
    gaps = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist").square() / x.shape[1]
    span = x.amax(1) - x.amin(1)
    peak = torch.maximum(span[:, None], span[None]).square() + TINY
    ratio = 10 * (peak / gaps.clamp_min(TINY)).log10()
    return (ratio.clamp(max=LOUDEST) / LOUDEST).to(features.dtype)
