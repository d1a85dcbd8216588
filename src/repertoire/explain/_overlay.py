"""Heat maps as pictures."""

from __future__ import annotations

import functools
import os
from typing import Any

import numpy as np

from repertoire.errors import ShapeError
from repertoire.files import atomic_path

__all__ = ["colour_map", "overlay", "save_overlay"]


@functools.cache
def colour_map() -> np.ndarray:
    """The colours of heat: matplotlib's inferno, from black to a light yellow, ever lighter, so that it needs no hue.

    Returns:
        uint8 `[256, 3]`; to be read, not written to.

    Example:
        >>> from repertoire.explain import colour_map
        >>> colour_map()[0].tolist(), colour_map()[255].tolist()
        ([0, 0, 3], [252, 254, 164])
    """
    import matplotlib

    return matplotlib.colormaps["inferno"](np.arange(256), bytes=True)[:, :3]


def overlay(image: Any, heat: Any, opacity: float = 0.6) -> np.ndarray:
    """A heat map laid over its image.

    The image is shown in grey, so that all colour is the map's, from black (none) over red to yellow (most). Its
    lightness grows with the heat, so the picture can be read in grey and without colour vision.

    Args:
        image: uint8 `[H, W]`, `[H, W, 1]` or `[H, W, 3]`, array or tensor.
        heat: float `[H, W]` in [0, 1], array or tensor.
        opacity: of the map, from 0 (only the image) to 1 (only the map).

    Returns:
        uint8 array `[H, W, 3]`.

    Raises:
        ShapeError: an image of another dtype or shape, a map of another size or outside [0, 1], an opacity outside.

    Example:
        >>> import numpy as np
        >>> from repertoire.explain import overlay
        >>> picture = overlay(np.zeros((2, 2, 3), np.uint8), np.array([[0.0, 0.3], [0.6, 1.0]]))
        >>> picture.shape, picture.dtype
        ((2, 2, 3), dtype('uint8'))
    """
    pixels, values = _array(image), _array(heat)
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] not in (1, 3)):
        raise ShapeError(f"image must be uint8 [H, W], [H, W, 1] or [H, W, 3], found {pixels.dtype} {pixels.shape}")
    if values.shape != pixels.shape[:2]:
        raise ShapeError(f"heat must be {list(pixels.shape[:2])} like the image, found {list(values.shape)}")
    if not ((values >= 0) & (values <= 1)).all():
        raise ShapeError(
            f"heat must lie in [0, 1], found {values.min():g} to {values.max():g}; divide each map by its maximum, "
            "which explainers do with normalize=True"
        )
    if not 0 <= opacity <= 1:
        raise ShapeError(f"opacity must lie in [0, 1], found {opacity}")
    grey = _grey(pixels)[..., None]
    colour = colour_map()[np.rint(values * 255).astype(np.int64)]
    return np.rint((1 - opacity) * grey + opacity * colour).astype(np.uint8)


def save_overlay(path: str | os.PathLike[str], image: Any, heat: Any, opacity: float = 0.6) -> None:
    """Writes what `overlay` gives as a PNG file, atomically; missing directories are made.

    Args:
        path: the file, whatever its suffix.
        image, heat, opacity: as `overlay` takes them.

    Raises:
        ShapeError: as `overlay`.
        RunError: the disk is full.
    """
    from PIL import Image

    picture = Image.fromarray(overlay(image, heat, opacity))
    with atomic_path(path) as temporary:
        picture.save(temporary, format="PNG")


def _array(value: Any) -> np.ndarray:
    return value.detach().cpu().numpy() if hasattr(value, "detach") else np.asarray(value)


def _grey(pixels: np.ndarray) -> np.ndarray:
    """Luma as in ITU-R BT.601, float `[H, W]`."""
    if pixels.ndim == 2:
        return pixels.astype(np.float64)
    return pixels @ (np.array([0.299, 0.587, 0.114]) if pixels.shape[2] == 3 else np.ones(1))
