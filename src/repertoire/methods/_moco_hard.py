"""MoCo in both directions, against the hardest keys of its queue."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor
from torch.nn import functional as F

from repertoire.losses import info_nce_loss
from repertoire.methods._classifier import Classifier
from repertoire.methods._queued import Queued
from repertoire.ops import pair_topk
from repertoire.ranges import AtLeast, Between, Positive, Share
from repertoire.registry import register

__all__ = ["HardMoCo"]


@register("methods", "moco-hard", paper="moco-hard-filter")
class HardMoCo(Queued):
    r"""MoCo in which query and key take turns as the anchor, and only the hardest keys of the queue are negatives.

    Hoang et al., *Momentum Contrastive Learning with Enhanced Negative Sampling and Hard Negative Filtering* (2025).
    With q and k of one sample and H(a) the keys in the queue that are most similar to an anchor a:

    .. math:: \ell = -\frac{1}{2} \sum_{(a, p) \in \{(q, k), (k, q)\}} \log
        \frac{\exp(a \cdot p / \tau)}{\exp(a \cdot p / \tau) + \sum_{n \in H(a)} \exp(a \cdot n / \tau)}

    The keys take no gradient, so the second term teaches through its positive only. The neighbours of an anchor are
    searched tile by tile. Which share of the queue to keep depends on the data: of few classes, the hardest keys are
    often of the anchor's own.

    Args:
        model: normalisation, backbone and head; the head is the read-out.
        hard: share of the queue that is kept for each anchor, in (0, 1]; 0.5 is our choice.
        temperature, momentum, queue, dimensions, hidden: see `MoCo`.

    Raises:
        ConfigError: a share out of range; see also `MoCo`.

    Example:
        >>> import torch
        >>> from repertoire import backbones, heads
        >>> from repertoire.data import Batch
        >>> from repertoire.methods import Classifier, HardMoCo, Normalize
        >>> net = backbones.ConvNet(in_channels=1, image_size=4, width=4, depth=1)
        >>> method = HardMoCo(Classifier(Normalize([0.5], [0.25]), net, heads.Linear(net.out_features, 2)), queue=8)
        >>> batch = Batch((torch.rand(4, 1, 4, 4), torch.rand(4, 1, 4, 4)), torch.full((4,), -1), torch.arange(4))
        >>> method.step(batch).loss.backward()
        >>> method.after_update()  # after the step of the optimiser
    """

    def __init__(
        self,
        model: Classifier,
        hard: Annotated[float, Between(0, 1, "(]")] = 0.5,
        temperature: Annotated[float, Positive] = 0.2,
        momentum: Annotated[float, Share] = 0.999,
        queue: Annotated[int, AtLeast(1)] = 4096,
        dimensions: Annotated[int, AtLeast(1)] = 128,
        hidden: Annotated[int, AtLeast(1)] | None = None,
    ) -> None:
        super().__init__(model, temperature, momentum, queue, dimensions, hidden)
        self.hard = hard

    def contrast(self, queries: Tensor, keys: Tensor) -> Tensor:
        if not len(self.queue):
            return info_nce_loss(queries, keys, temperature=self.temperature, symmetric=True)
        queries = F.normalize(queries)
        positive = (queries * keys).sum(1) / self.temperature
        count = max(1, round(self.hard * len(self.queue)))
        losses = []
        for anchors in (queries, keys):
            negatives = pair_topk(anchors, self.queue.rows.to(anchors.dtype), count).values / self.temperature
            losses.append(torch.logaddexp(positive, negatives.logsumexp(1)) - positive)
        return torch.stack(losses).mean()
