"""What every registered head must do."""

from __future__ import annotations

from registered import each_check

from repertoire.testing import check_head


@each_check("heads", check_head)
def test_keeps_its_contract(check):
    check()
