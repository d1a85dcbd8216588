from __future__ import annotations

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire.losses import BCE, bce_loss


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 6), st.integers(1, 5), st.integers(0, 999))
def test_is_the_formula_over_the_labels_that_are_known(rows, labels, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(rows, labels, generator=generator, dtype=torch.float64)
    targets = torch.randint(-1, 2, (rows, labels), generator=generator)
    expected = []
    for row, wanted in zip(logits.tolist(), targets.tolist(), strict=True):
        terms = [math.log1p(math.exp(-f if t else f)) for f, t in zip(row, wanted, strict=True) if t >= 0]
        expected.append(sum(terms) / max(len(terms), 1))
    torch.testing.assert_close(BCE(reduction="none")(logits, targets), torch.tensor(expected, dtype=torch.float64))
    torch.testing.assert_close(bce_loss(logits, targets), torch.tensor(sum(expected) / rows, dtype=torch.float64))
