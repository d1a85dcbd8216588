"""The checks of all registered components of a kind, for a test to run one by one."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from repertoire import registry
from repertoire.errors import MissingExtra
from repertoire.testing import Check


def each_check(
    kind: str, check: Callable[..., list[Check]], only: Callable[[registry.Entry], bool] = lambda entry: True
) -> pytest.MarkDecorator:
    """A parametrisation of `check` over the components of a kind that `check(factory)` gives checks for."""
    found = [
        pytest.param(one, id=f"{entry.name}-{one}")
        for entry in registry.entries(kind)
        if only(entry)
        for one in check(entry.factory)
    ]
    assert found, f"no {kind} are registered"
    return pytest.mark.parametrize("check", found)


def run(check: Check) -> None:
    try:
        check()
    except MissingExtra as error:
        pytest.skip(str(error))
