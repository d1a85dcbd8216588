"""Selection of samples: what is known of them to indices, with weights where a sample stands for others.

A selector is a function. It takes what is known of N samples (features `[N, d]`, probabilities `[N, C]`, losses) and
gives int64 positions into them, or a record that holds positions as `index` and, where the selection is to be unbiased,
float64 `weight` of the same length. A selector trains nothing, changes nothing, and draws from the `generator` it is
given.
"""

from repertoire.select._sensitivity import WeightedSample, sensitivity_sample
from repertoire.select._source_pruning import SourceRanking, feature_mapping, label_mapping

__all__ = [
    "SourceRanking",
    "WeightedSample",
    "feature_mapping",
    "label_mapping",
    "sensitivity_sample",
]
