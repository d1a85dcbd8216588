from __future__ import annotations

import pytest
import torch

from repertoire.errors import ConfigError
from repertoire.heads import Legendre, Linear, Matryoshka, Simplex


def test_old_rows_stay_bit_for_bit_and_new_ones_are_drawn_as_those_of_a_linear_layer():
    torch.manual_seed(0)
    head = Linear(64, 3)
    weight, bias = head.linear.weight.clone(), head.linear.bias.clone()
    head.grow(2000)
    assert torch.equal(head.linear.weight[:3], weight)
    assert torch.equal(head.linear.bias[:3], bias)
    new = head.linear.weight[3:].detach()
    bound = 64**-0.5
    assert new.abs().max() <= bound
    torch.testing.assert_close(new.std(), torch.tensor(bound / 3**0.5), rtol=0.02, atol=0)
    assert head.linear.out_features == 2000
    assert all(p.requires_grad for p in head.parameters())


def test_a_frozen_head_stays_frozen_and_the_random_state_decides():
    grown = []
    for _ in range(2):
        head = Linear(4, 2, bias=False).requires_grad_(False)
        torch.manual_seed(7)
        head.grow(5)
        grown.append(head.linear.weight[2:])
        assert not head.linear.weight.requires_grad
    assert torch.equal(*grown)


def test_a_head_that_began_at_zero_grows_by_zeros():
    head = Linear(4, 2, zero=True)
    head.grow(5)
    assert not any(p.any() for p in head.parameters())


def test_every_nested_classifier_grows():
    head = Matryoshka(16, 3)
    head.grow(4)
    assert [logits.shape for _, logits in head.outputs(torch.zeros(2, 16))] == [(2, 4), (2, 4)]
    assert {len(p) for p in head.parameters()} == {4}


def test_a_simplex_takes_its_next_corners_until_there_are_none():
    head = Simplex(8, 3, slots=5)
    head.grow(5)
    assert torch.equal(head.weight, Simplex(8, 5, slots=5).weight)
    with pytest.raises(ConfigError, match="5 slots"):
        head.grow(6)
    assert head.num_classes == len(head.weight) == 5


def test_what_cannot_grow_says_why():
    with pytest.raises(ConfigError, match=r"Legendre cannot grow from 3 to 4 classes: its link.*Use head linear"):
        Legendre(8, 3).grow(4)
    with pytest.raises(ConfigError, match="num_classes must be 3 or more, the classes there are; found 2"):
        Linear(8, 3).grow(2)
