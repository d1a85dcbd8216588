from __future__ import annotations

import math
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire import registry
from repertoire.errors import ConfigError, RepertoireWarning, ShapeError
from repertoire.losses import SupCon, supcon_loss
from repertoire.losses.contracts import _positives
from repertoire.ops import tile_size

SETTINGS = settings(max_examples=25, deadline=None)


@pytest.fixture(autouse=True)
def _warned_already(monkeypatch):
    """Random labels may leave no positives; the warning has a test of its own."""
    monkeypatch.setattr(_positives, "_warned", {"positives"})


def reference(embeddings, labels, temperature, others=None, other_labels=None):
    """Equation 2 of the paper, pair by pair; the mean over the anchors with a positive."""
    z = [row / row.norm() if row.norm() > 0 else row for row in embeddings]
    y = z if others is None else [row / row.norm() if row.norm() > 0 else row for row in others]
    y_labels = labels if other_labels is None else other_labels
    losses = []
    for i in range(len(z)):
        candidates = [a for a in range(len(y)) if others is not None or a != i]
        positives = [p for p in candidates if int(y_labels[p]) == int(labels[i])]
        if not positives:
            continue
        denominator = sum(torch.exp(z[i] @ y[a] / temperature) for a in candidates)
        terms = [torch.log(torch.exp(z[i] @ y[p] / temperature) / denominator) for p in positives]
        losses.append(-sum(terms) / len(positives))
    return sum(losses) / len(losses) if losses else 0.0 * embeddings.sum()


@SETTINGS
@given(
    n=st.integers(0, 9),
    width=st.integers(1, 4),
    classes=st.integers(1, 5),
    temperature=st.sampled_from([0.01, 0.1, 1.0]),
    zero=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_is_the_paper(n, width, classes, temperature, zero, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, width, generator=generator, dtype=torch.float64)
    if zero and n:
        x[0] = 0
    x.requires_grad_()
    labels = torch.randint(-1, classes - 1, (n,), generator=generator)
    expected = reference(x, labels, temperature)
    loss = SupCon(temperature)(x, labels)
    torch.testing.assert_close(loss, expected)
    if n:
        (got,) = torch.autograd.grad(loss, x)
        (wanted,) = torch.autograd.grad(expected, x)
        if zero:
            wanted = wanted.clone()
            wanted[0] = 0  # the direction of a zero vector is undefined
        torch.testing.assert_close(got, wanted, rtol=1e-6, atol=1e-8)


@SETTINGS
@given(n=st.integers(0, 6), m=st.integers(0, 7), classes=st.integers(1, 5), seed=st.integers(0, 1000))
def test_with_a_reference_is_the_paper(n, m, classes, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    y = torch.randn(m, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(classes, (n,), generator=generator)
    y_labels = torch.randint(classes, (m,), generator=generator)
    expected = reference(x, labels, 0.2, y, y_labels) + 0.0 * y.sum()
    loss = SupCon(0.2)(x, labels, y, y_labels)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(torch.autograd.grad(loss, (x, y)), torch.autograd.grad(expected, (x, y)))


def test_gradcheck_across_tiles():
    x = torch.randn(9, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    labels = torch.tensor([0, 1, 0, 2, 1, 0, 3, 2, 2])
    with tile_size(4 * 4):
        assert torch.autograd.gradcheck(lambda x: supcon_loss(x, labels), (x,))


@SETTINGS
@given(n=st.integers(2, 20), seed=st.integers(0, 1000))
def test_order_length_and_names_of_classes_do_not_matter(n, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 4, generator=generator, dtype=torch.float64)
    labels = torch.randint(3, (n,), generator=generator)
    loss = supcon_loss(x, labels)
    order = torch.randperm(n, generator=generator)
    torch.testing.assert_close(supcon_loss(x[order], labels[order]), loss)
    lengths = torch.rand(n, 1, generator=generator, dtype=torch.float64) * 100 + 0.01
    torch.testing.assert_close(supcon_loss(x * lengths, labels), loss)
    torch.testing.assert_close(supcon_loss(x, 1000 - 7 * labels), loss)


def test_duplicates_that_agree_reach_the_minimum():
    # Two pairs of identical vectors, opposite to each other: only the negatives' tail is left.
    x = torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    loss = supcon_loss(x, torch.tensor([0, 0, 1, 1]), temperature=0.1)
    torch.testing.assert_close(loss, torch.tensor(math.log1p(2 * math.exp(-20)), dtype=torch.float64))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 2e-2), (torch.float16, 2e-3), (torch.float32, 1e-5)])
def test_precision(dtype, tolerance):
    x = torch.randn(600, 16, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(600) % 7
    exact = supcon_loss(x.double(), labels)
    loss = supcon_loss(x.to(dtype), labels)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), exact, rtol=tolerance, atol=0)


def test_no_positives_is_zero_and_warned_about_once(monkeypatch):
    monkeypatch.setattr(_positives, "_warned", set())
    x = torch.randn(3, 4, requires_grad=True)
    with pytest.warns(RepertoireWarning, match="no embedding of the batch has another one with its label"):
        loss = supcon_loss(x, torch.tensor([0, 1, 2]))
    loss.backward()
    assert loss == 0
    assert not x.grad.any()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        supcon_loss(x, torch.tensor([0, 1, 2]))
        supcon_loss(x, torch.tensor([0, 1, 2]), reference=x[:0], reference_labels=torch.tensor([], dtype=torch.int64))


def test_an_empty_batch_is_not_warned_about(monkeypatch):
    monkeypatch.setattr(_positives, "_warned", set())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert supcon_loss(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)) == 0


@pytest.mark.parametrize("temperature", [0.0, -0.1, math.nan])
def test_temperature_must_be_positive(temperature):
    with pytest.raises(ValueError, match="temperature must be positive"):
        supcon_loss(torch.eye(2), torch.tensor([0, 0]), temperature=temperature)
    with pytest.raises(ConfigError, match="temperature must be positive"):
        registry.build("losses", f"supcon:temperature={temperature}")


def test_half_of_a_reference():
    with pytest.raises(ShapeError, match="reference and reference_labels go together"):
        supcon_loss(torch.eye(2), torch.tensor([0, 0]), reference=torch.eye(2))
