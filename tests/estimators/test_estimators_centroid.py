from __future__ import annotations

import numpy as np
import pytest

from repertoire.estimators import NearestCentroid


@pytest.mark.parametrize("seed", range(5))
def test_in_pieces_of_any_order_it_is_what_it_is_at_once(seed: int):
    generator = np.random.default_rng(seed)
    x, y = generator.normal(size=(60, 5)), generator.choice(np.array(["d", "a", "c", "b"]), 60)
    whole = NearestCentroid().fit(x, y)
    piecewise = NearestCentroid()
    for part in np.array_split(np.argsort(y) if seed % 2 else np.arange(60), [1, 7, 8, 40]):
        piecewise.partial_fit(x[part], y[part])
    assert piecewise.classes_.tolist() == whole.classes_.tolist()
    np.testing.assert_array_equal(piecewise.counts_, whole.counts_)
    np.testing.assert_allclose(piecewise.centroids_, whole.centroids_, rtol=1e-12, atol=1e-12)


def test_fit_begins_afresh_and_announced_classes_are_kept_to():
    model = NearestCentroid(normalize=False).partial_fit([[0.0], [1.0]], [0, 1], classes=[0, 1, 2])
    assert model.fit([[5.0], [6.0]], [3, 4]).classes_.tolist() == [3, 4]
    with pytest.raises(ValueError, match="label 7 is not among"):
        model.partial_fit([[5.0]], [7], classes=[3, 4])
