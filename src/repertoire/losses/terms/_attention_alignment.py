"""The attention of a layer, aligned with a heat map that says where to look."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from repertoire.errors import ShapeError
from repertoire.losses.contracts._base import Reduction, reduce
from repertoire.losses.contracts._classes import at_least_float32
from repertoire.ranges import checked

__all__ = ["attention_alignment"]


@checked
def attention_alignment(maps: Tensor, heat: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    r"""One minus the cosine between a layer's attention and a heat map that says where to look.

    Belharbi et al., *Guided Interpretable Facial Expression Recognition via Spatial Action Unit Cues* (2024). With the
    K maps :math:`A^k` of a layer and a heat map H, brought to the size of the maps by averaging:

    .. math::
        T = \frac{1}{K} \sum_k A^k, \qquad
        \ell = 1 - \frac{\langle T, H \rangle}{\lVert T \rVert \, \lVert H \rVert}

    Added to a loss on logits, it teaches a layer where to look and leaves the network as it is; method `guided` does
    so.

    Args:
        maps: float `[N, K, h, w]`; of tokens, their grid.
        heat: `[N, H, W]` of any size and dtype (a bool mask, say), none of it negative. A heat map without any heat
            says nothing: its loss is 0, and it does not count in the mean.
        reduction: "mean" (default, over the images with heat) and "sum" give a scalar, "none" gives `[N]`.

    Returns:
        The loss, each image's in [0, 2]; float32 for half-precision maps, else of their dtype.

    Raises:
        ShapeError: shapes that do not fit.

    Example:
        >>> import torch
        >>> from repertoire.losses import attention_alignment
        >>> maps = torch.tensor([[[[3.0, 0.0]]], [[[0.0, 2.0]]]])
        >>> attention_alignment(maps, torch.tensor([[[1.0, 0.0]], [[1.0, 0.0]]]), reduction="none")
        tensor([0., 1.])
    """
    if maps.ndim != 4 or not maps.is_floating_point():
        raise ShapeError(f"maps must be floating point [N, K, h, w], found {maps.dtype} {list(maps.shape)}")
    if heat.ndim != 3 or len(heat) != len(maps):
        raise ShapeError(f"heat must be [{len(maps)}, H, W], found {list(heat.shape)}")
    attention = at_least_float32(maps).mean(1)
    size = (attention.shape[1], attention.shape[2])
    wanted = F.adaptive_avg_pool2d(heat.to(attention.dtype)[:, None], size)[:, 0]
    known = wanted.flatten(1).any(1)
    losses = (1 - F.cosine_similarity(attention.flatten(1), wanted.flatten(1))) * known
    return losses.sum() / known.sum().clamp_min(1) if reduction == "mean" else reduce(losses, reduction)
