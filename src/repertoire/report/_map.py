"""A two-dimensional map of the embeddings, in which a class has both a colour and a shape."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from markupsafe import Markup

from repertoire.ops import pair_topk
from repertoire.report._figures import Scale, element, spread
from repertoire.report._text import shorten
from repertoire.report._tsne import principal_components, tsne

__all__ = ["COLOURS", "SHAPES", "Layout", "Point", "arrange", "marker", "scatter", "short_names"]

MOST = 2000
"""Points on the map; more would hide one another, and t-SNE would take minutes."""

FEW = 400
"""Points up to which t-SNE is computed exactly, without a package for many, which takes longer to import."""

DIRECTIONS = 50
"""Principal directions that t-SNE sees."""

LEAST = 30
"""Points for which t-SNE has neighbourhoods to speak of; fewer are projected linearly."""

COLOURS = 10
"""Number of colours in the style sheet; with the ten shapes they tell 100 classes apart."""

MOST_NAMES = 20
"""Classes whose names fit on the map; more are marked there by the numbers that the legend gives them."""

WIDTH, HEIGHT, MARGIN = 640, 520, 18


@dataclass(frozen=True)
class Layout:
    """Places of the points.

    Attributes:
        index: which rows of the embeddings are shown, ascending, int64 `[n]`.
        positions: float64 `[n, 2]`.
        method: "t-SNE" or "PCA".
        neighbours: for each point shown, the position in `index` of its nearest neighbour in the embedding, int64
            `[n]`; empty for a single point.
    """

    index: np.ndarray
    positions: np.ndarray
    method: str
    neighbours: np.ndarray


def arrange(embeddings: np.ndarray, *, most: int = MOST, seed: int = 0) -> Layout:
    """Places embeddings in the plane: PCA to 50 dimensions, then t-SNE; PCA alone for a few or for equal points.

    t-SNE: van der Maaten and Hinton, *Visualizing Data using t-SNE* (2008), of up to `FEW` points exactly. The same
    embeddings give the same map.

    Args:
        embeddings: `[N, d]`, N >= 1; what is not finite (an overflow of half precision) is clipped.
        most: beyond this number a fixed random subset is shown.
        seed: of the subset and of t-SNE.
    """
    total = len(embeddings)
    index = np.arange(total)
    if total > most:
        index = np.sort(np.random.default_rng(seed).choice(total, most, replace=False))
    shown = np.nan_to_num(embeddings[index].astype(np.float64), posinf=65504.0, neginf=-65504.0)
    count, width = shown.shape
    if count == 1:
        return Layout(index, np.zeros((1, 2)), "PCA", np.zeros(0, np.int64))
    few = count <= FEW
    if few:
        shown = principal_components(shown, DIRECTIONS)
    elif np.ptp(shown, axis=0).any():
        from sklearn.decomposition import PCA

        shown = PCA(min(DIRECTIONS, count, width), random_state=seed).fit_transform(shown)
    else:
        shown = np.zeros((count, 1))
    found = pair_topk(torch.from_numpy(shown), largest=False, similarity="euclidean", exclude_self=True)
    nearest = found.indices[:, 0].numpy()
    plane = np.zeros((count, 2))
    plane[:, : min(2, shown.shape[1])] = shown[:, :2]
    if count < LEAST or np.ptp(plane[:, 0]) == 0 or shown.shape[1] < 2:
        return Layout(index, plane, "PCA", nearest)
    perplexity = min(30.0, (count - 1) / 3)
    if few:
        plane = tsne(shown, perplexity=perplexity)
    else:
        from sklearn.manifold import TSNE

        plane = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(shown).astype(np.float64)
    return Layout(index, plane, "t-SNE", nearest)


@dataclass(frozen=True)
class Point:
    """One image on the map: its class, whether the model is right about it, and what the pointer shows."""

    label: int
    right: bool
    hint: str


def scatter(positions: np.ndarray, points: Sequence[Point], classes: Sequence[str], *, description: str) -> Markup:
    """The map: a marker an image, a ring around those the model is wrong about, and where each class's middle is.

    Args:
        positions: `[n, 2]`, on any scale; one unit is as long across as up.
        points: what is at each position.
        classes: all class names; a class without a point is not named.
        description: what a reader who does not see the figure is told.
    """
    low, high = positions.min(0), positions.max(0)
    scale = min((WIDTH - 2 * MARGIN) / max(high[0] - low[0], 1e-9), (HEIGHT - 2 * MARGIN) / max(high[1] - low[1], 1e-9))
    middle = (low + high) / 2
    across = Scale(middle[0], middle[0] + 1, WIDTH / 2, WIDTH / 2 + scale)
    up = Scale(middle[1], middle[1] + 1, HEIGHT / 2, HEIGHT / 2 - scale)
    places = [(across(float(x)), up(float(y))) for x, y in positions]
    members: dict[int, list[int]] = {}
    for i, point in enumerate(points):
        members.setdefault(point.label, []).append(i)
    drawn = [
        element(
            "defs", *(element("path", id=f"shape-{k}", d=path, fill_rule="evenodd") for k, path in enumerate(SHAPES))
        )
    ]
    for label, rows in sorted(members.items()):
        uses = (_point(points[i], *places[i]) for i in rows)
        drawn.append(element("g", *uses, class_=_colour(label), data_class=label))
    drawn.append(_names({label: [places[i] for i in rows] for label, rows in members.items()}, short_names(classes)))
    box = f"0 0 {WIDTH} {HEIGHT}"
    return element("svg", *drawn, class_="map", viewBox=box, role="img", aria_label=description)


def marker(label: int) -> Markup:
    """The marker of a class on its own, for a legend."""
    shape = element("path", d=SHAPES[_shape(label)], fill_rule="evenodd")
    return element("svg", shape, class_=f"marker {_colour(label)}", viewBox="-7 -7 14 14", aria_hidden="true")


def _colour(label: int) -> str:
    return f"k{label % COLOURS}"


def _shape(label: int) -> int:
    """One on with every round of the colours, so that no two of the first hundred classes share both."""
    return (label + label // COLOURS) % len(SHAPES)


def _point(point: Point, x: float, y: float) -> Markup:
    ring = Markup("") if point.right else element("circle", class_="wrong", r=7.2)
    shape = element("use", href=f"#shape-{_shape(point.label)}")
    place = f"translate({x:.1f} {y:.1f})"
    return element("g", element("title", point.hint), shape, ring, class_="point", transform=place)


def short_names(classes: Sequence[str]) -> list[str]:
    """Names of the classes on the map, or their numbers where there are too many."""
    if len(classes) > MOST_NAMES:
        return [str(number) for number in range(1, len(classes) + 1)]
    return [shorten(name, 14) for name in classes]


def _names(places: dict[int, list[tuple[float, float]]], names: Sequence[str]) -> Markup:
    """Class names at the medians of their points, moved apart up and down within columns of the map."""
    columns: dict[int, list[tuple[int, float, float]]] = {}
    for label, spots in sorted(places.items()):
        x, y = (float(value) for value in np.median(np.array(spots), axis=0))
        columns.setdefault(int(x // 90), []).append((label, x, y))
    drawn = []
    for column in columns.values():
        heights = spread([y for _, _, y in column], 15, 12, HEIGHT - 6)
        for (label, x, _), y in zip(column, heights, strict=True):
            drawn.append(element("text", names[label], class_="place", x=x, y=y, data_class=label))
    return element("g", *drawn, class_="places", aria_hidden="true")


def _polygon(count: int, radii: Sequence[float], turn: float) -> str:
    corners = []
    for k in range(count):
        angle = 2 * math.pi * k / count + turn
        radius = radii[k % len(radii)]
        corners.append(f"{radius * math.sin(angle):.2f},{-radius * math.cos(angle):.2f}")
    return f"M{'L'.join(corners)}Z"


def _cross(turn: float) -> str:
    """A plus sign with arms of equal width."""
    near, far = 1.3, 5.0
    corners = [(near, -far), (near, -near), (far, -near), (far, near), (near, near), (near, far)]
    corners += [(-x, -y) for x, y in corners]
    turned = [(x * math.cos(turn) - y * math.sin(turn), x * math.sin(turn) + y * math.cos(turn)) for x, y in corners]
    return f"M{'L'.join(f'{x:.2f},{y:.2f}' for x, y in turned)}Z"


def _circle(radius: float) -> str:
    return f"M{-radius},0a{radius},{radius} 0 1,1 {2 * radius},0a{radius},{radius} 0 1,1 {-2 * radius},0Z"


SHAPES = (
    _circle(3.8),
    _polygon(4, [5.0], math.pi / 4),
    _polygon(3, [5.2], 0.0),
    _cross(0.0),
    _polygon(4, [5.4], 0.0),
    _polygon(3, [5.2], math.pi),
    _cross(math.pi / 4),
    _polygon(10, [5.8, 2.3], 0.0),
    _circle(4.8) + _circle(2.6),
    _polygon(4, [6.2], math.pi / 4) + _polygon(4, [3.2], math.pi / 4),
)
"""Outlines of the markers, centred on the origin; the last two are hollow (even-odd filling).

Ten, so that up to ten classes are told apart without colour."""
