"""What every registered weight operator must do."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from repertoire import registry, weights
from repertoire.errors import CheckpointError, ConfigError
from repertoire.weights import LazyState, save_state

NAMES = registry.names("weight-operators")


def score(state: Mapping[str, Tensor]) -> float:
    return float(state["a.weight"].double().sum())


ARGUMENTS: dict[str, Any] = {"score": score}
"""Values for the arguments without a default that operators may have besides the states."""


def operator(name: str) -> Callable[..., dict[str, Tensor]]:
    function = registry.get("weight-operators", name).factory
    wanted = list(inspect.signature(function).parameters.values())[1:]
    given = {p.name: ARGUMENTS[p.name] for p in wanted if p.default is inspect.Parameter.empty}
    return lambda states: function(states, **given)


def states(count: int = 3) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [
        {
            "a.weight": torch.randn(4, 3, generator=generator),
            "half": torch.randn(2, generator=generator).to(torch.bfloat16),
            "num_batches_tracked": torch.tensor(i + 5),
        }
        for i in range(count)
    ]


def test_there_are_weight_operators():
    assert NAMES


@pytest.mark.parametrize("name", NAMES)
def test_is_public_and_documented(name):
    entry = registry.get("weight-operators", name)
    assert getattr(weights, entry.factory.__name__) is entry.factory
    assert entry.factory.__name__ in weights.__all__
    assert entry.summary.endswith(".")
    assert ">>>" in entry.factory.__doc__
    assert next(iter(inspect.signature(entry.factory).parameters)) == "states"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("count", [1, 3])
def test_gives_a_state_of_the_same_architecture(name, count):
    given = states(count)
    merged = operator(name)(given)
    assert {key: (value.shape, value.dtype) for key, value in merged.items()} == {
        key: (value.shape, value.dtype) for key, value in given[0].items()
    }
    # What cannot be averaged is that of one of the states.
    assert int(merged["num_batches_tracked"]) in {int(state["num_batches_tracked"]) for state in given}
    torch.testing.assert_close(given, states(count), rtol=0, atol=0)
    for value in merged.values():
        value.zero_()
    torch.testing.assert_close(given, states(count), rtol=0, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_of_one_state_or_of_copies_is_that_state(name):
    for count in (1, 3):
        merged = operator(name)([states(1)[0] for _ in range(count)])
        torch.testing.assert_close(dict(merged), states(1)[0], rtol=0, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_files_give_what_memory_gives(name, tmp_path):
    for i, state in enumerate(states()):
        save_state(state, tmp_path / f"{i}.safetensors")
    lazy = [LazyState(tmp_path / f"{i}.safetensors") for i in range(3)]
    torch.testing.assert_close(dict(operator(name)(lazy)), dict(operator(name)(states())), rtol=0, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_states_that_do_not_fit(name):
    with pytest.raises(ConfigError, match="empty"):
        operator(name)([])
    first, second, third = states()
    with pytest.raises(CheckpointError, match=r"half.*extra.*a\.weight"):
        operator(name)([first, {k: v for k, v in second.items() if k != "half"} | {"extra": first["half"]},
                        third | {"a.weight": torch.zeros(2)}])  # fmt: skip
