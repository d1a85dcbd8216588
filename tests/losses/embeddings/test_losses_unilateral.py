from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire.errors import ConfigError
from repertoire.losses import UnilateralAggregation, nt_xent_loss, supcon_loss, unilateral_aggregation_loss
from repertoire.losses.contracts import _positives

SETTINGS = settings(max_examples=25, deadline=None)


@pytest.fixture(autouse=True)
def _warned_already(monkeypatch):
    """Random labels may leave no positives."""
    monkeypatch.setattr(_positives, "_warned", {"positives"})


def reference(x, labels, tau, tau_w, others=None, other_labels=None):
    """Equations 5 to 7 of the paper, row by row, with the weights of pairs in front of the logarithm."""
    z = [row / row.norm() for row in x]
    y, y_labels = (z, labels) if others is None else ([row / row.norm() for row in others], other_labels)

    def weight(p):
        alike = [q for q in range(len(y)) if q != p and y_labels[q] == y_labels[p]]
        if tau_w is None or not alike:
            return 1.0
        return sum(math.exp(float((y[p] @ y[q]).detach()) / tau_w) for q in alike)

    losses = []
    for i in range(len(z)):
        candidates = [a for a in range(len(y)) if others is not None or a != i]
        positives = [p for p in candidates if y_labels[p] == labels[i]]
        if not positives:
            continue
        denominator = sum(torch.exp(z[i] @ y[a] / tau) for a in candidates)
        pairs = [(weight(p), torch.log(torch.exp(z[i] @ y[p] / tau) / denominator)) for p in positives]
        losses.append(-sum(w * value for w, value in pairs) / sum(w for w, _ in pairs))
    return sum(losses) / len(losses) if losses else 0.0 * x.sum()


def rows(count, width, seed):
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@SETTINGS
@given(
    n=st.integers(0, 9),
    m=st.integers(0, 7),
    width=st.integers(1, 4),
    tau=st.sampled_from([0.05, 0.5]),
    tau_w=st.sampled_from([None, 0.1, 0.5]),
    queue=st.booleans(),
    seed=st.integers(0, 999),
)
def test_is_the_paper(n, m, width, tau, tau_w, queue, seed):
    x, labels = rows(n, width, seed).requires_grad_(), torch.arange(n) * seed % 5 - 3
    more = {"reference": rows(m, width, seed + 1), "reference_labels": torch.arange(m) % 4 - 2} if queue else {}
    expected = reference(x, labels.tolist(), tau, tau_w, *(v if v.ndim == 2 else v.tolist() for v in more.values()))
    found = UnilateralAggregation(tau, tau_w)(x, labels, **more)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    if n:
        torch.testing.assert_close(
            *(torch.autograd.grad(value, x)[0] for value in (found, expected)), rtol=1e-7, atol=1e-9
        )


@SETTINGS
@given(n=st.integers(1, 6), seed=st.integers(0, 999))
def test_of_outliers_alone_it_is_nt_xent_and_without_weights_supcon(n, seed):
    first, second = rows(n, 3, seed), rows(n, 3, seed + 1)
    both, own = torch.cat([first, second]), -1 - torch.arange(n).repeat(2)
    torch.testing.assert_close(
        unilateral_aggregation_loss(both, own, temperature=0.2), nt_xent_loss(first, second, temperature=0.2)
    )
    one = torch.zeros(2 * n, dtype=torch.int64)
    torch.testing.assert_close(
        unilateral_aggregation_loss(both, one, temperature=0.2, weight_temperature=None),
        supcon_loss(both, one, temperature=0.2),
    )


def test_a_view_that_is_unlike_its_class_counts_for_less():
    """Three rows agree and one points away: weighed, drawing the three to it costs less than it gains."""
    x = torch.tensor([[1.0, 0.0], [0.99, 0.1], [0.99, -0.1], [-1.0, 0.2]])
    labels = torch.zeros(4, dtype=torch.int64)
    weighed, plain = (unilateral_aggregation_loss(x, labels, weight_temperature=w) for w in (0.2, None))
    assert weighed < plain


def test_options_out_of_range():
    for options in ({"temperature": 0.0}, {"weight_temperature": 0.0}):
        with pytest.raises(ConfigError, match="must be positive"):
            UnilateralAggregation(**options)
