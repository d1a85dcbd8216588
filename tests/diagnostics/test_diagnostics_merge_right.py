"""Shares of samples against a loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from repertoire.diagnostics import both_wrong_merge_right
from repertoire.errors import ShapeError


def test_shares_are_counted_sample_by_sample():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 60)
    outputs = rng.normal(size=(3, 60, 3))
    counts = [0, 0, 0, 0]
    for i, label in enumerate(labels):
        a, b, m = (rows[i].argmax() == label for rows in outputs)
        counts[0] += not a and not b
        counts[1] += not a and not b and m
        counts[2] += a and b
        counts[3] += a and b and not m
    assert min(counts) > 0
    assert both_wrong_merge_right(*outputs, labels) == pytest.approx(tuple(count / 60 for count in counts))
    answers = [torch.from_numpy(rows.argmax(1)) for rows in outputs]
    assert both_wrong_merge_right(*answers, torch.from_numpy(labels)) == both_wrong_merge_right(*outputs, labels)


def test_other_samples_are_refused():
    with pytest.raises(ShapeError, match=r"merged must be outputs .* found \[3, 2\] for \[4\]"):
        both_wrong_merge_right(torch.zeros(4, 2), torch.zeros(4, 2), torch.zeros(3, 2), torch.zeros(4))
    with pytest.raises(ShapeError, match="first"):
        both_wrong_merge_right(torch.zeros(0), torch.zeros(0), torch.zeros(0), torch.zeros(0))
