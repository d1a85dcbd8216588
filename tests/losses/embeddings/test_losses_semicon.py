from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire.errors import ConfigError
from repertoire.losses import SemiCon, nt_xent_loss, semicon_loss, supcon_loss

SETTINGS = settings(max_examples=25, deadline=None)


def reference(x: torch.Tensor, labels: list[int], t: float, alpha: float) -> float:
    z = torch.nn.functional.normalize(x).tolist()
    s = [[sum(a * b for a, b in zip(z[i], z[j], strict=True)) / t for j in range(len(z))] for i in range(len(z))]
    total, counted = 0.0, 0
    for i, label in enumerate(labels):
        positives = [j for j in range(len(z)) if j != i and labels[j] == label]
        if not positives:
            continue
        counted += 1
        everything = math.log(sum(math.exp(s[i][a]) for a in range(len(z)) if a != i))
        weight = alpha if label < 0 else 1.0
        total += weight * sum(everything - s[i][p] for p in positives) / len(positives)
    return total / max(1, counted)


@SETTINGS
@given(
    st.integers(2, 12),
    st.integers(1, 4),
    st.sampled_from([0.0, 0.3, 1.0, 4.0]),
    st.sampled_from([0.1, 1.0]),
    st.integers(0, 999),
)
def test_is_the_formula(n, classes, alpha, temperature, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2 * n, 3, generator=generator, dtype=torch.float64)
    labels = torch.randint(classes, (n,), generator=generator)
    free = torch.rand(n, generator=generator) < 0.5
    labels = torch.where(free, -1 - torch.arange(n), labels).repeat(2)
    expected = reference(x, labels.tolist(), temperature, alpha)
    found = SemiCon(temperature, alpha)(x, labels)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


@SETTINGS
@given(st.integers(2, 9), st.floats(0, 3), st.integers(0, 999))
def test_with_labels_for_all_it_is_supcon_and_without_any_nt_xent(n, alpha, seed):
    generator = torch.Generator().manual_seed(seed)
    views = torch.randn(2, n, 4, generator=generator, dtype=torch.float64)
    labels = torch.randint(3, (n,), generator=generator).repeat(2)
    x = views.flatten(0, 1)
    torch.testing.assert_close(semicon_loss(x, labels, alpha=alpha), supcon_loss(x, labels))
    free = semicon_loss(x, (-1 - torch.arange(n)).repeat(2), alpha=alpha)
    torch.testing.assert_close(free, alpha * nt_xent_loss(*views))


def test_with_alpha_zero_rows_without_a_label_are_negatives_and_nothing_else():
    """Half of the anchors count for nothing, and the others are those of SupCon with the rest as its reference."""
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    labels = torch.tensor([0, 0, 1, 1, -1, -1, -2, -2])
    (grad,) = torch.autograd.grad(semicon_loss(x, labels, alpha=0.0), x)
    assert grad[4:].any(), "they are pushed away"
    alone = semicon_loss(x[:4], labels[:4], alpha=0.0)
    assert semicon_loss(x, labels, alpha=0.0) > alone / 2, "a larger denominator"


def test_a_reference_set():
    generator = torch.Generator().manual_seed(1)
    x, y = (torch.randn(n, 3, generator=generator, dtype=torch.float64) for n in (4, 6))
    labels, others = torch.tensor([0, -1, 1, -2]), torch.tensor([0, 0, -1, 1, -2, -3])
    z, w = torch.nn.functional.normalize(x), torch.nn.functional.normalize(y)
    lse = (z @ w.T / 0.1).logsumexp(1)
    expected = 0.0
    for i, label in enumerate(labels.tolist()):
        positives = others == label
        expected += (0.5 if label < 0 else 1.0) * (lse[i] - (z[i] @ w[positives].T / 0.1).mean()) / 4
    torch.testing.assert_close(semicon_loss(x, labels, alpha=0.5, reference=y, reference_labels=others), expected)


def test_bad_options():
    with pytest.raises(ConfigError, match="alpha must be 0 or more"):
        SemiCon(alpha=-1)
