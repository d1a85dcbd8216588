"""Explanations of a network's decisions: maps, examples and circuits, pictures of them, and tests of their worth."""

from typing import Any

from repertoire._aliases import answer_calls, missing_attribute
from repertoire.explain._explainer import Explainer, to_unit_range
from repertoire.explain._overlay import colour_map, overlay, save_overlay
from repertoire.explain._place import photograph, place_on
from repertoire.explain.attribution._gradientshap import GradientSHAP
from repertoire.explain.attribution._guided import GuidedBackprop, GuidedGradCAM
from repertoire.explain.attribution._local_approximation import LocalApproximation
from repertoire.explain.attribution._lrp import LRP
from repertoire.explain.attribution._presets import (
    CLIME,
    LIME,
    Gradient,
    GradientXInput,
    IntegratedGradients,
    KernelSHAP,
    Occlusion,
    SmoothGrad,
)
from repertoire.explain.cam._ablationcam import AblationCAM
from repertoire.explain.cam._activation import shared_passes
from repertoire.explain.cam._eigencam import EigenCAM, EigenGradCAM
from repertoire.explain.cam._gradcam import GradCAM
from repertoire.explain.cam._gradcam_variants import GradCAMPlusPlus, HiResCAM, LayerCAM, XGradCAM
from repertoire.explain.cam._normgrad import NormGrad
from repertoire.explain.cam._scorecam import ScoreCAM
from repertoire.explain.cam._smoothgradcam import SmoothGradCAMPlusPlus
from repertoire.explain.circuits._function_tasks import (
    BlackBox,
    FunctionTask,
    InterpretationScore,
    function_tasks,
    interpret,
    score_interpretation,
)
from repertoire.explain.circuits._interaction_basis import Basis, interaction_edges, local_interaction_basis
from repertoire.explain.circuits._patching import activation_patching, estimated_patching
from repertoire.explain.examples._low_rank_representers import LowRankModel, fit_low_rank, low_rank_representers
from repertoire.explain.examples._prototype_parts import PrototypeExamples, PrototypeParts, prototype_examples
from repertoire.explain.examples._representers import (
    LinearModel,
    Representers,
    fit_linear,
    nearest_examples,
    representers,
)
from repertoire.explain.tokens._rollout import AttentionRollout
from repertoire.explain.tokens._tokencut import Cut, TokenCut, token_cut
from repertoire.explain.trust._attribution_table import Attributed, attribution_table
from repertoire.explain.trust._choose_explainer import ExplainerChoice, choose_explainer
from repertoire.explain.trust._curves import area_under_curve, deletion_curve, insertion_curve
from repertoire.explain.trust._judge import fitting, judge, usual_explainers
from repertoire.explain.trust._judgement import Judged, Judgement
from repertoire.explain.trust._retraining import diffroar, keep_pixels
from repertoire.explain.trust._sanity import (
    Randomization,
    class_sensitivity,
    max_sensitivity,
    randomization_check,
    randomized,
)
from repertoire.explain.trust._scores import energy_inside, mask_intersection, pointing_game
from repertoire.explain.trust._similarity import map_correlation, rank_correlation, structural_similarity

__all__ = [
    "CLIME",
    "LIME",
    "LRP",
    "AblationCAM",
    "AttentionRollout",
    "Attributed",
    "Basis",
    "BlackBox",
    "Cut",
    "EigenCAM",
    "EigenGradCAM",
    "Explainer",
    "ExplainerChoice",
    "FunctionTask",
    "GradCAM",
    "GradCAMPlusPlus",
    "Gradient",
    "GradientSHAP",
    "GradientXInput",
    "GuidedBackprop",
    "GuidedGradCAM",
    "HiResCAM",
    "IntegratedGradients",
    "InterpretationScore",
    "Judged",
    "Judgement",
    "KernelSHAP",
    "LayerCAM",
    "LinearModel",
    "LocalApproximation",
    "LowRankModel",
    "NormGrad",
    "Occlusion",
    "PrototypeExamples",
    "PrototypeParts",
    "Randomization",
    "Representers",
    "ScoreCAM",
    "SmoothGrad",
    "SmoothGradCAMPlusPlus",
    "TokenCut",
    "XGradCAM",
    "activation_patching",
    "area_under_curve",
    "attribution_table",
    "choose_explainer",
    "class_sensitivity",
    "colour_map",
    "deletion_curve",
    "diffroar",
    "energy_inside",
    "estimated_patching",
    "fit_linear",
    "fit_low_rank",
    "fitting",
    "function_tasks",
    "insertion_curve",
    "interaction_edges",
    "interpret",
    "judge",
    "keep_pixels",
    "local_interaction_basis",
    "low_rank_representers",
    "map_correlation",
    "mask_intersection",
    "max_sensitivity",
    "nearest_examples",
    "overlay",
    "photograph",
    "place_on",
    "pointing_game",
    "prototype_examples",
    "randomization_check",
    "randomized",
    "rank_correlation",
    "representers",
    "save_overlay",
    "score_interpretation",
    "shared_passes",
    "structural_similarity",
    "to_unit_range",
    "token_cut",
    "usual_explainers",
]


def __getattr__(name: str) -> Any:
    raise missing_attribute(__name__, name, __all__)


answer_calls(__name__, "run.explain(images) explains the answers of a run, and this room holds the explainers")
