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
from repertoire.diagnostics._critical_batch import CriticalBatch, fit_critical_batch
from repertoire.diagnostics._directions import Trajectory, random_directions, trajectory_directions
from repertoire.diagnostics._duplicates import NearDuplicates, near_duplicates, thumbnails
from repertoire.diagnostics._effective_rank import effective_rank
from repertoire.diagnostics._fisher import fisher_ratio
from repertoire.diagnostics._gradient_noise import GradientNoise, gradient_noise_scale
from repertoire.diagnostics._hessian import Hessian
from repertoire.diagnostics._inductive_bias import (
    InductiveBias,
    counted_inductive_bias,
    gaussian_process_errors,
    inductive_bias,
)
from repertoire.diagnostics._joint_power_law import Allocation, JointPowerLaw, fit_joint_power_law
from repertoire.diagnostics._label_errors import LabelErrors, label_errors
from repertoire.diagnostics._lanczos import Eigenvalues, SpectralDensity, hessian_eigenvalues, spectral_density
from repertoire.diagnostics._landscape import Landscape, loss_landscape
from repertoire.diagnostics._landscape_convergence import LandscapeConvergence, landscape_convergence
from repertoire.diagnostics._landscape_figure import landscape_svg
from repertoire.diagnostics._lpntk import last_layer_lpntk, lpntk
from repertoire.diagnostics._mixup_geometry import MixedLayout, mixed_layout
from repertoire.diagnostics._overlap import ClassOverlap, class_overlap, neighbour_votes
from repertoire.diagnostics._persistence import persistence_separability, persistence_times, tree_lengths
from repertoire.diagnostics._power_law import PowerLaw, Prediction, fit_power_law
from repertoire.diagnostics._relative import (
    ModelComparison,
    Stitching,
    compare_representations,
    relative_representation,
    stitching,
)
from repertoire.diagnostics._rotation import rotation_probe
from repertoire.diagnostics._sample_complexity import comparisons_needed
from repertoire.diagnostics._sensitivity import WeightedSample, sensitivity_sample
from repertoire.diagnostics._sharpness import Sharpness, sharpness
from repertoire.diagnostics._source_pruning import SourceRanking, feature_mapping, label_mapping
from repertoire.diagnostics._sparsity import LayerSparsity, activation_sparsity
from repertoire.diagnostics._spectrum import Spectrum, eigenvalue_spectrum, participation_ratio
from repertoire.diagnostics._subgroups import Hierarchy, Subgroup, hierarchy, macro_std, weak_subgroups
from repertoire.diagnostics._trace import Trace, hessian_trace
from repertoire.diagnostics._uniformity import uniformity
from repertoire.diagnostics._wasserstein import wasserstein_uniformity

__all__ = [
    "Allocation",
    "ClassOverlap",
    "ClassifierCollapse",
    "CriticalBatch",
    "Eigenvalues",
    "FeatureComplexity",
    "FrameLengths",
    "GradientNoise",
    "Hessian",
    "Hierarchy",
    "InductiveBias",
    "JointPowerLaw",
    "LabelErrors",
    "Landscape",
    "LandscapeConvergence",
    "LayerSparsity",
    "MixedLayout",
    "ModelComparison",
    "NearDuplicates",
    "NeuralCollapse",
    "PowerLaw",
    "Prediction",
    "Sharpness",
    "SourceRanking",
    "SpectralDensity",
    "Spectrum",
    "Stitching",
    "Subgroup",
    "Trace",
    "Trajectory",
    "WeightedSample",
    "activation_sparsity",
    "alignment",
    "cka_matrix",
    "class_overlap",
    "classifier_collapse",
    "compare_representations",
    "comparisons_needed",
    "counted_inductive_bias",
    "effective_rank",
    "eigenvalue_spectrum",
    "feature_complexity",
    "feature_mapping",
    "fisher_ratio",
    "fit_critical_batch",
    "fit_joint_power_law",
    "fit_power_law",
    "gaussian_process_errors",
    "gradient_noise_scale",
    "hessian_eigenvalues",
    "hessian_trace",
    "hierarchy",
    "inductive_bias",
    "label_errors",
    "label_mapping",
    "landscape_convergence",
    "landscape_svg",
    "last_layer_lpntk",
    "linear_cka",
    "loss_landscape",
    "lpntk",
    "macro_std",
    "merge_features",
    "mixed_layout",
    "near_duplicates",
    "neighbour_votes",
    "network_complexity",
    "neural_collapse",
    "orthogonal_frame",
    "participation_ratio",
    "persistence_separability",
    "persistence_times",
    "random_directions",
    "relative_representation",
    "rotation_probe",
    "sensitivity_sample",
    "sharpness",
    "spectral_density",
    "stitching",
    "thumbnails",
    "trajectory_directions",
    "tree_lengths",
    "uniformity",
    "wasserstein_uniformity",
    "weak_subgroups",
]
