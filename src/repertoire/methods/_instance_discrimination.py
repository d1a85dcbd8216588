"""Instance discrimination: every image is found among all that a memory bank holds."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.data import Batch
from repertoire.losses import reduce
from repertoire.methods._base import Method, Needs, Step
from repertoire.methods._classifier import Classifier
from repertoire.methods._precision import at_least_float32
from repertoire.methods._readout import read_out
from repertoire.ops import Memory, pair_logsumexp
from repertoire.ranges import AtLeast, Between, Positive
from repertoire.registry import register

__all__ = ["InstanceDiscrimination"]


@register("methods", "instance-discrimination", paper="instance-discrimination")
class InstanceDiscrimination(Method, Memory):
    r"""Pretraining without labels against a memory bank: each image is to be found among all images of the data.

    Wu, Xiong, Yu and Lin, *Unsupervised Feature Learning via Non-Parametric Instance Discrimination* (2018). The bank
    holds one vector v_i of unit length for each of the N training images: what the network said when it last saw it.
    With the embedding f of image i, of unit length:

    .. math:: P(i \mid f) = \frac{\exp(v_i \cdot f / \tau)}{Z}, \qquad Z = \sum_j \exp(v_j \cdot f / \tau)

    - With `negatives=None` the loss is :math:`-\log P(i \mid f)`; the sum is streamed over the bank.
    - With m negatives it is the paper's noise-contrastive estimate: with
      :math:`h(j, f) = P(j \mid f) / (P(j \mid f) + m / N)`,

      .. math:: \ell = -\log h(i, f) - \sum_{j=1}^{m} \log\bigl(1 - h(n_j, f)\bigr)

      where Z is a constant, estimated with the first batch, and the n_j are drawn from all images, anew for each batch;
      its images share them (the released code draws for each image, which takes N m d numbers).

    `proximal` adds :math:`\lambda \lVert f - v_i \rVert^2` for the images seen before, which steadies the training.

    Args:
        model: normalisation, backbone and head; the head is the read-out.
        samples: N, the number of training images; told by the trainer.
        temperature: tau, positive.
        negatives: m, or None for the sum over the whole bank.
        proximal: lambda, 0 or more. The released code has none.
        momentum: share of the old vector in the new one, in [0, 1). The paper replaces it; the released code uses 0.5.
        dimensions: width of the embeddings, which are linear in the features.

    Attributes:
        bank: float `[N, dimensions]`; random directions in the beginning.
        seen: bool `[N]`, the images that the bank has an embedding of.
        log_normaliser: float `[]`, log Z; NaN before the first batch.

    Raises:
        ConfigError: an option out of range.

    Example:
        >>> import torch
        >>> from repertoire import backbones, heads
        >>> from repertoire.data import Batch
        >>> from repertoire.methods import Classifier, InstanceDiscrimination, Normalize
        >>> net = backbones.ConvNet(in_channels=1, image_size=4, width=4, depth=1)
        >>> model = Classifier(Normalize([0.5], [0.25]), net, heads.Linear(net.out_features, 2))
        >>> method = InstanceDiscrimination(model, samples=9, negatives=None)
        >>> method.step(Batch((torch.rand(4, 1, 4, 4),), torch.full((4,), -1), torch.arange(4))).loss.backward()
        >>> method.after_update()  # after the step of the optimiser: the bank follows
        >>> int(method.seen.sum())
        4
    """

    needs = Needs(per_sample=False, augmentation="simclr")
    remembers: ClassVar = {"index": "rows", "embeddings": "rows", "log_normaliser": "mean"}
    bank: Tensor
    seen: Tensor
    begins_anew = frozenset({"bank", "seen"})
    log_normaliser: Tensor

    def __init__(
        self,
        model: Classifier,
        samples: Annotated[int, AtLeast(1)],
        temperature: Annotated[float, Positive] = 0.07,
        negatives: Annotated[int, AtLeast(1)] | None = 4096,
        proximal: Annotated[float, AtLeast(0)] = 0.0,
        momentum: Annotated[float, Between(0, 1, "[)")] = 0.0,
        dimensions: Annotated[int, AtLeast(1)] = 128,
    ) -> None:
        super().__init__()
        self.model = model
        self.temperature = temperature
        self.negatives = negatives
        self.proximal = proximal
        self.momentum = momentum
        self.projector = nn.Linear(model.backbone.out_features, dimensions)
        self.register_buffer("bank", F.normalize(torch.randn(samples, dimensions)))
        self.register_buffer("seen", torch.zeros(samples, dtype=torch.bool))
        self.register_buffer("log_normaliser", torch.tensor(math.nan))
        # The estimate of a normaliser is shared by the samples of a batch; the sum over the bank is each sample's own.
        self.needs = replace(type(self).needs, per_sample=negatives is None)

    def objective(self, features: Tensor, batch: Batch) -> Step:
        z = F.normalize(at_least_float32(self.projector(features)))
        own = self.bank[batch.index].to(z.dtype)
        with torch.autocast(z.device.type, enabled=False):
            positive = (z * own).sum(1) / self.temperature
            losses, normaliser = self._softmax(z, positive) if self.negatives is None else self._nce(z, positive)
            if self.proximal:
                losses = losses + self.proximal * (z - own).square().sum(1) * self.seen[batch.index]
        loss = reduce(losses, "mean")
        self.remember(len(batch), index=batch.index, embeddings=z, log_normaliser=normaliser)
        readout, logs = read_out(self.model.head, features, batch.targets)
        return Step(loss + readout, {"loss": loss.detach(), **logs})

    def _softmax(self, z: Tensor, positive: Tensor) -> tuple[Tensor, Tensor]:
        scale = 1 / self.temperature
        # Of no use later on: zero, because what is not finite is not committed.
        return pair_logsumexp(z, self.bank.to(z.dtype), scale=scale, bound=scale) - positive, z.new_zeros(())

    def _nce(self, z: Tensor, positive: Tensor) -> tuple[Tensor, Tensor]:
        count, samples = self.negatives or 0, len(self.bank)
        drawn = torch.randint(samples, (count,), device=z.device)
        negative = z @ self.bank[drawn].to(z.dtype).T / self.temperature
        estimate = negative.detach().flatten().logsumexp(0) + math.log(samples / max(1, negative.numel()))
        normaliser = self.log_normaliser.where(self.log_normaliser.isfinite(), estimate)
        # log P less the logarithm of m / N: h is the sigmoid of it.
        shift = normaliser + math.log(count / samples)
        losses = -F.logsigmoid(positive - shift) - F.logsigmoid(shift - negative).sum(1)
        return losses, normaliser

    def commit(self, index: Tensor, embeddings: Tensor, log_normaliser: Tensor) -> None:
        mixed = self.momentum * self.bank[index] + (1 - self.momentum) * embeddings
        self.bank[index] = F.normalize(mixed).to(self.bank.dtype)
        self.seen[index] = True
        if self.negatives is not None:
            self.log_normaliser.copy_(log_normaliser)
