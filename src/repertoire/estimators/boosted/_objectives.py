"""What is boosted: a loss of raw scores with its first two derivatives."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["Logistic", "Objective", "Softmax", "Squared"]

RAREST = 1e-12
"""Share of a class that a starting value is computed for, at least: the logarithm of zero has no use."""


class Objective:
    """A loss of scores `[N, K]` against targets of the same shape, summed over outputs."""

    def constant(self, targets: Tensor) -> Tensor:
        """The scores `[K]` that are best for all samples together, without looking at any of them."""
        raise NotImplementedError

    def loss(self, targets: Tensor, scores: Tensor) -> Tensor:
        """The mean loss, a scalar."""
        raise NotImplementedError

    def residuals(self, targets: Tensor, scores: Tensor) -> Tensor:
        """The negative gradient of each sample's loss, `[N, K]`."""
        raise NotImplementedError

    def curvature(self, targets: Tensor, scores: Tensor) -> Tensor:
        """The diagonal of the Hessian of each sample's loss, `[N, K]`."""
        raise NotImplementedError


class Squared(Objective):
    """Half the squared error."""

    def constant(self, targets: Tensor) -> Tensor:
        return targets.mean(0)

    def loss(self, targets: Tensor, scores: Tensor) -> Tensor:
        return (targets - scores).square().sum(1).mean() / 2

    def residuals(self, targets: Tensor, scores: Tensor) -> Tensor:
        return targets - scores

    def curvature(self, targets: Tensor, scores: Tensor) -> Tensor:
        return torch.ones_like(scores)


class Logistic(Objective):
    """Cross-entropy of two classes: targets are 0 and 1, the score is the logit of 1."""

    def constant(self, targets: Tensor) -> Tensor:
        return torch.logit(targets.mean(0), eps=RAREST)

    def loss(self, targets: Tensor, scores: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(scores, targets, reduction="none").sum(1).mean()

    def residuals(self, targets: Tensor, scores: Tensor) -> Tensor:
        return targets - scores.sigmoid()

    def curvature(self, targets: Tensor, scores: Tensor) -> Tensor:
        return scores.sigmoid() * (-scores).sigmoid()


class Softmax(Objective):
    """Cross-entropy of several classes: targets are one-hot rows."""

    def constant(self, targets: Tensor) -> Tensor:
        return targets.mean(0).clamp_min(RAREST).log()

    def loss(self, targets: Tensor, scores: Tensor) -> Tensor:
        return F.cross_entropy(scores, targets)

    def residuals(self, targets: Tensor, scores: Tensor) -> Tensor:
        return targets - scores.softmax(1)

    def curvature(self, targets: Tensor, scores: Tensor) -> Tensor:
        p = scores.softmax(1)
        return p * (1 - p)
