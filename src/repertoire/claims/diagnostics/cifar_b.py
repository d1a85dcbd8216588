"""The claim of *Better May Not Be Fairer: A Study on Subgroup Discrepancy in Image Classification* (2022)."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor

from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.digits import fitted_perceptron, share_right
from repertoire.claims.beds.frozen import Rows
from repertoire.claims.beds.handwriting import GARMENTS, drawn_rows
from repertoire.claims.beds.learned import must_have_learned
from repertoire.claims.beds.raw import raw_accuracy_of_rows
from repertoire.diagnostics import macro_std


@claim(
    "cifar-b",
    statement=(
        "Over 21 models of three widths, trained with more or less change of the background colour, how evenly a model "
        "treats the colours of a class on biased test images ranks their accuracy on unbiased ones better, by 0.1, "
        "than their accuracy on the biased ones."
    ),
    metric="rank correlation with the accuracy on unbiased colours",
    method="MacroStd, negated",
    baseline="accuracy on biased colours",
    bed="fashion-mnist",
    data=GARMENTS + " on backgrounds of four colours, of which one goes with the class in 80% of the images",
    threshold=0.1,
    guard="the best network must be more accurate on unbiased colours than nearest means and neighbours of the pixels",
)
def coloured(budget: Budget, seed: int) -> Measured:
    """Chiu, Chen and Ma, *Better May Not Be Fairer: A Study on Subgroup Discrepancy in Image Classification* (2023)."""
    (x, y), (u, v) = drawn_rows(budget, seed, 1500, bed="fashion-mnist")
    generator = torch.Generator().manual_seed(seed)
    seen, biased, even = (_colours(labels, share, generator) for labels, share in ((y, 0.8), (v, 0.8), (v, 0.25)))
    rates = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8)[:: budget.pick(smoke=3, small=1, full=1)]
    spread, known, truth = [], [], []
    widths = budget.pick(smoke=(16,), small=(16, 64, 256), full=(16, 64, 256))
    for rate, width in itertools.product(rates, widths):
        changed = torch.rand(len(y), generator=generator) < rate
        colour = torch.where(
            changed.to(seen.device), torch.randint(4, (len(y),), generator=generator).to(seen.device), seen
        )
        rows = _painted(x, colour)
        network = fitted_perceptron(seed, rows, y, width, budget.pick(smoke=1, small=8, full=50))
        with torch.no_grad():
            right = (network(_painted(u, biased)).argmax(1) == v).cpu().numpy()
        spread.append(-macro_std(right, v.cpu().numpy(), biased.cpu().numpy()))
        known.append(float(right.mean()))
        truth.append(share_right(network, _painted(u, even), v))
    seen_rows, even_rows = _painted(x, seen), _painted(u, even)
    floor = raw_accuracy_of_rows(Rows(seen_rows, y, seen_rows[:0], y[:0], even_rows, v))
    must_have_learned(budget, max(truth), floor, "the best of the networks")
    method, baseline = (float(np.nan_to_num(spearmanr(values, truth).statistic)) for values in (spread, known))
    extra = {"best unbiased accuracy": max(truth), "worst unbiased accuracy": min(truth), "raw pixels": floor}
    return Measured(method, baseline, extra)


def _colours(labels: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """A colour of four for each image, that of its class with this probability."""
    other = (labels.cpu() + torch.randint(1, 4, (len(labels),), generator=generator)) % 4
    own = torch.rand(len(labels), generator=generator) < share
    return torch.where(own, labels.cpu() % 4, other).to(labels.device)


def _painted(rows: Tensor, colour: Tensor) -> Tensor:
    """The images on backgrounds of a colour: the pixels once for each of four channels, brightened in one of them."""
    channels = rows[:, None].repeat(1, 4, 1)
    channels[torch.arange(len(rows)), colour] += 0.7 * (1 - rows)
    return channels.flatten(1)
