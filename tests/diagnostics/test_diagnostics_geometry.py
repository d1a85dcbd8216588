"""Spectrum, Fisher's ratio and neural collapse, against what the papers write."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire.diagnostics import (
    classifier_collapse,
    effective_rank,
    eigenvalue_spectrum,
    fisher_ratio,
    mixed_layout,
    neural_collapse,
    orthogonal_frame,
)
from repertoire.errors import ShapeError


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 20), st.integers(1, 6), st.integers(0, 999))
def test_spectrum(count, width, seed):
    x = normal(count, width, seed=seed)
    found = eigenvalue_spectrum(x)
    expected = torch.linalg.svdvals(x - x.mean(0)).square() / count
    torch.testing.assert_close(found.eigenvalues[: len(expected)], expected, rtol=1e-6, atol=1e-10)
    assert found.rank <= min(count - 1, width)
    assert found.effective_rank == pytest.approx(effective_rank(x))
    total = sum(expected.tolist())
    assert found.participation_ratio == pytest.approx(total**2 / sum(v**2 for v in expected.tolist()))
    assert found.directions(1.0) == found.rank
    assert found.limited_by_samples == (count <= width)


def test_constant_columns_are_named():
    x = normal(20, 4)
    x[:, 1], x[:, 3] = 0.1, -7e5
    assert eigenvalue_spectrum(x).constant.tolist() == [1, 3]
    assert eigenvalue_spectrum(x.float()).constant.tolist() == [1, 3]
    with pytest.raises(ValueError, match="share"):
        eigenvalue_spectrum(x).directions(0.0)


def slow(x, labels):
    """NC1, NC2 and NC4 as they are written."""
    classes = sorted(set(labels.tolist()))
    means = torch.stack([x[labels == k].mean(0) for k in classes])
    centred = means - means.mean(0)
    within, between = torch.zeros(x.shape[1], x.shape[1]).double(), torch.zeros(x.shape[1], x.shape[1]).double()
    for i, row in enumerate(x):
        offset = row - means[classes.index(int(labels[i]))]
        within += torch.outer(offset, offset) / len(x)
    for row in centred:
        between += torch.outer(row, row) / len(classes)
    nc1 = float(torch.trace(within @ torch.linalg.pinv(between, rtol=1e-8))) / len(classes)
    lengths = [float(row.norm()) for row in centred]
    mean = sum(lengths) / len(lengths)
    norms = math.sqrt(sum((v - mean) ** 2 for v in lengths) / len(lengths)) / mean
    angles = [
        abs(float(centred[i] @ centred[j]) / lengths[i] / lengths[j] + 1 / (len(classes) - 1))
        for i in range(len(classes))
        for j in range(len(classes))
        if i != j
    ]
    wrong = sum(classes[int((means - row).norm(dim=1).argmin())] != int(k) for row, k in zip(x, labels, strict=True))
    return [nc1, norms, sum(angles) / len(angles), wrong / len(x)]


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 5), st.integers(1, 7), st.integers(5, 40), st.integers(0, 999))
def test_neural_collapse(classes, width, count, seed):
    labels = torch.arange(count) % classes
    x = normal(count, width, seed=seed) + normal(classes, width, seed=seed + 1)[labels]
    assert list(neural_collapse(x, labels))[:4] == pytest.approx(slow(x, labels), rel=1e-6, abs=1e-9)


def test_a_simplex_is_complete_collapse():
    labels = torch.arange(20) % 4
    simplex = torch.eye(4).double() - 0.25
    found = neural_collapse((3.0 + 2 * simplex)[labels], labels)
    assert list(found)[:4] == pytest.approx([0, 0, 0, 0], abs=1e-9)
    assert list(classifier_collapse(3.0 + simplex[labels], labels, 5 * simplex)) == pytest.approx([0, 0], abs=1e-9)


def test_the_frame_of_imbalanced_classes():
    counts = torch.tensor([64, 16, 4])
    labels = torch.arange(3).repeat_interleave(counts)
    lengths = counts.double() ** -0.25
    assert neural_collapse(torch.diag(lengths)[labels], labels).frame == pytest.approx(0, abs=1e-9)
    assert neural_collapse(torch.eye(3)[labels].double(), labels).frame > 0.1


def test_lengths_are_the_minimum_of_the_loss_of_free_features():
    """Gradient descent on the objective of the paper ends where the closed form says."""
    counts, decay = torch.tensor([12.0, 6.0, 2.0]).double(), 5e-3
    total = counts.sum()
    w, h = (0.3 * normal(3, 5, seed=k) for k in (1, 2))
    w.requires_grad_(), h.requires_grad_()
    optimizer = torch.optim.LBFGS([w, h], max_iter=2000, line_search_fn="strong_wolfe", tolerance_grad=1e-12)

    def loss():
        optimizer.zero_grad()
        error = (counts * (w @ h.T - torch.eye(3)).square()).sum() / (2 * total)
        value = error + decay / 2 * (w.square().sum() + (counts[:, None] * h.square()).sum())
        value.backward()
        return value

    optimizer.step(loss)
    found = orthogonal_frame(counts, decay=float(total) ** 2 * decay**2)
    lengths = h.detach().square().sum(1), w.detach().square().sum(1)
    torch.testing.assert_close(lengths[0] / lengths[0].max(), found.features, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(lengths[1] / lengths[1].max(), found.classifier, rtol=1e-3, atol=1e-3)
    assert orthogonal_frame(torch.tensor([100, 3]), decay=4.0).features.tolist()[1] == 0


def test_classifier_collapse_counts_disagreement_and_leaves_out_absent_classes():
    x, labels = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]]), torch.tensor([0, 0, 2])
    weight = torch.tensor([[-1.0, 1.0], [9.0, 9.0], [1.0, -1.0]])
    found = classifier_collapse(x, labels, weight)
    assert found.disagreement == 1.0
    assert found.duality == pytest.approx(2.0, abs=1e-6)
    assert classifier_collapse(x, labels, -weight, torch.zeros(3)).disagreement == 0.0


def test_fisher_ratio():
    x, labels = normal(30, 3), torch.arange(30) % 4
    means = torch.stack([x[labels == k].mean(0) for k in range(4)])
    between = sum(float((means[k] - x.mean(0)).square().sum()) for k in labels.tolist())
    within = sum(float((row - means[k]).square().sum()) for row, k in zip(x, labels.tolist(), strict=True))
    assert fisher_ratio(x, labels) == pytest.approx(between / within)
    assert fisher_ratio(torch.tensor([[1.0], [2.0]]), torch.tensor([0, 1])) == math.inf


def test_what_cannot_be_measured():
    x = normal(6, 2)
    found = neural_collapse(x, torch.zeros(6, dtype=torch.int64))
    assert math.isnan(found.variability)
    assert neural_collapse(torch.tensor([[1.0], [-1.0]] * 2), torch.tensor([0, 0, 1, 1])).variability == math.inf
    with pytest.raises(ShapeError, match="row for each label"):
        classifier_collapse(x, torch.arange(6), torch.zeros(3, 2))
    with pytest.raises(ShapeError, match="bias"):
        classifier_collapse(x, torch.arange(6), torch.zeros(6, 2), torch.zeros(2))
    with pytest.raises(ShapeError, match="counts"):
        orthogonal_frame(torch.tensor([3, 0]))
    with pytest.raises(ValueError, match="decay"):
        orthogonal_frame(torch.tensor([3, 1]), decay=-1.0)
    for labels in (torch.zeros(5).long(), torch.zeros(7).long()):
        with pytest.raises(ShapeError, match="one length"):
            neural_collapse(x, labels)


def test_mixed_features_in_the_plane_of_their_classifiers():
    means, weight = normal(3, 4), normal(3, 4, seed=1)
    first, second, share = torch.tensor([0, 2]), torch.tensor([1, 0]), torch.tensor([0.25, 0.5]).double()
    h = normal(2, 4, seed=2)
    found = mixed_layout(h, share, first, second, means, weight)
    deviations = []
    for i, (a, b) in enumerate([(0, 1), (2, 0)]):
        u = (weight[a] - weight[b]) / (weight[a] - weight[b]).norm()
        v = weight[a] + weight[b] - ((weight[a] + weight[b]) @ u) * u
        torch.testing.assert_close(found.positions[i], torch.stack([h[i] @ u, h[i] @ v / v.norm()]))
        blend = share[i] * means[a] + (1 - share[i]) * means[b]
        deviations.append(float((h[i] - blend).norm() / (means[a] - means[b]).norm()))
    assert found.deviation == pytest.approx(sum(deviations) / 2)
    with pytest.raises(ShapeError, match="differ"):
        mixed_layout(h, share, first, first, means, weight)
    with pytest.raises(ShapeError, match="share"):
        mixed_layout(h, share[:1], first, second, means, weight)
