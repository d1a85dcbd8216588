"""What every registered adapter must do."""

from __future__ import annotations

import pytest
from registered import each_check
from torch import nn

from repertoire import registry
from repertoire.adapters import attach
from repertoire.errors import ConfigError
from repertoire.testing import check_adapter


@each_check("adapters", check_adapter)
def test_keeps_its_contract(check):
    check()


@pytest.mark.parametrize("name", registry.names("adapters"))
def test_a_network_without_a_layer_to_adapt_is_refused_by_name(name: str):
    with pytest.raises(ConfigError, match=f"adapter {name!r} finds no layer to adapt in ReLU"):
        attach(nn.ReLU(), name)
