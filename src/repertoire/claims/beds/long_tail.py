"""A long tail of photographs: a head, or a small network, on features of a frozen one, each class rarer than the last.

The rows are those of CIFAR-10 as `frozen.photographs` has them: the most frequent class has 400 to learn from and the
rarest 40, in the order of the classes; 50 of each to choose on, and 200 of each for the test, the same for every seed.
A seed draws which rows are learned from, the weights, the order, and what noise there is. All arms take as many steps
on as many rows, each with the learning rate of 0.001, 0.003 and 0.01 that did best on the validation rows of two pilot
seeds. Until the tail was one of 10 to 1, which is a setting of the papers too, and weights decayed by 2 instead of
0.0001, no arm knew the classes as well as the nearest class mean of the features does: at 100 to 1 that has 0.62 and
0.61 on pilot seeds 1000 and 1001 and networks had 0.53 to 0.57; at 10 to 1 it has 0.68 and 0.67, and they 0.69 to 0.72.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from repertoire.claims import Budget, arm
from repertoire.claims.beds.frozen import Rows, photographs, splits_of
from repertoire.claims.beds.raw import raw_accuracy_of_rows
from repertoire.data import Splits
from repertoire.methods import Method
from repertoire.recipe import build, make_config, resolve
from repertoire.train import in_memory, outputs

__all__ = ["BED", "figures", "fitted", "raw", "rows", "tail", "tailed"]

BED = "cifar10-lite0"
MOST, RATIO = 400, 10.0


def tail(most: int = MOST, ratio: float = RATIO, classes: int = 10) -> list[int]:
    """Samples of each class in an exponential tail from `most` down to `most / ratio`.

    >>> tail(100, 10, 3)
    [100, 32, 10]
    """
    return [max(1, round(most * ratio ** (-c / (classes - 1)))) for c in range(classes)]


def rows(budget: Budget, seed: int, ratio: float = RATIO) -> Rows:
    """Features with a long tail to learn from."""
    return photographs(budget, seed, tail(budget.pick(smoke=40, small=MOST, full=MOST), ratio))


def raw(budget: Budget, seed: int) -> float:
    """The mean of the classes' accuracies that the features give as they come."""
    return raw_accuracy_of_rows(rows(budget, seed), balanced=True)


def fitted(budget: Budget, seed: int, splits: Splits, **fields: Any) -> Method:
    """A method, trained for as many steps as all arms take.

    Args:
        fields: of the training configuration; `lr` is that of Adam, which falls along a cosine.
    """
    steps = budget.pick(smoke=4, small=800, full=4000)
    batch = 64
    config = make_config(
        data=splits.source,
        augment="none",
        optimizer="adamw",
        weight_decay=2.0,
        batch_size=batch,
        epochs=max(1, round(steps * batch / len(splits.train))),
        seed=seed,
        device=budget.device,
        **fields,
    )
    config = resolve(config, splits)
    return in_memory(build(config, splits, device=config.device), validate=False).method.eval()


def figures(logits: Tensor, targets: Tensor, known: list[int]) -> dict[str, float]:
    """The mean of the classes' accuracies, and that of the frequent, the medium and the rare third of the classes."""
    right = (logits.argmax(1) == targets).float()
    each = torch.stack([right[targets == c].mean() for c in range(len(known))])
    order = np.argsort([-count for count in known], kind="stable")
    third = -(-len(order) // 3)
    parts = {"frequent": order[:third], "rare": order[-third:]}
    return {"balanced accuracy": float(each.mean()), **{name: float(each[p].mean()) for name, p in parts.items()}}


@arm
def tailed(
    budget: Budget,
    seed: int,
    *,
    method: str = "supervised",
    loss: str = "logit-adjusted",
    head: str = "auto",
    backbone: str = "identity",
    rate: float = 1e-3,
    ratio: float = RATIO,
) -> dict[str, float]:
    """What a method learns from the tail: `balanced accuracy` on the test rows, that of the `frequent` and `rare`
    classes, and on the validation rows. With backbone `identity`, nothing but the head learns."""
    found = rows(budget, seed, ratio)
    splits = splits_of(found, BED)
    network = fitted(budget, seed, splits, method=method, loss=loss, head=head, backbone=backbone, lr=rate)
    known = found.y.bincount(minlength=len(splits.classes)).tolist()
    device = next(network.parameters()).device
    scores = [outputs(network.model, part, device=device) for part in (splits.test, splits.val)]
    test, val = (figures(torch.from_numpy(s.logits), torch.from_numpy(s.labels), known) for s in scores)
    return {**test, "validation": val["balanced accuracy"]}
