"""Losses that shape a representation, each as a function and as a module, under three contracts: on logits, on
embeddings, and on views."""

from repertoire.losses._align_uniform import AlignUniform, align_uniform_loss, alignment_loss, uniformity_loss
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
from repertoire.losses._focal import Focal, focal_loss
from repertoire.losses._nonfinite import explain_nonfinite
from repertoire.losses._nt_xent import NTXent, nt_xent_loss
from repertoire.losses._squentropy import Squentropy, squentropy
from repertoire.losses._supcon import SupCon, supcon_loss
from repertoire.losses._views import check_views

__all__ = [
    "AlignUniform",
    "CrossEntropy",
    "EmbeddingLoss",
    "Focal",
    "LogitsLoss",
    "Loss",
    "NTXent",
    "Reduction",
    "Squentropy",
    "SupCon",
    "ViewsLoss",
    "align_uniform_loss",
    "alignment_loss",
    "check_embeddings",
    "check_logits",
    "check_views",
    "cross_entropy",
    "explain_nonfinite",
    "focal_loss",
    "nt_xent_loss",
    "reduce",
    "squentropy",
    "supcon_loss",
    "uniformity_loss",
]
