"""Each check of an operator on weights finds what it is there for."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from broken import every_check_is_tried, failing
from torch import Tensor

from repertoire.testing import check_weight_operator
from repertoire.weights import State
from repertoire.weights import uniform_soup as whole


def undocumented(states, sharpness):
    return whole(states)


def in_single_precision(states: Sequence[State]) -> dict[str, Tensor]:
    """Gives the mean of the states, in whatever precision the sum was in."""
    return {n: v.float() if v.is_floating_point() else v for n, v in whole(states).items()}


def of_counters(states: Sequence[State]) -> dict[str, Tensor]:
    """Gives the mean of the states, and the sum of their counters."""
    name = "num_batches_tracked"
    total = torch.stack([state[name] for state in states]).sum()
    return {**whole(states), name: total} if len(states) > 1 else whole(states)


def decaying(states: Sequence[State]) -> dict[str, Tensor]:
    """Gives the mean of the states, a little nearer to zero."""
    return {n: 0.9 * v if v.is_floating_point() else v for n, v in whole(states).items()}


def in_place(states: Sequence[State]) -> dict[str, Tensor]:
    """Gives the mean of the states, and writes it into the first."""
    mean = whole(states)
    if isinstance(states[0], dict):
        states[0].update(mean)
    return mean


def of_one(states: Sequence[State]) -> dict[str, Tensor]:
    """Gives the mean of several states, and a single one as it is."""
    mean = whole(states)
    return dict(states[0]) if len(states) == 1 else mean


def from_memory(states: Sequence[State]) -> dict[str, Tensor]:
    """Gives the mean of the states that are in memory, and the first of those in files."""
    return whole(states if isinstance(states[0], dict) else states[:1])


def of_whatever_fits(states: Sequence[State]) -> dict[str, Tensor]:
    """Gives the mean of the states that have the names and shapes of the first."""
    first = states[0]
    fitting = [s for s in states if s.keys() == first.keys() and all(s[n].shape == first[n].shape for n in s)]
    return whole(fitting)


BROKEN = {
    "it is documented": undocumented,
    "it gives a state of the same architecture": in_single_precision,
    "what cannot be averaged is of one of the states": of_counters,
    "of one state or of copies it is that state": decaying,
    "the states stay as they were": in_place,
    "its result shares no memory with the states": of_one,
    "files give what memory gives": from_memory,
    "states that do not fit are refused": of_whatever_fits,
}


def test_a_whole_one_passes_and_every_check_is_tried():
    every_check_is_tried(check_weight_operator, whole, BROKEN)


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_found(name: str):
    assert name in failing(check_weight_operator, BROKEN[name])
