"""Losses that shape a representation, each as a function and as a module, under three contracts: on logits, on
embeddings, and on views."""

from repertoire.losses._align_uniform import AlignUniform, align_uniform_loss, alignment_loss, uniformity_loss
from repertoire.losses._asymmetric import Asymmetric, asymmetric_loss
from repertoire.losses._base import (
    EmbeddingLoss,
    LogitsLoss,
    Loss,
    Reduction,
    ViewsLoss,
    check_embeddings,
    check_logits,
    reduce,
)
from repertoire.losses._cross_entropy import CrossEntropy, cross_entropy
from repertoire.losses._decoupled_softmax import DecoupledSoftmax, decoupled_softmax_loss
from repertoire.losses._focal import Focal, focal_loss
from repertoire.losses._hl_gauss import HLGauss, hl_gauss_loss, hl_gauss_targets, hl_gauss_values
from repertoire.losses._ldam import LDAM, ldam_loss
from repertoire.losses._logit_adjustment import (
    BalancedSoftmax,
    LogitAdjusted,
    balanced_softmax_loss,
    logit_adjusted_loss,
)
from repertoire.losses._multilabel import MultiLabelLoss, check_multilabel
from repertoire.losses._nonfinite import explain_nonfinite
from repertoire.losses._nt_xent import NTXent, nt_xent_loss
from repertoire.losses._reject import Reject, reject_loss
from repertoire.losses._single_positive import SinglePositive, asymmetric_pseudo_labels, single_positive_loss
from repertoire.losses._squentropy import Squentropy, squentropy
from repertoire.losses._supcon import SupCon, supcon_loss
from repertoire.losses._views import check_views
from repertoire.losses._z_loss import ZLoss, z_loss

__all__ = [
    "LDAM",
    "AlignUniform",
    "Asymmetric",
    "BalancedSoftmax",
    "CrossEntropy",
    "DecoupledSoftmax",
    "EmbeddingLoss",
    "Focal",
    "HLGauss",
    "LogitAdjusted",
    "LogitsLoss",
    "Loss",
    "MultiLabelLoss",
    "NTXent",
    "Reduction",
    "Reject",
    "SinglePositive",
    "Squentropy",
    "SupCon",
    "ViewsLoss",
    "ZLoss",
    "align_uniform_loss",
    "alignment_loss",
    "asymmetric_loss",
    "asymmetric_pseudo_labels",
    "balanced_softmax_loss",
    "check_embeddings",
    "check_logits",
    "check_multilabel",
    "check_views",
    "cross_entropy",
    "decoupled_softmax_loss",
    "explain_nonfinite",
    "focal_loss",
    "hl_gauss_loss",
    "hl_gauss_targets",
    "hl_gauss_values",
    "ldam_loss",
    "logit_adjusted_loss",
    "nt_xent_loss",
    "reduce",
    "reject_loss",
    "single_positive_loss",
    "squentropy",
    "supcon_loss",
    "uniformity_loss",
    "z_loss",
]
