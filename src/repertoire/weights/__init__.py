"""Operators on weights: several states into one, and what a model needs afterwards."""

from repertoire.weights._anisotropic import Anisotropic, anisotropic
from repertoire.weights._arithmetic import dare, linear, slerp, task_arithmetic, ties
from repertoire.weights._batchnorm import refresh_batchnorm, refresh_in_parts
from repertoire.weights._fisher import fisher, fisher_average, fisher_diagonal
from repertoire.weights._flops import count_flops
from repertoire.weights._interpolate import interpolate, wise_ft
from repertoire.weights._least_squares import permute_least_squares
from repertoire.weights._matching import Barrier, Matching, Rebased, git_rebasin, loss_barrier, match
from repertoire.weights._moments import input_moments
from repertoire.weights._progress import Kept, Learning, Progress, digest_of_states
from repertoire.weights._regmean import regmean
from repertoire.weights._soup import Soup, greedy_soup, uniform_soup
from repertoire.weights._state import LazyState, State, check_alike, save_state
from repertoire.weights._stitch import Route, Stitched, stitch, train_stitched
from repertoire.weights._stored import Stored, form, forms, read_stored
from repertoire.weights._task_vector import TaskVector
from repertoire.weights._ternary import TernaryVector, ternary
from repertoire.weights._twin import TwinRouter, twin
from repertoire.weights._units import UnitAxis, UnitGroup, permute_units, units

__all__ = [
    "Anisotropic",
    "Barrier",
    "Kept",
    "LazyState",
    "Learning",
    "Matching",
    "Progress",
    "Rebased",
    "Route",
    "Soup",
    "State",
    "Stitched",
    "Stored",
    "TaskVector",
    "TernaryVector",
    "TwinRouter",
    "UnitAxis",
    "UnitGroup",
    "anisotropic",
    "check_alike",
    "count_flops",
    "dare",
    "digest_of_states",
    "fisher",
    "fisher_average",
    "fisher_diagonal",
    "form",
    "forms",
    "git_rebasin",
    "greedy_soup",
    "input_moments",
    "interpolate",
    "linear",
    "loss_barrier",
    "match",
    "permute_least_squares",
    "permute_units",
    "read_stored",
    "refresh_batchnorm",
    "refresh_in_parts",
    "regmean",
    "save_state",
    "slerp",
    "stitch",
    "task_arithmetic",
    "ternary",
    "ties",
    "train_stitched",
    "twin",
    "uniform_soup",
    "units",
    "wise_ft",
]
