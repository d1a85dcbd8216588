"""The claim of *Training the Untrainable: Introducing Inductive Bias via Representational Alignment* (2024)."""

from __future__ import annotations

from dataclasses import replace

from repertoire.claims import Budget, Measured, arm, claim
from repertoire.claims._training import accuracy, train
from repertoire.claims.beds._named import get
from repertoire.claims.beds.raw import raw_accuracy
from repertoire.data import Splits

SIZE = 16
GUIDE = "convnet:width=8,depth=3"


def photographs(budget: Budget) -> Splits:
    """Photographs at 16 pixels, divided in the same way for every seed."""
    return replace(get("cifar10"), size=SIZE).splits(budget, 0)


def raw_floor(budget: Budget, seed: int) -> float:
    """What the pixels give without a network."""
    return raw_accuracy(photographs(budget))


@arm
def perceptron(
    budget: Budget, seed: int, *, guide: str = "", weight: float = 1.0, rate: float = 0.001
) -> dict[str, float]:
    """Accuracy of a deep network of dense layers, guided or not, on photographs of the test and of the training.

    Args:
        guide: spec of a network with random weights; "" for none.
        weight: of the guidance.
        rate: learning rate.
    """
    splits = photographs(budget)
    found = train(
        splits,
        method=f"representation-guide:guide=({guide}),weight={weight}" if guide else "supervised",
        backbone=budget.pick(smoke="mlp:hidden=32,depth=4", small="mlp:hidden=128,depth=6", full="mlp:depth=20"),
        epochs=budget.pick(smoke=1, small=10, full=100),
        optimizer="adamw",
        lr=rate,
        augment="none",
        batch_size=128,
        seed=seed,
        device=budget.device,
    )
    tested, trained = accuracy(found, splits.test), accuracy(found, splits.train)
    return {"accuracy": tested, "gap": trained - tested}


@claim(
    "guidance",
    statement=(
        "A deep network of dense layers is more accurate on new photographs when its layers are guided by those of a "
        "convolutional network with random weights."
    ),
    metric="test accuracy",
    method="guided by an untrained convolutional network",
    baseline="not guided",
    bed="cifar10",
    data="CIFAR-10, 5,000 photographs at 16 pixels",
    threshold=0.01,
    learned=0.02,
    floor=raw_floor,
    ceiling=1.0,
)
def guided(budget: Budget, seed: int) -> Measured:
    """Subramaniam et al., *Training the Untrainable: Introducing Inductive Bias via Representational Alignment* (2024).
    `extra` has by how much either is more accurate on the photographs that it was trained on."""
    ours, plain = perceptron(budget, seed, guide=GUIDE), perceptron(budget, seed)
    return Measured(
        ours["accuracy"],
        plain["accuracy"],
        extra={"gap, guided": ours["gap"], "gap, not guided": plain["gap"]},
    )
