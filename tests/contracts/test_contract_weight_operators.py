"""What every registered operator on weights must do."""

from __future__ import annotations

from registered import each_check

from repertoire.testing import check_weight_operator


@each_check("weight-operators", check_weight_operator)
def test_keeps_its_contract(check):
    check()
