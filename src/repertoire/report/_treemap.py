"""The zoomable map of the images: thumbnails on one sheet, and the tree that the page's script lays out."""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from repertoire.data import ImageSet
from repertoire.diagnostics import Hierarchy
from repertoire.report._text import label, shorten

__all__ = ["MOST_TILES", "treemap"]

MOST_TILES = 4000
"""Images on the map, which bounds the page: at 32 pixels a side they take some 2 MB."""

LARGEST_TILE = 32
"""Side of a thumbnail, in pixels; for few images the double."""


def treemap(
    tree: Hierarchy, images: ImageSet, predicted: np.ndarray, confidence: np.ndarray, classes: Sequence[str]
) -> dict[str, Any]:
    """Data that the page draws the map from.

    Args:
        tree: of all images, no more than `MOST_TILES`.
        images: what it was made of.
        predicted: int64 `[N]`.
        confidence: `[N]`, of the prediction.
        classes: class names as they are to be shown.

    Returns:
        `sheet`, a `data:` address of all thumbnails in the order of the tree; `data`, JSON that is safe inside a script
        element; `tiles`, how many there are.
    """
    order = tree.order
    side = LARGEST_TILE * (2 if len(order) <= 500 else 1)
    height, width = images.size
    scale = min(1.0, side / max(height, width))
    tile_h, tile_w = max(1, round(height * scale)), max(1, round(width * scale))
    columns = math.ceil(math.sqrt(len(order) * tile_h / tile_w))
    data = {
        "columns": columns,
        "tile": [tile_w, tile_h],
        "classes": list(classes),
        "label": images.labels[order].tolist(),
        "predicted": predicted[order].tolist(),
        "confidence": [round(float(value), 3) for value in confidence[order]],
        "name": [shorten(label(images.names[i]), 48, keep="end") for i in order],
        "start": tree.start.tolist(),
        "end": tree.end.tolist(),
        "parent": tree.parent.tolist(),
    }
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    # Within a script element only these could end it or begin a comment.
    for bad in "<>&\u2028\u2029":
        text = text.replace(bad, f"\\u{ord(bad):04x}")
    return {"sheet": _sheet(images, order, columns, tile_w, tile_h), "data": Markup(text), "tiles": len(order)}


def _sheet(images: ImageSet, order: np.ndarray, columns: int, width: int, height: int) -> str:
    from PIL import Image

    rows = math.ceil(len(order) / columns)
    sheet = Image.new("L" if images.channels == 1 else "RGB", (columns * width, rows * height))
    for start in range(0, len(order), 256):
        for k, pixels in enumerate(images.pixels(order[start : start + 256]), start):
            tile = Image.fromarray(pixels[..., 0] if images.channels == 1 else pixels)
            if tile.size != (width, height):
                tile = tile.resize((width, height), Image.Resampling.BOX)
            sheet.paste(tile, ((k % columns) * width, (k // columns) * height))
    buffer = io.BytesIO()
    sheet.save(buffer, "JPEG", quality=80, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
