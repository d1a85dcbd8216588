"""Presets hold what a network expects, and refuse what cannot be."""

from __future__ import annotations

import math

import pytest

from repertoire.backbones import Preset
from repertoire.errors import ConfigError


def test_other_numbers_of_channels() -> None:
    preset = Preset((0.1, 0.2, 0.6), (0.2, 0.2, 0.5), 224)
    assert preset.for_channels(3) is preset
    assert preset.for_channels(1) == Preset((0.3,), (0.3,), 224)
    assert preset.for_channels(1).for_channels(2) == Preset((0.3,) * 2, (0.3,) * 2, 224)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mean": ()}, "mean has 0 channels and std 3"),
        ({"std": (0.1,)}, "mean has 3 channels and std 1"),
        ({"std": (0.1, 0.0, 0.1)}, "expected positive numbers"),
        ({"std": (0.1, math.nan, 0.1)}, "expected positive numbers"),
        ({"size": 0}, "size is 0"),
        ({"crop": 0.0}, "crop is 0.0"),
        ({"crop": 1.01}, "crop is 1.01"),
    ],
)
def test_what_cannot_be(changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Preset(**{"mean": (0.5,) * 3, "std": (0.2,) * 3, "size": 224, **changes})
