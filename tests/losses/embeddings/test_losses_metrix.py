from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire.errors import ConfigError, ShapeError
from repertoire.losses import Metrix, metrix_loss, multi_similarity_loss

pytestmark = pytest.mark.filterwarnings("ignore::repertoire.errors.RepertoireWarning")
SETTINGS = settings(max_examples=25, deadline=None)


def reference(x, labels, mixed, first, second, share, alpha, beta, threshold):
    """The paper's loss for one anchor after the other."""
    losses = []
    for row, label in zip(x, labels, strict=True):
        pulled = pushed = 0.0
        taken = False
        for v, a, b, mu in zip(mixed, first, second, share, strict=True):
            if label not in (a, b):
                continue
            taken = True
            y = mu * (label == a) + (1 - mu) * (label == b)
            s = float(torch.cosine_similarity(row, v, dim=0)) - threshold
            pulled += y * math.exp(-alpha * s)
            pushed += (1 - y) * math.exp(beta * s)
        if taken:
            losses.append(math.log1p(pulled) / alpha + math.log1p(pushed) / beta)
    return sum(losses) / len(losses) if losses else 0.0


def problem(n, m, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 4, generator=generator, dtype=torch.float64)
    mixed = torch.randn(m, 4, generator=generator, dtype=torch.float64)
    labels, first, second = (torch.randint(0, 4, (k,), generator=generator) for k in (n, m, m))
    share = torch.rand(m, generator=generator, dtype=torch.float64)
    share[:1] = 1.0
    return x, labels, mixed, first, second, share


@given(st.integers(0, 10), st.integers(0, 10), st.integers(0, 2**31))
@SETTINGS
def test_agrees_with_the_formula(n, m, seed):
    arguments = problem(n, m, seed)
    plain = [a.tolist() if not a.is_floating_point() else a for a in arguments]
    plain[5] = arguments[5].tolist()
    for options in ({"alpha": 2.0, "beta": 50.0, "threshold": 0.5}, {"alpha": 18.0, "beta": 75.0, "threshold": 0.77}):
        found = float(metrix_loss(*arguments, **options))
        assert math.isclose(found, reference(*plain, *options.values()), rel_tol=1e-9, abs_tol=1e-9)


def test_gradient():
    x, labels, mixed, first, second, share = problem(6, 7, 0)
    assert torch.autograd.gradcheck(
        lambda a, b: metrix_loss(a, labels, b, first, second, share, beta=5.0),
        (x.requires_grad_(), mixed.requires_grad_()),
    )


def test_with_nothing_mixed_in_it_is_multi_similarity_with_a_row_as_its_own_positive():
    x, labels, *_ = problem(8, 0, 1)
    found = metrix_loss(x, labels, x, labels, labels, torch.ones(8), alpha=2.0, threshold=0.5)
    s = torch.nn.functional.normalize(x, dim=1)
    s = s @ s.T
    pulled = (torch.exp(-2 * (s - 0.5)) * (labels[:, None] == labels)).sum(1).log1p() / 2
    torch.testing.assert_close(found, pulled.mean())


def test_is_added_to_the_base_while_training():
    x, labels, *_ = problem(12, 0, 2)
    base = multi_similarity_loss(x, labels)
    loss = Metrix(weight=0.5)
    torch.manual_seed(3)
    first = loss(x, labels)
    torch.manual_seed(3)
    assert torch.equal(first, loss(x, labels))
    assert loss(x, labels) != first  # other mixtures
    assert first > base
    assert torch.equal(loss.eval()(x, labels), base)
    assert torch.equal(Metrix(weight=0.0)(x, labels), base)


def test_no_positives_is_zero_in_training_too():
    x = torch.randn(5, 3, requires_grad=True)
    value = Metrix()(x, torch.arange(5))
    value.backward()
    assert value == 0
    assert not x.grad.any()
    assert Metrix()(x[:0], torch.arange(0)) == 0


def test_a_reference_set_is_what_is_mixed():
    x, labels, y, y_labels, _, _ = problem(6, 7, 4)
    x.requires_grad_()
    y.requires_grad_()
    torch.manual_seed(0)
    value = Metrix()(x, labels, y, y_labels)
    assert all(g.isfinite().all() and g.any() for g in torch.autograd.grad(value, (x, y)))


def test_what_does_not_fit():
    arguments = problem(3, 3, 0)
    with pytest.raises(ShapeError, match="share must be"):
        metrix_loss(*arguments[:5], torch.ones(2))
    with pytest.raises(ShapeError, match="second must be"):
        metrix_loss(*arguments[:4], torch.tensor([1]), arguments[5])
    with pytest.raises(ConfigError, match="weight must be 0 or more"):
        Metrix(weight=-1.0)
    with pytest.raises(ValueError, match="mixing must be positive"):
        Metrix(mixing=0.0)
