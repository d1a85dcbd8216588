"""Proto-Triplet and ICNN against their formulas, row by row."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire.errors import ConfigError
from repertoire.losses import ICNN, ProtoTriplet, icnn_loss, proto_triplet_loss

SETTINGS = settings(max_examples=25, deadline=None)
pytestmark = pytest.mark.filterwarnings("ignore::repertoire.errors.RepertoireWarning")


def mean(values):
    return sum(values) / len(values) if values else 0.0


def proto_triplet(x, labels, margin, support=None, support_labels=None):
    losses = []
    for i, row in enumerate(x):
        if support is None:
            rows = [(x[j], labels[j]) for j in range(len(x)) if j != i]
        else:
            rows = list(zip(support, support_labels, strict=True))
        prototypes = {c: torch.stack([r for r, y in rows if y == c]).mean(0) for c in {y for _, y in rows}}
        if labels[i] not in prototypes:
            continue
        distance = {c: float((row - prototype).norm()) for c, prototype in prototypes.items()}
        others = min((d for c, d in distance.items() if c != labels[i]), default=math.inf)
        losses.append(max(0.0, distance[labels[i]] - others + margin))
    return mean(losses)


def icnn(x, labels, k, combine, root, support=None, support_labels=None):
    scores = []
    for i, row in enumerate(x):
        if support is None:
            rows = [(float((row - x[j]).norm()), labels[j] == labels[i]) for j in range(len(x)) if j != i]
        else:
            rows = [(float((row - s).norm()), y == labels[i]) for s, y in zip(support, support_labels, strict=True)]
        if not any(kin for _, kin in rows):
            continue
        near = sorted(rows)[:k]
        least, most = near[0][0], near[-1][0]
        scaled = [((d - least) / (most - least) if most > least else 0.0, kin) for d, kin in near]
        closeness = mean([1 - e if kin else e for e, kin in scaled])
        share = mean([float(kin) for _, kin in scaled])
        spread = 1.0
        for group in (True, False):
            values = [e for e, kin in scaled if kin == group]
            spread -= mean([(e - mean(values)) ** 2 for e in values])
        score = (closeness + share) / 2 if combine == "mean" else max(closeness * spread * share, 1e-6) ** (1 / root)
        scores.append(score)
    return -math.log(max(mean(scores), 1e-6)) if scores else 0.0


LOSSES = {
    "proto-triplet": (
        lambda *a, **k: proto_triplet_loss(*a, margin=0.8, **k),
        lambda x, labels, *others: proto_triplet(x, labels, 0.8, *others),
    ),
    "icnn": (
        lambda *a, **k: icnn_loss(*a, neighbours=4, **k),
        lambda x, labels, *others: icnn(x, labels, 4, "product", 2.0, *others),
    ),
    "icnn, mean": (
        lambda *a, **k: icnn_loss(*a, neighbours=3, combine="mean", **k),
        lambda x, labels, *others: icnn(x, labels, 3, "mean", 1.0, *others),
    ),
    "icnn, root 1": (
        lambda *a, **k: icnn_loss(*a, neighbours=30, root=1.0, **k),
        lambda x, labels, *others: icnn(x, labels, 30, "product", 1.0, *others),
    ),
}


def problem(n, classes, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 3, generator=generator, dtype=torch.float64)
    return x, torch.randint(0, classes, (n,), generator=generator)


@pytest.mark.parametrize("name", LOSSES)
@given(st.integers(0, 14), st.integers(1, 4), st.integers(0, 2**31))
@SETTINGS
def test_agrees_with_the_formula(name, n, classes, seed):
    loss, expected = LOSSES[name]
    x, labels = problem(n, classes, seed)
    assert math.isclose(float(loss(x, labels)), expected(x, labels.tolist()), rel_tol=1e-8, abs_tol=1e-8)


@pytest.mark.parametrize("name", LOSSES)
@given(st.integers(0, 8), st.integers(0, 12), st.integers(0, 2**31))
@SETTINGS
def test_agrees_with_the_formula_against_a_support_set(name, n, m, seed):
    loss, expected = LOSSES[name]
    (x, labels), (y, y_labels) = problem(n, 3, seed), problem(m, 3, seed + 1)
    found = float(loss(x, labels, reference=y, reference_labels=y_labels))
    assert math.isclose(found, expected(x, labels.tolist(), y, y_labels.tolist()), rel_tol=1e-8, abs_tol=1e-8)


@pytest.mark.parametrize("name", LOSSES)
def test_gradient(name):
    x, labels = problem(8, 2, 3)
    assert torch.autograd.gradcheck(lambda a: LOSSES[name][0](a, labels), x.requires_grad_())


def test_icnn_does_not_depend_on_scale_and_place():
    x, labels = problem(12, 3, 0)
    torch.testing.assert_close(icnn_loss(100 * x + 5, labels), icnn_loss(x, labels))


def test_far_apart_is_the_minimum():
    x = torch.tensor([[0.0], [0.1], [9.0], [9.1]])
    labels = torch.tensor([0, 0, 1, 1])
    assert proto_triplet_loss(x, labels) == 0
    assert icnn_loss(x, labels, neighbours=3) < icnn_loss(x, torch.tensor([0, 1, 0, 1]), neighbours=3)


def test_options_out_of_range():
    with pytest.raises(ValueError, match="margin must be positive"):
        ProtoTriplet(margin=0.0)
    for options, message in (
        ({"neighbours": 1}, "neighbours must be 2"),
        ({"combine": "sum"}, "combine must be"),
        ({"root": 0.5}, "root must be 1 or more"),
    ):
        with pytest.raises(ConfigError, match=message):
            ICNN(**options)
