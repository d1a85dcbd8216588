"""Operators on weights: several states into one, and what a model needs afterwards."""

from repertoire.weights._batchnorm import refresh_batchnorm
from repertoire.weights._soup import Soup, greedy_soup, uniform_soup
from repertoire.weights._state import LazyState, State, check_alike, save_state

__all__ = [
    "LazyState",
    "Soup",
    "State",
    "check_alike",
    "greedy_soup",
    "refresh_batchnorm",
    "save_state",
    "uniform_soup",
]
