"""The claim of *Stop Regressing: Training Value Functions via Classification for Scalable Deep RL* (2024)."""

from __future__ import annotations

import torch
from torch import Tensor

from repertoire import losses
from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.frozen import epochs_for, patches, predictor

NOISE = 1.0


@claim(
    "stop-regressing",
    statement="From noisy targets, HL-Gauss learns to predict a number with a smaller error than squared error does.",
    metric="mean squared error on test patches, without noise, in units of the variance",
    method="HL-Gauss, 51 bins",
    baseline="squared error",
    data="Landsat, 6,435 patches: the middle pixel from those round it, with noise of one standard deviation",
    bed="landsat",
    threshold=0.01,
    higher_is_better=False,
    learned=0.5,
    trivial=1.0,
)
def stop_regressing(budget: Budget, seed: int) -> Measured:
    """Farebrother et al., *Stop Regressing* (2024), which finds that tolerance of noise explains most of the gain.
    `extra` has both without noise, where the paper expects little."""
    rows = patches(budget, seed)
    noise = NOISE * torch.randn(len(rows.y), generator=torch.Generator().manual_seed(seed)).to(rows.y.device)
    epochs = epochs_for(budget, len(rows.x))
    bins = losses.HLGauss(low=-6.0, high=6.0)

    def error(targets: Tensor, by_bins: bool, rate: float) -> float:
        part = rows._replace(y=targets)
        loss = bins if by_bins else losses.MSE()
        network = predictor(part, loss, 51 if by_bins else 1, seed, epochs, rate)
        with torch.no_grad():
            found = network(rows.test_x)
        return float(((bins.values(found) if by_bins else found[:, 0]) - rows.test_y).square().mean())

    extra = {"no noise: HL-Gauss": error(rows.y, True, 1e-3), "no noise: squared error": error(rows.y, False, 3e-4)}
    return Measured(error(rows.y + noise, True, 1e-3), error(rows.y + noise, False, 3e-4), extra)
