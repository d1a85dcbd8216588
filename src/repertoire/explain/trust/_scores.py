"""Scores of heat maps against the object, where its pixels are known."""

from __future__ import annotations

import torch
from torch import Tensor

from repertoire.errors import ShapeError
from repertoire.explain._explainer import check_finite

__all__ = ["energy_inside", "mask_intersection", "pointing_game"]


def pointing_game(maps: Tensor, masks: Tensor) -> Tensor:
    """Tells whether each map is largest inside the object.

    Zhang et al., *Top-down Neural Attention by Excitation Backprop* (2016), without a tolerance around the object.
    Where several pixels share the maximum it is the fraction of them inside, so that a constant map scores what
    pointing at random does.

    Args:
        maps: float `[N, H, W]`.
        masks: bool `[N, H, W]`, true on the object.

    Returns:
        `[N]` in [0, 1]; its mean is the accuracy of the pointing game.

    Raises:
        ShapeError: shapes or dtypes that do not fit, or a mask without an object.

    Example:
        >>> import torch
        >>> from repertoire.explain import pointing_game
        >>> masks = torch.tensor([[[True, False]]]).expand(2, 1, 2)
        >>> pointing_game(torch.tensor([[[0.9, 0.1]], [[0.5, 0.5]]]), masks)
        tensor([1.0000, 0.5000])
    """
    maps, masks = _flat(maps, masks)
    largest = maps == maps.amax(1, keepdim=True)
    return (largest & masks).sum(1) / largest.sum(1).clamp_min(1)


def energy_inside(maps: Tensor, masks: Tensor) -> Tensor:
    """The share of each map's total that falls on the object.

    Wang et al., *Score-CAM* (2020), the energy-based pointing game.

    Args:
        maps: float `[N, H, W]`, none of it negative.
        masks: bool `[N, H, W]`, true on the object.

    Returns:
        `[N]` in [0, 1]; a constant map scores the object's share of the pixels, a map of zeros 0.

    Raises:
        ShapeError: shapes or dtypes that do not fit, a mask without an object, or a map with negative values.

    Example:
        >>> import torch
        >>> from repertoire.explain import energy_inside
        >>> energy_inside(torch.tensor([[[0.75, 0.25]]]), torch.tensor([[[True, False]]]))
        tensor([0.7500])
    """
    maps, masks = _flat(maps, masks)
    if (maps < 0).any():
        raise ShapeError("maps must not be negative")
    total = maps.sum(1)
    return (maps * masks).sum(1) / total.masked_fill(total == 0, 1.0)


def mask_intersection(maps: Tensor, masks: Tensor, threshold: float | None = None) -> Tensor:
    r"""Intersection over union (IoU) of the object and the hot part of each map.

    .. math:: \mathrm{IoU} = \frac{|A \cap B|}{|A \cup B|}, \qquad
              A = \{u : h_u \geq t \max h\} \text{, or the } |B| \text{ hottest pixels}

    Zhou et al., *Learning Deep Features for Discriminative Localization* (2016), take t = 0.2. What a threshold gives
    depends on how peaked an explainer makes its maps; without one, the hot part is as large as the object, which
    compares where maps are hot and nothing else. Of pixels that share the heat of its border, the fraction that is
    needed counts, so that a constant map overlaps with the object as a random one does in the mean.

    Args:
        maps: float `[N, H, W]`, none of it negative if there is a threshold.
        masks: bool `[N, H, W]`, true on the object.
        threshold: t in (0, 1], a share of the map's largest value; None matches the areas.

    Returns:
        `[N]` in [0, 1].

    Raises:
        ShapeError: shapes or dtypes that do not fit, a mask without an object, a threshold outside (0, 1], or a map
            with negative values under a threshold.

    Example:
        >>> import torch
        >>> from repertoire.explain import mask_intersection
        >>> maps, masks = torch.tensor([[[0.9, 0.8, 0.1]]]), torch.tensor([[[True, False, False]]])
        >>> mask_intersection(maps, masks), mask_intersection(maps, masks, threshold=0.5)
        (tensor([1.]), tensor([0.5000]))
    """
    maps, masks = _flat(maps, masks)
    area = masks.sum(1)
    if threshold is None:
        border = maps.sort(1, descending=True).values.gather(1, area[:, None] - 1)
        above, equal = maps > border, maps == border
        # Of the pixels at the border, the share that fills the area.
        share = (area - above.sum(1)) / equal.sum(1)
        inside = (above & masks).sum(1) + share * (equal & masks).sum(1)
        return inside / (2 * area - inside)
    if not 0 < threshold <= 1:
        raise ShapeError(f"threshold must lie in (0, 1], found {threshold}")
    if (maps < 0).any():
        raise ShapeError("maps must not be negative")
    largest = maps.amax(1, keepdim=True)
    hot = (maps >= threshold * largest) & (largest > 0)
    return (hot & masks).sum(1) / (hot | masks).sum(1).to(maps.dtype)


def _flat(maps: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Both as `[N, H * W]`, maps in single precision at least."""
    if maps.ndim != 3 or not maps.is_floating_point():
        raise ShapeError(f"maps must be floating point [N, H, W], found {maps.dtype} {list(maps.shape)}")
    if masks.shape != maps.shape or masks.dtype != torch.bool:
        raise ShapeError(f"masks must be bool {list(maps.shape)}, found {masks.dtype} {list(masks.shape)}")
    check_finite(maps.flatten(1).isfinite().all(1), "the map")
    masks = masks.to(maps.device).flatten(1)
    empty = (~masks.any(1)).nonzero().flatten().tolist()
    if empty:
        raise ShapeError(f"masks without an object, at positions {empty[:10]}{'...' if len(empty) > 10 else ''}")
    return (maps if maps.dtype == torch.float64 else maps.float()).flatten(1), masks
