"""The claim of *Representer Point Selection for Explaining Regularized High-dimensional Models* (2023)."""

from __future__ import annotations

import torch
from torch import Tensor

from repertoire.claims import Budget, Measured, claim
from repertoire.explain import LinearModel, fit_linear, representers


def _sparse_problem(count: int, width: int, seed: int) -> tuple[Tensor, Tensor]:
    """Correlated features of which one in fifty matters, and the noisy label of two classes."""
    generator = torch.Generator().manual_seed(seed)
    shared = torch.randn(count, 10, generator=generator, dtype=torch.float64)
    mixing = torch.randn(10, width, generator=generator, dtype=torch.float64)
    own = torch.randn(count, width, generator=generator, dtype=torch.float64)
    features = 0.7 * own + 0.3 * (shared @ mixing)
    kept = torch.randperm(width, generator=generator)[: max(4, width // 50)]
    weights = torch.randn(len(kept), generator=generator, dtype=torch.float64)
    scores = features[:, kept] @ weights
    noise = 0.5 * scores.std() * torch.randn(count, generator=generator, dtype=torch.float64)
    return features, (scores + noise > scores.median()).long()


def _influence(model: LinearModel, features: Tensor, targets: Tensor, queries: Tensor) -> Tensor:
    """What leaving a sample out takes from the logit of each query, to first order on the support: `[m, n]`."""
    kept = (model.coef[0] != 0).nonzero().flatten()
    rows = torch.cat([features[:, kept], features.new_ones(len(features), 1)], 1)
    asked = torch.cat([queries[:, kept], queries.new_ones(len(queries), 1)], 1)
    likely = model(features)[:, 0].sigmoid()
    curvature = (rows.T * (likely * (1 - likely))) @ rows
    curvature += 1e-6 * curvature.diagonal().mean() * torch.eye(len(curvature), dtype=rows.dtype)
    return -(asked @ torch.linalg.solve(curvature, rows.T)) * (likely - targets)


@claim(
    "high-dim-representers",
    statement=(
        "Without the twentieth of the training samples that high-dimensional representers rank first for a prediction, "
        "the refitted sparse model is less sure of it than without those that l2 representers rank first, or random "
        "ones, whichever is worse for the prediction."
    ),
    metric="fall of the predicted class's logit when the model is refitted without the samples",
    method="representers of the l1-regularised model",
    baseline="l2 representers or random samples, the larger fall",
    data="synthetic: 300 samples, 500 correlated features of which 10 matter",
    threshold=0.0,
    learned=0.1,
    guard="samples drawn at random, which are also in the rival where they do better than l2 representers",
)
def high_dim_representers(budget: Budget, seed: int) -> Measured:
    """Tsai et al., *Representer Point Selection for Explaining Regularized High-dimensional Models* (2023).

    Influence functions on the support, which ask directly what is measured here, are in `extra`; so is the largest
    difference between a logit and the sum of its shares.
    """
    count, width = budget.pick(smoke=(80, 40), small=(300, 500), full=(2000, 5000))
    asked, strength = budget.pick(smoke=2, small=20, full=50), 0.02
    features, targets = _sparse_problem(count + asked, width, seed)
    queries, features, targets = features[count:], features[:count], targets[:count]
    model = fit_linear(features, targets, strength=strength)
    ridge = fit_linear(features, targets, strength=strength, penalty="l2")
    logits = model(queries)[:, 0]
    towards = torch.where(logits >= 0, 1.0, -1.0)[:, None]
    sparse = representers(model, features, targets).contributions(queries, 0)
    generator = torch.Generator().manual_seed(seed)
    ranks = {
        "l1": sparse * towards,
        "l2": representers(ridge, features, targets).contributions(queries, 0) * towards,
        "random": torch.rand(asked, count, generator=generator),
        "influence": _influence(model, features, targets, queries) * towards,
    }
    falls = dict.fromkeys(ranks, 0.0)
    for name, values in ranks.items():
        for query in range(asked):
            kept = torch.ones(count, dtype=torch.bool)
            kept[values[query].topk(count // 20).indices] = False
            again = fit_linear(features[kept], targets[kept], strength=strength, start=model, tolerance=1e-4)
            moved = float((logits[query] - again(queries[query : query + 1])[0, 0]) * towards[query, 0])
            falls[name] += moved / asked
    gap = float((sparse.sum(1) + model.intercept[0] - logits).abs().max())
    ours = falls.pop("l1")
    extra = {**falls, "gap of the sum": gap, "features kept": float((model.coef != 0).sum())}
    return Measured(ours, max(falls["l2"], falls["random"]), extra, trivial=falls["random"])
