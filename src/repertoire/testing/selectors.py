"""What every selector must do: positions, none twice, the same for the same seed, of any kind of rows."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from repertoire import registry
from repertoire.errors import ConfigError, ShapeError
from repertoire.testing._check import Check, checks, described, example_options, options_of, refused, supplied

__all__ = ["check_selector"]

_COUNT, _CLASSES, _WIDTH = 40, 5, 6


def check_selector(selector: Callable[..., Tensor], **options: Any) -> list[Check]:
    """Checks of a selector: `selector(probabilities, features, budget)` gives positions of samples to label.

    What its signature names of probabilities, features, labelled, count, budget and generator is supplied.

    Args:
        selector: the function.
        options: options to call it with.

    Returns:
        The checks; each is called without arguments.

    Example:
        >>> from repertoire.select import margin
        >>> from repertoire.testing import check_selector
        >>> for check in check_selector(margin):
        ...     check()
    """
    return checks(_Selectors(selector, options))


class _Selectors:
    def __init__(self, selector: Callable[..., Tensor], options: dict[str, Any]) -> None:
        self.selector, self.options = selector, {**example_options(selector), **options}
        self.named = options_of(selector)

    def known(self, count: int = _COUNT) -> dict[str, Tensor]:
        """Inputs for some samples, as far as the selector names them."""
        generator = torch.Generator().manual_seed(0)
        return supplied(
            self.selector,
            probabilities=torch.randn(count, _CLASSES, generator=generator).mul(3).softmax(1),
            features=torch.randn(count, _WIDTH, generator=generator),
            labelled=torch.randn(7, _WIDTH, generator=generator),
        )

    def chosen(self, budget: int, known: dict[str, Tensor], seed: int = 0) -> Tensor:
        count = max((len(value) for name, value in known.items() if name != "labelled"), default=_COUNT)
        given = supplied(
            self.selector, **known, count=count, budget=budget, generator=torch.Generator().manual_seed(seed)
        )
        return self.selector(**given, **self.options)

    def check_it_is_documented_and_says_what_it_looks_at(self) -> None:
        described(self.selector)
        assert "budget" in self.named, "the signature of a selector has a budget"
        assert {"probabilities", "features", "count"} & self.named.keys(), "a selector looks at samples, or counts them"
        for name, parameter in registry.options(
            self.selector, dict.fromkeys((*registry.KINDS["selectors"].supplied, *self.options))
        ).items():
            assert parameter.default is not inspect.Parameter.empty, f"option {name} has no default"

    def check_it_gives_as_many_positions_as_asked_and_none_twice(self) -> None:
        for budget in (1, 9, _COUNT):
            found = self.chosen(budget, self.known())
            assert found.dtype == torch.int64, f"positions are int64, found {found.dtype}"
            assert found.shape == (budget,), f"asked for {budget}, found {list(found.shape)}"
            assert len(set(found.tolist())) == budget, "a sample was chosen twice"
            assert 0 <= int(found.min()) <= int(found.max()) < _COUNT, "a position is outside the samples"

    def check_the_generator_alone_decides_what_is_drawn(self) -> None:
        given = self.known()
        torch.manual_seed(1)
        first = self.chosen(9, given, seed=3)
        torch.manual_seed(2)
        state = torch.random.get_rng_state()
        assert torch.equal(self.chosen(9, given, seed=3), first), "the same seed gives other samples"
        assert torch.equal(torch.random.get_rng_state(), state), "it draws from torch's own random state"

    def check_what_it_is_given_stays_as_it_was(self) -> None:
        given = self.known()
        before = {name: value.clone() for name, value in given.items()}
        self.chosen(9, given)
        assert all(torch.equal(given[name], before[name]) for name in given)

    def check_of_copies_each_is_taken_once(self) -> None:
        same = {name: value[:1].repeat(12, 1) for name, value in self.known().items()}
        if not same.keys() - {"labelled"}:
            return  # it never looks at a sample
        assert sorted(self.chosen(12, same).tolist()) == list(range(12))

    def check_without_labelled_samples(self) -> None:
        given = {name: value for name, value in self.known().items() if name != "labelled"}
        if "labelled" in self.named and self.named["labelled"].default is inspect.Parameter.empty:
            return  # it says that it cannot do without
        assert len(set(self.chosen(9, given).tolist())) == 9
        if "labelled" in self.named:
            none = {**given, "labelled": torch.zeros(0, _WIDTH)}
            assert len(set(self.chosen(9, none).tolist())) == 9, "no rows are as good as none given"

    def check_any_precision(self) -> None:
        for dtype in (torch.float16, torch.bfloat16, torch.float64):
            given = {name: value.to(dtype) for name, value in self.known().items()}
            assert len(set(self.chosen(9, given).tolist())) == 9

    def check_a_budget_out_of_range_is_refused(self) -> None:
        for budget in (0, -1, _COUNT + 1):
            refused(ConfigError, f"budget must be from 1 to {_COUNT}", self.chosen, budget, self.known())

    def check_rows_that_are_no_numbers_or_do_not_fit_are_refused(self) -> None:
        for name in {"probabilities", "features"} & self.named.keys():
            nan = {**self.known(), name: torch.full_like(self.known()[name], math.nan)}
            refused(ShapeError, r"finite|distribution", self.chosen, 3, nan)
            flat = {**self.known(), name: torch.zeros(_COUNT)}
            refused(ShapeError, "must be a floating point", self.chosen, 3, flat)
        if {"probabilities", "features"} <= self.named.keys():
            short = {**self.known(), "features": self.known()["features"][:5]}
            refused(ShapeError, "same samples", self.chosen, 3, short)
