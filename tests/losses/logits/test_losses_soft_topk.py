from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq

from repertoire import registry
from repertoire.errors import ConfigError, ShapeError
from repertoire.losses import SoftTopK, log_soft_topk, soft_topk_loss


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x > 0 else math.exp(x) / (1 + math.exp(x))


def reference(scores: list[float], k: int, sharpness: float) -> list[float]:
    """The z of one row, by a root finder."""
    reach = max(abs(score) for score in scores) + 50 / sharpness
    t = brentq(lambda t: sum(sigmoid(sharpness * (s + t)) for s in scores) - k, -reach, reach, xtol=1e-14)
    return [sigmoid(sharpness * (s + t)) for s in scores]


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 5), st.integers(2, 9), st.integers(1, 8), st.sampled_from([0.3, 1.0, 8.0]), st.integers(0, 999))
def test_is_the_formula(rows, labels, k, sharpness, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(rows, labels, generator=generator, dtype=torch.float64)
    targets = torch.randint(0, 2, (rows, labels), generator=generator)
    expected = []
    for scores, wanted in zip(logits.tolist(), targets.tolist(), strict=True):
        z = reference(scores, k, sharpness) if k < labels else [1.0] * labels
        expected.append(-sum(math.log(a) for a, b in zip(z, wanted, strict=True) if b))
    each = SoftTopK(k, sharpness, reduction="none")(logits, targets)
    torch.testing.assert_close(each, torch.tensor(expected, dtype=torch.float64))
    torch.testing.assert_close(soft_topk_loss(logits, targets, k=k, sharpness=sharpness), each.mean())


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 200), st.sampled_from([1e-6, 1.0, 1e3]), st.integers(0, 999))
def test_the_shares_add_up_to_k_in_float32(labels, magnitude, seed):
    generator = torch.Generator().manual_seed(seed)
    k = torch.randint(1, labels + 1, (4,), generator=generator)
    z = log_soft_topk(magnitude * torch.randn(4, labels, generator=generator), k).exp()
    torch.testing.assert_close(z.sum(1), k.float(), rtol=1e-3, atol=1e-3)


def test_without_k_it_is_the_number_of_labels():
    logits = torch.randn(3, 6, dtype=torch.float64)
    targets = torch.tensor([[1, 0, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0], [0] * 6])
    each = soft_topk_loss(logits, targets, reduction="none")
    for row, k in ((0, 1), (1, 3)):
        torch.testing.assert_close(each[row], soft_topk_loss(logits[row : row + 1], targets[row : row + 1], k=k))
    assert each[2] == 0


def test_sharp_is_the_hard_choice():
    scores = torch.tensor([[3.0, -1.0, 2.0, 0.0]])
    torch.testing.assert_close(log_soft_topk(scores, 2, sharpness=50.0).exp(), torch.tensor([[1.0, 0.0, 1.0, 0.0]]))


def test_a_shift_of_all_scores_changes_nothing():
    scores = torch.randn(3, 5, dtype=torch.float64)
    torch.testing.assert_close(log_soft_topk(scores + 7, 2), log_soft_topk(scores, 2))


@pytest.mark.parametrize("k", [1, 3, torch.tensor([0, 2, 5])])
def test_gradcheck(k):
    scores = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    keep = torch.ones(3, 1, dtype=torch.float64) if isinstance(k, int) else (k > 0)[:, None].double()
    assert torch.autograd.gradcheck(lambda s: log_soft_topk(s, k, sharpness=1.5) * keep, (scores,))


@pytest.mark.parametrize("k", [0, 1, 2, 3])
def test_extremes_have_finite_gradients(k):
    scores = torch.tensor([[1e4, -1e4, 1e4], [0.0, 0.0, 0.0]], requires_grad=True)
    log_soft_topk(scores, k).clamp_min(-1e6).sum().backward()
    assert scores.grad.isfinite().all()


def test_gradients_of_gradients_and_in_forward_mode():
    scores = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda s: log_soft_topk(s, 2), (scores,))
    rows = torch.func.vmap(lambda s: torch.func.jacfwd(lambda r: log_soft_topk(r[None], 2)[0])(s))(scores.detach())
    expected = torch.autograd.functional.jacobian(lambda s: log_soft_topk(s, 2), scores)
    torch.testing.assert_close(rows, torch.stack([expected[i, :, i] for i in range(2)]))


@pytest.mark.parametrize("gap", [20.0, 40.0, 100.0, 1000.0])
def test_a_label_that_is_surely_wrong_gets_its_gradient_in_float32(gap):
    """The sum of the shares rounds to k long before it is k; of two scores with one to choose, t is half the gap."""
    logits = torch.tensor([[gap, 0.0, -5 * gap]], requires_grad=True)
    loss = soft_topk_loss(logits, torch.tensor([[0, 1, 0]]))
    loss.backward()
    torch.testing.assert_close(loss.detach(), torch.tensor(gap / 2 + math.log1p(math.exp(-gap / 2))))
    torch.testing.assert_close(logits.grad, torch.tensor([[0.5, -0.5, 0.0]]), rtol=1e-4, atol=1e-4)


def test_unknown_labels_take_no_part():
    logits = torch.tensor([[1.0, 9.0, -1.0, 0.5]], requires_grad=True)
    loss = soft_topk_loss(logits, torch.tensor([[1, -1, 0, 0]]))
    torch.testing.assert_close(loss, soft_topk_loss(logits[:, [0, 2, 3]], torch.tensor([[1, 0, 0]])))
    assert torch.autograd.grad(loss, logits)[0][0, 1] == 0


@pytest.mark.parametrize("option", ["k=0", "sharpness=0"])
def test_options_out_of_range(option):
    with pytest.raises(ConfigError, match=r"k must be positive|sharpness must be positive"):
        registry.build("losses", f"soft-topk:{option}")


@pytest.mark.parametrize("k", [4, -1, torch.tensor([1, 9]), torch.tensor([1.0, 1.0]), torch.tensor([1])])
def test_k_that_does_not_fit(k):
    with pytest.raises(ShapeError, match="k must"):
        log_soft_topk(torch.zeros(2, 3), k)
    with pytest.raises(ShapeError, match="scores must be"):
        log_soft_topk(torch.zeros(3), k)
