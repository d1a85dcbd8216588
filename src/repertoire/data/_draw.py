"""Draws coloured shapes over textured backgrounds, many images at once; the drawing half of the source `shapes`.

Shapes are signed distance functions in the object's own frame, where each just fits the unit circle: negative inside,
and near the outline the distance to it. The distance in pixels is what makes edges smooth.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

__all__ = ["BACKGROUNDS", "COLOURS", "SHAPES", "TEXTURES", "draw"]

Distance = Callable[[np.ndarray, np.ndarray], np.ndarray]
Texture = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]

COLOURS = ("red", "orange", "yellow", "green", "cyan", "blue", "violet", "pink")
BACKGROUNDS = COLOURS

_HUES = np.array(
    [
        [0.90, 0.12, 0.12],
        [0.98, 0.55, 0.08],
        [0.96, 0.92, 0.15],
        [0.15, 0.78, 0.20],
        [0.10, 0.85, 0.88],
        [0.15, 0.30, 0.95],
        [0.60, 0.20, 0.90],
        [0.98, 0.45, 0.75],
    ],
    dtype=np.float32,
)


def draw(
    shape: np.ndarray,
    colour: np.ndarray,
    texture: np.ndarray,
    background: np.ndarray,
    random: np.ndarray,
    size: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Images and masks.

    Args:
        shape, colour, texture, background: int64 `[N]`, indices into `SHAPES`, `COLOURS`, `TEXTURES`, `BACKGROUNDS`.
        random: uniform numbers in [0, 1), `[N, 13]` or more columns: everything else about an image.
        size: side in pixels.

    Returns:
        uint8 `[N, size, size, 3]`, and bool `[N, size, size]`, true where a pixel's centre is inside the shape.
    """
    radius, angle, across, down, light, tone, depth = (column[:, None, None] for column in random[:, :7].T)
    radius = 0.25 + 0.15 * radius
    angle = 2 * np.pi * angle
    # The centre keeps the whole shape inside the image.
    centre_x = radius + (1 - 2 * radius) * across
    centre_y = radius + (1 - 2 * radius) * down

    line = (np.arange(size) + 0.5) / size
    x, y = line[None, None, :], line[None, :, None]
    u, v = _turned((x - centre_x) / radius, (y - centre_y) / radius, angle)
    distance = _by_kind(shape, [function for _, function in _SHAPES], u, v)
    coverage = np.clip(0.5 - distance * (radius * size).astype(np.float32), 0, 1)

    pattern = _by_kind(texture, [function for _, function in _TEXTURES], *_texture_frame(x, y, random), random[:, 11:])
    base = 0.35 * _HUES[background] + 0.18  # duller and darker than any object
    shade = (0.75 + 0.25 * tone) * (1 - (0.35 + 0.3 * depth) * pattern)
    ground = base[:, None, None, :] * shade[..., None].astype(np.float32)
    figure = _HUES[colour][:, None, None, :] * (0.8 + 0.2 * light[..., None]).astype(np.float32)
    image = ground + (figure - ground) * coverage[..., None]
    return np.rint(image * 255).astype(np.uint8), distance <= 0


def _by_kind(kind: np.ndarray, functions: list[Callable[..., np.ndarray]], *arrays: np.ndarray) -> np.ndarray:
    """Applies to each image the function of its kind: one call for each kind that occurs."""
    out = np.empty(np.broadcast_shapes(*(array.shape for array in arrays if array.ndim == 3)), dtype=np.float32)
    for number in np.unique(kind):
        rows = np.flatnonzero(kind == number)
        out[rows] = functions[number](*(array[rows] for array in arrays))
    return out


def _turned(x: np.ndarray, y: np.ndarray, angle: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    cosine, sine = np.cos(angle), np.sin(angle)
    return (cosine * x + sine * y).astype(np.float32), (cosine * y - sine * x).astype(np.float32)


def _box(x: np.ndarray, y: np.ndarray, half_width: float, half_height: float) -> np.ndarray:
    return np.maximum(np.abs(x) - half_width, np.abs(y) - half_height)


def _star(points: int, inner: float) -> Distance:
    """A star with corners at radius 1 and notches at `inner`; a regular polygon where the notches lie on its sides."""
    half = np.pi / points
    corner, notch = np.array([1.0, 0.0]), inner * np.array([np.cos(half), np.sin(half)])
    normal = np.array([notch[1] - corner[1], corner[0] - notch[0]])
    normal /= np.linalg.norm(normal)
    offset = float(normal @ corner)

    def distance(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        # Rotations and mirrors fold every sector onto the first, where the outline is one straight line.
        angle = np.abs((np.arctan2(y, x) + half) % (2 * half) - half)
        length = np.hypot(x, y)
        return length * np.cos(angle) * np.float32(normal[0]) + length * np.sin(angle) * np.float32(normal[1]) - offset

    return distance


def _crescent(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.maximum(np.hypot(x, y) - 1, 0.8 - np.hypot(x - 0.5, y))


def _cross(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.minimum(_box(x, y, 0.95, 0.28), _box(x, y, 0.28, 0.95))


def _corner(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.minimum(_box(x + 0.45, y, 0.25, 0.7), _box(x, y - 0.45, 0.7, 0.25))


_SHAPES: tuple[tuple[str, Distance], ...] = (
    ("circle", lambda x, y: np.hypot(x, y) - 0.9),
    ("square", lambda x, y: _box(x, y, 0.7, 0.7)),
    ("triangle", _star(3, 0.5)),
    ("star", _star(5, 0.4)),
    ("cross", _cross),
    ("ring", lambda x, y: np.abs(np.hypot(x, y) - 0.75) - 0.2),
    ("diamond", lambda x, y: (np.abs(x) + np.abs(y) / 0.5 - 1) / np.float32(np.hypot(1, 2))),
    ("hexagon", _star(6, np.cos(np.pi / 6))),
    ("crescent", _crescent),
    ("half-disc", lambda x, y: np.maximum(np.hypot(x, y) - 1, x)),
    ("bar", lambda x, y: _box(x, y, 0.95, 0.3)),
    ("corner", _corner),
)
SHAPES = tuple(name for name, _ in _SHAPES)


def _texture_frame(x: np.ndarray, y: np.ndarray, random: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates `[N, S, S]` in periods of the texture: turned, shifted, three to five periods to a side."""
    periods, angle, shift_u, shift_v = (column[:, None, None] for column in random[:, 7:11].T)
    periods = 3 + 2 * periods
    u, v = _turned((x - 0.5) * periods, (y - 0.5) * periods, np.pi * angle)
    return u + shift_u.astype(np.float32), v + shift_v.astype(np.float32)


def _wave(phase: np.ndarray) -> np.ndarray:
    """A wave between 0 and 1 with steep flanks, of period 1."""
    return 0.5 + 0.5 * np.clip(2.5 * np.sin(2 * np.pi * phase), -1, 1)


def _checks(u: np.ndarray, v: np.ndarray, _: np.ndarray) -> np.ndarray:
    return 0.5 + 0.5 * np.clip(4 * np.sin(np.pi * u) * np.sin(np.pi * v), -1, 1)


def _dots(u: np.ndarray, v: np.ndarray, _: np.ndarray) -> np.ndarray:
    return np.clip(0.5 + 6 * (0.3 - np.hypot(u % 1 - 0.5, v % 1 - 0.5)), 0, 1)


def _clouds(u: np.ndarray, v: np.ndarray, random: np.ndarray) -> np.ndarray:
    total = np.zeros_like(u)
    for number in range(5):
        # Directions and phases spread by irrational turns from the two numbers that the image has.
        turn = 2 * np.pi * ((random[:, :2] + (number + 1) * np.array([0.6180339887, 0.7548776662])) % 1)
        direction, phase = (column[:, None, None].astype(np.float32) for column in turn.T)
        reach = 0.35 + 0.2 * number
        total += np.sin(2 * np.pi * reach * (u * np.cos(direction) + v * np.sin(direction)) + phase) / (1 + number)
    return np.clip(0.5 + 0.4 * total, 0, 1)


def _rings(u: np.ndarray, v: np.ndarray, random: np.ndarray) -> np.ndarray:
    centre = (4 * random[:, :2] - 2)[:, None, None, :].astype(np.float32)
    return _wave(np.hypot(u - centre[..., 0], v - centre[..., 1]))


def _zigzag(u: np.ndarray, v: np.ndarray, _: np.ndarray) -> np.ndarray:
    return _wave(u + np.abs(v % 1 - 0.5))


def _grain(u: np.ndarray, v: np.ndarray, random: np.ndarray) -> np.ndarray:
    """White noise, one number a pixel, from a multiplicative hash of its place and of the image's number."""
    count, height, width = u.shape
    start = (random[:, :1] * 2**53).astype(np.uint64)
    mixed = (start + np.arange(1, height * width + 1, dtype=np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    return ((mixed >> np.uint64(40)) * 2.0**-24).astype(np.float32).reshape(count, height, width)


_TEXTURES: tuple[tuple[str, Texture], ...] = (
    ("stripes", lambda u, v, _: _wave(u)),
    ("checks", _checks),
    ("dots", _dots),
    ("clouds", _clouds),
    ("rings", _rings),
    ("zigzag", _zigzag),
    ("grain", _grain),
    ("weave", lambda u, v, _: 0.5 * _wave(u) + 0.5 * _wave(v)),
)
TEXTURES = tuple(name for name, _ in _TEXTURES)
