"""The class means that a head with a nearest mean is told at the end of a stage."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from repertoire.data import Batch
from repertoire.heads import NearestMean
from repertoire.methods._base import Stage
from repertoire.methods._classifier import Classifier
from repertoire.ops import evaluating, unit_rows

__all__ = ["tell_means"]


@torch.no_grad()
def tell_means(model: Classifier, stage: Stage, counted: Callable[[Batch], Tensor] | None = None) -> None:
    """Tells the head the mean of the unit features of each class: of the stage's samples, and of remembered ones.

    A class of which there are none keeps the mean that it had.

    Args:
        model: with a head that takes means.
        stage: that is over.
        counted: gives, for a batch of the stage, which of its samples count, bool `[N]`; all that have a class if None.
    """
    head = model.head
    assert isinstance(head, NearestMean)
    sums = torch.zeros_like(head.means, dtype=torch.float64)
    counts = sums.new_zeros(len(sums))
    with evaluating(model):
        for batches, some in ((stage.batches(), counted), (stage.remembered(), None)):
            for batch in batches:
                chosen = batch.targets >= 0 if some is None else some(batch) & (batch.targets >= 0)
                targets = batch.targets[chosen].long()
                sums.index_add_(0, targets, unit_rows(model.embed(batch.images[chosen])).double())
                counts += targets.bincount(minlength=len(counts))
    if not counts.any():
        return
    means = torch.where(counts[:, None] > 0, sums / counts.clamp_min(1)[:, None], head.means.double())
    head.set_means(means.to(head.means.dtype))
