"""The claim of *Diffusion-Based Neural Network Weights Generation* (2024)."""

from __future__ import annotations

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.heads import (
    TITLE,
    drawn_characters,
    gathered,
    mean,
    outputs_of,
    subsets,
    trained_heads,
)
from repertoire.zoo import WeightGenerator

WIDTH = 32


def accuracy(head: Tensor, x: Tensor, y: Tensor) -> float:
    """Of one head `[classes, d + 1]`."""
    return float((outputs_of(head, x).argmax(1) == y).double().mean())


def nearest_heads(means: Tensor, others: Tensor, heads: Tensor) -> Tensor:
    """For data sets known by the means of their classes `[T, classes, d]`, the heads of those of the zoo `[M, classes,
    d]` that are nearest, their classes in the order that fits best."""
    found = []
    for one in means:
        distances = torch.cdist(one.expand(len(others), -1, -1), others).square()
        pairs = [linear_sum_assignment(each.cpu().numpy()) for each in distances]
        costs = [float(each[rows, columns].sum()) for each, (rows, columns) in zip(distances, pairs, strict=True)]
        best = min(range(len(costs)), key=costs.__getitem__)
        found.append(heads[best][torch.from_numpy(pairs[best][1])])
    return torch.stack(found)


@claim(
    "d2nwg",
    statement=(
        "Heads that are drawn for unseen characters by a diffusion model of three hundred trained heads are more "
        "accurate, without a step of training, than the head that was trained on the most similar characters."
    ),
    metric="test accuracy without training, mean of 40 tasks of five characters",
    method="the best of eight draws on labelled drawings",
    baseline="the head of the nearest data set",
    bed="omniglot-all",
    data=TITLE,
    threshold=0.05,
    learned=0.1,
    trivial=0.2,
    guard="chance; class means of the drawings, which are no head of the zoo, reach 0.88",
    ceiling=1.0,
)
def drawn_heads(budget: Budget, seed: int) -> Measured:
    """Soro et al., *Diffusion-Based Neural Network Weights Generation* (2024), on linear heads of 165 numbers. The
    classes of the nearest data set are matched with those of the task by the means of both. `extra` has the mean of
    the zoo, the means of the classes as a classifier, a head that was trained on the task, and how much accuracy the
    autoencoder loses on the zoo: a head of one layer on good features is the easiest case there is. The means of the
    classes, which need no training either, are better than what is generated: 0.88 against 0.75."""
    data = drawn_characters(budget, seed, WIDTH)
    count = budget.pick(smoke=20, small=300, full=3000)
    classes = budget.pick(smoke=2, small=5, full=5)
    zoo = subsets(count, classes, len(data.known), seed)
    x, y = gathered(data.known, zoo, "trained")
    heads = trained_heads(x, y, seed, budget.pick(smoke=10, small=150, full=300))
    generator = WeightGenerator(heads[0].numel(), classes, x.shape[2]).to(budget.device)
    steps = budget.pick(smoke=5, small=800, full=10_000)
    generator.fit(heads.flatten(1), [(rows, y) for rows in x], steps=steps, seed=seed)

    tasks = subsets(budget.pick(smoke=3, small=40, full=200), classes, len(data.unseen), 10_000 + seed)
    known, y = gathered(data.unseen, tasks, "trained")
    val, val_y = gathered(data.unseen, tasks, "labelled")
    test, test_y = gathered(data.unseen, tasks, "tested")
    means = known.unflatten(1, (classes, -1)).mean(2)
    nearest = nearest_heads(means, x.unflatten(1, (classes, -1)).mean(2), heads)
    prototypes = torch.cat([means, -means.square().sum(2, keepdim=True) / 2], 2)
    trained = trained_heads(known, y, seed, budget.pick(smoke=10, small=150, full=300))

    def drawn(number: int) -> Tensor:
        best = generator.best(
            known[number], y, lambda w: accuracy(w.view_as(heads[0]), val[number], val_y), seed=number
        )
        return best.view_as(heads[0])

    def scored(each: Tensor) -> float:
        return mean([accuracy(each[i], test[i], test_y) for i in range(len(tasks))])

    held, held_y = gathered(data.known, zoo, "tested")
    coded = generator.reconstruct(heads.flatten(1)).view_as(heads)
    lost = [accuracy(heads[i], held[i], held_y) - accuracy(coded[i], held[i], held_y) for i in range(count)]
    return Measured(
        scored(torch.stack([drawn(number) for number in range(len(tasks))])),
        scored(nearest),
        extra={
            "mean of the zoo": scored(heads.mean(0).expand(len(tasks), -1, -1)),
            "means of the classes": scored(prototypes),
            "trained on the task": scored(trained),
            "lost by coding": mean(lost),
        },
    )
