from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from repertoire.errors import ShapeError
from repertoire.losses import closeness_loss, discrimination_loss, orthogonality_loss


def reference(prototypes: Tensor) -> tuple[float, float, float]:
    p = prototypes.numpy()
    unit = p / np.linalg.norm(p, axis=2, keepdims=True)
    closest, farthest, orthogonality = [], [], 0.0
    for a in range(len(unit)):
        orthogonality += sum(abs(float(x @ y) - (i == j)) for i, x in enumerate(unit[a]) for j, y in enumerate(unit[a]))
        for b in range(len(unit)):
            if a != b:
                cosines = [float(x @ y) for x in unit[a] for y in unit[b]]
                closest.append(-min(cosines))
                farthest.append(max(cosines))
    return float(np.mean(closest)) if closest else 0.0, float(np.mean(farthest)) if farthest else 0.0, orthogonality


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 5), st.integers(1, 4), st.integers(1, 5), st.integers(0, 999))
def test_agree_with_the_formulas_and_see_directions_only(classes, count, width, seed):
    generator = torch.Generator().manual_seed(seed)
    prototypes = torch.randn(classes, count, width, generator=generator, dtype=torch.float64)
    expected = reference(prototypes)
    lengths = 0.1 + torch.rand(classes, count, 1, generator=generator, dtype=torch.float64)
    for given_ in (prototypes, prototypes * lengths):
        found = [f(given_) for f in (closeness_loss, discrimination_loss, orthogonality_loss)]
        np.testing.assert_allclose([f.item() for f in found], expected, atol=1e-9)


@pytest.mark.parametrize("loss", [closeness_loss, discrimination_loss, orthogonality_loss])
def test_corners(loss):
    assert loss(torch.zeros(2, 3, 4, requires_grad=True)).isfinite()
    assert loss(torch.randn(2, 3, 4).bfloat16()).dtype == torch.float32
    prototypes = torch.randn(3, 2, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(loss, prototypes)
    with pytest.raises(ShapeError, match=r"\[C, K, d\]"):
        loss(torch.randn(2, 3))
