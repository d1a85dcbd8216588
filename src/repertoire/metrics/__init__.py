"""What results are judged by: classes, scores, rankings, clusters and numbers; ties and corners are defined."""

from repertoire.metrics._classes import f1, mean_average_precision, top_k_accuracy
from repertoire.metrics._clusters import ClusteringAccuracy, clustering_accuracy, nmi
from repertoire.metrics._detection import auroc, average_precision, fpr_at_tpr, oscr
from repertoire.metrics._numbers import mean_absolute_error, mean_squared_error, r2, spearman
from repertoire.metrics._retrieval import (
    Retrieval,
    map_at_r,
    r_precision,
    recall_at_k,
    retrieval,
    retrieval_average_precision,
)
from repertoire.metrics._selective import aurc, risk_coverage

__all__ = [
    "ClusteringAccuracy",
    "Retrieval",
    "aurc",
    "auroc",
    "average_precision",
    "clustering_accuracy",
    "f1",
    "fpr_at_tpr",
    "map_at_r",
    "mean_absolute_error",
    "mean_average_precision",
    "mean_squared_error",
    "nmi",
    "oscr",
    "r2",
    "r_precision",
    "recall_at_k",
    "retrieval",
    "retrieval_average_precision",
    "risk_coverage",
    "spearman",
    "top_k_accuracy",
]
