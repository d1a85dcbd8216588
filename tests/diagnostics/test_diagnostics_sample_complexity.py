"""The number of comparisons that an embedding takes."""

from __future__ import annotations

import math

import pytest

from repertoire.diagnostics import comparisons_needed
from repertoire.errors import ConfigError


def test_it_grows_with_items_and_dimensions_until_there_are_as_many():
    assert comparisons_needed(100, 8) == pytest.approx(100 * 8 / 0.1)
    assert comparisons_needed(100, 100) == comparisons_needed(100, 1000) == pytest.approx(100 * 100 / 0.1)
    assert comparisons_needed(100, 8, error=0.01) == pytest.approx(10 * comparisons_needed(100, 8))


@pytest.mark.parametrize("given", [(2, 1), (3, 0), (3, 1, 0.0), (3, 1, 1.0), (3, 1, math.nan)])
def test_numbers_out_of_range(given):
    with pytest.raises(ConfigError):
        comparisons_needed(*given)
