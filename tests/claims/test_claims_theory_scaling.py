"""The helpers of the claims on scaling, on cases whose answer is known."""

from __future__ import annotations

import numpy as np
import torch

from repertoire.claims.theory import contrastive_sample_complexity, scaling_mystery


def test_the_formulas_give_back_a_curve_that_follows_them():
    marks = [50, 80, 130, 210, 340, 550, 900]

    def loss(n: float, batch: float) -> list[float]:
        losses = []
        for step in marks:
            value = 1.0
            for _ in range(200):  # the critical batch size depends on the loss
                least = step / (1 + (20 * value**-0.5) / batch)
                value = (30 / n) ** 0.5 + (20 / least) ** 0.6
            losses.append(value)
        return losses

    runs = [(w, b, 10 * w, loss(10 * w, b)) for w in (6, 10, 16) for b in (16, 64, 256)]
    found = scaling_mystery._formulas(runs, marks, 1500, 128)
    np.testing.assert_allclose(found, loss(1500, 128), rtol=0.05)


def test_triplets_name_the_closer_first():
    points = torch.randn(7, 2)
    a, p, q = contrastive_sample_complexity._triplets(points, 50, torch.Generator().manual_seed(0)).T
    assert bool(((points[a] - points[p]).norm(dim=1) <= (points[a] - points[q]).norm(dim=1)).all())
    assert bool((contrastive_sample_complexity._margins(points[None], torch.stack([a, p, q], 1)) >= 0).all())
