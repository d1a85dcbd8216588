"""A score of an encoder without labels: can a linear classifier tell from its features how an image was turned?"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from repertoire.errors import ConfigError, ShapeError

__all__ = ["rotation_probe"]


@torch.no_grad()
def rotation_probe(
    embed: Callable[[Tensor], Tensor], images: Tensor, *, held_out: float = 0.3, batch_size: int = 256, seed: int = 0
) -> float:
    r"""Accuracy of a linear classifier of four rotations on frozen features: ranks encoders without labels.

    Reed et al., *SelfAugment: Automatic Augmentation Policies for Self-Supervised Learning* (2021): over many
    augmentation policies this accuracy ranks encoders nearly as labels would. Every image is turned by 0, 90, 180 and
    270 degrees; all four turns of an image are fitted to, or all are tested on. Images that look the same either way
    round, such as cells or textures, have no rotation to tell, and give 0.25.

    Args:
        embed: images float `[n, C, H, W]` to features `[n, d]`; a network, in the mode that is to be scored.
        images: float `[N, C, H, W]`, square.
        held_out: share of the images that is tested on, in (0, 1).
        batch_size: images that are passed through at a time.
        seed: of the draw of the images that are tested on.

    Returns:
        Accuracy in [0, 1]; 0.25 is chance.

    Raises:
        ShapeError: images that are not square, or fewer than four of them. ConfigError: held_out out of range.

    Example:
        >>> import torch
        >>> from repertoire.diagnostics import rotation_probe
        >>> images = torch.zeros(20, 1, 4, 4)
        >>> images[:, :, 0] = 1 + torch.rand(20, 1, 4, generator=torch.Generator().manual_seed(0))
        >>> rotation_probe(lambda x: x.flatten(1), images)
        1.0
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if images.ndim != 4 or images.shape[2] != images.shape[3] or len(images) < 4:
        raise ShapeError(f"images must be four or more, square, [N, C, H, H], found {list(images.shape)}")
    if not 0 < held_out < 1:
        raise ConfigError(f"held_out must lie in (0, 1), found {held_out}")
    found = [
        torch.cat([embed(torch.rot90(part, turn, (2, 3))).float().cpu() for part in images.split(batch_size)]).numpy()
        for turn in range(4)
    ]
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed)).numpy()
    cut = min(max(1, round(held_out * len(images))), len(images) - 1)
    unseen, seen = order[:cut], order[cut:]
    turns = [np.repeat(np.arange(4), len(part)) for part in (seen, unseen)]
    fitted, tested = (np.concatenate([features[part] for features in found]) for part in (seen, unseen))
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=300)).fit(fitted, turns[0])
    return float(classifier.score(tested, turns[1]))
