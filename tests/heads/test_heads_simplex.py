from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire.errors import ConfigError, ShapeError
from repertoire.heads import NormalizedSoftmax, Simplex, simplex_vectors


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 80), st.integers(0, 5))
def test_corners_are_unit_vectors_with_equal_angles_around_zero(count, more):
    corners = simplex_vectors(count, count - 1 + more)
    expected = torch.full((count, count), -1 / (count - 1)).fill_diagonal_(1.0)
    torch.testing.assert_close(corners @ corners.T, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(corners.sum(0), torch.zeros(count - 1 + more), rtol=0, atol=1e-5)


def test_one_corner():
    assert simplex_vectors(1).tolist() == [[1.0]]
    assert simplex_vectors(1, 3).tolist() == [[1.0, 0.0, 0.0]]


def test_logits_are_products_with_the_first_corners_of_all_slots():
    head, z = Simplex(6, 3, slots=5, scale=2.0), torch.randn(4, 6)
    torch.testing.assert_close(head(z), 2 * z @ simplex_vectors(5, 6)[:3].T)


def test_every_run_has_the_same_vectors_and_a_class_keeps_its_own():
    torch.manual_seed(0)
    first = Simplex(6, 3)
    torch.manual_seed(1)
    assert torch.equal(Simplex(6, 5).weight[:3], first.weight)
    assert not list(first.parameters())
    assert first.state_dict().keys() == {"weight"}


@pytest.mark.parametrize(
    "options",
    [
        {"num_classes": 6},
        {"num_classes": 3, "slots": 2},
        {"num_classes": 3, "slots": 6},
        {"num_classes": 3, "scale": 0},
    ],
)
def test_options_out_of_range(options):
    with pytest.raises(ValueError, match=r"do not fit|positive"):
        Simplex(4, **options)


def test_arguments_out_of_range():
    with pytest.raises(ConfigError, match="count must be positive"):
        simplex_vectors(0)
    with pytest.raises(ShapeError, match="need 3 dimensions or more, found 2"):
        simplex_vectors(4, 2)


def test_normalised_softmax_is_a_cosine_over_a_temperature():
    head, z = NormalizedSoftmax(5, 3, temperature=0.1), torch.randn(4, 5)
    expected = torch.nn.functional.cosine_similarity(z[:, None], head.weight[None], dim=2) / 0.1
    torch.testing.assert_close(head(z), expected)
    torch.testing.assert_close(head(z), head.embed(z) @ torch.nn.functional.normalize(head.weight).T / 0.1)
    assert [name for name, _ in head.named_parameters()] == ["weight"]
    with pytest.raises(ValueError, match=r"temperature must be (positive|a finite number)"):
        NormalizedSoftmax(5, 3, temperature=0)
