"""The handwritten digits that come with scikit-learn."""

from __future__ import annotations

import numpy as np

from repertoire.data._arrays import pixel_keys, resized
from repertoire.data._source import SourceRequest
from repertoire.data._splits import make_splits
from repertoire.data._types import ImageSet, Splits
from repertoire.registry import register

__all__ = ["digits"]


@register("data", "digits")
def digits(request: SourceRequest) -> Splits:
    """1797 handwritten digits of 8 x 8 grey pixels, part of scikit-learn: nothing to fetch, and trained in seconds.

    Other sizes are interpolated (bicubic, antialiased when smaller). The splits are those of the original pixels, at
    every size.

    Args:
        request: `size` is the side in pixels, by default 8.

    Example:
        >>> splits = digits(SourceRequest())
        >>> splits.classes[3], splits.train.images.shape[1:]
        ('3', (8, 8, 1))
    """
    from sklearn.datasets import load_digits  # costs half a second, and only this source needs it

    data = load_digits()
    # The values are counts from 0 to 16.
    images = np.rint(data.images * (255 / 16)).astype(np.uint8)[..., None]
    whole = ImageSet(
        images if request.size is None else resized(images, request.size, request.fit),
        data.target.astype(np.int64),
        [str(number) for number in range(len(images))],
        tuple(str(name) for name in data.target_names),
        pixel_keys(images),
    )
    return make_splits(
        whole, seed=request.seed, val=request.val, test=request.test, source="digits", augmentation="shift"
    )
