"""What every registered diagnostic must do."""

from __future__ import annotations

from registered import each_check

from repertoire.testing import check_diagnostic


@each_check("diagnostics", check_diagnostic)
def test_keeps_its_contract(check):
    check()
