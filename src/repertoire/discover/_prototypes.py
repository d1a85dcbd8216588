"""Discovery by prototypes on the sphere, trained on their own soft answers: SimGCD's objective, and ProtoGCD."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor
from torch.nn import functional as F

from repertoire.discover._network import Batch, Network, OnPrototypes, agreement, spread_out, supervised
from repertoire.losses import nt_xent_loss, supcon_loss
from repertoire.ranges import AtLeast, Positive, Share
from repertoire.registry import register

__all__ = ["ProtoGCD", "SimGCD", "confident_targets", "separation"]


@register("discoverers", "simgcd")
class SimGCD(OnPrototypes):
    r"""Prototypes that learn from labels, and from what each view of a row says of the other.

    The objective of Wen et al., *Parametric Classification for Generalized Category Discovery: A Baseline Study*
    (2023), on frozen features: with the probabilities p of a softmax of the cosines to K prototypes,

    .. math::
        \ell = \lambda \left( \ell_{\text{ce}} + \ell_{\text{supcon}} \right)
        + (1 - \lambda) \left( \ell_{\text{views}} - \epsilon\, H(\bar p) + \ell_{\text{nt-xent}} \right)

    where :math:`\ell_{\text{views}}` is the cross-entropy of each view with the sharper answer of the other one, and
    :math:`\bar p` the mean answer of the batch.

    The paper trains the last block of a network on photographs, whose views are crops. Here the network stays as it is,
    a residual layer learns on its features, and views are features with noise. Prototypes start at the centres of
    semi-supervised k-means; the paper draws them.

    Args:
        supervised: lambda, in [0, 1]; 0.35 by default, as in the paper.
        even: epsilon, 0 or more; 2 by default, as in the released code for generic data.
        teacher_temperature: of the targets in the end, 0.04; it begins at 0.07 and falls over the first 15 % of the
            steps.

    Example:
        >>> import torch
        >>> from repertoire.discover import SimGCD
        >>> truth = torch.arange(5).repeat_interleave(20)
        >>> x = 5 * torch.eye(5)[truth] + torch.randn(100, 5, generator=torch.Generator().manual_seed(0))
        >>> found = SimGCD(classes=5, epochs=5).fit(x, torch.where(truth < 3, truth, -1))
        >>> sorted(set(found.labels_[60:].tolist()))
        [3, 4]
    """

    supervised: Annotated[float, Share] = 0.35
    even: Annotated[float, AtLeast(0)] = 2.0
    teacher_temperature: Annotated[float, Positive] = 0.04

    def _objective(self, network: Network, rows: Tensor, batch: Batch) -> Tensor:
        z = network(batch.views)
        cosines = network.cosines(z).view(2, len(batch.labels), -1)
        fallen = min(1.0, batch.progress / 0.15)
        sharp = 0.07 + (self.teacher_temperature - 0.07) * fallen
        targets = (cosines.detach() / sharp).softmax(2)
        logits = cosines / self.temperature
        found = agreement(logits, targets) + self.even * spread_out(logits)
        return joint(network, z, logits, batch.labels, found, self.supervised)


@register("discoverers", "protogcd", paper="protogcd")
class ProtoGCD(OnPrototypes):
    r"""Prototypes kept apart, that learn from soft answers at first and from sure ones as time goes on.

    Ma et al., *ProtoGCD: Unified and Unbiased Prototype Learning for Generalized Category Discovery* (2025), on frozen
    features. With the cosines of a row to K prototypes :math:`\mu` as logits, the loss is that of SimGCD,

    .. math::
        \ell = \lambda \left( \ell_{\text{ce}} + \ell_{\text{supcon}} \right)
        + (1 - \lambda) \left( \ell_{\text{views}} - \epsilon\, H(\bar p) + w\, \ell_{\text{apart}}
        + \ell_{\text{nt-xent}} \right)

    with two changes. The targets of :math:`\ell_{\text{views}}` are one-hot for the share r of the batch whose two
    largest probabilities have the largest ratio, and soft for the others; r grows from `first` to `last`. And
    prototypes are kept apart:

    .. math:: \ell_{\text{apart}} = \frac{1}{K} \sum_i \log \frac{1}{K - 1} \sum_{j \ne i} e^{\mu_i \cdot \mu_j / \tau}

    The paper trains the last block of a network on photographs, whose views are crops. Here the network stays as it is,
    a residual layer learns on its features, and views are features with noise. Prototypes start at the centres of
    semi-supervised k-means. The number of classes is estimated before the training, and not by training for each of
    the numbers.

    Args:
        by: what says how many there are where that is estimated; "prototypes" is nearest to the paper, and not the
            default, as it tends to say too few; see :func:`repertoire.discover.class_number`.
        supervised: lambda, in [0, 1]; 0.35 by default, as in the released code.
        even: epsilon, 0 or more; 2 by default.
        apart: w, 0 or more; 1 by default.
        first, last: r in the beginning, and from `ramp` on; 0.2 and 1 in the released code. With 0 and 0 all targets
            stay soft.
        ramp: share of the training over which r grows; half of it by default.
        temperature: tau of the answers, 0.1.
        teacher_temperature: of the targets, 0.05.

    Attributes:
        labels_, n_classes_, n_classes_interval_, outlier_scores_, probabilities_: see
            :class:`repertoire.discover.Discoverer`. The outlier score is 1 less the cosine with the nearest prototype,
            as in the paper.

    Example:
        >>> import torch
        >>> from repertoire.discover import ProtoGCD
        >>> truth = torch.arange(5).repeat_interleave(20)
        >>> x = 5 * torch.eye(5)[truth] + torch.randn(100, 5, generator=torch.Generator().manual_seed(0))
        >>> found = ProtoGCD(classes=5, epochs=5).fit(x, torch.where(truth < 3, truth, -1))
        >>> sorted(set(found.labels_[60:].tolist()))
        [3, 4]
    """

    supervised: Annotated[float, Share] = 0.35
    even: Annotated[float, AtLeast(0)] = 2.0
    apart: Annotated[float, AtLeast(0)] = 1.0
    first: Annotated[float, Share] = 0.2
    last: Annotated[float, Share] = 1.0
    ramp: Annotated[float, Share] = 0.5
    teacher_temperature: Annotated[float, Positive] = 0.05

    def _objective(self, network: Network, rows: Tensor, batch: Batch) -> Tensor:
        z = network(batch.views)
        cosines = network.cosines(z).view(2, len(batch.labels), -1)
        grown = 1.0 if self.ramp == 0 else min(1.0, batch.progress / self.ramp)
        share = self.first + (self.last - self.first) * grown
        soft = (cosines.detach() / self.teacher_temperature).softmax(2)
        targets = torch.stack([confident_targets(view, share) for view in soft])
        logits = cosines / self.temperature
        found = agreement(logits, targets) + self.even * spread_out(logits)
        found = found + self.apart * separation(F.normalize(network.prototypes), self.temperature)
        return joint(network, z, logits, batch.labels, found, self.supervised)


def joint(network: Network, z: Tensor, logits: Tensor, labels: Tensor, found: Tensor, weight: float) -> Tensor:
    """What labels say and what is found without, each with its contrast.

    Args:
        z: both views `[2B, d]`.
        logits: of each view `[2, B, K]`.
        labels: int64 `[B]`, -1 for none.
        found: the loss of the rows without regard to labels.
        weight: of what labels say, in [0, 1].
    """
    contrasted = network.contrast(z)
    first, second = contrasted.chunk(2)
    loss = (1 - weight) * (found + nt_xent_loss(first, second, temperature=1.0))
    seen = labels >= 0
    if not bool(seen.any()):
        return loss
    both = supcon_loss(torch.cat([first[seen], second[seen]]), labels[seen].repeat(2), temperature=0.07)
    return loss + weight * (supervised(logits, labels) + both)


def confident_targets(p: Tensor, share: float) -> Tensor:
    """Probabilities `[B, K]`, one-hot for the share of the rows whose two largest have the largest ratio."""
    count = int(len(p) * share)
    if count == 0:
        return p
    first, second = p.topk(2, dim=1).values.unbind(1)
    sure = (first / (second + 1e-6)).topk(count).indices
    hard = p.clone()
    hard[sure] = F.one_hot(p[sure].argmax(1), p.shape[1]).to(p.dtype)
    return hard


def separation(unit: Tensor, temperature: float) -> Tensor:
    """Mean over prototypes, unit rows `[K, d]`, of the log of the mean of exp(cosine / temperature) with all others."""
    count = len(unit)
    scaled = unit @ unit.T / temperature
    others = scaled.masked_fill(torch.eye(count, dtype=torch.bool), -torch.inf)
    return (others.logsumexp(1) - torch.tensor(float(count - 1)).log()).mean()
