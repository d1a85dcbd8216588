"""Samples of one set that are nearly in another: test images that were trained on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from repertoire.errors import ConfigError, ShapeError
from repertoire.ops import pair_topk

__all__ = ["NearDuplicates", "near_duplicates", "thumbnails"]


@dataclass(frozen=True)
class NearDuplicates:
    """Pairs that are nearly the same, the most alike first.

    Attributes:
        index: int64 `[m]`, rows of the first set, each once.
        match: int64 `[m]`, the row of the second set that each is most like.
        similarity: float64 `[m]`, their cosine.
    """

    index: Tensor
    match: Tensor
    similarity: Tensor


@torch.no_grad()
def near_duplicates(x: Tensor, y: Tensor | None = None, *, threshold: float = 0.99) -> NearDuplicates:
    """Rows of one set that are nearly a row of another, by cosine, without a matrix of pairs.

    Give descriptors that look at the image (`thumbnails`), not features of a network that was trained on the classes:
    there all images of a class end up nearly the same.

    Args:
        x: float `[N, d]`; test images, say.
        y: float `[M, d]`; training images. x itself if None: then each pair is found once, from its later row.
        threshold: least cosine, in (0, 1].

    Raises:
        ShapeError: no floating point matrices of one width. ConfigError: threshold out of range.

    Example:
        >>> import torch
        >>> from repertoire.diagnostics import near_duplicates
        >>> near_duplicates(torch.tensor([[1.0, 0.0], [0.5, 0.6]]), torch.tensor([[0.0, 1.0], [2.0, 0.01]])).index
        tensor([0])
    """
    if not 0 < threshold <= 1:
        raise ConfigError(f"threshold must lie in (0, 1], found {threshold}")
    if x.ndim != 2 or (y is not None and (y.ndim != 2 or y.shape[1] != x.shape[1])):
        raise ShapeError(
            f"x and y must be matrices of one width, found {list(x.shape)} and {None if y is None else list(y.shape)}"
        )
    if len(x) < (2 if y is None else 1) or (y is not None and not len(y)):
        none = torch.zeros(0, dtype=torch.int64)
        return NearDuplicates(none, none, none.double())
    if y is None:
        found = pair_topk(x, None, 1, similarity="cosine", exclude_self=True)
    else:
        found = pair_topk(x, y, 1, similarity="cosine")
    values, match = found.values.squeeze(1).double(), found.indices.squeeze(1)
    close = values >= threshold - 1e-6
    if y is None:
        rows = torch.arange(len(x), device=x.device)
        # Two rows that are each other's nearest would be found twice.
        close &= (match < rows) | (match[match] != rows)
    index = close.nonzero().squeeze(1)
    order = index[values[index].argsort(descending=True, stable=True)]
    return NearDuplicates(order, match[order], values[order])


def thumbnails(images: Tensor, size: int = 16) -> Tensor:
    """Descriptors of images that see the same picture in another size, brightness or compression: small and centred.

    Args:
        images: float `[N, C, H, W]`, or uint8 `[N, H, W, C]`.
        size: height and width of the descriptor.

    Returns:
        float32 `[N, C * size * size]`, every row less its mean.

    Raises:
        ShapeError: images of another type or shape.

    Example:
        >>> import torch
        >>> from repertoire.diagnostics import thumbnails
        >>> thumbnails(torch.rand(2, 3, 32, 32), 8).shape
        torch.Size([2, 192])
    """
    if images.ndim != 4:
        raise ShapeError(f"images must be [N, C, H, W] or uint8 [N, H, W, C], found {list(images.shape)}")
    pixels = images.permute(0, 3, 1, 2).float() if images.dtype == torch.uint8 else images.float()
    small = torch.nn.functional.adaptive_avg_pool2d(pixels, size) if min(pixels.shape[2:]) > size else pixels
    rows = small.flatten(1)
    return rows - rows.mean(1, keepdim=True)
