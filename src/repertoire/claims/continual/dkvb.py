"""The claim of *Discrete Key-Value Bottleneck* (2023)."""

from __future__ import annotations

from typing import Any

from repertoire.claims import Budget, Measured, arm, claim
from repertoire.claims.beds import feature_stages as bed
from repertoire.estimators import KeyValueClassifier, NearestCentroid

EPOCHS, BATCH = 10, 64
RATES = {"key-value": 0.1, "linear": 0.0003, "mlp": 0.0003}
"""The best on the first two stages of pilot seeds, see the docstring of `dkvb`."""


@arm
def learned(budget: Budget, seed: int, *, arm_of: str, rate: float, until: int = 10) -> dict[str, float]:
    """One arm that is shown the classes one by one, so many of them."""
    splits = bed.photographs(budget, seed)
    epochs = budget.pick(smoke=1, small=EPOCHS, full=EPOCHS)
    if arm_of == "key-value":
        # Keys need no labels: those of all rows, as in the paper.
        books = budget.pick(smoke=8, small=256, full=256)
        model: Any = KeyValueClassifier(books, 64, rate=rate, epochs=epochs, batch_size=BATCH, random_state=seed)
        model.prepare(splits.train.inputs(slice(None)))
    else:
        hidden = 0 if arm_of == "linear" else 256
        model = bed.Descent(hidden, rate, epochs, BATCH, seed, len(splits.classes))
    return bed.estimated(splits, seed, model, step=1, until=until)


@claim(
    "dkvb",
    statement=(
        "Shown the classes of photographs one by one, a key-value bottleneck is more accurate in the end than a linear "
        "layer that is trained by the same optimiser for as many steps, by five points or more."
    ),
    metric="average accuracy over all classes at the end",
    method="key-value bottleneck",
    baseline="linear layer",
    data=bed.PHOTOGRAPHS,
    bed="cifar10-lite0",
    threshold=0.05,
    strict=False,
    learned=0.1,
)
def dkvb(budget: Budget, seed: int) -> Measured:
    """Träuble et al., *Discrete Key-Value Bottleneck* (2023).

    Nobody is told where a class begins, and all outputs are there from the start. Each arm has the learning rate of a
    grid with factors of about 3, from 0.0003 for the layers and 0.001 for the bottleneck, that did best on the first
    two stages of pilot seeds; so do 64 keys in each codebook, of 32 to 256. For the layers the rate is so small that
    they hardly move; at 0.03 and more they know the last class only, which is what the paper says of them. `extra` has
    a linear layer with a rate of 0.1, a network with a hidden layer of 256, the nearest class mean, which cannot
    forget and is better than both (0.69), and forgetting.
    """
    found = {name: learned(budget, seed, arm_of=name, rate=rate) for name, rate in RATES.items()}
    splits = bed.photographs(budget, seed)
    extra = {
        "network with a hidden layer": found["mlp"]["accuracy"],
        "nearest class mean": bed.estimated(splits, seed, NearestCentroid(), step=1)["accuracy"],
        "linear layer, rate 0.1": learned(budget, seed, arm_of="linear", rate=0.1)["accuracy"],
        "key-value: forgetting": found["key-value"]["forgetting"],
        "linear: forgetting": found["linear"]["forgetting"],
    }
    return Measured(found["key-value"]["accuracy"], found["linear"]["accuracy"], extra, trivial=0.1)
