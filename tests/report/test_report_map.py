"""The map of the embeddings: deterministic, at ease with odd input, readable without colour."""

from __future__ import annotations

import itertools
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from repertoire.report import _map
from repertoire.report._map import COLOURS, SHAPES, Point, arrange, marker, scatter, short_names


def clusters(count: int, width: int = 8) -> tuple[np.ndarray, np.ndarray]:
    labels = np.arange(count) % 3
    noise = np.random.default_rng(0).normal(0, 0.1, (count, width))
    return (np.eye(3, width)[labels] * 5 + noise).astype(np.float16), labels


def test_few_points_are_projected_linearly() -> None:
    embeddings = np.array([[0.0, 0, 0], [1, 0, 0], [2, 0, 0], [0, 1, 0]])
    layout = arrange(embeddings)
    assert layout.method == "PCA"
    wanted = np.linalg.norm(embeddings[:, None] - embeddings, axis=2)
    assert np.linalg.norm(layout.positions[:, None] - layout.positions, axis=2) == pytest.approx(wanted, abs=1e-9)


def test_clusters_stay_together_and_the_map_is_always_the_same() -> None:
    embeddings, labels = clusters(60)
    layout = arrange(embeddings)
    assert layout.method == "t-SNE"
    assert (labels[layout.neighbours] == labels).all()
    centres = np.stack([layout.positions[labels == k].mean(0) for k in range(3)])
    assert (np.linalg.norm(layout.positions[:, None] - centres, axis=2).argmin(1) == labels).all()
    assert np.array_equal(arrange(embeddings).positions, layout.positions)


def test_many_points_have_a_map_of_the_same_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_map, "FEW", 40)
    embeddings, labels = clusters(60)
    layout = arrange(embeddings)
    centres = np.stack([layout.positions[labels == k].mean(0) for k in range(3)])
    assert (np.linalg.norm(layout.positions[:, None] - centres, axis=2).argmin(1) == labels).all()


def test_a_large_set_is_thinned() -> None:
    layout = arrange(clusters(50)[0], most=20)
    assert len(layout.index) == len(layout.positions) == len(set(layout.index.tolist())) == 20
    assert (np.diff(layout.index) > 0).all()


@pytest.mark.parametrize(
    "embeddings",
    [
        np.zeros((40, 4)),
        np.ones((1, 4)),
        np.arange(40.0)[:, None],
        np.full((40, 4), np.inf, np.float16),
        np.repeat(np.eye(2), 20, axis=0),
    ],
    ids=["equal", "one", "one dimension", "overflow", "duplicates"],
)
def test_odd_embeddings_have_a_map(embeddings: np.ndarray) -> None:
    layout = arrange(embeddings)
    assert np.isfinite(layout.positions).all()
    points = [Point(0, True, "")] * len(embeddings)
    assert "nan" not in scatter(layout.positions, points, ["a"], description="")


def test_up_to_ten_classes_differ_in_shape_and_up_to_a_hundred_in_shape_or_colour() -> None:
    assert len({marker(k).split("class=")[0] + marker(k).split("<path")[1] for k in range(10)}) == 10
    assert len({marker(k) for k in range(100)}) == 100 == COLOURS * len(SHAPES)


def test_scatter_keeps_proportions_and_rings_the_mistakes() -> None:
    positions = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    points = [Point(0, True, "a"), Point(1, False, "b <i>"), Point(0, True, "c")]
    figure = scatter(positions, points, ["x", "y"], description="")
    root = ElementTree.fromstring(str(figure))
    groups = {
        part.find("title").text: part  # type: ignore[union-attr]
        for part in root.iter("g")
        if part.get("class") == "point"
    }
    places = {
        name: np.array([float(v) for v in part.get("transform", "")[10:-1].split()]) for name, part in groups.items()
    }
    right, up = places["b <i>"] - places["a"], places["c"] - places["a"]
    assert right[0] == pytest.approx(-up[1], abs=0.2)
    assert right[0] > 0
    assert [name for name, part in groups.items() if part.find("circle") is not None] == ["b <i>"]


def test_many_classes_are_numbered() -> None:
    assert short_names(["a", "a very long name of a class"]) == ["a", "a very long n…"]
    assert short_names([f"name {k}" for k in range(21)])[:2] == ["1", "2"]


def test_names_do_not_cover_each_other() -> None:
    positions = np.zeros((5, 2))
    positions[:, 0] = np.arange(5) * 1e-3
    positions[0] = [1.0, 1.0]
    figure = scatter(positions, [Point(k, True, "") for k in range(5)], list("abcde"), description="")
    heights = [
        float(p.get("y", "nan"))
        for p in ElementTree.fromstring(str(figure)).iter("text")
        if p.get("class") == "place" and p.text != "a"
    ]
    assert all(abs(a - b) >= 14.9 for a, b in itertools.combinations(heights, 2))
