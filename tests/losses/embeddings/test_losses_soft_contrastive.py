from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire.errors import ConfigError, ShapeError
from repertoire.losses import SoftContrastive, soft_contrastive_loss, supcon_loss

pytestmark = pytest.mark.filterwarnings("ignore::repertoire.errors.RepertoireWarning")
SETTINGS = settings(max_examples=25, deadline=None)


def reference(x, labels, meanings, temperature, label_temperature, y=None, y_labels=None):
    """The cross-entropy between two softmaxes, anchor by anchor."""
    unit = [row / row.norm() for row in x]
    others = unit if y is None else [row / row.norm() for row in y]
    other_labels = labels if y is None else y_labels
    losses = []
    for i, anchor in enumerate(unit):
        rows = [j for j in range(len(others)) if y is not None or j != i]
        if labels[i] not in [other_labels[j] for j in rows]:
            continue
        delta = {j: float(torch.cosine_similarity(meanings[labels[i]], meanings[other_labels[j]], dim=0)) for j in rows}
        target = {j: math.exp(d / label_temperature) for j, d in delta.items()}
        s = {j: float(anchor @ others[j]) / temperature for j in rows}
        log_total = math.log(sum(math.exp(v) for v in s.values()))
        losses.append(-sum(t / sum(target.values()) * (s[j] - log_total) for j, t in target.items()))
    return sum(losses) / len(losses) if losses else 0.0


def problem(n, classes, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 4, generator=generator, dtype=torch.float64)
    return x, torch.randint(0, classes, (n,), generator=generator)


def meanings(classes, seed):
    return torch.randn(classes, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(st.integers(0, 14), st.integers(1, 5), st.integers(0, 2**31))
@SETTINGS
def test_agrees_with_the_formula(n, classes, seed):
    (x, labels), meaning = problem(n, classes, seed), meanings(classes, seed)
    found = soft_contrastive_loss(x, labels, meaning, temperature=0.1, label_temperature=0.3)
    expected = reference(x, labels.tolist(), meaning, 0.1, 0.3)
    assert math.isclose(float(found), expected, rel_tol=1e-9, abs_tol=1e-9)


@given(st.integers(0, 8), st.integers(0, 10), st.integers(0, 2**31))
@SETTINGS
def test_agrees_with_the_formula_against_a_reference_set(n, m, seed):
    (x, labels), (y, y_labels), meaning = problem(n, 3, seed), problem(m, 3, seed + 1), meanings(3, seed)
    found = soft_contrastive_loss(x, labels, meaning, temperature=0.1, reference=y, reference_labels=y_labels)
    expected = reference(x, labels.tolist(), meaning, 0.1, 0.25, y, y_labels.tolist())
    assert math.isclose(float(found), expected, rel_tol=1e-9, abs_tol=1e-9)


def test_gradient():
    (x, labels), meaning = problem(8, 3, 0), meanings(3, 0)
    assert torch.autograd.gradcheck(lambda a: soft_contrastive_loss(a, labels, meaning), x.requires_grad_())


def test_is_supcon_when_labels_are_like_themselves_only():
    x, labels = problem(12, 3, 1)
    hard = supcon_loss(x, labels, temperature=0.05)
    torch.testing.assert_close(SoftContrastive()(x, labels), hard)
    close = soft_contrastive_loss(x, labels, torch.eye(3), label_temperature=0.01)
    torch.testing.assert_close(close, hard)
    # Labels without a meaning: unlabelled samples, each a class of its own with two views.
    alone = torch.tensor([-1, -2, -3, -4, -5, -6]).repeat(2)
    close = soft_contrastive_loss(x, alone, torch.eye(3), label_temperature=0.01)
    torch.testing.assert_close(close, supcon_loss(x, alone, temperature=0.05))


def test_groups_are_meanings():
    x, labels = problem(12, 3, 2)
    half = math.acos(0.5)
    meaning = torch.tensor([[1.0, 0.0, 0.0], [math.cos(half), math.sin(half), 0.0], [0.0, 0.0, 1.0]])
    expected = soft_contrastive_loss(x, labels, meaning)
    torch.testing.assert_close(SoftContrastive(groups=[7, 7, 1])(x, labels), expected, rtol=1e-6, atol=1e-6)


def test_what_does_not_fit():
    with pytest.raises(ShapeError, match="label 2 has no embedding"):
        soft_contrastive_loss(torch.eye(2), torch.tensor([0, 2]), torch.eye(2))
    with pytest.raises(ShapeError, match="label_embeddings must be"):
        SoftContrastive(label_embeddings=torch.zeros(3))
    with pytest.raises(ConfigError, match="not both"):
        SoftContrastive(groups=[0], label_embeddings=torch.eye(1))
