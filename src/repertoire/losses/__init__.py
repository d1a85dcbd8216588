"""Losses that shape a representation, each as a function and as a module, under three contracts: on logits, on
embeddings, and on views; and on predictions without targets."""

from typing import Any

from repertoire._aliases import missing_attribute
from repertoire.losses.contracts._base import (
    EmbeddingLoss,
    LogitsLoss,
    Loss,
    Reduction,
    ViewsLoss,
    check_embeddings,
    check_logits,
    reduce,
)
from repertoire.losses.contracts._dense import check_dense, dense_loss
from repertoire.losses.contracts._multilabel import MultiLabelLoss, check_multilabel
from repertoire.losses.contracts._nonfinite import explain_nonfinite
from repertoire.losses.contracts._numbers import RegressionLoss, check_numbers
from repertoire.losses.contracts._predictions import PredictionsLoss, check_predictions
from repertoire.losses.contracts._ranks import compare_across_ranks, compared_losses
from repertoire.losses.contracts._views import check_views
from repertoire.losses.embeddings._circle import Circle, circle_loss
from repertoire.losses.embeddings._contextual import Contextual, contextual_loss
from repertoire.losses.embeddings._dimco import DIMCO, dimco_codes, dimco_loss
from repertoire.losses.embeddings._energy_confusion import EnergyConfusion, energy_confusion
from repertoire.losses.embeddings._icnn import ICNN, icnn_loss
from repertoire.losses.embeddings._look import LOOK, look_loss
from repertoire.losses.embeddings._memory_info_nce import MemoryInfoNCE, memory_info_nce_loss
from repertoire.losses.embeddings._metrix import Metrix, metrix_loss
from repertoire.losses.embeddings._multi_similarity import MultiSimilarity, multi_similarity_loss
from repertoire.losses.embeddings._proto_triplet import ProtoTriplet, proto_triplet_loss
from repertoire.losses.embeddings._proxy_anchor import ProxyAnchor, proxy_anchor_loss
from repertoire.losses.embeddings._semicon import SemiCon, semicon_loss
from repertoire.losses.embeddings._soft_contrastive import SoftContrastive, soft_contrastive_loss
from repertoire.losses.embeddings._spcl import SPCL, spcl_loss
from repertoire.losses.embeddings._subclass_contrastive import SubclassContrastive, subclass_contrastive_loss
from repertoire.losses.embeddings._supcon import SupCon, supcon_loss
from repertoire.losses.embeddings._triplet import Triplet, triplet_loss
from repertoire.losses.embeddings._unilateral import UnilateralAggregation, unilateral_aggregation_loss
from repertoire.losses.logits._asymmetric import Asymmetric, asymmetric_loss
from repertoire.losses.logits._bce import BCE, bce_loss
from repertoire.losses.logits._cross_entropy import CrossEntropy, cross_entropy
from repertoire.losses.logits._decoupled_mixup import DecoupledMixup, decoupled_mixup_loss
from repertoire.losses.logits._decoupled_softmax import DecoupledSoftmax, decoupled_softmax_loss
from repertoire.losses.logits._encouraging import Encouraging, encouraging_loss
from repertoire.losses.logits._ensloss import EnsLoss, ens_loss, ens_loss_slopes
from repertoire.losses.logits._focal import Focal, focal_loss
from repertoire.losses.logits._hl_gauss import HLGauss, hl_gauss_loss, hl_gauss_targets, hl_gauss_values
from repertoire.losses.logits._huber import Huber, huber_loss
from repertoire.losses.logits._ldam import LDAM, ldam_loss
from repertoire.losses.logits._logit_adjusted import (
    BalancedSoftmax,
    LogitAdjusted,
    balanced_softmax_loss,
    logit_adjusted_loss,
)
from repertoire.losses.logits._mae import MAE, mae_loss
from repertoire.losses.logits._mse import MSE, mse_loss
from repertoire.losses.logits._next_digit import NextDigit, from_digits, next_digit_loss, to_digits
from repertoire.losses.logits._number_token import NumberToken, number_token_loss, number_token_penalty
from repertoire.losses.logits._regression_with_classes import (
    RegressionWithClasses,
    bin_edges,
    regression_with_classes_loss,
)
from repertoire.losses.logits._reject import Reject, reject_loss
from repertoire.losses.logits._single_positive import SinglePositive, asymmetric_pseudo_labels, single_positive_loss
from repertoire.losses.logits._soft_topk import SoftTopK, log_soft_topk, soft_topk_loss
from repertoire.losses.logits._squentropy import Squentropy, squentropy
from repertoire.losses.logits._z_loss import ZLoss, z_loss
from repertoire.losses.predictions._entropy import Entropy, entropy_loss
from repertoire.losses.predictions._label_encoding import LabelEncodingRisk, label_encoding_risk
from repertoire.losses.predictions._mean_entropy import MeanEntropy, mean_entropy
from repertoire.losses.terms._attention_alignment import attention_alignment
from repertoire.losses.terms._cka_distance import cka_distance
from repertoire.losses.terms._consolidation import consolidate_, consolidation
from repertoire.losses.terms._cpc import cpc_loss
from repertoire.losses.terms._norm_direction import norm_direction
from repertoire.losses.terms._pairwise import pairwise_bce_loss, same_rank
from repertoire.losses.terms._plasticity import SpectralPenalty, wasserstein_to_init
from repertoire.losses.terms._prototype_sets import closeness_loss, discrimination_loss, orthogonality_loss
from repertoire.losses.terms._relation_distillation import relation_distillation
from repertoire.losses.terms._virtual_adversarial import virtual_adversarial_loss
from repertoire.losses.views._align_uniform import AlignUniform, align_uniform_loss, alignment_loss, uniformity_loss
from repertoire.losses.views._barlow_twins import BarlowTwins, barlow_twins_loss
from repertoire.losses.views._clip import CLIP, clip_loss
from repertoire.losses.views._debiased_contrastive import DebiasedContrastive, debiased_contrastive_loss
from repertoire.losses.views._decoupled_contrastive import DecoupledContrastive, decoupled_contrastive_loss
from repertoire.losses.views._decoupled_uniformity import DecoupledUniformity, decoupled_uniformity_loss
from repertoire.losses.views._entropy_maximization import EntropyMaximization, entropy_maximization_loss
from repertoire.losses.views._groco import GroCo, groco_loss
from repertoire.losses.views._individual_temperatures import IndividualTemperatures, individual_temperature_loss
from repertoire.losses.views._info_nce import InfoNCE, info_nce_loss
from repertoire.losses.views._intl import INTL, intl_loss
from repertoire.losses.views._kernel_info_nce import KernelInfoNCE, kernel_info_nce_loss
from repertoire.losses.views._mean_shifted import MeanShiftedContrast, mean_shifted_loss
from repertoire.losses.views._nt_xent import NTXent, nt_xent_loss
from repertoire.losses.views._sie import SIE, sie_loss
from repertoire.losses.views._sigmoid_pairwise import SigmoidPairwise, sigmoid_pairwise_loss
from repertoire.losses.views._sycon import SyCon, sycon_loss
from repertoire.losses.views._tico import TiCo, tico_loss
from repertoire.losses.views._trajectory import Trajectory, trajectory_loss
from repertoire.losses.views._vicreg import VICReg, covariance_penalty, variance_penalty, vicreg_loss
from repertoire.losses.views._w_mse import WMSE, w_mse_loss
from repertoire.losses.views._wasserstein_uniformity import WassersteinUniformity, wasserstein_uniformity_loss

__all__ = [
    "BCE",
    "CLIP",
    "DIMCO",
    "ICNN",
    "INTL",
    "LDAM",
    "LOOK",
    "MAE",
    "MSE",
    "SIE",
    "SPCL",
    "WMSE",
    "AlignUniform",
    "Asymmetric",
    "BalancedSoftmax",
    "BarlowTwins",
    "Circle",
    "Contextual",
    "CrossEntropy",
    "DebiasedContrastive",
    "DecoupledContrastive",
    "DecoupledMixup",
    "DecoupledSoftmax",
    "DecoupledUniformity",
    "EmbeddingLoss",
    "Encouraging",
    "EnergyConfusion",
    "EnsLoss",
    "Entropy",
    "EntropyMaximization",
    "Focal",
    "GroCo",
    "HLGauss",
    "Huber",
    "IndividualTemperatures",
    "InfoNCE",
    "KernelInfoNCE",
    "LabelEncodingRisk",
    "LogitAdjusted",
    "LogitsLoss",
    "Loss",
    "MeanEntropy",
    "MeanShiftedContrast",
    "MemoryInfoNCE",
    "Metrix",
    "MultiLabelLoss",
    "MultiSimilarity",
    "NTXent",
    "NextDigit",
    "NumberToken",
    "PredictionsLoss",
    "ProtoTriplet",
    "ProxyAnchor",
    "Reduction",
    "RegressionLoss",
    "RegressionWithClasses",
    "Reject",
    "SemiCon",
    "SigmoidPairwise",
    "SinglePositive",
    "SoftContrastive",
    "SoftTopK",
    "SpectralPenalty",
    "Squentropy",
    "SubclassContrastive",
    "SupCon",
    "SyCon",
    "TiCo",
    "Trajectory",
    "Triplet",
    "UnilateralAggregation",
    "VICReg",
    "ViewsLoss",
    "WassersteinUniformity",
    "ZLoss",
    "align_uniform_loss",
    "alignment_loss",
    "asymmetric_loss",
    "asymmetric_pseudo_labels",
    "attention_alignment",
    "balanced_softmax_loss",
    "barlow_twins_loss",
    "bce_loss",
    "bin_edges",
    "check_dense",
    "check_embeddings",
    "check_logits",
    "check_multilabel",
    "check_numbers",
    "check_predictions",
    "check_views",
    "circle_loss",
    "cka_distance",
    "clip_loss",
    "closeness_loss",
    "compare_across_ranks",
    "compared_losses",
    "consolidate_",
    "consolidation",
    "contextual_loss",
    "covariance_penalty",
    "cpc_loss",
    "cross_entropy",
    "debiased_contrastive_loss",
    "decoupled_contrastive_loss",
    "decoupled_mixup_loss",
    "decoupled_softmax_loss",
    "decoupled_uniformity_loss",
    "dense_loss",
    "dimco_codes",
    "dimco_loss",
    "discrimination_loss",
    "encouraging_loss",
    "energy_confusion",
    "ens_loss",
    "ens_loss_slopes",
    "entropy_loss",
    "entropy_maximization_loss",
    "explain_nonfinite",
    "focal_loss",
    "from_digits",
    "groco_loss",
    "hl_gauss_loss",
    "hl_gauss_targets",
    "hl_gauss_values",
    "huber_loss",
    "icnn_loss",
    "individual_temperature_loss",
    "info_nce_loss",
    "intl_loss",
    "kernel_info_nce_loss",
    "label_encoding_risk",
    "ldam_loss",
    "log_soft_topk",
    "logit_adjusted_loss",
    "look_loss",
    "mae_loss",
    "mean_entropy",
    "mean_shifted_loss",
    "memory_info_nce_loss",
    "metrix_loss",
    "mse_loss",
    "multi_similarity_loss",
    "next_digit_loss",
    "norm_direction",
    "nt_xent_loss",
    "number_token_loss",
    "number_token_penalty",
    "orthogonality_loss",
    "pairwise_bce_loss",
    "proto_triplet_loss",
    "proxy_anchor_loss",
    "reduce",
    "regression_with_classes_loss",
    "reject_loss",
    "relation_distillation",
    "same_rank",
    "semicon_loss",
    "sie_loss",
    "sigmoid_pairwise_loss",
    "single_positive_loss",
    "soft_contrastive_loss",
    "soft_topk_loss",
    "spcl_loss",
    "squentropy",
    "subclass_contrastive_loss",
    "supcon_loss",
    "sycon_loss",
    "tico_loss",
    "to_digits",
    "trajectory_loss",
    "triplet_loss",
    "uniformity_loss",
    "unilateral_aggregation_loss",
    "variance_penalty",
    "vicreg_loss",
    "virtual_adversarial_loss",
    "w_mse_loss",
    "wasserstein_to_init",
    "wasserstein_uniformity_loss",
    "z_loss",
]


def __getattr__(name: str) -> Any:
    raise missing_attribute(__name__, name, __all__)
