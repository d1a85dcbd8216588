"""Many models into one: operators on weights, and what a model needs after them."""

from repertoire.merge._batchnorm import refresh_batchnorm
from repertoire.merge._soup import Soup, greedy_soup, uniform_soup
from repertoire.merge._state import LazyState, State, save_state

__all__ = ["LazyState", "Soup", "State", "greedy_soup", "refresh_batchnorm", "save_state", "uniform_soup"]
