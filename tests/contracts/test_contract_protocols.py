"""What every registered protocol must do."""

from __future__ import annotations

from registered import each_check

from repertoire.testing import check_protocol


@each_check("protocols", check_protocol)
def test_keeps_its_contract(check):
    check()
