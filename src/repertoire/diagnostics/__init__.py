"""Measures of representations, of the loss about the weights, of laws of scale, and of data and its labels."""

from repertoire.diagnostics.features._alignment import alignment
from repertoire.diagnostics.features._cka import cka_matrix, linear_cka
from repertoire.diagnostics.features._collapse import (
    ClassifierCollapse,
    FrameLengths,
    NeuralCollapse,
    classifier_collapse,
    neural_collapse,
    orthogonal_frame,
)
from repertoire.diagnostics.features._complexity import (
    FeatureComplexity,
    feature_complexity,
    merge_features,
    network_complexity,
)
from repertoire.diagnostics.features._effective_rank import effective_rank
from repertoire.diagnostics.features._fisher import fisher_ratio
from repertoire.diagnostics.features._mixup_geometry import MixedLayout, mixed_layout
from repertoire.diagnostics.features._persistence import persistence_separability, persistence_times, tree_lengths
from repertoire.diagnostics.features._relative import (
    ModelComparison,
    Stitching,
    compare_representations,
    relative_representation,
    stitching,
)
from repertoire.diagnostics.features._rotation import rotation_probe
from repertoire.diagnostics.features._sparsity import LayerSparsity, activation_sparsity
from repertoire.diagnostics.features._spectrum import Spectrum, eigenvalue_spectrum, participation_ratio
from repertoire.diagnostics.features._uniformity import uniformity
from repertoire.diagnostics.features._wasserstein import wasserstein_uniformity
from repertoire.diagnostics.labels._duplicates import NearDuplicates, near_duplicates, thumbnails
from repertoire.diagnostics.labels._label_errors import LabelErrors, label_errors
from repertoire.diagnostics.labels._overlap import ClassOverlap, class_overlap, neighbour_votes
from repertoire.diagnostics.labels._subgroups import Hierarchy, Subgroup, hierarchy, macro_std, weak_subgroups
from repertoire.diagnostics.landscape._directions import Trajectory, random_directions, trajectory_directions
from repertoire.diagnostics.landscape._essential_sparsity import (
    SparsityKnee,
    magnitude_masks,
    prunable_weights,
    sparsity_knee,
)
from repertoire.diagnostics.landscape._hessian import Hessian
from repertoire.diagnostics.landscape._lanczos import (
    Eigenvalues,
    SpectralDensity,
    hessian_eigenvalues,
    spectral_density,
)
from repertoire.diagnostics.landscape._landscape import Landscape, loss_landscape
from repertoire.diagnostics.landscape._landscape_convergence import LandscapeConvergence, landscape_convergence
from repertoire.diagnostics.landscape._landscape_figure import landscape_svg
from repertoire.diagnostics.landscape._lpntk import last_layer_lpntk, lpntk
from repertoire.diagnostics.landscape._merge_right import MergeRight, both_wrong_merge_right
from repertoire.diagnostics.landscape._sharpness import Sharpness, sharpness
from repertoire.diagnostics.landscape._trace import Trace, hessian_trace
from repertoire.diagnostics.scaling._critical_batch import CriticalBatch, fit_critical_batch
from repertoire.diagnostics.scaling._gradient_noise import GradientNoise, gradient_noise_scale
from repertoire.diagnostics.scaling._inductive_bias import (
    InductiveBias,
    counted_inductive_bias,
    gaussian_process_errors,
    inductive_bias,
)
from repertoire.diagnostics.scaling._joint_power_law import Allocation, JointPowerLaw, fit_joint_power_law
from repertoire.diagnostics.scaling._power_law import PowerLaw, Prediction, fit_power_law
from repertoire.diagnostics.scaling._sample_complexity import comparisons_needed

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
    "MergeRight",
    "MixedLayout",
    "ModelComparison",
    "NearDuplicates",
    "NeuralCollapse",
    "PowerLaw",
    "Prediction",
    "Sharpness",
    "SparsityKnee",
    "SpectralDensity",
    "Spectrum",
    "Stitching",
    "Subgroup",
    "Trace",
    "Trajectory",
    "activation_sparsity",
    "alignment",
    "both_wrong_merge_right",
    "cka_matrix",
    "class_overlap",
    "classifier_collapse",
    "compare_representations",
    "comparisons_needed",
    "counted_inductive_bias",
    "effective_rank",
    "eigenvalue_spectrum",
    "feature_complexity",
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
    "landscape_convergence",
    "landscape_svg",
    "last_layer_lpntk",
    "linear_cka",
    "loss_landscape",
    "lpntk",
    "macro_std",
    "magnitude_masks",
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
    "prunable_weights",
    "random_directions",
    "relative_representation",
    "rotation_probe",
    "sharpness",
    "sparsity_knee",
    "spectral_density",
    "stitching",
    "thumbnails",
    "trajectory_directions",
    "tree_lengths",
    "uniformity",
    "wasserstein_uniformity",
    "weak_subgroups",
]
