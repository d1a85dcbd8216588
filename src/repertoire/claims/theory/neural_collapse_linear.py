"""The claims of *Neural Collapse in Deep Linear Networks: From Balanced to Imbalanced Data* (2023)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.frozen import Rows
from repertoire.claims.beds.handwriting import GARMENTS, drawn_rows
from repertoire.claims.beds.learned import must_have_learned
from repertoire.claims.beds.raw import raw_accuracy_of_rows
from repertoire.diagnostics import orthogonal_frame

SIZES = (40, 30, 20, 10, 5)
"""Samples of each class on free features."""


def distance(features: Tensor, labels: Tensor, lengths: Tensor) -> float:
    """Distance of the Gram matrix of the class means from a diagonal of these lengths, both of norm 1."""
    means = torch.stack([features[labels == c].mean(0) for c in range(int(labels.max()) + 1)]).double()
    gram = means @ means.T
    return float((gram / gram.norm() - torch.diag(lengths / lengths.norm()).to(gram)).norm())


@claim(
    "neural-collapse-linear",
    statement=(
        "At the minimum of the squared error with decay of weights and of free features, without biases, the means of "
        "imbalanced classes are orthogonal and have the lengths that their sizes and the decay predict."
    ),
    metric="distance of the normalised Gram matrix of the class means from the predicted one",
    method="a linear layer on free features, from random starts",
    kind="identity",
    data="free features of five classes with 40, 30, 20, 10 and 5 samples",
    tier="drawn",
    threshold=1e-3,
)
def free_features(budget: Budget, seed: int) -> Measured:
    """Dang et al., *Neural Collapse in Deep Linear Networks: From Balanced to Imbalanced Data* (2023), the theorem on
    imbalanced data: found by descent from a random start, in double precision, and not put in anywhere.

    The decay is strong enough to shorten the rare classes by more than their size alone does; without it in the
    prediction the distance is that in `extra`, beside that from equal lengths, and the share of the variance that is
    left within classes.
    """
    counts = torch.tensor(SIZES)
    y = torch.arange(len(SIZES)).repeat_interleave(counts)
    targets = F.one_hot(y).double().T
    total, width, of_weights, of_features = len(y), 10, 1e-2, 1e-2
    generator = torch.Generator().manual_seed(seed)
    w = torch.randn(len(SIZES), width, generator=generator, dtype=torch.float64).requires_grad_()
    h = torch.randn(width, total, generator=generator, dtype=torch.float64).requires_grad_()
    optimizer = torch.optim.LBFGS(
        [w, h], max_iter=budget.pick(smoke=200, small=3000, full=3000), tolerance_grad=1e-10, tolerance_change=0,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def objective() -> Tensor:
        optimizer.zero_grad()
        value = (w @ h - targets).square().sum() / (2 * total)
        value = value + of_weights / 2 * w.square().sum() + of_features / 2 * h.square().sum()
        value.backward()
        return value

    optimizer.step(objective)
    rows = h.detach().T
    decay = total**2 * of_weights * of_features
    means = torch.stack([rows[y == c].mean(0) for c in range(len(SIZES))])
    extra = {
        "lengths by size alone": distance(rows, y, orthogonal_frame(counts).features),
        "equal lengths": distance(rows, y, torch.ones(len(SIZES))),
        "share of variance within classes": float((rows - means[y]).square().sum() / rows.square().sum()),
    }
    return Measured(distance(rows, y, orthogonal_frame(counts, decay=decay).features), extra=extra)


@claim(
    "neural-collapse-linear",
    part="images",
    statement=(
        "Trained by the squared error on imbalanced classes of images, without biases and with decay of weights and "
        "features, a network ends with class means nearer to the orthogonal frame whose lengths follow the sizes of "
        "the classes, by 0.1, than to one of equal lengths."
    ),
    metric="distance of the normalised Gram matrix of the class means from the predicted one",
    method="lengths by the size of the class",
    baseline="equal lengths",
    bed="fashion-mnist",
    data=GARMENTS + ", ten classes of 100 to 12",
    threshold=0.1,
    higher_is_better=False,
    guard="the network must be more accurate than nearest means and neighbours of the pixels",
)
def images(budget: Budget, seed: int) -> Measured:
    """Dang et al. (2023), section 5: a perceptron in the place of free features. `extra` has the training error, the
    test accuracy beside that of raw pixels, the cosines of the means, which are 0 where these are orthogonal, and the
    share of the variance within classes."""
    (x, y), (u, v) = drawn_rows(budget, seed, budget.pick(smoke=1000, small=4000, full=8000), bed="fashion-mnist")
    counts = torch.tensor([round(budget.pick(smoke=10, small=100, full=100) * 0.79**c) for c in range(10)])
    kept = torch.cat([(y == c).nonzero().flatten()[:count] for c, count in enumerate(counts.tolist())])
    x, y = x[kept], y[kept]
    torch.manual_seed(seed)
    body = nn.Sequential(
        nn.Linear(x.shape[1], 256, bias=False), nn.ReLU(), nn.Linear(256, 256, bias=False), nn.ReLU(),
        nn.Linear(256, 64, bias=False),
    ).to(x.device)  # fmt: skip
    last = nn.Linear(64, 10, bias=False).to(x.device)
    targets = F.one_hot(y, 10).float()
    steps = budget.pick(smoke=2, small=2500, full=20_000)
    optimizer = torch.optim.Adam([*body.parameters(), *last.parameters()], lr=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    decay = 5e-3
    for _ in range(steps):
        h = body(x)
        error = (last(h) - targets).square().sum(1).mean() / 2
        loss = error + decay / 2 * (last.weight.square().sum() + h.square().sum() / len(x))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        h = body(x).double()
        wrong = float((last(h.float()).argmax(1) != y).float().mean())
        right = float((last(body(u)).argmax(1) == v).float().mean())
    floor = raw_accuracy_of_rows(Rows(x, y, x[:0], y[:0], u, v))
    must_have_learned(budget, right, floor)
    means = torch.stack([h[y == c].mean(0) for c in range(10)])
    cosines = F.normalize(means) @ F.normalize(means).T
    extra = {
        "training error": wrong,
        "test accuracy": right,
        "raw pixels": floor,
        "mean cosine of class means": float((cosines.abs().sum() - cosines.diagonal().sum()) / 90),
        "share of variance within classes": float((h - means[y]).square().sum() / (h - h.mean(0)).square().sum()),
    }
    # A decay of the mean square of the features is a decay of `decay / N` for each.
    frame = orthogonal_frame(counts, decay=len(x) * decay * decay)
    return Measured(distance(h, y, frame.features), distance(h, y, torch.ones(10)), extra)
