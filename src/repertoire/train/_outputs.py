"""One pass over a set of samples: what a network says of each."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from repertoire.data import Loader, Samples
from repertoire.methods import Classifier
from repertoire.ops import evaluating
from repertoire.tasks import MapTally, Outputs, tally_maps

__all__ = ["mixed_order", "outputs"]


@torch.inference_mode()
def outputs(
    model: Classifier,
    samples: Samples,
    *,
    batch_size: int = 256,
    device: torch.device | str | None = None,
    answer: Callable[[Tensor], Tensor] | None = None,
) -> Outputs:
    """Runs a classifier over a set in evaluation mode, and leaves its mode as it was.

    Where the answer for a sample depends on the others in its batch (`Head.looks_across`), the samples go through in
    the order of their content keys, which know nothing of classes: in that of a folder, a batch of one class would tell
    the head what all of it is. The answers come in the order of the set all the same.

    Args:
        model: the classifier, on its device.
        samples: images or features.
        batch_size: samples that go through the network at a time.
        device: where the classifier is; found out if None.
        answer: what the loss reads out of the logits (`Loss.predict`), where logits are no scores of classes or labels.
    """
    if device is None:
        device = next((p.device for p in model.parameters()), torch.device("cpu"))
    order = mixed_order(model, samples.keys)
    logits, embeddings, answers = [], [], []
    tallies: list[MapTally] = []
    classes = len(samples.classes)
    with evaluating(model):
        mixed = samples if order is None else samples.subset(order)
        for batch in Loader(mixed, batch_size, shuffle=False, device=device).epoch(0):
            features, scores = model.embed_and_score(batch.images)
            embeddings.append(features.float().cpu())
            if samples.kind == "maps":
                tallies.append(tally_maps(scores, batch.targets, classes))
                scores = scores[:, :classes].mean((2, 3))
            logits.append(scores.float().cpu())
            if answer is not None:
                found = answer(scores.float()).float().cpu()
                answers.append(found if found.ndim == 2 else found[:, None])
    tally = MapTally.joined(tallies) if tallies else None
    back = slice(None) if order is None else np.argsort(order)
    return Outputs(
        torch.cat(logits).numpy()[back],
        torch.cat(embeddings).numpy()[back],
        (tally.pixels[:, 2] > 0).astype(np.uint8) if tally is not None else np.asarray(samples.labels),
        torch.cat(answers).numpy()[back] if answers else None,
        tally,
    )


def mixed_order(model: Classifier, keys: np.ndarray) -> np.ndarray | None:
    """The order in which samples go through a network, given a hash of each; None for that in which they come."""
    return np.argsort(keys, kind="stable") if model.head.looks_across else None
