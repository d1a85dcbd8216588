"""Losses on pairs of embeddings against their formulas, written pair by pair."""

from __future__ import annotations

import math
from decimal import Decimal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire.losses import circle_loss, look_loss, memory_info_nce_loss, multi_similarity_loss
from repertoire.ops import tile_size

SETTINGS = settings(max_examples=25, deadline=None)
pytestmark = pytest.mark.filterwarnings("ignore::repertoire.errors.RepertoireWarning")


def pairs(embeddings, labels, others=None, other_labels=None):
    """For each anchor, the cosines with its positives and with its negatives."""
    z = [row / row.norm() for row in embeddings]
    y = z if others is None else [row / row.norm() for row in others]
    y_labels = labels if others is None else other_labels
    for i, anchor in enumerate(z):
        rows = [j for j in range(len(y)) if others is not None or j != i]
        yield (
            [float(anchor @ y[j]) for j in rows if y_labels[j] == labels[i]],
            [float(anchor @ y[j]) for j in rows if y_labels[j] != labels[i]],
        )


def mean(values):
    return sum(values) / len(values) if values else 0.0


def multi_similarity(alpha, beta, threshold, epsilon):
    def anchor(positives, negatives):
        hardest = min(positives), max(negatives, default=-math.inf)
        if epsilon is not None:
            positives = [s for s in positives if s < hardest[1] + epsilon]
            negatives = [s for s in negatives if s > hardest[0] - epsilon]
        pulled = math.log1p(sum(math.exp(-alpha * (s - threshold)) for s in positives)) / alpha
        return pulled + math.log1p(sum(math.exp(beta * (s - threshold)) for s in negatives)) / beta

    return anchor


def circle(margin, gamma):
    def anchor(positives, negatives):
        # Decimals, whose exponentials do not overflow.
        pushed = sum(Decimal(gamma * max(0.0, s + margin) * (s - margin)).exp() for s in negatives)
        pulled = sum(Decimal(-gamma * max(0.0, 1 + margin - s) * (s - 1 + margin)).exp() for s in positives)
        return float((1 + pushed * pulled).ln())

    return anchor


def info_nce(temperature):
    def anchor(positives, negatives):
        others = sum(math.exp(s / temperature) for s in negatives)
        own = [math.exp(s / temperature) for s in positives]
        return mean([-math.log(s / (s + others)) for s in own])

    return anchor


def look(neighbours, temperature):
    def anchor(positives, negatives):
        near = sorted([(s, True) for s in positives] + [(s, False) for s in negatives])[-neighbours:]
        if not any(own for _, own in near):
            near.append((max(positives), True))
        own = sum(math.exp(s / temperature) for s, same in near if same)
        return -math.log(own / sum(math.exp(s / temperature) for s, _ in near))

    return anchor


CASES = {
    "multi-similarity": (multi_similarity_loss, {}, multi_similarity(1.0, 50.0, 0.0, 0.1)),
    "multi-similarity, as published": (
        multi_similarity_loss,
        {"alpha": 2.0, "beta": 50.0, "threshold": 1.0, "epsilon": 0.1},
        multi_similarity(2.0, 50.0, 1.0, 0.1),
    ),
    "multi-similarity, all pairs": (
        multi_similarity_loss,
        {"threshold": 0.5, "epsilon": None},
        multi_similarity(1.0, 50.0, 0.5, None),
    ),
    "info-nce": (memory_info_nce_loss, {}, info_nce(0.07)),
    "look": (look_loss, {"neighbours": 3}, look(3, 0.1)),
    "look, all are neighbours": (look_loss, {"neighbours": 50, "temperature": 0.5}, look(50, 0.5)),
    "circle": (circle_loss, {}, circle(0.4, 80.0)),
    "circle for faces": (circle_loss, {"margin": 0.25, "gamma": 256.0}, circle(0.25, 256.0)),
}


def problem(n, classes, seed, d=5):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=generator, dtype=torch.float64)
    return x, torch.randint(0, classes, (n,), generator=generator)


@pytest.mark.parametrize("case", CASES)
@given(st.integers(0, 20), st.integers(1, 5), st.integers(0, 2**31))
@SETTINGS
def test_agrees_with_the_formula(case, n, classes, seed):
    loss, options, anchor = CASES[case]
    x, labels = problem(n, classes, seed)
    expected = mean([anchor(p, q) for p, q in pairs(x, labels) if p])
    assert math.isclose(float(loss(x, labels, **options)), expected, rel_tol=1e-9, abs_tol=1e-9)


@pytest.mark.parametrize("case", CASES)
@given(st.integers(0, 12), st.integers(0, 12), st.integers(0, 2**31))
@SETTINGS
def test_agrees_with_the_formula_against_a_reference_set(case, n, m, seed):
    loss, options, anchor = CASES[case]
    (x, labels), (y, y_labels) = problem(n, 3, seed), problem(m, 3, seed + 1)
    expected = mean([anchor(p, q) for p, q in pairs(x, labels, y, y_labels) if p])
    found = loss(x, labels, reference=y, reference_labels=y_labels, **options)
    assert math.isclose(float(found), expected, rel_tol=1e-9, abs_tol=1e-9)


@pytest.mark.parametrize("case", CASES)
def test_tiles_make_no_difference(case):
    loss, options, _ = CASES[case]
    results = []
    for size in (2**17, 7**2):
        x, labels = problem(31, 4, 0)
        x.requires_grad_()
        with tile_size(size):
            value = loss(x, labels, **options)
            results.append((value.detach(), torch.autograd.grad(value, x)[0]))
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("case", [name for name in CASES if "circle" not in name])
def test_gradient_is_that_of_the_value(case):
    loss, options, _ = CASES[case]
    x, labels = problem(8, 3, 3)
    assert torch.autograd.gradcheck(lambda a: loss(a, labels, **options), x.requires_grad_())


def test_weights_of_the_circle_loss_are_constants():
    """Its gradient is that of the loss with the weights, which are computed beforehand, held fixed."""
    margin, gamma = 0.4, 5.0
    x, labels = problem(9, 3, 4)
    x.requires_grad_()
    z = torch.nn.functional.normalize(x, dim=1)
    s, same = z @ z.T, labels[:, None] == labels
    negative = gamma * (s.detach() + margin).clamp_min(0) * (s - margin)
    positive = -gamma * (1 + margin - s.detach()).clamp_min(0) * (s - 1 + margin)
    own = same & ~torch.eye(9, dtype=torch.bool)
    total = (negative.exp() * ~same).sum(1) * (positive.exp() * own).sum(1)
    expected = torch.log1p(total)[own.any(1)].mean()
    found = circle_loss(x, labels, margin=margin, gamma=gamma)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.autograd.grad(found, x), torch.autograd.grad(expected, x))


@pytest.mark.parametrize("case", CASES)
def test_lengths_and_order_do_not_matter(case):
    loss, options, _ = CASES[case]
    x, labels = problem(12, 3, 5)
    value = loss(x, labels, **options)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(loss(x[order] * 7.5, labels[order], **options), value)


@pytest.mark.parametrize(
    ("loss", "options", "message"),
    [
        (multi_similarity_loss, {"alpha": 0.0}, "alpha must be positive"),
        (multi_similarity_loss, {"beta": -1.0}, "beta must be positive"),
        (memory_info_nce_loss, {"temperature": 0.0}, "temperature must be positive"),
        (circle_loss, {"gamma": math.nan}, "gamma must be positive"),
        (circle_loss, {"margin": 1.0}, "margin must lie in"),
    ],
)
def test_options_out_of_range(loss, options, message):
    with pytest.raises(ValueError, match=message):
        loss(torch.eye(2), torch.tensor([0, 0]), **options)
