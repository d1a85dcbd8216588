"""The claim of *An Unsupervised Method for Estimating Class Separability of Datasets with Application to LLMs Fine-
Tuning* (2023).
"""

from __future__ import annotations

import torch
from scipy.stats import spearmanr
from torch.nn import functional as F

from repertoire.claims import Budget, Measured, claim
from repertoire.claims._training import fit_tensors, perceptron
from repertoire.claims.beds.digits import digit_rows, hidden_features, share_right
from repertoire.diagnostics import fisher_ratio, persistence_separability


@claim(
    "persistence-separability",
    statement=(
        "Over the epochs of training, the label-free score of separability follows Fisher's ratio of the classes more "
        "closely than the silhouette of a k-means clustering does."
    ),
    metric="rank correlation with Fisher's ratio over training",
    method="mean normalised persistence, negated",
    baseline="silhouette of k-means",
    data="digits",
    threshold=0.0,
)
def persistence(budget: Budget, seed: int) -> Measured:
    """Ghalyan et al., *An Unsupervised Method for Estimating Class Separability of Datasets with Application to LLMs
    Fine-Tuning* (2023)."""
    from sklearn.cluster import KMeans
    from sklearn.metrics import silhouette_score

    (x, y), (u, v) = digit_rows(seed, budget.device)
    torch.manual_seed(seed)
    network = perceptron(64, 10).to(budget.device)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-4)
    truth, scores, silhouettes, accuracies = [], [], [], []
    for _ in range(budget.pick(smoke=3, small=16, full=40)):
        h = F.normalize(hidden_features(network, u)).cpu()
        truth.append(fisher_ratio(h, v.cpu()))
        scores.append(-persistence_separability(h))
        clusters = KMeans(10, n_init=1, random_state=seed).fit_predict(h.numpy())
        silhouettes.append(float(silhouette_score(h.numpy(), clusters)))
        accuracies.append(share_right(network, u, v))
        fit_tensors(network, x, y, F.cross_entropy, epochs=1, optimizer=optimizer)
    extra = {"with test accuracy": float(spearmanr(scores, accuracies).statistic)}
    method, baseline = (float(spearmanr(values, truth).statistic) for values in (scores, silhouettes))
    return Measured(method, baseline, extra)
