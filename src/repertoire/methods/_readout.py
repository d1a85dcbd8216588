"""Reading the classes out of features that are trained without them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from repertoire.heads import Head

__all__ = ["read_out", "read_scores"]


def read_out(head: Head, features: Tensor, labels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Trains a head on detached features by cross-entropy: its loss, and that and the accuracy as logs.

    Args:
        head: features to class scores.
        features: float `[N, d]`; no gradient reaches them.
        labels: integers `[N]`; a sample without a label (-1) takes no part.
    """
    return read_scores(head.outputs(features.detach(), labels), labels)


def read_scores(outputs: Sequence[tuple[float, Tensor]], labels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """The same for what a head gave: pairs of a weight and class scores `[N, K]`, of which the first answers."""
    labels = labels.long()
    known = (labels >= 0).sum().clamp_min(1)
    losses = [w * F.cross_entropy(scores, labels, ignore_index=-1, reduction="sum") for w, scores in outputs]
    loss = torch.stack(losses).sum() / known
    accuracy = (outputs[0][1].detach().argmax(1) == labels).sum() / known
    return loss, {"readout_loss": loss.detach(), "accuracy": accuracy}
