"""What every registered head must do."""

from __future__ import annotations

import pytest

from repertoire import registry
from repertoire.testing import check_head

CHECKS = [
    pytest.param(check, id=f"{entry.name}-{check}")
    for entry in registry.entries("heads")
    for check in check_head(entry.factory)
]


@pytest.mark.parametrize("check", CHECKS)
def test_keeps_its_contract(check):
    check()
