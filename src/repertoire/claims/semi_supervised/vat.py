"""The claims of *Virtual Adversarial Training* (2017).

A perceptron without augmentation, as in the paper's experiments on MNIST with 100 labels, on fewer and smaller digits
and for 400 steps. Lengths of changes were tried on pilot seeds, 1, 2, 3 and 4 for the directions that are found and 2,
4, 8 and 16 for random ones: 2 and 8 were best. The learning rate, 0.003, was tuned for neither.
"""

from __future__ import annotations

from repertoire.claims import Budget, Measured, arm, claim
from repertoire.claims._training import train
from repertoire.claims.beds import few_labels as bed

FOUND, DRAWN = "vat:epsilon=2", "vat:epsilon=8,steps=0"


@arm
def digits_told(budget: Budget, seed: int, *, method: str, labels: int = 10) -> dict[str, float]:
    """The test accuracy of a perceptron with so many labels a class, and of the nearest labelled image."""
    splits = bed.few(bed.digits(budget), seed, labels)
    trained = train(splits, method=method, **bed.perceptron(budget, seed, splits))
    found = bed.scores(trained, splits.test)
    return {"accuracy": float((found.logits.argmax(1) == found.labels).mean()), "trivial": bed.trivial(splits)}


@claim(
    "vat",
    statement=(
        "With ten labels a class and the other digits without, training against the change that a network minds most "
        "is more accurate than training against random changes, each of the length that is best for it."
    ),
    metric="test accuracy",
    method="virtual adversarial training",
    baseline="random changes",
    data=bed.TITLE,
    tier="real, small",
    threshold=0.01,
    learned=0.02,
    guard="the nearest labelled image by raw pixels",
    ceiling=1.0,
)
def found_directions(budget: Budget, seed: int) -> Measured:
    """Miyato, Maeda, Koyama and Ishii, *Virtual Adversarial Training* (2017)."""
    ours, random = (digits_told(budget, seed, method=spec) for spec in (FOUND, DRAWN))
    return Measured(ours["accuracy"], random["accuracy"], trivial=ours["trivial"])


@claim(
    "vat",
    part="unlabelled",
    statement=(
        "With twenty labels a class and the other digits without, virtual adversarial training is more accurate than "
        "supervised training for as many steps on as many labelled samples."
    ),
    metric="test accuracy",
    method="virtual adversarial training",
    baseline="supervised",
    data=bed.TITLE,
    tier="real, small",
    threshold=0.02,
    learned=0.0,
    guard="the nearest labelled image by raw pixels",
    ceiling=1.0,
)
def more_than_supervised(budget: Budget, seed: int) -> Measured:
    """Miyato, Maeda, Koyama and Ishii (2017). With ten labels the nearest labelled image beats the supervised network,
    and that bed failed."""
    ours, plain = (digits_told(budget, seed, method=spec, labels=20) for spec in (FOUND, "supervised"))
    return Measured(ours["accuracy"], plain["accuracy"], trivial=ours["trivial"])
