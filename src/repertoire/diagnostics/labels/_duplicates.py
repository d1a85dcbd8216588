"""Samples of one set that are nearly in another: test images that were trained on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from repertoire.diagnostics._stream import Features, whole
from repertoire.errors import ConfigError, ShapeError
from repertoire.ops import pair_topk

__all__ = ["NearDuplicates", "near_duplicates", "thumbnails"]

FURTHEST = 0.03
"""One less the least cosine of a copy, however far apart images of a set usually are."""

SHARE = 0.06
"""How far a copy may be, of how far a usual image is from the twentieth nearest."""

NEIGHBOURS = 20

_LUMA = (0.299, 0.587, 0.114)
_CHROMA = 0.3


@dataclass(frozen=True)
class NearDuplicates:
    """Pairs that are nearly the same, the most alike first.

    Attributes:
        index: int64 `[m]`, rows of the first set, each once.
        match: int64 `[m]`, the row of the second set that each is most like.
        similarity: float64 `[m]`, their cosine; 1 for two rows of zeros.
        threshold: the least cosine that counted.
    """

    index: Tensor
    match: Tensor
    similarity: Tensor
    threshold: float


@torch.no_grad()
def near_duplicates(x: Features, y: Features | None = None, *, threshold: float | None = None) -> NearDuplicates:
    """Finds the rows of one set that are nearly a row of another, by cosine, without a matrix of pairs.

    Give descriptors that look at the image (`thumbnails`), not features of a network that was trained on the classes:
    there all images of a class end up nearly the same.

    By default the threshold is that of the set: one less the cosine may be at most 0.03, and at most 6 % of what it
    is, in the median, to the twentieth nearest row. Photographs are far apart, and 0.97 tells a copy from another
    picture; of handwritten digits hundreds are nearer than that without being copies. Where different samples lie as
    close as copies do, no threshold tells them apart: look at the pairs.

    Args:
        x: float `[N, d]`; test images, say. In memory or not, see :func:`repertoire.diagnostics.eigenvalue_spectrum`.
        y: float `[M, d]`; training images. x itself if None: then each row is given that is nearly an earlier one,
            with the nearest earlier one of its twenty nearest rows.
        threshold: least cosine, in (0, 1]; None for that of the set.

    Raises:
        ShapeError: no floating point matrices of one width. DataError: a value that is not finite. ConfigError:
            threshold out of range.

    Example:
        >>> import torch
        >>> from repertoire.diagnostics import near_duplicates
        >>> near_duplicates(torch.tensor([[1.0, 0.0], [0.5, 0.6]]), torch.tensor([[0.0, 1.0], [2.0, 0.01]])).index
        tensor([0])
    """
    if threshold is not None and not 0 < threshold <= 1:
        raise ConfigError(f"threshold must lie in (0, 1], found {threshold}")
    rows, others = whole(x), None if y is None else whole(y)
    if others is not None and others.shape[1] != rows.shape[1]:
        raise ShapeError(f"x and y must be of one width, found {rows.shape[1]} and {others.shape[1]} columns")
    among = rows if others is None else others
    if len(rows) < (2 if others is None else 1) or not len(among):
        none = torch.zeros(0, dtype=torch.int64)
        return NearDuplicates(none, none, none.double(), 1 - FURTHEST if threshold is None else threshold)
    count = min(NEIGHBOURS, len(among) - (others is None))
    found = pair_topk(rows, others, count, similarity="cosine", exclude_self=others is None)
    values, near = found.values.double(), found.indices
    if threshold is None:
        usual = float((1 - values[:, -1]).median())
        threshold = 1 - (min(FURTHEST, SHARE * usual) if count == NEIGHBOURS else FURTHEST)
    index = torch.arange(len(rows), device=rows.device)
    if others is None:  # only what is an earlier row; nothing is lower than any cosine
        values = values.masked_fill(near > index[:, None], -2.0)
    best, place = values.max(1)
    match = near.gather(1, place[:, None]).squeeze(1)
    best, match = _blank(rows, others, best, match)
    close = (best >= threshold - 1e-6).nonzero().squeeze(1)
    order = close[best[close].argsort(descending=True, stable=True)]
    return NearDuplicates(order, match[order], best[order], threshold)


def _blank(rows: Tensor, others: Tensor | None, best: Tensor, match: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of zeros are copies of each other, though they have no cosine."""
    zero = ~rows.any(1)
    theirs = (zero if others is None else ~others.any(1)).nonzero().squeeze(1)
    if not len(theirs) or not bool(zero.any()):
        return best, match
    first = int(theirs[0])
    if others is None:
        zero[first] = False  # the first of them is no copy
    return best.masked_fill(zero, 1.0), match.masked_fill(zero, first)


def thumbnails(images: Tensor | np.ndarray, size: int = 16) -> Tensor:
    """Describes images so that the same picture in another size, brightness or compression stays nearly the same.

    Small, and centred; what colour adds to brightness counts for 0.3 of it, so that a copy in grey is found as well
    where the picture is not mainly colour. A picture that is shifted, cropped, turned or mirrored is another one.

    Args:
        images: float `[N, C, H, W]`, or uint8 `[N, H, W, C]`.
        size: height and width of the descriptor.

    Returns:
        float32 `[N, 4 * size * size]` of colour images: brightness less its mean, and each channel less the brightness;
        `[N, C * size * size]` of others, each row less its mean.

    Raises:
        ShapeError: images of another type or shape.

    Example:
        >>> import torch
        >>> from repertoire.diagnostics import thumbnails
        >>> thumbnails(torch.rand(2, 3, 32, 32), 8).shape
        torch.Size([2, 256])
    """
    given = torch.from_numpy(np.ascontiguousarray(images)) if isinstance(images, np.ndarray) else images
    if given.ndim != 4:
        raise ShapeError(f"images must be [N, C, H, W] or uint8 [N, H, W, C], found {list(given.shape)}")
    pixels = given.permute(0, 3, 1, 2).float() if given.dtype == torch.uint8 else given.float()
    small = torch.nn.functional.adaptive_avg_pool2d(pixels, size) if min(pixels.shape[2:]) > size else pixels
    grey = small if small.shape[1] != 3 else torch.einsum("nchw,c->nhw", small, small.new_tensor(_LUMA))[:, None]
    rows = grey.flatten(1) - grey.flatten(1).mean(1, keepdim=True)
    if grey is not small:
        rows = torch.cat([rows, _CHROMA * (small - grey).flatten(1)], 1)
    # What is left of values that are all the same is rounding.
    return rows.masked_fill(rows.abs() <= 1e-6 * small.flatten(1).abs().amax(1, keepdim=True), 0.0)
