"""The numerics that several families share, each written once."""

from repertoire.ops._pairs import LARGEST_BOUND, Pairs, pair_logsumexp
from repertoire.ops._queue import Queue
from repertoire.ops._rows import class_index, class_sums, unit_rows

__all__ = ["LARGEST_BOUND", "Pairs", "Queue", "class_index", "class_sums", "pair_logsumexp", "unit_rows"]
