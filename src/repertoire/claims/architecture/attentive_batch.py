"""The claim of *Enhancing Fine-grained Image Classification through Attentive Batch Training* (2024)."""

from __future__ import annotations

import torch
from torch import Tensor

from repertoire import losses
from repertoire.claims import Budget, Measured, arm, claim
from repertoire.claims.beds.frozen import Classifier, characters, fitted
from repertoire.claims.beds.raw import raw_accuracy_of_rows

EACH = 10


@arm
def alone_and_among(budget: Budget, seed: int, *, head: str, rate: float) -> dict[str, float]:
    """Test accuracy of a head on drawn characters, with so many characters in a batch: one, 8 or 64 at random, and 64
    in the order of their classes; and on the validation rows, one by one."""
    rows = characters(budget, seed, EACH)
    known = int(rows.y.max()) + 1
    torch.manual_seed(seed)
    network = Classifier(rows.x.shape[1], head, known)
    fitted(rows, losses.CrossEntropy(), network, epochs=budget.pick(smoke=1, small=20, full=60), rate=rate)

    @torch.no_grad()
    def right(x: Tensor, y: Tensor, size: int, order: Tensor) -> float:
        z = network.body(x)
        answers = torch.cat([network.head(z[part]).argmax(1) for part in order.split(size)])
        return float((answers == y[order]).float().mean())

    mixed = torch.randperm(len(rows.test_y), generator=torch.Generator().manual_seed(seed)).to(rows.test_y.device)
    test = rows.test_x, rows.test_y
    return {
        "alone": right(*test, 1, mixed),
        "8 at random": right(*test, 8, mixed),
        "64 at random": right(*test, 64, mixed),
        "64 in order": right(*test, 64, rows.test_y.argsort(stable=True)),
        "validation": right(rows.val_x, rows.val_y, 1, torch.arange(len(rows.val_y), device=rows.val_y.device)),
    }


def raw_floor(budget: Budget, seed: int) -> float:
    """What the features give as they come."""
    return raw_accuracy_of_rows(characters(budget, seed, EACH))


@claim(
    "attentive-batch",
    statement=(
        "A head that was trained to look at the other samples of the batch is more accurate on samples alone than a "
        "plain linear head."
    ),
    metric="test accuracy, one sample in a batch",
    method="batch attention",
    baseline="linear head",
    data="Omniglot, frozen features of a pretrained network: 242 characters by drawers that were not seen",
    tier="real, small",
    threshold=0.005,
    learned=0.02,
    learned_by="best",
    floor=raw_floor,
    guard="the features as they come; that a head of batches may fail alone is asked",
    ceiling=1.0,
)
def attentive_batch(budget: Budget, seed: int) -> Measured:
    """Le et al., *Enhancing Fine-grained Image Classification through Attentive Batch Training* (2024). Both heads
    are trained after the same hidden layers on the same batches, each with the learning rate of 0.0003, 0.001, 0.003
    and 0.01 that did best on the validation rows of two pilot seeds.

    `extra` has the accuracy among others: at random, and in the order of classes, which no classifier may know.
    """
    ours = alone_and_among(budget, seed, head="batch-attention", rate=3e-3)
    plain = alone_and_among(budget, seed, head="linear", rate=3e-3)
    among = ("8 at random", "64 at random", "64 in order")
    return Measured(
        ours["alone"],
        plain["alone"],
        {f"batch attention, {name}": ours[name] for name in among},
    )
