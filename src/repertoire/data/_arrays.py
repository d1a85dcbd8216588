"""What sources of image arrays share, as opposed to image files: keys and sizes."""

from __future__ import annotations

import hashlib
from typing import Literal

import numpy as np
from PIL import Image, ImageOps

__all__ = ["pixel_keys", "resized"]


def pixel_keys(images: np.ndarray) -> np.ndarray:
    """A 64-bit BLAKE2b hash of each image's pixels, uint64 `[N]`: equal for copies, whatever their place.

    Example:
        >>> keys = pixel_keys(np.zeros((2, 8, 8, 1), dtype=np.uint8))
        >>> bool(keys[0] == keys[1])
        True
    """
    hashes = [hashlib.blake2b(image.tobytes(), digest_size=8).digest() for image in images]
    return np.frombuffer(b"".join(hashes), dtype="<u8").astype(np.uint64)


def resized(images: np.ndarray, size: int, fit: Literal["crop", "squash", "pad"]) -> np.ndarray:
    """Square images of another size: bicubic, antialiased where they shrink.

    Args:
        images: uint8 `[N, H, W, C]`, C being 1 or 3.
        size: side of the result in pixels.
        fit: what happens to images that are not square: "crop" keeps the centre, "squash" changes the proportions, and
            "pad" adds black bars.

    Returns:
        uint8 `[N, size, size, C]`; `images` itself where nothing changes.

    Example:
        >>> resized(np.zeros((2, 8, 10, 3), dtype=np.uint8), 16, "pad").shape
        (2, 16, 16, 3)
    """
    if images.shape[1:3] == (size, size):
        return images
    out = np.empty((len(images), size, size, images.shape[-1]), dtype=np.uint8)
    method = Image.Resampling.BICUBIC
    for number, pixels in enumerate(images):
        image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
        if fit == "crop":
            image = ImageOps.fit(image, (size, size), method)
        elif fit == "pad":
            image = ImageOps.pad(image, (size, size), method)
        else:
            image = image.resize((size, size), method)
        out[number] = np.asarray(image).reshape(size, size, -1)
    return out
