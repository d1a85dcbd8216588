"""The claim of *Neural Collapse in Deep Linear Networks: From Balanced to Imbalanced Data* (2023)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.claims import Budget, Measured, claim
from repertoire.claims._training import fit_tensors
from repertoire.claims.beds.digits import digit_rows, hidden_features
from repertoire.diagnostics import orthogonal_frame


@claim(
    "neural-collapse-linear",
    statement=(
        "The class means of a network without biases, trained by the squared error on imbalanced classes, are nearer "
        "to an orthogonal frame whose lengths follow the sizes of the classes than to one of equal lengths."
    ),
    metric="distance of the normalised Gram matrix of the class means from the predicted one",
    method="lengths by the size of the class",
    baseline="equal lengths",
    data="digits, of which class k keeps a share of 0.75 to the power k",
    threshold=0.0,
    higher_is_better=False,
)
def imbalanced_frame(budget: Budget, seed: int) -> Measured:
    """Dang et al., *Neural Collapse in Deep Linear Networks: From Balanced to Imbalanced Data* (2023)."""
    (x, y), _ = digit_rows(seed, budget.device)
    most = int(torch.bincount(y).min())
    kept = torch.cat([(y == k).nonzero().squeeze(1)[: max(2, round(most * 0.75**k))] for k in range(10)])
    x, y = x[kept], y[kept]
    torch.manual_seed(seed)
    network = nn.Sequential(
        nn.Linear(64, 256, bias=False), nn.ReLU(), nn.Linear(256, 256, bias=False), nn.ReLU(),
        nn.Linear(256, 10, bias=False),
    ).to(budget.device)  # fmt: skip
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, weight_decay=1e-4)
    targets = F.one_hot(y, 10).float()
    fit_tensors(network, x, targets, F.mse_loss, epochs=budget.pick(smoke=2, small=300, full=2000), optimizer=optimizer)
    h = hidden_features(network, x).double()
    counts = torch.bincount(y, minlength=10)
    means = torch.stack([h[y == k].mean(0) for k in range(10)])
    gram = means @ means.T
    gram = gram / gram.norm()

    def distance(lengths: Tensor) -> float:
        return float((gram - torch.diag(lengths / lengths.norm())).norm())

    cosines = F.normalize(means) @ F.normalize(means).T
    off = cosines.abs().sum() - cosines.diagonal().sum()
    within = float((h - means[y]).square().sum() / (h - h.mean(0)).square().sum())
    lengths = orthogonal_frame(counts.cpu()).features.to(gram)
    extra = {"mean cosine of class means": float(off / 90), "share of variance within classes": within}
    return Measured(distance(lengths), distance(torch.ones_like(lengths)), extra)
