"""How far a changed network's answers are from those that it gave before: what defaults are chosen by."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from repertoire.data import Batch
from repertoire.errors import ConfigError
from repertoire.ops import evaluating

__all__ = ["answers_changed", "some_images"]

MOST = 512
"""Images that answers are compared on."""


@torch.no_grad()
def answers_changed(network: nn.Module, teacher: nn.Module, images: Tensor) -> float:
    r"""The squared change of the logits, as a share of how much they differ from image to image.

    .. math:: \frac{\sum_i \lVert f(x_i) - t(x_i) \rVert^2}{\sum_i \lVert t(x_i) - \bar t \rVert^2}

    each less its mean over classes, of which a softmax knows nothing. A divergence of probabilities would say that
    nothing has changed wherever both are sure of themselves, as networks are on what they were trained on.

    Args:
        network: the changed one.
        teacher: the one that it was made of.
        images: to compare them on.

    Returns:
        0 where nothing has changed; about 1 where the answers have nothing to do with each other.

    Example:
        >>> teacher = torch.nn.Linear(3, 4)
        >>> answers_changed(teacher, teacher, torch.eye(3))
        0.0
    """
    found, wanted = [], []
    with evaluating(network, teacher):
        for part in images.split(64):
            found.append(network(part).flatten(1).double())
            wanted.append(teacher(part).flatten(1).double())
    f, t = ((x := torch.cat(parts)) - x.mean(1, keepdim=True) for parts in (found, wanted))
    return float((f - t).square().sum() / (t - t.mean(0)).square().sum().clamp_min(1e-300))


def some_images(batches: Callable[[], Iterable[Batch]], device: torch.device, most: int = MOST) -> Tensor:
    """At most so many images, evenly from all over the batches.

    Raises:
        ConfigError: there is no batch.
    """
    total = sum(len(batch.images) for batch in batches())
    if not total:
        raise ConfigError("batches is empty; give some training samples to look at")
    step = -(-total // most)
    kept, seen = [], 0
    for batch in batches():
        kept.append(batch.images[(-seen) % step :: step])
        seen += len(batch.images)
    return torch.cat(kept).to(device)
