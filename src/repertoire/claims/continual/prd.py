"""The claims of *Prototype-Sample Relation Distillation: Towards Replay-Free Continual Learning* (2023)."""

from __future__ import annotations

import functools

from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.image_stages import PHOTOGRAPHS, means_within, photographs

# Options and learning rate of each, with its epochs: those that did best within the first two stages of pilot seeds.
# The method and SupCon see two views of an image in a step, so the others have twice the epochs.
PRD = ("prd:beta=4,relation_temperature=0.3", 0.01, 10)
SUPCON = ("prd:beta=0", 0.01, 10)
LWF = ("lwf:weight=1", 0.01, 20)
EWC = ("ewc:strength=10", 0.01, 20)


def after(budget: Budget, seed: int, arm_of: tuple[str, float, int]) -> dict[str, float]:
    """What an arm knows of all stages after the last."""
    method, rate, epochs = arm_of
    return photographs(budget, seed, method=method, rate=rate, epochs=epochs)


def beside(budget: Budget, seed: int, rival: tuple[str, float, int]) -> Measured:
    """PRD and a rival within the stages; among all classes and forgotten, beside that."""
    ours, theirs = after(budget, seed, PRD), after(budget, seed, rival)
    extra: dict[str, float] = {}
    for name, found in (("PRD", ours), ("rival", theirs)):
        extra |= {f"{name}: all classes": found["accuracy"], f"{name}: forgetting": found["forgetting"]}
        extra[f"{name}: bytes"] = found["state_bytes"]
    return Measured(ours["within"], theirs["within"], extra)


_claim = functools.partial(
    claim,
    "prd",
    metric="accuracy within the stages after the last one",
    method="PRD",
    data=PHOTOGRAPHS,
    bed="cifar10",
    threshold=0.01,
    strict=False,
    floor=means_within,
    learned=0.01,
    ceiling=1.0,
)

STATEMENT = (
    "Without kept samples, where it is known which of five stages an image is from, prototypes that keep their "
    "relations to the samples of later stages tell its two classes apart more often, by a percentage point or more, "
    "than "
)


@_claim(
    statement=STATEMENT + "learning without forgetting does.",
    baseline="LwF",
    guard="class means of the pixels within each stage",
)
def within(budget: Budget, seed: int) -> Measured:
    """Asadi et al., *Prototype-Sample Relation Distillation: Towards Replay-Free Continual Learning* (2023).

    Tuned on two classes beside two, on pilot seeds 1000 and 1001, with seven trials each: PRD's beta of 1, 4 and 16,
    relation temperatures of 0.1, 0.3 and 1, LwF's weight of 1, 4, 16 and 64, EWC's strength of 1 to 1,000, and learning
    rates of 0.003 and 0.01. SupCon has PRD's rate. The best gave 0.805, 0.853 and 0.830 there.

    After five stages, these seeds gave PRD 0.746 and 0.742, LwF 0.797 and 0.756, EWC 0.728 and 0.753, SupCon 0.619 and
    0.658, and class means of the pixels 0.729 and 0.678. `extra` has accuracy among all classes, forgetting, and bytes
    kept beside the network. Until photographs took their place, clothes of Fashion-MNIST were the bed, of which class
    means of the pixels tell more within a stage (0.92) than any arm did after the last.
    """
    return beside(budget, seed, LWF)


@_claim(
    part="beside-ewc",
    statement=STATEMENT + "elastic weight consolidation does.",
    baseline="EWC",
    guard="class means of the pixels within each stage",
)
def beside_ewc(budget: Budget, seed: int) -> Measured:
    """Asadi et al., *Prototype-Sample Relation Distillation: Towards Replay-Free Continual Learning* (2023)."""
    return beside(budget, seed, EWC)


@_claim(
    part="beside-supcon",
    statement=STATEMENT + "supervised contrast and prototypes without those relations do.",
    baseline="SupCon",
    learned_by="best",
    guard="class means of the pixels; without the relations, what was learned is lost",
)
def beside_supcon(budget: Budget, seed: int) -> Measured:
    """Asadi et al., *Prototype-Sample Relation Distillation: Towards Replay-Free Continual Learning* (2023)."""
    return beside(budget, seed, SUPCON)
