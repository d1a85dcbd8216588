"""What a head wants before anything is learned."""

from __future__ import annotations

import torch

from repertoire.methods._base import Stage
from repertoire.methods._classifier import Classifier
from repertoire.ops import evaluating

__all__ = ["prepare_head"]

_SHOWN = 20_000
"""About how many samples a head is shown that makes something of their features."""


def prepare_head(model: Classifier, stage: Stage) -> None:
    """Shows a head that passes no gradient the features of the first stage, and freezes the network before it.

    What trains calls it before :meth:`repertoire.methods.Method.begin`. It does nothing for other heads.

    Args:
        model: whose head it is.
        stage: that begins; of the first one, about 20,000 samples are looked at.

    Example:
        >>> import torch
        >>> from repertoire import backbones, heads
        >>> from repertoire.data import Batch
        >>> from repertoire.methods import Classifier, Normalize, Stage, prepare_head
        >>> head = heads.KeyValueBottleneck(4, 2, codebooks=2, keys=3)
        >>> model = Classifier(Normalize([0.0] * 4, [1.0] * 4), backbones.Identity(in_channels=4), head)
        >>> batch = Batch((torch.randn(8, 4),), torch.arange(8) % 2, torch.arange(8))
        >>> prepare_head(model, Stage(samples=8, batches=lambda: [batch]))
        >>> model.head(torch.randn(1, 4)).shape
        torch.Size([1, 2])
    """
    if model.head.passes_gradient:
        return
    model.backbone.requires_grad_(False)
    model.keeps_statistics = True
    model.train(model.training)
    if stage.index:
        return
    with torch.no_grad(), evaluating(model):
        found, seen = [], 0
        for batch in stage.batches():
            found.append(model.embed(batch.images))
            seen += len(found[-1])
            if seen >= _SHOWN:
                break
        if found:
            model.head.prepare(torch.cat(found))
