"""What every registered selector must do: positions, none twice, the same for the same seed, of any kind of rows."""

from __future__ import annotations

import importlib
import inspect

import pytest
import torch
from torch import Tensor

from repertoire import registry
from repertoire.errors import ConfigError, ShapeError
from repertoire.select import select

NAMES = registry.names("selectors")
COUNT = 40


def known(count: int = COUNT, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "probabilities": torch.randn(count, 5, generator=generator).mul(3).softmax(1),
        "features": torch.randn(count, 6, generator=generator),
        "labelled": torch.randn(7, 6, generator=generator),
    }


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def test_there_are_selectors():
    assert "random" in NAMES


def test_is_public_and_says_what_it_looks_at(name: str):
    entry = registry.get("selectors", name)
    module = importlib.import_module("repertoire.select")
    assert getattr(module, entry.factory.__name__) is entry.factory
    assert entry.factory.__name__ in module.__all__
    parameters = inspect.signature(entry.factory).parameters
    assert "budget" in parameters
    assert {"probabilities", "features", "count"} & parameters.keys()
    for option, parameter in registry.options(
        entry.factory, dict.fromkeys(registry.KINDS["selectors"].supplied)
    ).items():
        assert parameter.default is not inspect.Parameter.empty, option


@pytest.mark.parametrize("budget", [1, 9, COUNT])
def test_gives_so_many_positions_and_none_twice(name: str, budget: int):
    found = select(name, budget, **known())
    assert found.dtype == torch.int64
    assert found.shape == (budget,)
    assert len(set(found.tolist())) == budget
    assert 0 <= int(found.min()) <= int(found.max()) < COUNT


def test_a_seed_decides_and_nothing_else_changes(name: str):
    given = known()
    before = {key: value.clone() for key, value in given.items()}
    torch.manual_seed(1)
    first = select(name, 9, **given, seed=3)
    torch.manual_seed(2)
    assert torch.equal(select(name, 9, **given, seed=3), first)
    state = torch.random.get_rng_state()
    select(name, 9, **given, seed=3)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(given[key], before[key]) for key in given)


def test_of_copies_each_is_taken_once(name: str):
    given = known()
    same = {key: value[:1].repeat(12, 1) for key, value in given.items()}
    assert sorted(select(name, 12, **same).tolist()) == list(range(12))


def test_without_labelled_samples(name: str):
    given = known()
    del given["labelled"]
    assert len(set(select(name, 9, **given).tolist())) == 9


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_precision(name: str, dtype: torch.dtype):
    given = {key: value.to(dtype) for key, value in known().items()}
    assert len(set(select(name, 9, **given).tolist())) == 9


@pytest.mark.parametrize("budget", [0, -1, COUNT + 1])
def test_a_budget_out_of_range(name: str, budget: int):
    with pytest.raises(ConfigError, match=f"budget must be from 1 to {COUNT}"):
        select(name, budget, **known())


def test_what_it_needs_is_named(name: str):
    wanted = inspect.signature(registry.get("selectors", name).factory).parameters
    for key in ("probabilities", "features"):
        if key in wanted:
            given = known()
            del given[key]
            with pytest.raises(ConfigError, match=f"needs {key}"):
                select(name, 3, **given)
            given = known()
            given[key] = torch.full_like(given[key], torch.nan)
            with pytest.raises(ShapeError, match=r"finite|distribution"):
                select(name, 3, **given)
            given[key] = torch.zeros(COUNT)
            with pytest.raises(ShapeError, match="must be a floating point"):
                select(name, 3, **given)


def test_what_does_not_fit_together(name: str):
    given = known()
    with pytest.raises(ShapeError, match="same samples"):
        select(name, 3, probabilities=given["probabilities"], features=given["features"][:5])
