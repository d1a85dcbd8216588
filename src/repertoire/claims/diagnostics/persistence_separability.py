"""The claim of *An Unsupervised Method for Estimating Class Separability of Datasets with Application to LLMs Fine-
Tuning* (2023).
"""

from __future__ import annotations

import torch
from scipy.stats import spearmanr
from torch.nn import functional as F

from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.frozen import questions, renumbered
from repertoire.diagnostics import fisher_ratio, persistence_separability

INTENTS, LEAST = 4, 25


@claim(
    "persistence-separability",
    statement=(
        "Over sets of questions of four intents each, the label-free score of separability follows Fisher's ratio of "
        "the classes more closely, by 0.1 in rank correlation, than the silhouette of a k-means clustering does."
    ),
    metric="rank correlation with Fisher's ratio over 40 sets",
    method="mean normalised persistence, negated",
    baseline="silhouette of k-means",
    bed="intents",
    threshold=0.1,
    learned=0.1,
    trivial=0.0,
    guard="no relation at all",
)
def persistence(budget: Budget, seed: int) -> Measured:
    """Ghalyan et al., *An Unsupervised Method for Estimating Class Separability of Datasets with Application to LLMs
    Fine-Tuning* (2023), over sets rather than over the epochs of a training, where whatever grows follows the ratio.

    `extra` has the least and the largest of the ratios. The rival is told the number of intents, by which k-means
    divides the rows, and the method is not.
    """
    from sklearn.cluster import KMeans
    from sklearn.metrics import silhouette_score

    rows, names = questions(budget, seed)
    generator = torch.Generator().manual_seed(seed)
    truth, scores, silhouettes = [], [], []
    for _ in range(budget.pick(smoke=4, small=40, full=200)):
        chosen = torch.randperm(len(names), generator=generator)[:INTENTS].tolist()
        x, y = renumbered(rows.x, rows.y, chosen)
        kept = torch.cat([(y == c).nonzero().flatten()[:LEAST] for c in range(INTENTS)])
        h, labels = F.normalize(x[kept]), y[kept]
        truth.append(fisher_ratio(h, labels))
        scores.append(-persistence_separability(h))
        clusters = KMeans(INTENTS, n_init=4, random_state=seed).fit_predict(h.numpy())
        silhouettes.append(float(silhouette_score(h.numpy(), clusters)))
    method, baseline = (float(spearmanr(values, truth).statistic) for values in (scores, silhouettes))
    return Measured(method, baseline, {"least ratio": min(truth), "largest ratio": max(truth)})
