"""Zero-shot classification: classes that are described, and of which there may be no sample at all.

A zero-shot classifier learns from features `[N, d]` of some classes, and from descriptions `[C, a]` of all, how the two
belong together, and predicts among whatever classes it is given descriptions of. What decides between seen and unseen
classes (`calibrated_stacking`), what is measured of both (`ausuc`), and how wrong descriptions alone must be
(`worst_case_error`), are functions beside them; so is what reaches classes by their distances to others
(`frechet_mean`).
"""

from repertoire.zeroshot._attribute_match import AttributeMatch
from repertoire.zeroshot._base import ZeroShotClassifier
from repertoire.zeroshot._cosmo import COSMO
from repertoire.zeroshot._embedding_regression import EmbeddingRegression
from repertoire.zeroshot._eszsl import ESZSL
from repertoire.zeroshot._feature_generator import FeatureGenerator
from repertoire.zeroshot._frechet import expected_squares, frechet_mean, next_class, reachable
from repertoire.zeroshot._graph_propagation import GraphPropagation, graph_layer
from repertoire.zeroshot._held_out import HeldOut, held_out
from repertoire.zeroshot._multi_view import MultiViewPropagation, multi_view_cca
from repertoire.zeroshot._stacking import SeenUnseen, ausuc, calibrated_stacking, choose_gamma, seen_unseen
from repertoire.zeroshot._tables import ClassDistances, ClassTable, read_attributes, read_class_distances
from repertoire.zeroshot._worst_case import WorstCase, worst_case_error, worst_error_of

__all__ = [
    "COSMO",
    "ESZSL",
    "AttributeMatch",
    "ClassDistances",
    "ClassTable",
    "EmbeddingRegression",
    "FeatureGenerator",
    "GraphPropagation",
    "HeldOut",
    "MultiViewPropagation",
    "SeenUnseen",
    "WorstCase",
    "ZeroShotClassifier",
    "ausuc",
    "calibrated_stacking",
    "choose_gamma",
    "expected_squares",
    "frechet_mean",
    "graph_layer",
    "held_out",
    "multi_view_cca",
    "next_class",
    "reachable",
    "read_attributes",
    "read_class_distances",
    "seen_unseen",
    "worst_case_error",
    "worst_error_of",
]
