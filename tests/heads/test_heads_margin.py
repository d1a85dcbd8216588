"""Margin heads against the formulas of their papers, class by class in float64."""

from __future__ import annotations

import math
import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire import registry
from repertoire.errors import ConfigError, ShapeError
from repertoire.heads import ArcFace, CosFace, MadaCos

HEADS = {"arcface": ArcFace, "cosface": CosFace, "madacos": MadaCos}


def cosine(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)


def cosines(z: torch.Tensor, head: torch.nn.Module) -> list[list[float]]:
    return [[cosine(row, w) for w in head.weight.tolist()] for row in z.tolist()]


def drawn(rows: int, width: int, classes: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(rows, width, generator=generator, dtype=torch.float64)
    return z, torch.randint(0, classes, (rows,), generator=generator)


CASE = (st.integers(0, 5), st.integers(1, 6), st.integers(1, 5), st.integers(0, 999))


@settings(max_examples=25, deadline=None)
@given(*CASE, st.sampled_from([0.0, 0.2, 0.5, 1.4]))
def test_arcface(rows, width, classes, seed, margin):
    z, y = drawn(rows, width, classes, seed)
    head = ArcFace(width, classes, scale=8.0, margin=margin).double()
    expected = torch.empty(rows, classes, dtype=torch.float64)
    for i, row in enumerate(cosines(z, head)):
        for k, c in enumerate(row):
            if k == y[i]:
                angle = math.acos(min(max(c, -1), 1)) + margin
                c = math.cos(angle) if angle < math.pi else c - margin * math.sin(margin)
            expected[i, k] = 8 * c
    # Where the angle is zero or a half turn the sine is kept from zero, and there alone.
    torch.testing.assert_close(head(z, y), expected, rtol=1e-6, atol=5e-3)
    away = (head(z).abs() < 7.99).all(1)
    torch.testing.assert_close(head(z, y)[away], expected[away])


@settings(max_examples=25, deadline=None)
@given(*CASE, st.sampled_from([0.0, 0.35, 2.0]))
def test_cosface(rows, width, classes, seed, margin):
    z, y = drawn(rows, width, classes, seed)
    head = CosFace(width, classes, scale=8.0, margin=margin).double()
    expected = [[8 * (c - margin * (k == t)) for k, c in enumerate(row)]
                for row, t in zip(cosines(z, head), y.tolist(), strict=True)]  # fmt: skip
    torch.testing.assert_close(head(z, y), torch.tensor(expected, dtype=torch.float64).view(rows, classes))


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 9), st.integers(2, 6), st.integers(2, 5), st.integers(0, 999), st.sampled_from([0.02, 0.1, 0.7]))
def test_madacos(rows, width, classes, seed, rho):
    z, y = drawn(rows, width, classes, seed)
    head = MadaCos(width, classes, probability=rho).double()
    if seed % 2:  # as late in training, where the features are close to their class vectors
        with torch.no_grad():
            z = 0.03 * z + head.weight[y]
    table = cosines(z, head)
    right = [row[t] for row, t in zip(table, y.tolist(), strict=True)]
    median = statistics.median_low(right)
    middle = right.index(median)
    scale = max(32.0, math.log(9999999 * (1 - rho) / rho) / max(1 - median, 1e-3))
    others = [scale * c for k, c in enumerate(table[middle]) if k != y[middle]]
    log_sum = max(others) + math.log(sum(math.exp(other - max(others)) for other in others))
    margin = max(0.0, median - (math.log(rho / (1 - rho)) + log_sum) / scale)
    expected = [[scale * (c - margin * (k == t)) for k, c in enumerate(row)]
                for row, t in zip(table, y.tolist(), strict=True)]  # fmt: skip
    found = head(z, y)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))
    if margin:
        assert found.softmax(1)[middle, y[middle]].item() == pytest.approx(rho)


def settle(head):
    """Scale and margin of a head that finds them itself become those of the last batch."""
    if isinstance(head, MadaCos):
        head.after_update()


@pytest.mark.parametrize("name", HEADS)
class TestMarginHeads:
    def test_the_margin_is_for_training_and_for_the_right_class(self, name):
        head = HEADS[name](6, 4)
        z, y = torch.randn(9, 6), torch.arange(9) % 4
        with_margin = head(z, y)
        settle(head)
        plain = head(z)
        right = torch.nn.functional.one_hot(y, 4).bool()
        assert (with_margin[right] <= plain[right]).all()
        torch.testing.assert_close(with_margin[~right], plain[~right])
        torch.testing.assert_close(head.eval()(z, y), plain)

    def test_a_sample_without_a_label_has_no_margin(self, name):
        head = HEADS[name](6, 4)
        z, y = torch.randn(4, 6), torch.tensor([0, -1, 2, 3])
        found = head(z, y)
        settle(head)
        torch.testing.assert_close(found[1], head(z)[1])
        assert head(z, torch.full((4,), -1)).isfinite().all()

    def test_gradcheck(self, name):
        head = HEADS[name](4, 3).double()
        if name == "madacos":  # whose scale and margin are held
            head._of_batch = lambda *_: (head.scale, head.margin)
        z = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(lambda z: head(z, torch.arange(3)), (z,))

    def test_extreme_angles_have_finite_gradients(self, name):
        head = HEADS[name](3, 2)
        with torch.no_grad():
            head.weight.copy_(torch.eye(2, 3))
        z = torch.tensor([[5.0, 0, 0], [-5.0, 0, 0], [0, 0, 0]], requires_grad=True)
        logits = head(z, torch.zeros(3, dtype=torch.int64))
        assert logits.isfinite().all()
        torch.nn.functional.cross_entropy(logits, torch.zeros(3, dtype=torch.int64)).backward()
        assert z.grad.isfinite().all()
        assert head.weight.grad.isfinite().all()

    def test_targets_that_do_not_fit(self, name):
        head = HEADS[name](3, 2)
        for targets in (torch.zeros(2), torch.zeros(1, dtype=torch.int64)):
            with pytest.raises(ShapeError, match=r"targets must be integers \[2\]"):
                head(torch.zeros(2, 3), targets)
        with pytest.raises(ShapeError, match=r"targets must be below 2.* found 2"):
            head(torch.zeros(2, 3), torch.tensor([0, 2]))


def test_arcface_falls_with_the_angle_all_the_way():
    head = ArcFace(2, 1, scale=1.0, margin=0.5).double()
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[1.0, 0.0]]))
    angles = torch.linspace(0, math.pi, 400, dtype=torch.float64)
    logits = head(torch.stack([angles.cos(), angles.sin()], 1), torch.zeros(400, dtype=torch.int64))[:, 0]
    assert (logits.diff() < 1e-3).all()


def test_two_batches_before_a_backward_pass():
    """The second has another scale and margin, which must not spoil the gradient of the first."""
    head, y = MadaCos(6, 4), torch.arange(4)
    first, second = torch.randn(4, 6, requires_grad=True), head.weight.detach() + 0.01
    alone = torch.autograd.grad(head(first, y).sum(), first)[0]
    logits = head(first, y)
    head(second, y)
    torch.testing.assert_close(torch.autograd.grad(logits.sum(), first)[0], alone)


def test_scale_and_margin_are_state():
    head, y = MadaCos(6, 4), torch.arange(4)
    head(head.weight.detach() + 0.01, y)
    assert head.scale == 32  # not before the weights have changed
    head.after_update()
    assert head.scale > 32
    other = MadaCos(6, 4)
    other.load_state_dict(head.state_dict())
    z = torch.randn(3, 6)
    assert torch.equal(other.eval()(z), head.eval()(z))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("arcface:scale=0", "scale must be (positive|a finite number)"),
        ("arcface:margin=1.6", "margin must lie in"),
        ("cosface:margin=-1", "margin must lie in"),
        ("cosface:scale=inf", "scale must be (positive|a finite number)"),
        ("madacos:probability=1", "probability must lie in"),
    ],
)
def test_options_out_of_range(spec, message):
    with pytest.raises(ConfigError, match=message):
        registry.build("heads", spec, in_features=4, num_classes=2)


@pytest.mark.parametrize(
    "head", [ArcFace(16, 50), CosFace(16, 50), MadaCos(16, 50)], ids=["arcface", "cosface", "madacos"]
)
def test_autocast_does_not_round_the_margin_away(head):
    """Near the class vectors, where a bfloat16 cosine has a tenth of the margin left."""
    y = torch.arange(50)
    z = (head.weight.detach() + 0.01 * torch.randn(50, 16)).requires_grad_()
    exact = head(z, y)
    (right,) = torch.autograd.grad(torch.nn.functional.cross_entropy(exact, y), z)
    with torch.autocast("cpu", torch.bfloat16):
        logits = head(z, y)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, exact)
    torch.testing.assert_close(torch.autograd.grad(torch.nn.functional.cross_entropy(logits, y), z)[0], right)
