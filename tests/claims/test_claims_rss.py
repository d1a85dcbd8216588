from __future__ import annotations

import pytest
import torch

from repertoire import losses
from repertoire.backbones import Identity
from repertoire.claims.semi_supervised.rss import DIMENSIONS, drawn, error
from repertoire.heads import Linear
from repertoire.methods import Classifier, Normalize, Supervised


def test_the_error_in_closed_form_is_that_of_many_rows():
    torch.manual_seed(0)
    model = Classifier(Normalize([0.0] * DIMENSIONS, [1.0] * DIMENSIONS), Identity(DIMENSIONS), Linear(DIMENSIONS, 2))
    with torch.no_grad():
        model.head.linear.weight[1, 0] += 0.4
        model.head.linear.bias[1] += 0.3
    x, y = drawn(5, 200_000)
    found = float((model(x).argmax(1) != y).float().mean())
    assert error(Supervised(model, losses.CrossEntropy())) == pytest.approx(found, abs=3e-3)
    assert 0.02 < found < 0.45


def test_unlabelled_rows_are_moved_at_a_right_angle():
    x, y = drawn(0, 40_000, shift=1.5)
    torch.testing.assert_close(x[y == 1].mean(0)[:3], torch.tensor([2.0, 1.5, 0.0]), atol=0.05, rtol=0)
    crowd, _ = drawn(0, 40_000, crowds=0.0)
    assert crowd.mean(0).abs().max() < 0.05
