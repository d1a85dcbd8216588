"""Every registered backbone of images is an ordered list of blocks whose composition, pooled, is the network."""

from __future__ import annotations

from registered import each_check, run

from repertoire.testing import check_backbone


@each_check("backbones", check_backbone, only=lambda entry: getattr(entry.factory, "modality", "images") == "images")
def test_keeps_its_contract(check):
    run(check)
