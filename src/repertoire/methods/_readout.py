"""Reading the classes out of features that are trained without them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from repertoire.heads import Head

__all__ = ["read_out"]


def read_out(head: Head, features: Tensor, labels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """The cross-entropy of a head on detached features, and what there is to log of it.

    Args:
        head: features to class scores.
        features: float `[N, d]`; no gradient reaches them.
        labels: int64 `[N]`; a sample without a label (-1) leaves the head alone.
    """
    outputs = head.outputs(features.detach(), labels)
    total = sum(
        (weight * F.cross_entropy(logits, labels, ignore_index=-1, reduction="sum") for weight, logits in outputs),
        start=torch.zeros((), device=features.device),
    )
    loss = total / (labels >= 0).sum().clamp_min(1)
    accuracy = (outputs[0][1].detach().argmax(1) == labels).float().mean()
    return loss, {"readout_loss": loss.detach(), "accuracy": accuracy}
