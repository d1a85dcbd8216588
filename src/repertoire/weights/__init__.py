"""Operators on weights: several states into one, and what a model needs afterwards."""

from repertoire.weights._arithmetic import dare, linear, slerp, task_arithmetic, ties
from repertoire.weights._batchnorm import refresh_batchnorm
from repertoire.weights._soup import Soup, greedy_soup, uniform_soup
from repertoire.weights._state import LazyState, State, check_alike, save_state
from repertoire.weights._units import UnitAxis, UnitGroup, permute_units, units
from repertoire.weights._stored import Stored, form, forms
from repertoire.weights._task_vector import TaskVector

__all__ = [
    "LazyState",
    "Soup",
    "State",
    "UnitAxis",
    "UnitGroup",
    "Stored",
    "TaskVector",
    "check_alike",
    "dare",
    "form",
    "forms",
    "greedy_soup",
    "permute_units",
    "linear",
    "refresh_batchnorm",
    "save_state",
    "slerp",
    "task_arithmetic",
    "ties",
    "uniform_soup",
    "units",
]
