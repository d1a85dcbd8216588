"""Imports without a collector of garbage, which works again afterwards."""

from __future__ import annotations

import gc

import pytest

from repertoire.cli._imports import importing


@pytest.mark.parametrize("working", [True, False])
def test_garbage_is_collected_afterwards_as_it_was_before(working: bool):
    try:
        if not working:
            gc.disable()
        inside = []

        def fail() -> None:
            with importing():
                inside.append(gc.isenabled())
                raise ImportError

        with pytest.raises(ImportError):
            fail()
        assert inside == [False]
        assert gc.isenabled() is working
    finally:
        gc.enable()
