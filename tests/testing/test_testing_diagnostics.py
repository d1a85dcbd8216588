"""Each check of a diagnostic finds what it is there for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from broken import every_check_is_tried, failing
from torch import Tensor

from repertoire.diagnostics import effective_rank as whole
from repertoire.errors import ShapeError
from repertoire.testing import check_diagnostic


def undocumented(features, labels=None):
    return whole(features)


def in_place(features: Any, labels: Tensor | None = None) -> float:
    """Effective rank of features, which it halves; labels are not looked at."""
    if isinstance(features, Tensor) and features.is_floating_point():
        features.detach().mul_(0.5)
    return whole(features)


def of_the_first(features: Any, labels: Tensor | None = None) -> float:
    """Effective rank of features, and a number of the first of them; labels are not looked at."""
    some = isinstance(features, Tensor) and features.ndim == 2 and len(features)
    return whole(features) + (abs(float(features[0].detach().sum())) if some else 0.0)


def coarse(features: Any, labels: Tensor | None = None) -> float:
    """Effective rank of features, of which half precision is taken for less; labels are not looked at."""
    less = isinstance(features, Tensor) and features.dtype in (torch.float16, torch.bfloat16)
    return whole(features) * (0.5 if less else 1.0)


def of_many(features: Any, labels: Tensor | None = None) -> float:
    """Effective rank of features, of which there must be some; labels are not looked at."""
    if isinstance(features, Tensor) and not len(features):
        raise ZeroDivisionError
    return whole(features)


def standardised(features: Any, labels: Tensor | None = None) -> float:
    """Effective rank of features, each divided by its deviation; labels are not looked at."""
    if isinstance(features, Tensor) and features.ndim == 2 and len(features) > 2 and bool(features.std(0).eq(0).any()):
        return float("nan")
    return whole(features)


def of_one_block(features: Any, labels: Tensor | None = None) -> float:
    """Effective rank of the first block of features; labels are not looked at."""
    return whole(features[0] if isinstance(features, list) else features)


def lenient(features: Any, labels: Tensor | None = None) -> float:
    """Effective rank of features, or nothing where they do not fit; labels are not looked at."""
    try:
        return whole(features)
    except ShapeError:
        return 0.0


def mending(features: Any, labels: Tensor | None = None) -> float:
    """Effective rank of features, of which those that are no numbers are taken for zero; labels are not looked at."""
    return whole(features.nan_to_num(0, 0, 0) if isinstance(features, Tensor) else features)


BROKEN = {
    "it is documented": undocumented,
    "finite numbers": in_place,
    "order and names of the classes do not matter": of_the_first,
    "any precision": coarse,
    "few rows and one class": of_many,
    "features without variety": standardised,
    "blocks and memory maps are the whole matrix": of_one_block,
    "what does not fit is refused": lenient,
    "rows that are not finite are named": mending,
}


def test_a_whole_one_passes_and_every_check_is_tried():
    every_check_is_tried(check_diagnostic, whole, BROKEN)


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_found(name: str):
    assert name in failing(check_diagnostic, BROKEN[name])
