"""The claim of *Learning to Reject with a Fixed Predictor: Application to Decontextualization* (2023)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire import losses
from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.frozen import Classifier, Rows, epochs_for, fitted, photographs
from repertoire.claims.beds.frozen import predictor as rejecting

COST = 0.2

RATE, EPOCHS = 3e-4, 6
"""The best of 0.0003 and 0.001, and of 3, 6 and 20, on validation images of two pilot seeds: longer ones overfit."""


def price(wrong: Tensor, accepted: Tensor) -> float:
    """Mean cost: 1 for a wrong answer, and that of a rejection."""
    return float(torch.where(accepted, wrong.float(), COST).mean())


def best_threshold(probability: Tensor, wrong: Tensor) -> float:
    """The threshold on a probability at which these rows cost least."""
    tried = torch.cat([probability.unique(), probability.new_tensor([2.0])])
    return float(min(tried.tolist(), key=lambda least: price(wrong, probability >= least)))


def fixed(budget: Budget, seed: int) -> tuple[nn.Module, Rows]:
    """A predictor that has seen 20 photographs of each class, and all others, on which it may be wrong."""
    rows = photographs(budget, seed, budget.pick(smoke=60, small=420, full=420))
    few = torch.cat([(rows.y == c).nonzero().flatten()[:20] for c in rows.y.unique()])
    rest = torch.ones(len(rows.y), dtype=torch.bool, device=rows.y.device)
    rest[few] = False
    torch.manual_seed(seed)
    predictor = Classifier(rows.x.shape[1], "linear", int(rows.y.max()) + 1)
    part = rows._replace(x=rows.x[few], y=rows.y[few])
    fitted(part, F.cross_entropy, predictor, epochs=epochs_for(budget, len(few)), rate=1e-3)
    return predictor, rows._replace(x=rows.x[rest], y=rows.y[rest])


@claim(
    "reject-fixed-predictor",
    statement=(
        "A rejector trained with the surrogate costs less than the best threshold on the probability of a fixed "
        "predictor, where a wrong answer costs 1 and a rejected one 0.2."
    ),
    metric="mean cost on test images",
    method="trained rejector",
    baseline="a threshold on the largest probability, chosen on the same rows",
    data="CIFAR-10, frozen features: a predictor that saw 20 images a class, a rejector that saw 400 others",
    bed="cifar10-lite0",
    threshold=0.005,
    higher_is_better=False,
    learned=0.005,
    guard="the cheaper of accepting all answers and rejecting all",
)
def reject(budget: Budget, seed: int) -> Measured:
    """Mohri et al., *Learning to Reject with a Fixed Predictor* (2024).

    The trivial answer is the cheaper of accepting all answers and none. `extra` has the threshold 1 - c, and how much
    each accepts.
    """
    predictor, rows = fixed(budget, seed)
    with torch.no_grad():
        known, unseen = (predictor(x).log_softmax(1) for x in (rows.x, rows.test_x))
    before, wrong = known.argmax(1) != rows.y, unseen.argmax(1) != rows.test_y
    # The rejector sees the image and the answer.
    seen = rows._replace(x=torch.cat([rows.x, known], 1), y=(~before).float()[:, None])
    epochs = budget.pick(smoke=1, small=EPOCHS, full=EPOCHS)
    network = rejecting(seen, losses.Reject(COST), 1, seed, epochs, RATE)
    with torch.no_grad():
        accepted = network(torch.cat([rows.test_x, unseen], 1))[:, 0] > 0
    surest = unseen.exp().amax(1)
    sure = surest >= best_threshold(known.exp().amax(1), before)
    extra = {
        "threshold 1 - c": price(wrong, surest > 1 - COST),
        "rejector: coverage": float(accepted.float().mean()),
        "threshold: coverage": float(sure.float().mean()),
    }
    trivial = min(COST, float(wrong.float().mean()))
    return Measured(price(wrong, accepted), price(wrong, sure), extra, trivial=trivial)
