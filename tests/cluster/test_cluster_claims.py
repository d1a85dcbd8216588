"""Claims on a cluster: the figures are those of one machine, and a seed that fails is said with its node."""

from __future__ import annotations

import importlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from repertoire import claims
from repertoire.claims import ClaimError


@pytest.fixture(autouse=True)
def _toys(plugins: Path) -> Iterator[None]:
    toys = importlib.import_module("cluster_claims")
    for toy in toys.TOYS:
        claims._claim._REGISTRY[toy.name] = toy
    yield
    for toy in toys.TOYS:
        claims._claim._REGISTRY.pop(toy.name, None)


def test_the_figures_are_those_of_this_machine_also_where_a_worker_dies(backend: str, plugins: Path):
    (plugins / "claim-died").touch()
    here = claims.run("cluster-once", "small", store=False)
    (plugins / "claim-died").unlink()
    found = claims.run("cluster-once", "small", store=False, backend=backend)
    assert (plugins / "claim-died").exists(), "a worker was killed at a seed"
    assert found.values == here.values
    assert (found.verdict, len(found.seeds)) == (here.verdict, len(here.seeds)) == ("holds", 5)


def test_a_seed_that_fails_is_named_with_its_node(backend: str):
    with pytest.raises(
        ClaimError, match=rf"failed at seed 2 on {socket.gethostname()} \({backend} .*ZeroDivisionError: nothing"
    ):
        claims.run("cluster-failing", "small", store=False, backend=backend)
