"""The numerics that several families share, each written once."""

from repertoire.ops._covariance import covariance, cross_square
from repertoire.ops._extremes import Extreme, pair_count, pair_max, pair_min, pair_topk, pair_values
from repertoire.ops._pairs import LARGEST_BOUND, pair_logsumexp, pair_sum
from repertoire.ops._queue import Queue
from repertoire.ops._rows import class_index, class_sums, unit_rows
from repertoire.ops._tiles import Pairs, Similarity, Which
from repertoire.ops._whitening import Whitening, newton_whiten, whiten

__all__ = [
    "LARGEST_BOUND",
    "Extreme",
    "Pairs",
    "Queue",
    "Similarity",
    "Which",
    "Whitening",
    "class_index",
    "class_sums",
    "covariance",
    "cross_square",
    "newton_whiten",
    "pair_count",
    "pair_logsumexp",
    "pair_max",
    "pair_min",
    "pair_sum",
    "pair_topk",
    "pair_values",
    "unit_rows",
    "whiten",
]
