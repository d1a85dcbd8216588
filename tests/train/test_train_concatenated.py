"""Features of several runs side by side: as each gives them, in batches and at once, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from repertoire.errors import RunError
from repertoire.train import Answers, Concatenated


class Scaled:
    """In the place of a run: features are the images, so many times as large."""

    def __init__(self, factor: float, width: int, left_out: int = -1, modality: str = "images") -> None:
        self.factor, self.left_out = factor, left_out
        self.directory, self.facts = f"runs/{factor:g}", SimpleNamespace(modality=modality)
        self.model = SimpleNamespace(backbone=SimpleNamespace(out_features=width))

    def embed(self, images: Any) -> np.ndarray:
        return self.factor * np.stack(list(images))

    def stream_features(self, images: Any, *, batch_size: int = 2) -> Iterator[Answers]:
        for start in range(0, len(images), batch_size):
            index = np.array([i for i in range(start, min(start + batch_size, len(images))) if i != self.left_out])
            yield Answers(index, self.factor * np.stack([images[i] for i in index]), None, [])


ROWS = np.arange(15.0).reshape(5, 3)


def test_features_stand_side_by_side():
    both = Concatenated([Scaled(1, 3), Scaled(10, 3)])
    assert both.width == 6
    wanted = np.concatenate([ROWS, 10 * ROWS], 1)
    np.testing.assert_array_equal(both.embed(ROWS), wanted)
    np.testing.assert_array_equal(both.embed(iter(ROWS)), wanted)  # which can be read once
    found = list(both.stream_features(iter(ROWS)))
    assert [len(part.index) for part in found] == [2, 2, 1]
    np.testing.assert_array_equal(np.concatenate([part.values for part in found]), wanted)


def test_what_does_not_fit_is_refused():
    with pytest.raises(RunError, match="two runs or more, found 1"):
        Concatenated([Scaled(1, 3)])
    with pytest.raises(RunError, match="runs/2 is a run on features, runs/1 one on images"):
        Concatenated([Scaled(1, 3), Scaled(2, 3, modality="features")])
    with pytest.raises(RunError, match="runs/2 can use other images than runs/1"):
        list(Concatenated([Scaled(1, 3), Scaled(2, 3, left_out=3)]).stream_features(ROWS))
