"""What every registered zero-shot classifier must do."""

from __future__ import annotations

from registered import each_check

from repertoire.testing import check_zero_shot


@each_check("zero-shot-classifiers", check_zero_shot)
def test_keeps_its_contract(check):
    check()
