"""The digits of scikit-learn."""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_digits

from repertoire.data._digits import digits
from repertoire.data._source import SourceRequest


def test_digits_are_those_of_scikit_learn() -> None:
    splits = digits(SourceRequest(seed=1))
    parts = (splits.train, splits.val, splits.test)
    assert splits.augmentation == "shift"
    assert splits.classes == tuple("0123456789")
    assert sum(map(len, parts)) == 1797
    original = load_digits()
    seen = []
    for part in parts:
        assert part.channels == 1
        assert part.size == (8, 8)
        rows = np.array([int(name) for name in part.names])
        np.testing.assert_array_equal(part.labels, original.target[rows])
        pixels = part.pixels(slice(None))[..., 0]
        np.testing.assert_allclose(pixels / 255, original.images[rows] / 16, atol=0.5 / 255)
        seen.append(rows)
    np.testing.assert_array_equal(np.sort(np.concatenate(seen)), np.arange(1797))


def test_the_splits_do_not_depend_on_the_size() -> None:
    small, large = digits(SourceRequest(seed=2)), digits(SourceRequest(seed=2, size=20))
    assert large.train.size == (20, 20)
    assert list(small.test.names) == list(large.test.names)
    np.testing.assert_array_equal(small.train.keys, large.train.keys)
    # Bicubic interpolation keeps the brightness of an image, up to what clipping at black takes.
    before = small.val.pixels(slice(None)).mean((1, 2, 3))
    after = large.val.pixels(slice(None)).mean((1, 2, 3))
    assert np.abs(after - before).mean() < 6
