"""The claims of *Cut your Losses with Squentropy* (2023)."""

from __future__ import annotations

from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.frozen import classified


@claim(
    "squentropy",
    statement="Squentropy gives a more accurate classifier than cross-entropy.",
    metric="test accuracy",
    method="squentropy",
    baseline="cross-entropy",
    bed="cifar10-lite0",
    threshold=0.005,
    own_data=True,
    learned=0.3,
    ceiling=1.0,
)
def squentropy(budget: Budget, seed: int) -> Measured:
    """Hui, Belkin and Wright, *Cut your Losses with Squentropy* (2023)."""
    ours = classified(budget, seed, loss="squentropy", rate=1e-3)
    plain = classified(budget, seed, loss="cross-entropy", rate=3e-4)
    return Measured(ours["accuracy"], plain["accuracy"], trivial=plain["majority"])


@claim(
    "squentropy",
    part="calibration",
    statement="Squentropy gives a better calibrated classifier than cross-entropy.",
    metric="expected calibration error",
    method="squentropy",
    baseline="cross-entropy",
    bed="cifar10-lite0",
    threshold=0.02,
    higher_is_better=False,
    own_data=True,
)
def squentropy_calibration(budget: Budget, seed: int) -> Measured:
    """Hui, Belkin and Wright (2023). `extra` has the accuracies, without which calibration says little."""
    ours = classified(budget, seed, loss="squentropy", rate=1e-3)
    plain = classified(budget, seed, loss="cross-entropy", rate=3e-4)
    extra = {"squentropy: accuracy": ours["accuracy"], "cross-entropy: accuracy": plain["accuracy"]}
    return Measured(ours["calibration error"], plain["calibration error"], extra)
