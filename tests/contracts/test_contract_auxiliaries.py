"""What holds for every auxiliary network, behind maps, tokens and vectors: it trains its block and nothing else."""

from __future__ import annotations

import pytest
from registered import each_check

from repertoire import registry
from repertoire.testing import check_auxiliary

#: Options that change what is computed, each behind one kind of activations; plain names run behind all of them.
OPTIONS = {
    "man-auglocal": ("maps", "man", {"base": "auglocal:depth=1"}),
    "man-infopro": ("tokens", "man", {"base": "infopro", "momentum": 0.5}),
    "man-without-momentum": ("vectors", "man", {"momentum": None}),
    "dgl-mlp": ("maps", "dgl", {"kind": "mlp"}),
    "dgl-cnn": ("tokens", "dgl", {"kind": "cnn"}),
    "infopro-contrast": ("vectors", "infopro", {"contrast": True}),
    "man-scale": ("maps", "man", {"scale": True}),
    "hpff-dgl": ("maps", "hpff", {"base": "dgl", "grid": 3}),
    "infopro-patches": ("maps", "infopro", {"patches": 2}),
    "infopro-mse": ("maps", "infopro", {"error": "mse", "size": 4}),
}


@each_check("auxiliaries", check_auxiliary)
def test_keeps_its_contract(check):
    check()


@pytest.mark.parametrize(("behind", "name", "options"), OPTIONS.values(), ids=OPTIONS)
def test_keeps_its_contract_with_other_options(behind, name, options):
    for check in check_auxiliary(registry.get("auxiliaries", name).factory, behind=(behind,), **options):
        check()
