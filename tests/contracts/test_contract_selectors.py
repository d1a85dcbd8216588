"""What every registered selector must do, and what `select` says where one lacks what it needs."""

from __future__ import annotations

import inspect

import pytest
import torch
from registered import each_check

from repertoire import registry
from repertoire.errors import ConfigError, ShapeError
from repertoire.select import select
from repertoire.testing import check_selector


@each_check("selectors", check_selector)
def test_keeps_its_contract(check):
    check()


@pytest.mark.parametrize("name", registry.names("selectors"))
def test_what_is_not_given_or_of_other_samples_is_named(name: str):
    wanted = inspect.signature(registry.get("selectors", name).factory).parameters
    known = {"probabilities": torch.full((8, 2), 0.5), "features": torch.eye(8)}
    for key in known.keys() & wanted.keys():
        with pytest.raises(ConfigError, match=f"selector {name!r} needs {key}"):
            select(name, 3, **{other: value for other, value in known.items() if other != key})
        with pytest.raises(ShapeError, match="must be a floating point"):
            select(name, 3, **{**known, key: torch.zeros(8)})
    with pytest.raises(ShapeError, match="same samples, found 8 probabilities and 5 features"):
        select(name, 3, probabilities=known["probabilities"], features=known["features"][:5])
