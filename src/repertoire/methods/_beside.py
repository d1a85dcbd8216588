"""What methods with unlabelled samples beside labelled ones share: how many there are, and all images of a batch."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from repertoire.data import Batch
from repertoire.errors import ConfigError
from repertoire.methods._base import Needs

__all__ = ["STREAM", "all_images", "at_ratio", "unlabelled_of"]

STREAM = "unlabelled"


def at_ratio(needs: Needs, ratio: float) -> Needs:
    """The needs of a method with so many unlabelled samples for each labelled one."""
    return replace(needs, streams={STREAM: replace(needs.streams[STREAM], per_sample=ratio)})


def all_images(batch: Batch) -> Tensor:
    """The images of a batch, followed by its unlabelled ones where there are any."""
    if STREAM not in batch.streams:
        return batch.images
    return torch.cat([batch.images, batch.streams[STREAM].images])


def unlabelled_of(batch: Batch, method: str) -> Batch:
    """The unlabelled samples of a batch.

    Raises:
        ConfigError: there are none; the message names the method.
    """
    if STREAM not in batch.streams:
        raise ConfigError(
            f"method {method!r} needs unlabelled samples, and the batch has no stream {STREAM!r}: give the loader one, "
            "or use method 'supervised'"
        )
    return batch.streams[STREAM]
