from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire.errors import ConfigError
from repertoire.estimators import VirtualOutliers
from repertoire.estimators._virtual_outliers import _neighbour_distance


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 9), st.integers(1, 12), st.integers(1, 15), st.integers(0, 99))
def test_distances_to_neighbours_are_those_of_a_sorted_list(rows, others, rank, seed):
    generator = torch.Generator().manual_seed(seed)
    x, y = (torch.randn(n, 3, generator=generator, dtype=torch.float64) for n in (rows, others))
    expected = [
        sorted(sum((a - b) ** 2 for a, b in zip(one, other, strict=True)) ** 0.5 for other in y.tolist())[
            min(rank, others) - 1
        ]
        for one in x.tolist()
    ]
    found = _neighbour_distance(x, y, rank)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-6, atol=1e-6)


def stages(classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    y = np.arange(120) % classes
    return np.random.default_rng(0).normal(size=(120, 6)) + 3 * np.eye(classes, 6)[y], y


def test_outliers_lie_further_out_than_features_do():
    x, y = (torch.from_numpy(part) for part in stages())
    model = VirtualOutliers(neighbours=3, boundary=5, kept=7)
    found = model.outliers(x, y, torch.Generator().manual_seed(0))
    assert found.shape == (4 * 7, 6)
    inside = _neighbour_distance(x, x, 4)
    assert _neighbour_distance(found, x, 3).min() > inside.median()
    origin = VirtualOutliers(neighbours=3, boundary=5, kept=7, around="origin")
    drawn = origin.outliers(x + 50, y, torch.Generator().manual_seed(0))
    assert drawn.norm(dim=1).max() < 20, "noise by itself, as in the released code"


def test_a_stage_leaves_the_rows_of_others_bit_for_bit():
    x, y = stages()
    model = VirtualOutliers(rate=0.02).partial_fit(x[y < 2], y[y < 2])
    coef, logits = model.coef_.copy(), model.logits(x)
    model.partial_fit(x[y >= 2], y[y >= 2])
    np.testing.assert_array_equal(model.coef_[:2], coef)
    np.testing.assert_allclose(model.logits(x)[:, :2], logits, rtol=1e-12)


def test_outliers_raise_the_energy_outside_and_change_nothing_at_weight_0():
    x, y = stages()
    plain, tuned = (VirtualOutliers(w, energy_in=-6, energy_out=-1, rate=0.05).fit(x, y) for w in (0.0, 2.0))
    without = VirtualOutliers(weight=0.0, rate=0.05).fit(x, y)
    np.testing.assert_array_equal(plain.coef_, without.coef_)
    scaled = torch.from_numpy(plain._scaled(x))
    out = plain.outliers(scaled, torch.from_numpy(y), torch.Generator().manual_seed(3)).numpy()

    def gap(model: VirtualOutliers) -> float:
        inside = np.logaddexp.reduce(scaled.numpy() @ model.coef_.T + model.intercept_, axis=1).mean()
        return float(inside - np.logaddexp.reduce(out @ model.coef_.T + model.intercept_, axis=1).mean())

    assert gap(tuned) > gap(plain)


def test_options_out_of_range():
    with pytest.raises(ConfigError, match="noise is 0; expected a positive number"):
        VirtualOutliers(noise=0).fit([[0.0], [1.0]], [0, 1])
