"""What a network multiplies for an image, where some of it is left out for some images."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from torch import Tensor, nn

from repertoire.compress._filters import dynamic_layers, filter_cost
from repertoire.data import Batch
from repertoire.errors import ConfigError
from repertoire.weights import count_flops

__all__ = ["multiplications"]


def multiplications(model: nn.Module, batches: Callable[[], Iterable[Batch | Tensor]]) -> float:
    """Multiplications, each with its addition, that a network needs for an image, in the mean.

    Those of convolutions, linear layers and attention, as :func:`repertoire.weights.count_flops` counts them. Of layers
    with dynamic filters, only what is on counts, and their predictors; zeros that are multiplied with count.

    Args:
        model: left as it was.
        batches: called without arguments, gives images. Of a network without dynamic filters, the first one will do.

    Raises:
        ConfigError: there is no batch.

    Example:
        >>> import torch
        >>> from repertoire.compress import multiplications
        >>> multiplications(torch.nn.Linear(10, 3), lambda: [torch.zeros(2, 10)])
        30.0
    """
    first = next(iter(batches()), None)
    if first is None:
        raise ConfigError("batches is empty; give some images to count on")
    images = first.images if isinstance(first, Batch) else first
    count = count_flops(model, images[:1]) / 2
    layers = dynamic_layers(model)
    if not layers:
        return count
    cost = filter_cost(model, batches())
    # Whole layers were counted, with their predictors, which `used` has again.
    predictors = sum(layer.predictor.weight.numel() for layer in layers.values())
    return count - cost.whole - predictors + cost.used
