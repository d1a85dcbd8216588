"""Selection of samples: what is known of them to indices, with weights where a sample stands for others.

A selector is a function. It takes what is known of N samples (features `[N, d]`, probabilities `[N, C]`, losses) and
gives int64 positions into them, or a record that holds positions as `index` and, where the selection is to be unbiased,
float64 `weight` of the same length. A selector trains nothing, changes nothing, and draws from the `generator` it is
given. Those that choose samples to be labelled are registered, and `select` calls one by its name.
"""

from repertoire._aliases import answer_calls
from repertoire.select._at_random import at_random
from repertoire.select._badge import badge
from repertoire.select._contract import check_budget, check_features, check_probabilities, highest, select
from repertoire.select._coreset import coreset
from repertoire.select._frontier import frontier
from repertoire.select._novel_margin import StableMapping, novel_margin
from repertoire.select._sensitivity import WeightedSample, sensitivity_sample
from repertoire.select._source_pruning import SourceRanking, feature_mapping, label_mapping
from repertoire.select._top_per_class import TopPerClass, top_k_per_class
from repertoire.select._typical import typical
from repertoire.select._uncertainty import entropy, least_confidence, margin

__all__ = [
    "SourceRanking",
    "StableMapping",
    "TopPerClass",
    "WeightedSample",
    "at_random",
    "badge",
    "check_budget",
    "check_features",
    "check_probabilities",
    "coreset",
    "entropy",
    "feature_mapping",
    "frontier",
    "highest",
    "label_mapping",
    "least_confidence",
    "margin",
    "novel_margin",
    "select",
    "sensitivity_sample",
    "top_k_per_class",
    "typical",
]


answer_calls(__name__, "repertoire.select.select('margin', budget, probabilities=...) chooses what to label")
