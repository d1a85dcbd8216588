from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire.errors import ShapeError
from repertoire.ops import kmeans
from repertoire.ops._kmeans import _fill


@given(st.integers(1, 40), st.integers(1, 8), st.booleans(), st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_rows_are_with_the_nearest_centre_that_has_room(n, clusters, balanced, seed):
    clusters = min(n, clusters)
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 2, generator=generator, dtype=torch.float64)
    found = kmeans(x, clusters, balanced=balanced, iterations=100, generator=generator)
    sizes = torch.bincount(found.assignment, minlength=clusters)
    for c in range(clusters):
        if sizes[c]:
            torch.testing.assert_close(found.centres[c], x[found.assignment == c].mean(0))
    distances = torch.cdist(x, found.centres)
    if not balanced:
        assert torch.equal(found.assignment, distances.argmin(1))
        return
    capacity = -(-n // clusters)
    assert sizes.max() <= capacity
    # A row that is elsewhere finds every nearer centre full. Asked of one filling, because centres and a balanced
    # assignment can go on changing each other for ever.
    filled = _fill(distances, capacity)
    sizes = torch.bincount(filled, minlength=clusters)
    for row, c in enumerate(filled.tolist()):
        nearer = (distances[row] < distances[row, c]).nonzero().flatten()
        assert (sizes[nearer] == capacity).all()


def test_finds_what_is_far_apart():
    generator = torch.Generator().manual_seed(0)
    places = torch.tensor([[0.0, 0.0], [50.0, 0.0], [0.0, 50.0]])
    truth = torch.arange(60) % 3
    found = kmeans(places[truth] + torch.randn(60, 2, generator=generator), 3, generator=generator).assignment
    for c in range(3):
        assert len(found[truth == c].unique()) == 1
    assert len(found.unique()) == 3


def test_the_generator_decides():
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    first, second = (kmeans(x, 7, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first.assignment, second.assignment)


def test_duplicates_and_half_precision():
    assert len(kmeans(torch.ones(4, 2), 3, balanced=True).assignment) == 4
    assert kmeans(torch.randn(6, 2).bfloat16(), 2).centres.dtype == torch.float32


@pytest.mark.parametrize(("x", "clusters"), [(torch.zeros(3, 2), 0), (torch.zeros(3, 2), 4), (torch.zeros(3), 1)])
def test_what_does_not_fit(x, clusters):
    with pytest.raises(ShapeError):
        kmeans(x, clusters)
