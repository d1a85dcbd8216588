"""The numerics that several families share, each written once."""

from repertoire.ops._adversarial import (
    adversarial_direction,
    largest_entries,
    projected_gradient,
    unit_changes,
)
from repertoire.ops._chosen import pair_values
from repertoire.ops._counting import not_counting, rewinding
from repertoire.ops._covariance import covariance, cross_square
from repertoire.ops._energy import energy_hinge
from repertoire.ops._extremes import Extreme, pair_count, pair_max, pair_min, pair_topk
from repertoire.ops._hardest import Hardest, pair_hardest
from repertoire.ops._keys import draw_keys, nearest_keys
from repertoire.ops._kmeans import Clusters, kmeans
from repertoire.ops._linear_cross_entropy import linear_cross_entropy
from repertoire.ops._maps import as_maps, fits_image
from repertoire.ops._memory import Memory, commit_memories, discard_memories, frozen_memories, sees_all_ranks
from repertoire.ops._modes import evaluating, handing_copies, keeping_modes
from repertoire.ops._otsu import otsu_threshold
from repertoire.ops._pairs import LARGEST_BOUND, pair_logsumexp, pair_sum
from repertoire.ops._pinned_kmeans import pinned_kmeans
from repertoire.ops._queue import Queue
from repertoire.ops._ranks import gather_rows, of_all_ranks, ranks_of
from repertoire.ops._ridge import RidgeRecursion
from repertoire.ops._ring import ring_logsumexp, ring_max, ring_min, ring_sum
from repertoire.ops._rows import class_index, class_sums, unit_rows
from repertoire.ops._seeding import seed_torch
from repertoire.ops._singular import TopSingularValue
from repertoire.ops._sinkhorn import sinkhorn
from repertoire.ops._sorting import soft_last, soft_sort
from repertoire.ops._strips import pair_rows, tile_size
from repertoire.ops._tiles import Pairs, Similarity, Which
from repertoire.ops._transforms import transformed
from repertoire.ops._whitening import Whitening, newton_whiten, whiten
from repertoire.ops._workers import alone, at_once, by_rows, worker_count

__all__ = [
    "LARGEST_BOUND",
    "Clusters",
    "Extreme",
    "Hardest",
    "Memory",
    "Pairs",
    "Queue",
    "RidgeRecursion",
    "Similarity",
    "TopSingularValue",
    "Which",
    "Whitening",
    "adversarial_direction",
    "alone",
    "as_maps",
    "at_once",
    "by_rows",
    "class_index",
    "class_sums",
    "commit_memories",
    "covariance",
    "cross_square",
    "discard_memories",
    "draw_keys",
    "energy_hinge",
    "evaluating",
    "fits_image",
    "frozen_memories",
    "gather_rows",
    "handing_copies",
    "keeping_modes",
    "kmeans",
    "largest_entries",
    "linear_cross_entropy",
    "nearest_keys",
    "newton_whiten",
    "not_counting",
    "of_all_ranks",
    "otsu_threshold",
    "pair_count",
    "pair_hardest",
    "pair_logsumexp",
    "pair_max",
    "pair_min",
    "pair_rows",
    "pair_sum",
    "pair_topk",
    "pair_values",
    "pinned_kmeans",
    "projected_gradient",
    "ranks_of",
    "rewinding",
    "ring_logsumexp",
    "ring_max",
    "ring_min",
    "ring_sum",
    "seed_torch",
    "sees_all_ranks",
    "sinkhorn",
    "soft_last",
    "soft_sort",
    "tile_size",
    "transformed",
    "unit_changes",
    "unit_rows",
    "whiten",
    "worker_count",
]
