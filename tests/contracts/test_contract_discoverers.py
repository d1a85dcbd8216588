"""What every registered discoverer must do."""

from __future__ import annotations

from registered import each_check

from repertoire.testing import check_discoverer


@each_check("discoverers", check_discoverer)
def test_keeps_its_contract(check):
    check()
