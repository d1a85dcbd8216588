"""Nested classifiers against the definition of their paper."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from repertoire import registry
from repertoire.errors import ConfigError, ShapeError
from repertoire.heads import Matryoshka, nested_sizes


def test_default_sizes_are_the_papers():
    assert nested_sizes(2048) == (8, 16, 32, 64, 128, 256, 512, 1024, 2048)
    assert nested_sizes(15) == (15,)
    assert nested_sizes(100) == (12, 25, 50, 100)
    assert nested_sizes(1) == (1,)


@settings(max_examples=25, deadline=None)
@given(st.data(), st.integers(1, 20), st.integers(0, 4), st.integers(1, 4), st.booleans(), st.booleans())
def test_equals_the_definition(data, width, rows, classes, tied, bias):
    sizes = tuple(data.draw(st.lists(st.integers(1, width), min_size=1, max_size=4, unique=True)))
    weights = tuple(data.draw(st.lists(st.floats(0.5, 2), min_size=len(sizes), max_size=len(sizes))))
    head = Matryoshka(width, classes, sizes, weights, tied=tied, bias=bias).double()
    z = torch.randn(rows, width, dtype=torch.float64)
    outputs = head.outputs(z)
    assert [c for c, _ in outputs] == [c for _, c in sorted(zip(sizes, weights, strict=True), reverse=True)]
    for (_, logits), m in zip(outputs, sorted(sizes, reverse=True), strict=True):
        linear = head.classifier if tied else head.classifiers[str(m)]
        w, b = linear.weight[:, :m], linear.bias if bias else torch.zeros(classes, dtype=torch.float64)
        assert bias or linear.bias is None
        expected = torch.stack([sum((w[:, j] * z[i, j] for j in range(m)), b) for i in range(rows)]) if rows else None
        assert logits.shape == (rows, classes)
        if expected is not None:
            torch.testing.assert_close(logits, expected)
            torch.testing.assert_close(head.logits_at(z, m), expected)
            torch.testing.assert_close(head.logits_at(z[:, :m], m), expected)
    torch.testing.assert_close(head(z), outputs[0][1])


@pytest.mark.parametrize("tied", [False, True])
def test_a_loss_of_every_size_reaches_its_prefix_and_no_more(tied):
    head, z = Matryoshka(32, 3, tied=tied), torch.randn(4, 32, requires_grad=True)
    for m, (_, logits) in zip(reversed(head.sizes), head.outputs(z), strict=True):
        (gradient,) = torch.autograd.grad(logits.square().sum(), z, retain_graph=True)
        assert gradient[:, :m].any(0).all()
        assert not gradient[:, m:].any()


def test_tied_gradients_are_those_of_the_sum_of_losses():
    head, z, y = Matryoshka(16, 3, (4, 8, 16), tied=True).double(), torch.randn(5, 16).double(), torch.arange(5) % 3
    together = sum(c * F.cross_entropy(logits, y) for c, logits in head.outputs(z))
    apart = sum(F.cross_entropy(head.logits_at(z, m), y) for m in head.sizes)
    for one, other in zip(
        torch.autograd.grad(together, list(head.parameters())),
        torch.autograd.grad(apart, list(head.parameters())),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def test_tied_classifiers_have_every_size_and_separate_ones_their_own():
    z = torch.randn(2, 16)
    assert Matryoshka(16, 3, (4, 8), tied=True).logits_at(z, 7).shape == (2, 3)
    with pytest.raises(ShapeError, match="one of 4, 8, found 7"):
        Matryoshka(16, 3, (4, 8)).logits_at(z, 7)
    with pytest.raises(ShapeError, match="from 1 to 8, found 9"):
        Matryoshka(16, 3, (4, 8), tied=True).logits_at(z, 9)


def test_prefix():
    head, z = Matryoshka(16, 3), torch.randn(4, 16)
    torch.testing.assert_close(head.prefix(z, 5), z[:, :5] / z[:, :5].norm(dim=1, keepdim=True))
    torch.testing.assert_close(head.prefix(z, 5, normalize=False), z[:, :5], rtol=0, atol=0)
    assert not head.prefix(torch.zeros(2, 16), 3).any()
    with pytest.raises(ShapeError, match="from 1 to 16, found 17"):
        head.prefix(z, 17)
    with pytest.raises(ShapeError, match=r"features must be a floating point \[N, 16\]"):
        head.prefix(z[:, :4], 8)


@pytest.mark.parametrize("features", [torch.zeros(16), torch.zeros(2, 15), torch.zeros(2, 17), torch.zeros(2, 16, 1)])
def test_features_that_do_not_fit(features):
    head = Matryoshka(16, 3)
    with pytest.raises(ShapeError, match="features must be"):
        head(features)
    with pytest.raises(ShapeError, match="features must be"):
        head.outputs(features)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sizes": ()}, "sizes is empty"),
        ({"sizes": (0, 8)}, r"from 1 to 16, the width of the features; found \[0\]"),
        ({"sizes": (8, 17)}, r"found \[17\]"),
        ({"sizes": (8, 8)}, "a size twice"),
        ({"weights": (1.0,)}, "1 numbers for 2 sizes"),
        ({"weights": (1.0, -1.0)}, "not negative"),
        ({"weights": (0.0, 0.0)}, "one of them positive"),
        ({"weights": (1.0, float("nan"))}, "finite"),
    ],
)
def test_options_that_do_not_fit(options, message):
    with pytest.raises(ValueError, match=message):
        Matryoshka(16, 3, **options)


def test_is_built_from_a_spec():
    head = registry.build("heads", "matryoshka:sizes=(16,4),weights=(1,0.5),tied=true", in_features=32, num_classes=3)
    assert head.sizes == (4, 16)
    assert head.weights == (0.5, 1.0)
    assert head.tied
    with pytest.raises(ConfigError, match="sizes must be from 1 to 32"):
        registry.build("heads", "matryoshka:sizes=(64)", in_features=32, num_classes=3)
