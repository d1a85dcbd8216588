"""The claim of *The Z-loss: a shift and scale invariant classification loss ...* (2016)."""

from __future__ import annotations

import torch
from torch import Tensor

from repertoire import losses
from repertoire.claims import Budget, Measured, claim
from repertoire.claims._training import fit_tensors, perceptron
from repertoire.claims.beds.digits import top_k_accuracy, two_digits
from repertoire.data import load


@claim(
    "z-loss",
    statement="With many classes the Z-loss puts the right one among the first five more often than cross-entropy.",
    metric="top-5 test accuracy",
    method="Z-loss, b chosen on validation images",
    baseline="cross-entropy",
    data="pairs of digits: 100 classes",
    threshold=0.0,
)
def z_loss(budget: Budget, seed: int) -> Measured:
    """De Brébisson and Vincent, *The Z-loss* (2016), which tunes b for the ranking score that is wanted."""
    splits = load("digits", seed=seed)
    count = budget.pick(smoke=300, small=3000, full=30_000)
    inputs, targets = two_digits(splits.train, count, seed)
    seen, held_out = (two_digits(images, 2000, seed + 1) for images in (splits.val, splits.test))

    def logits(loss: losses.LogitsLoss) -> tuple[Tensor, Tensor]:
        torch.manual_seed(seed)
        network = perceptron(inputs.shape[1], 100)
        fit_tensors(network, inputs, targets, loss, epochs=budget.pick(smoke=1, small=20, full=60))
        with torch.no_grad():
            return network(seen[0]), network(held_out[0])

    tried = [logits(losses.ZLoss(b=b)) for b in budget.pick(smoke=(6.0,), small=(3.0, 6.0, 9.0), full=(3.0, 6.0, 9.0))]
    _, best = max(tried, key=lambda pair: top_k_accuracy(pair[0], seen[1], 5))
    _, plain = logits(losses.CrossEntropy())
    top1 = {
        "Z-loss: top-1": top_k_accuracy(best, held_out[1], 1),
        "cross-entropy: top-1": top_k_accuracy(plain, held_out[1], 1),
    }
    return Measured(top_k_accuracy(best, held_out[1], 5), top_k_accuracy(plain, held_out[1], 5), top1)
