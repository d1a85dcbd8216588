"""MoCo: contrast with a queue of what a slow copy said of earlier batches."""

from __future__ import annotations

from torch import Tensor

from repertoire.losses import info_nce_loss
from repertoire.methods._queued import Queued
from repertoire.registry import register

__all__ = ["MoCo"]


@register("methods", "moco")
class MoCo(Queued):
    r"""MoCo v2: pretraining without labels in small batches, against a queue of earlier keys.

    He et al., *Momentum Contrast for Unsupervised Visual Representation Learning* (2020), with the projector and the
    temperature of Chen et al., *Improved Baselines with Momentum Contrastive Learning* (2020). The student makes the
    query q of one view, the teacher the key k of the other, both of unit length, and n are the keys of earlier batches:

    .. math:: \ell = -\log \frac{\exp(q \cdot k / \tau)}{\exp(q \cdot k / \tau) + \sum_n \exp(q \cdot n / \tau)}

    The queue begins empty and grows, where the paper fills it with noise; the very first batch is contrasted with its
    own keys. Keys of the same image that are still in the queue count as negatives, so it should be much smaller than
    the data. The papers shuffle batches between devices, so that batch normalisation cannot give the pairs away; here
    each device sees its own.

    Args:
        model: normalisation, backbone and head; the head is the read-out.
        temperature: tau, positive; 0.2 in version 2 and 0.07 in version 1.
        momentum: of the teacher, in [0, 1]; 0.999 in the paper, and 0.99 or less for a run of a few thousand steps.
        queue: keys to remember. The paper's 65536 is for the million images of ImageNet.
        dimensions: width of the embeddings.
        hidden: width of the projector's hidden layer; the backbone's own width if None, as in version 2.

    Raises:
        ConfigError: a width, a queue or a temperature that is not positive, or a momentum out of range.

    Example:
        >>> import torch
        >>> from repertoire import backbones, heads
        >>> from repertoire.data import Batch
        >>> from repertoire.methods import Classifier, MoCo, Normalize
        >>> net = backbones.ConvNet(in_channels=1, image_size=4, width=4, depth=1)
        >>> method = MoCo(Classifier(Normalize([0.5], [0.25]), net, heads.Linear(net.out_features, 2)), queue=8)
        >>> batch = Batch((torch.rand(4, 1, 4, 4), torch.rand(4, 1, 4, 4)), torch.full((4,), -1), torch.arange(4))
        >>> method.step(batch).loss.backward()
        >>> method.after_update()  # after the step of the optimiser
        >>> len(method.queue)
        4
    """

    def contrast(self, queries: Tensor, keys: Tensor) -> Tensor:
        return info_nce_loss(
            queries,
            keys,
            temperature=self.temperature,
            negatives=self.queue.rows.to(keys.dtype) if len(self.queue) else None,
        )
