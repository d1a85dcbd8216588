"""Where a network looked: heat maps of a decision, pictures of them, and how well they find the object."""

from repertoire.explain._ablationcam import AblationCAM
from repertoire.explain._attribution_table import Attributed, attribution_table
from repertoire.explain._choose_explainer import ExplainerChoice, choose_explainer
from repertoire.explain._curves import area_under_curve, deletion_curve, insertion_curve
from repertoire.explain._eigencam import EigenCAM
from repertoire.explain._explainer import Explainer
from repertoire.explain._function_tasks import (
    BlackBox,
    FunctionTask,
    InterpretationScore,
    function_tasks,
    interpret,
    score_interpretation,
)
from repertoire.explain._gradcam import GradCAM
from repertoire.explain._gradcam_variants import GradCAMPlusPlus, LayerCAM, XGradCAM
from repertoire.explain._guided import GuidedBackprop, GuidedGradCAM
from repertoire.explain._input_gradients import Gradient, GradientXInput, IntegratedGradients, SmoothGrad
from repertoire.explain._interaction_basis import Basis, interaction_edges, local_interaction_basis
from repertoire.explain._judge import fitting, judge, usual_explainers
from repertoire.explain._judgement import Judged, Judgement
from repertoire.explain._kernelshap import KernelSHAP
from repertoire.explain._lime import CLIME, LIME
from repertoire.explain._local_approximation import LocalApproximation
from repertoire.explain._low_rank_representers import LowRankModel, fit_low_rank, low_rank_representers
from repertoire.explain._lrp import LRP
from repertoire.explain._normgrad import NormGrad
from repertoire.explain._occlusion import Occlusion
from repertoire.explain._overlay import colour_map, overlay, save_overlay
from repertoire.explain._patching import activation_patching, estimated_patching
from repertoire.explain._prototype_parts import PrototypeExamples, PrototypeParts, prototype_examples
from repertoire.explain._representers import LinearModel, Representers, fit_linear, nearest_examples, representers
from repertoire.explain._retraining import diffroar, keep_pixels
from repertoire.explain._rollout import AttentionRollout
from repertoire.explain._sanity import Randomization, class_sensitivity, randomization_check, randomized
from repertoire.explain._scorecam import ScoreCAM
from repertoire.explain._scores import energy_inside, mask_intersection, pointing_game
from repertoire.explain._similarity import map_correlation, rank_correlation, structural_similarity
from repertoire.explain._smoothgradcam import SmoothGradCAMPlusPlus
from repertoire.explain._tokencut import Cut, TokenCut, token_cut

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
    "Explainer",
    "ExplainerChoice",
    "FunctionTask",
    "GradCAM",
    "GradCAMPlusPlus",
    "Gradient",
    "GradientXInput",
    "GuidedBackprop",
    "GuidedGradCAM",
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
    "nearest_examples",
    "overlay",
    "pointing_game",
    "prototype_examples",
    "randomization_check",
    "randomized",
    "rank_correlation",
    "representers",
    "save_overlay",
    "score_interpretation",
    "structural_similarity",
    "token_cut",
    "usual_explainers",
]
