"""Sequences of spectra, halves of pictures and weak attributes: what their claims are measured with."""

from __future__ import annotations

import math

import pytest
import torch

from repertoire.claims.beds.towers import turned
from repertoire.claims.ssl.cpc import AHEAD, spectrum_error
from repertoire.claims.ssl.decoupled_uniformity import ATTRIBUTES, weak_attributes
from repertoire.claims.ssl.siglip import SIDE, halves


def test_a_prediction_is_of_the_moment_that_many_steps_later():
    steps = torch.randn(2, 7, 3)
    right = torch.stack([torch.roll(steps, -(k + 1), 1) for k in range(AHEAD)])
    assert float(spectrum_error(steps, right)) == 0
    assert float(spectrum_error(steps, right + 1)) == pytest.approx(1)
    assert float(spectrum_error(steps, steps.expand(AHEAD, -1, -1, -1))) > 0.5


def test_halves_are_the_columns_of_a_picture():
    rows = torch.arange(SIDE**2).float()[None]
    left, right = halves(rows)
    assert left.view(SIDE, -1)[3, 0] == 3 * SIDE
    assert right.view(SIDE, -1)[3, 0] == 3 * SIDE + SIDE // 2


def test_no_two_classes_have_the_same_attributes():
    codes = {tuple(c in members for members in ATTRIBUTES) for c in range(10)}
    assert len(codes) == 10
    labels = torch.arange(10).repeat(500)
    found = weak_attributes(labels, torch.Generator().manual_seed(0))
    true = torch.stack([torch.isin(labels, torch.tensor(members)) for members in ATTRIBUTES], 1)
    assert float(((found > 0) != true).float().mean()) == pytest.approx(0.1, abs=0.01)


def test_a_half_turn_turns_a_picture_upside_down():
    generator = torch.Generator().manual_seed(0)
    rows = torch.rand(1, SIDE**2)
    found = turned(rows, torch.tensor([math.pi]), generator)
    assert float((found - rows.flip(1)).abs().mean()) < 0.06
    assert float((turned(rows, torch.zeros(1), generator) - rows).abs().mean()) < 0.06
