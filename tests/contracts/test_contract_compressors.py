"""What every registered compressor must do."""

from __future__ import annotations

from registered import each_check

from repertoire.testing import check_compressor


@each_check("compressors", check_compressor)
def test_keeps_its_contract(check):
    check()
