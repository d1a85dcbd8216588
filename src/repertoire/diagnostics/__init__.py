"""What features look like: numbers that say how good a representation is, from features and labels alone."""

from repertoire.diagnostics._alignment import alignment
from repertoire.diagnostics._cka import cka_matrix, linear_cka
from repertoire.diagnostics._collapse import (
    ClassifierCollapse,
    FrameLengths,
    NeuralCollapse,
    classifier_collapse,
    neural_collapse,
    orthogonal_frame,
)
from repertoire.diagnostics._complexity import (
    FeatureComplexity,
    feature_complexity,
    merge_features,
    network_complexity,
)
from repertoire.diagnostics._duplicates import NearDuplicates, near_duplicates, thumbnails
from repertoire.diagnostics._effective_rank import effective_rank
from repertoire.diagnostics._fisher import fisher_ratio
from repertoire.diagnostics._label_errors import LabelErrors, label_errors
from repertoire.diagnostics._lpntk import last_layer_lpntk, lpntk
from repertoire.diagnostics._overlap import ClassOverlap, class_overlap, neighbour_votes
from repertoire.diagnostics._persistence import persistence_separability, persistence_times, tree_lengths
from repertoire.diagnostics._relative import (
    ModelComparison,
    Stitching,
    compare_representations,
    relative_representation,
    stitching,
)
from repertoire.diagnostics._rotation import rotation_probe
from repertoire.diagnostics._sensitivity import WeightedSample, sensitivity_sample
from repertoire.diagnostics._source_pruning import SourceRanking, feature_mapping, label_mapping
from repertoire.diagnostics._sparsity import LayerSparsity, activation_sparsity
from repertoire.diagnostics._spectrum import Spectrum, eigenvalue_spectrum, participation_ratio
from repertoire.diagnostics._subgroups import Hierarchy, Subgroup, hierarchy, macro_std, weak_subgroups
from repertoire.diagnostics._uniformity import uniformity
from repertoire.diagnostics._wasserstein import wasserstein_uniformity

__all__ = [
    "ClassOverlap",
    "ClassifierCollapse",
    "FeatureComplexity",
    "FrameLengths",
    "Hierarchy",
    "LabelErrors",
    "LayerSparsity",
    "ModelComparison",
    "NearDuplicates",
    "NeuralCollapse",
    "SourceRanking",
    "Spectrum",
    "Stitching",
    "Subgroup",
    "WeightedSample",
    "activation_sparsity",
    "alignment",
    "cka_matrix",
    "class_overlap",
    "classifier_collapse",
    "compare_representations",
    "effective_rank",
    "eigenvalue_spectrum",
    "feature_complexity",
    "feature_mapping",
    "fisher_ratio",
    "hierarchy",
    "label_errors",
    "label_mapping",
    "last_layer_lpntk",
    "linear_cka",
    "lpntk",
    "macro_std",
    "merge_features",
    "near_duplicates",
    "neighbour_votes",
    "network_complexity",
    "neural_collapse",
    "orthogonal_frame",
    "participation_ratio",
    "persistence_separability",
    "persistence_times",
    "relative_representation",
    "rotation_probe",
    "sensitivity_sample",
    "stitching",
    "thumbnails",
    "tree_lengths",
    "uniformity",
    "wasserstein_uniformity",
    "weak_subgroups",
]
