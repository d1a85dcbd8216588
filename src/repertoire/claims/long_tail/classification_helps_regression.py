"""The claim of *A step towards understanding why classification helps regression* (2023)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from repertoire import losses
from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.frozen import Rows, epochs_for, patches, predictor
from repertoire.claims.beds.raw import raw_patches

BINS = 20
FOLD = 20.0
"""How much rarer in training the highest numbers are than the lowest."""


def _thinned(rows: Rows, seed: int, fold: float) -> Rows:
    """Training rows of which the density falls so many times from the lowest number to the highest."""
    rank = rows.y.argsort().argsort().float() / max(len(rows.y) - 1, 1)
    kept = torch.rand(len(rows.y), generator=torch.Generator().manual_seed(seed)).to(rank.device) < fold**-rank
    return rows._replace(x=rows.x[kept], y=rows.y[kept])


def _even_error(found: Tensor, numbers: Tensor) -> float:
    """Squared error, the mean over the tenths of the numbers' range that have any."""
    place = ((numbers - numbers.min()) / (numbers.max() - numbers.min()) * 10).long().clamp_max(9)
    return float(torch.stack([(found - numbers)[place == k].square().mean() for k in place.unique()]).mean())


def _by_patches(budget: Budget, seed: int) -> float:
    """Error of what needs no training."""
    rows = patches(budget, seed)
    return min(_even_error(found, rows.test_y) for found in raw_patches(_thinned(rows, seed, FOLD)))


@claim(
    "classification-helps-regression",
    statement=(
        "Where some numbers are rare in training and not in the test, cross-entropy on bins beside the squared error "
        "makes the error smaller."
    ),
    metric="mean squared error on test patches, all numbers counting equally, in units of the variance",
    method="squared error and cross-entropy on 20 bins",
    baseline="squared error",
    data="Landsat, 6,435 patches: the middle pixel from those round it; bright ones are twenty times rarer in training",
    bed="landsat",
    threshold=0.005,
    higher_is_better=False,
    learned=0.005,
    floor=_by_patches,
    guard="the better of the five nearest neighbours and the mean of the four pixels beside the middle one",
)
def classification_helps_regression(budget: Budget, seed: int) -> Measured:
    """Pintea et al., *A step towards understanding why classification helps regression* (2023). The weight of the
    classification was chosen of 0.1, 1 and 10 on pilot seeds.

    `extra` has the same with as many training rows that are drawn evenly, where the paper expects little.
    """
    rows = patches(budget, seed)
    skewed = _thinned(rows, seed, FOLD)
    even = torch.randperm(len(rows.y), generator=torch.Generator().manual_seed(seed))[: len(skewed.y)]

    def error(part: Rows, scale: float, rate: float) -> float:
        edges = losses.bin_edges(part.y, BINS)
        loss: nn.Module = losses.RegressionWithClasses(edges, scale)
        network = predictor(part, loss, 1 + BINS, seed, epochs_for(budget, len(part.x)), rate)
        with torch.no_grad():
            return _even_error(network(rows.test_x)[:, 0], rows.test_y)

    all_equal = rows._replace(x=rows.x[even], y=rows.y[even])
    extra = {"drawn evenly: with": error(all_equal, 0.1, 1e-2), "drawn evenly: without": error(all_equal, 0.0, 1e-2)}
    return Measured(error(skewed, 0.1, 1e-2), error(skewed, 0.0, 1e-2), extra)
