"""Names that public modules had in the version before."""

from __future__ import annotations

import importlib
import sys

import pytest


@pytest.mark.parametrize(
    ("former", "now"), [("fewshot", "estimators"), ("boosting", "estimators"), ("merge", "weights")]
)
def test_the_former_name_works_and_says_the_new_one(former, now):
    sys.modules.pop(f"repertoire.{former}", None)
    with pytest.warns(DeprecationWarning, match=f"repertoire.{former} is now repertoire.{now}"):
        old = importlib.import_module(f"repertoire.{former}")
    new = importlib.import_module(f"repertoire.{now}")
    assert old.__all__ == new.__all__
    assert all(getattr(old, name) is getattr(new, name) for name in new.__all__)
