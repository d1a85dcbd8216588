from __future__ import annotations

import itertools
import math

import pytest
import torch

from repertoire.errors import ConfigError, ShapeError
from repertoire.select import badge, coreset, entropy, least_confidence, margin, typical


def distributions(seed: int, count: int = 30, classes: int = 4) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, classes, generator=generator, dtype=torch.float64).mul(2).softmax(1)


def ordered(scores: list[float], budget: int) -> list[int]:
    return sorted(range(len(scores)), key=lambda i: (-scores[i], i))[:budget]


@pytest.mark.parametrize("seed", range(4))
def test_uncertainty_agrees_with_the_formulas(seed: int):
    p = distributions(seed)
    rows = p.tolist()
    assert entropy(p, 8).tolist() == ordered([-sum(x * math.log(x) for x in row) for row in rows], 8)
    assert margin(p, 8).tolist() == ordered([sorted(row)[-2] - sorted(row)[-1] for row in rows], 8)
    assert least_confidence(p, 8).tolist() == ordered([-max(row) for row in rows], 8)


def test_certainty_has_no_entropy_and_ties_are_taken_in_order():
    p = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.5, 0.5], [0.5, 0.5]])
    for selector in (entropy, margin, least_confidence):
        assert selector(p, 4).tolist() == [2, 3, 0, 1]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("some", [True, False])
def test_coreset_is_the_greedy_cover(seed: int, some: bool):
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(25, 3, generator=generator, dtype=torch.float64)
    labelled = torch.randn(4, 3, generator=generator, dtype=torch.float64) if some else None
    found = coreset(z, 6, labelled).tolist()
    centres = [] if labelled is None else list(labelled)
    expected = []
    if not some:
        first = min(range(25), key=lambda i: float((z[i] - z.mean(0)).norm()))
        expected, centres = [first], [z[first]]
    while len(expected) < 6:
        far = max(range(25), key=lambda i: min(float((z[i] - c).norm()) for c in centres))
        expected.append(far)
        centres.append(z[far])
    assert found == expected


def test_coreset_covers_within_twice_what_is_possible():
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(12, 2, generator=generator, dtype=torch.float64)
    distance = torch.cdist(z, z)

    def radius(chosen) -> float:
        return float(distance[:, list(chosen)].amin(1).max())

    best = min(radius(each) for each in itertools.combinations(range(12), 3))
    assert radius(coreset(z, 3).tolist()) <= 2 * best + 1e-9


@pytest.mark.parametrize("seed", range(4))
def test_badge_is_kmeans_plus_plus_on_the_gradients(seed: int):
    generator = torch.Generator().manual_seed(seed)
    p, z = distributions(seed), torch.randn(30, 3, generator=generator, dtype=torch.float64)
    weight = torch.zeros(4, 3, dtype=torch.float64)
    gradients = []
    for i in range(30):
        # The gradient of cross-entropy in the last layer at logits log p, for the predicted class.
        layer = weight.clone().requires_grad_()
        logits = z[i] @ layer.T + p[i].log()
        torch.nn.functional.cross_entropy(logits[None], p[i].argmax()[None]).backward()
        gradients.append(layer.grad.flatten())
    g = torch.stack(gradients)
    found = badge(p, z, 6, torch.Generator().manual_seed(9)).tolist()
    draw = torch.Generator().manual_seed(9)
    expected = [int(g.norm(dim=1).argmax())]
    while len(expected) < 6:
        nearest = torch.stack([(g - g[i]).square().sum(1) for i in expected]).amin(0)
        nearest[expected] = 0
        edges = nearest.cumsum(0)
        expected.append(int(torch.searchsorted(edges, torch.rand(1, generator=draw, dtype=torch.float64) * edges[-1])))
    assert found == expected


def test_badge_goes_on_where_nothing_is_left_to_learn():
    p = torch.tensor([[1.0, 0.0]]).repeat(6, 1)
    assert sorted(badge(p, torch.randn(6, 2), 6, torch.Generator().manual_seed(0)).tolist()) == list(range(6))
    with pytest.raises(ShapeError, match="found 5 and 6"):
        badge(p, torch.randn(5, 2), 2)


def blobs() -> torch.Tensor:
    """Three clusters of 30, 20 and 10, the densest point of each first."""
    generator = torch.Generator().manual_seed(0)
    parts = []
    for centre, count in ((0.0, 30), (50.0, 20), (100.0, 10)):
        points = centre + torch.randn(count, 2, generator=generator, dtype=torch.float64)
        points[0] = centre
        parts.append(points)
    return torch.cat(parts)


def test_typical_takes_the_largest_clusters_first_and_their_densest_points():
    z = blobs()
    found = typical(z, 3, generator=torch.Generator().manual_seed(0)).tolist()
    assert [0 if i < 30 else 1 if i < 50 else 2 for i in found] == [0, 1, 2]
    for i, (start, stop) in zip(found, ((0, 30), (30, 50), (50, 60)), strict=True):
        part = z[start:stop]
        k = min(20, len(part) - 1)
        mean = torch.cdist(part, part).sort(1).values[:, 1 : k + 1].mean(1)
        assert i == start + int(mean.argmin())


def test_typical_passes_over_clusters_with_a_label():
    z = blobs()
    found = typical(z, 2, labelled=z[3:4], generator=torch.Generator().manual_seed(0)).tolist()
    assert {0 if i < 30 else 1 if i < 50 else 2 for i in found} == {1, 2}


def test_typical_goes_round_again():
    found = typical(blobs(), 12, generator=torch.Generator().manual_seed(0), clusters=3).tolist()
    assert len(set(found)) == 12
    assert [sum(start <= i < stop for i in found) for start, stop in ((0, 30), (30, 50), (50, 60))] == [4, 4, 4]
    with pytest.raises(ConfigError, match="neighbours must be"):
        typical(blobs(), 2, neighbours=0)


def test_widths_that_do_not_fit():
    with pytest.raises(ShapeError, match=r"labelled must be a floating point \[N, 3\]"):
        coreset(torch.zeros(4, 3), 2, torch.zeros(2, 5))
    with pytest.raises(ShapeError, match="row 1 is no distribution"):
        margin(torch.tensor([[0.5, 0.5], [0.7, 0.7]]), 1)
