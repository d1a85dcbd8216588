"""The claims of *Cut your Losses with Squentropy* (2023)."""

from __future__ import annotations

from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.frozen import classified, photographs
from repertoire.claims.beds.learned import must_have_learned
from repertoire.claims.beds.raw import raw_accuracy_of_rows


def raw(budget: Budget, seed: int) -> float:
    """What the features give as they come."""
    return raw_accuracy_of_rows(photographs(budget, seed, 400))


@claim(
    "squentropy",
    statement="Squentropy gives a more accurate classifier than cross-entropy.",
    metric="test accuracy",
    method="squentropy",
    baseline="cross-entropy",
    bed="cifar10-lite0",
    threshold=0.005,
    own_data=True,
    learned=0.02,
    floor=raw,
    ceiling=1.0,
)
def squentropy(budget: Budget, seed: int) -> Measured:
    """Hui, Belkin and Wright, *Cut your Losses with Squentropy* (2023)."""
    ours = classified(budget, seed, loss="squentropy", rate=1e-3)
    plain = classified(budget, seed, loss="cross-entropy", rate=3e-4)
    return Measured(ours["accuracy"], plain["accuracy"])


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
    guard="both networks must be more accurate than nearest means and neighbours of the features as they come",
)
def squentropy_calibration(budget: Budget, seed: int) -> Measured:
    """Hui, Belkin and Wright (2023). `extra` has the accuracies, without which calibration says little: a network that
    guesses and says so is calibrated, too.
    """
    ours = classified(budget, seed, loss="squentropy", rate=1e-3)
    plain = classified(budget, seed, loss="cross-entropy", rate=3e-4)
    floor = raw(budget, seed)
    for name, found in (("squentropy", ours), ("cross-entropy", plain)):
        must_have_learned(budget, found["accuracy"], floor, name)
    extra = {"squentropy: accuracy": ours["accuracy"], "cross-entropy: accuracy": plain["accuracy"]}
    return Measured(ours["calibration error"], plain["calibration error"], extra)
