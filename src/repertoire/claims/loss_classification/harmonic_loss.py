"""The claim of *Harmonic Loss Trains Interpretable AI Models* (2025)."""

from __future__ import annotations

from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.frozen import classified


@claim(
    "harmonic-loss",
    statement="With few training images the harmonic loss gives a more accurate classifier than cross-entropy.",
    metric="test accuracy",
    method="harmonic head",
    baseline="linear head",
    data="CIFAR-10, frozen features of a pretrained network, 20 images a class",
    bed="cifar10-lite0",
    threshold=0.01,
    own_data=True,
    learned=0.3,
    ceiling=1.0,
)
def harmonic(budget: Budget, seed: int) -> Measured:
    """Baek et al., *Harmonic Loss Trains Interpretable AI Models* (2025): it claims to need less data. `extra` has 400
    images a class."""
    ours = classified(budget, seed, head="harmonic", each=20, rate=3e-4)
    plain = classified(budget, seed, head="linear", each=20, rate=3e-3)
    extra = {
        f"400 images a class: {head} head": classified(budget, seed, head=head, rate=3e-4)["accuracy"]
        for head in ("harmonic", "linear")
    }
    return Measured(ours["accuracy"], plain["accuracy"], extra, trivial=plain["majority"])
