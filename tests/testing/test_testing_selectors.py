"""Each check of a selector finds what it is there for."""

from __future__ import annotations

import pytest
import torch
from broken import every_check_is_tried, failing
from torch import Tensor

from repertoire.select import at_random
from repertoire.select import margin as whole
from repertoire.testing import check_selector


def undocumented(probabilities, budget):
    return whole(probabilities, budget)


def with_copies(probabilities: Tensor, budget: int) -> Tensor:
    """Takes the most wanted sample twice, and probabilities and a budget are all that it knows."""
    return whole(probabilities, budget)[torch.arange(budget) // 2]


def of_its_own_dice(count: int, budget: int, generator: torch.Generator | None = None) -> Tensor:
    """Takes samples at random, without the generator: count and budget are all that it knows."""
    return at_random(count, budget)


def careless(probabilities: Tensor, budget: int) -> Tensor:
    """Takes the most wanted samples, and spoils the probabilities; budget is what it is asked for."""
    chosen = whole(probabilities, budget)
    probabilities[chosen] = 0.5
    return chosen


def one_of_copies(probabilities: Tensor, budget: int) -> Tensor:
    """Takes one of all samples with the same probabilities, and falls short of the budget."""
    chosen = whole(probabilities, budget)
    return chosen if len(probabilities.unique(dim=0)) > 1 else chosen[:1]


def dependent(features: Tensor, budget: int, labelled: Tensor | None = None) -> Tensor:
    """Takes the features far from those of labelled samples, up to a budget, and needs some."""
    return torch.cdist(features, labelled.to(features)).amin(1).argsort(descending=True)[:budget]


def single(probabilities: Tensor, budget: int) -> Tensor:
    """Takes the most wanted samples of probabilities that NumPy can read, up to a budget."""
    return whole(torch.from_numpy(probabilities.numpy()), budget)


def greedy(probabilities: Tensor, budget: int) -> Tensor:
    """Takes the most wanted samples by their probabilities: any budget is a good one."""
    return whole(probabilities, min(max(budget, 1), len(probabilities)))


def trusting(probabilities: Tensor, budget: int) -> Tensor:
    """Takes the most wanted samples by probabilities that nobody looks at, up to a budget."""
    if probabilities.ndim < 2 or not bool(probabilities.isfinite().all()):
        return torch.arange(budget)
    return whole(probabilities, budget)


BROKEN = {
    "it is documented and says what it looks at": undocumented,
    "it gives as many positions as asked and none twice": with_copies,
    "the generator alone decides what is drawn": of_its_own_dice,
    "what it is given stays as it was": careless,
    "of copies each is taken once": one_of_copies,
    "without labelled samples": dependent,
    "any precision": single,
    "a budget out of range is refused": greedy,
    "rows that are no numbers or do not fit are refused": trusting,
}


def test_a_whole_one_passes_and_every_check_is_tried():
    every_check_is_tried(check_selector, whole, BROKEN)


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_found(name: str):
    assert name in failing(check_selector, BROKEN[name])
