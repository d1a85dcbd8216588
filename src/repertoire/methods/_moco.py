"""MoCo: contrast with a queue of what a slow copy said of earlier batches."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from repertoire.losses import info_nce_loss
from repertoire.methods._classifier import Classifier
from repertoire.methods._mlp import check_widths, mlp
from repertoire.methods._two_networks import TwoNetworks
from repertoire.ops import Queue
from repertoire.registry import register

__all__ = ["MoCo"]


@register("methods", "moco")
class MoCo(TwoNetworks):
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
        ConfigError: a width or a queue that is not positive, or a momentum out of range. ValueError: the temperature is
            not positive.

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

    def __init__(
        self,
        model: Classifier,
        temperature: float = 0.2,
        momentum: float = 0.999,
        queue: int = 4096,
        dimensions: int = 128,
        hidden: int | None = None,
    ) -> None:
        check_widths(queue=queue, dimensions=dimensions, hidden=hidden)
        if not temperature > 0:
            raise ValueError(f"temperature must be positive, found {temperature}")
        width = model.backbone.out_features
        super().__init__(model, mlp(width, hidden or width, dimensions, batch_norm=False), momentum)
        self.temperature = temperature
        self.queue = Queue(queue, dimensions)
        self._keys: Tensor | None = None

    def compare(self, views: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        features = self.model.embed(views[0])
        keys = F.normalize(self.teacher(views[1]).float())
        if self.training:
            self._keys = keys
        return self.contrast(self.projector(features).float(), keys), features

    def contrast(self, queries: Tensor, keys: Tensor) -> Tensor:
        """The loss of queries and keys `[N, d]` against the queue."""
        negatives = self.queue.rows if len(self.queue) else None
        return info_nce_loss(queries, keys, temperature=self.temperature, negatives=negatives)

    def after_update(self) -> None:
        """The teacher follows, and the keys of the batch join the queue."""
        super().after_update()
        if self._keys is not None:
            self.queue.push(self._keys)
            self._keys = None
