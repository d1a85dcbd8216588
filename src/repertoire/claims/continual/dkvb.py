"""The claim of *Discrete Key-Value Bottleneck* (2023)."""

from __future__ import annotations

from typing import Any

from repertoire.claims import Budget, Measured, arm, claim
from repertoire.claims._stages import class_means
from repertoire.claims.beds import LETTERS_REDRAWN, _named
from repertoire.claims.beds import feature_stages as bed
from repertoire.estimators import KeyValueClassifier

EPOCHS, BATCH = 10, 64
RATES = {"key-value": 0.3, "linear": 0.0003, "mlp": 0.0003}
"""The best after all classes of pilot seeds, see the docstring of `dkvb`."""


@arm
def learned(budget: Budget, seed: int, *, arm_of: str, rate: float, until: int | None = None) -> dict[str, float]:
    """One arm that is shown letters one by one, so many of them."""
    splits = _named.get("letters").splits(budget, seed)
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


def means_of_inputs(budget: Budget, seed: int) -> float:
    """What class means of the rows, which nothing can forget, tell in the end."""
    return class_means(_named.get("letters").splits(budget, seed), seed, "classes:step=1")["accuracy"]


@claim(
    "dkvb",
    statement=(
        "Shown letters one by one, a key-value bottleneck is more accurate in the end than a linear layer that is "
        "trained by the same optimiser for as many steps, by five points or more."
    ),
    metric="average accuracy over all classes at the end",
    method="key-value bottleneck",
    baseline="linear layer",
    data="Letter recognition, 5,000 rows, one letter after another",
    bed="letters",
    overlap=LETTERS_REDRAWN,
    threshold=0.05,
    strict=False,
    floor=means_of_inputs,
    learned=0.02,
    learned_by="best",
    guard="class means of the rows; the layer is the rival because it forgets",
)
def dkvb(budget: Budget, seed: int) -> Measured:
    """Träuble et al., *Discrete Key-Value Bottleneck* (2023).

    Nobody is told where a class begins, and all outputs are there from the start. Each arm has the learning rate that
    did best on pilot seeds 1000 and 1001: of 0.03, 0.1 and 0.3 for the bottleneck (0.62 for the best, 0.61 for the
    worst), and of 0.0001 to 0.03 for the layers (0.40 and, with a hidden layer, 0.37). For these it is so small that
    they hardly move; at larger ones they know the last classes only, which is what the paper says of them. Class means
    of the rows, which cannot forget, are right for 0.54. Until letters took their place, features of photographs were
    the bed, of which class means tell as much (0.69) as any head that is trained on all at once, and no arm was better.
    `extra` has a linear layer with a rate of 0.1, a network with a hidden layer of 256, and forgetting.
    """
    found = {name: learned(budget, seed, arm_of=name, rate=rate) for name, rate in RATES.items()}
    extra = {
        "network with a hidden layer": found["mlp"]["accuracy"],
        "linear layer, rate 0.1": learned(budget, seed, arm_of="linear", rate=0.1)["accuracy"],
        "key-value: forgetting": found["key-value"]["forgetting"],
        "linear: forgetting": found["linear"]["forgetting"],
    }
    return Measured(found["key-value"]["accuracy"], found["linear"]["accuracy"], extra)
