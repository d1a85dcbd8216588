"""What every operator on weights must do: states of one architecture to a state of it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from repertoire.errors import CheckpointError, ConfigError
from repertoire.testing._check import Check, agree, checks, described, example_options, options_of, refused, supplied
from repertoire.weights import LazyState, save_state

__all__ = ["check_weight_operator"]

State = Mapping[str, Tensor]


def check_weight_operator(operator: Callable[..., Mapping[str, Tensor]], **options: Any) -> list[Check]:
    """Checks of an operator on weights: `operator(states, **options)` gives a state.

    An operator whose signature names `score` is given one.

    Args:
        operator: the function.
        options: options to call it with.

    Returns:
        The checks; each is called without arguments.

    Example:
        >>> from repertoire.testing import check_weight_operator
        >>> from repertoire.weights import uniform_soup
        >>> for check in check_weight_operator(uniform_soup):
        ...     check()
    """
    return checks(_Operators(operator, options))


def _score(state: State) -> float:
    return float(state["a.weight"].double().sum())


class _Operators:
    def __init__(self, operator: Callable[..., State], options: dict[str, Any]) -> None:
        self.operator = operator
        self.options = {**supplied(operator, score=_score), **example_options(operator), **options}

    def merged(self, states: Sequence[State]) -> State:
        return self.operator(states, **self.options)

    def states(self, count: int = 3) -> list[dict[str, Tensor]]:
        generator = torch.Generator().manual_seed(0)
        return [
            {
                "a.weight": torch.randn(4, 3, generator=generator),
                "half": torch.randn(2, generator=generator).to(torch.bfloat16),
                "num_batches_tracked": torch.tensor(i + 5),
            }
            for i in range(count)
        ]

    def check_it_is_documented(self) -> None:
        described(self.operator)
        named = options_of(self.operator)
        assert next(iter(named)) == "states", "the first argument of an operator is called states"
        for name, parameter in list(named.items())[1:]:
            given = name in self.options
            assert given or parameter.default is not inspect.Parameter.empty, f"option {name} has no default"

    def check_it_gives_a_state_of_the_same_architecture(self) -> None:
        for count in (1, 3):
            given = self.states(count)
            found = self.merged(given)
            assert {name: (value.shape, value.dtype) for name, value in found.items()} == {
                name: (value.shape, value.dtype) for name, value in given[0].items()
            }

    def check_what_cannot_be_averaged_is_of_one_of_the_states(self) -> None:
        given = self.states()
        counters = {int(state["num_batches_tracked"]) for state in given}
        found = int(self.merged(given)["num_batches_tracked"])
        assert found in counters, f"a counter is {found}, which is that of none of the states"

    def check_of_one_state_or_of_copies_it_is_that_state(self) -> None:
        for count in (1, 3):
            found = self.merged([self.states(1)[0] for _ in range(count)])
            agree(dict(found), self.states(1)[0], rtol=0, atol=0)

    def check_the_states_stay_as_they_were(self) -> None:
        for count in (1, 3):
            given = self.states(count)
            self.merged(given)
            agree(given, self.states(count), rtol=0, atol=0)

    def check_its_result_shares_no_memory_with_the_states(self) -> None:
        for count in (1, 3):
            given = self.states(count)
            for value in self.merged(given).values():
                value.zero_()
            agree(given, self.states(count), rtol=0, atol=0)

    def check_files_give_what_memory_gives(self) -> None:
        import tempfile
        from pathlib import Path

        expected = dict(self.merged(self.states()))
        with tempfile.TemporaryDirectory() as folder:
            paths = [Path(folder) / f"{i}.safetensors" for i in range(3)]
            for state, path in zip(self.states(), paths, strict=True):
                save_state(state, path)
            found = {name: value.clone() for name, value in self.merged([LazyState(path) for path in paths]).items()}
        agree(found, expected, rtol=0, atol=0)

    def check_states_that_do_not_fit_are_refused(self) -> None:
        refused(ConfigError, "empty", self.merged, [])
        first, second, third = self.states()
        lacking = {name: value for name, value in second.items() if name != "half"} | {"extra": first["half"]}
        other = third | {"a.weight": torch.zeros(2)}
        refused(CheckpointError, r"half.*extra.*a\.weight", self.merged, [first, lacking, other])
