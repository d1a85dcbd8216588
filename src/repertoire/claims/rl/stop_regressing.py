"""The claim of *Stop Regressing: Training Value Functions via Classification for Scalable Deep RL* (2024)."""

from __future__ import annotations

import torch
from torch import Tensor

from repertoire import losses
from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.frozen import Rows, patches, predictor
from repertoire.claims.beds.raw import raw_numbers

NOISE = 1.0


def _patches(budget: Budget, seed: int) -> tuple[Rows, Tensor]:
    """Patches of ground without the near infrared of any pixel, and the numbers to learn from with noise."""
    rows = patches(budget, seed)
    others = [column for column in range(rows.x.shape[1]) if column % 4 != 3]
    rows = rows._replace(x=rows.x[:, others], val_x=rows.val_x[:, others], test_x=rows.test_x[:, others])
    noise = NOISE * torch.randn(len(rows.y), generator=torch.Generator().manual_seed(seed)).to(rows.y.device)
    return rows, rows.y + noise


def _by_rows(budget: Budget, seed: int) -> float:
    """Error of what needs no training, from the same noisy numbers."""
    rows, noisy = _patches(budget, seed)
    return min(float((found - rows.test_y).square().mean()) for found in raw_numbers(rows._replace(y=noisy)))


@claim(
    "stop-regressing",
    statement="From noisy targets, HL-Gauss learns to predict a number with a smaller error than squared error does.",
    metric="mean squared error on test patches, without noise, in units of the variance",
    method="HL-Gauss, 51 bins",
    baseline="squared error",
    data="Landsat, 6,435 patches: near infrared of the middle pixel from other bands, noise of one standard deviation",
    bed="landsat",
    threshold=0.01,
    higher_is_better=False,
    learned=0.1,
    floor=_by_rows,
    guard="the five nearest neighbours, from the same noisy numbers",
)
def stop_regressing(budget: Budget, seed: int) -> Measured:
    """Farebrother et al., *Stop Regressing* (2024), which finds that tolerance of noise explains most of the gain.
    `extra` has both without noise, where the paper expects little.

    Until the near infrared of the pixels round it was taken out, the mean of the four beside it, which has no noise to
    learn, was better than either. Of 10, 20 and 40 epochs, 10 did best for both on a pilot seed; the rates are the best
    of 0.001 and 0.003 for each.
    """
    rows, noisy = _patches(budget, seed)
    epochs = budget.pick(smoke=1, small=10, full=30)
    bins = losses.HLGauss(low=-6.0, high=6.0)

    def error(targets: Tensor, by_bins: bool, rate: float) -> float:
        part = rows._replace(y=targets)
        loss = bins if by_bins else losses.MSE()
        network = predictor(part, loss, 51 if by_bins else 1, seed, epochs, rate)
        with torch.no_grad():
            found = network(rows.test_x)
        return float(((bins.values(found) if by_bins else found[:, 0]) - rows.test_y).square().mean())

    extra = {"no noise: HL-Gauss": error(rows.y, True, 3e-3), "no noise: squared error": error(rows.y, False, 3e-3)}
    return Measured(error(noisy, True, 3e-3), error(noisy, False, 1e-3), extra)
