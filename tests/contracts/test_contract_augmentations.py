"""What every registered augmentation must do."""

from __future__ import annotations

from registered import each_check

from repertoire.testing import check_augmentation


@each_check("augmentations", check_augmentation)
def test_keeps_its_contract(check):
    check()
