from __future__ import annotations

import pytest
import torch

from repertoire.errors import ConfigError, ShapeError
from repertoire.ops import pinned_kmeans


def blobs(count: int = 20, clusters: int = 5, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    truth = torch.arange(clusters).repeat_interleave(count)
    return 8 * torch.eye(clusters, 6)[truth] + torch.randn(len(truth), 6, generator=generator), truth


def test_known_and_new_clusters_are_found():
    x, truth = blobs()
    labels = torch.where((truth < 3) & (torch.arange(len(truth)) % 4 == 0), truth, -1)
    found = pinned_kmeans(x, 5, labels, generator=torch.Generator().manual_seed(0))
    assert torch.equal(found.assignment[truth < 3], truth[truth < 3])
    assert set(found.assignment[truth == 3].tolist()) | set(found.assignment[truth == 4].tolist()) == {3, 4}
    for k in range(5):
        torch.testing.assert_close(found.centres[k], x[found.assignment == k].mean(0))


def test_every_free_row_is_nearest_to_its_own_centre_and_labelled_rows_stay():
    x, truth = blobs(seed=1)
    labels = torch.where(torch.arange(len(truth)) % 3 == 0, truth % 2, -1)  # classes that are not clusters
    found = pinned_kmeans(x, 4, labels, iterations=200, generator=torch.Generator().manual_seed(0))
    pinned = labels >= 0
    assert torch.equal(found.assignment[pinned], labels[pinned])
    for i in (~pinned).nonzero().flatten().tolist():
        distances = [float((x[i] - centre).square().sum()) for centre in found.centres]
        assert distances[int(found.assignment[i])] == min(distances)


def test_more_starts_are_never_worse():
    x, truth = blobs(8, 6, seed=2)
    labels = torch.where((truth == 0), truth, -1)

    def cost(starts: int) -> float:
        generator = torch.Generator().manual_seed(3)
        found = pinned_kmeans(x, 6, labels, starts=starts, generator=generator)
        return float((x - found.centres[found.assignment]).square().sum())

    assert cost(8) <= cost(1)


def test_without_labels_or_without_draws():
    x, truth = blobs()
    none = torch.full_like(truth, -1)
    assert len(pinned_kmeans(x, 5, none, generator=torch.Generator().manual_seed(0)).assignment.unique()) == 5
    all_of_them = pinned_kmeans(x, 5, truth)
    assert torch.equal(all_of_them.assignment, truth)
    torch.testing.assert_close(all_of_them.centres[2], x[truth == 2].mean(0))


def test_what_does_not_fit_is_refused():
    x, truth = blobs()
    with pytest.raises(ConfigError, match="class 1 of 3 has no row"):
        pinned_kmeans(x, 5, torch.where(truth == 1, -1, truth.clamp_max(2)))
    with pytest.raises(ConfigError, match=r"clusters must lie in 5\.\.5"):
        pinned_kmeans(x, 4, truth)
    with pytest.raises(ShapeError, match="labels must be int64"):
        pinned_kmeans(x, 4, truth[:3])
    with pytest.raises(ShapeError, match="x must be"):
        pinned_kmeans(x[0], 4, truth)
