"""The claim of *Stationary Representations: Optimally Approximating Compatibility and Implications for Improved Model
Replacements* (2024).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire import heads
from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.frozen import body, descend, epochs_for, photographs, shuffled


@claim(
    "d-simplex-compatibility",
    statement=(
        "With the same fixed simplex for a classifier, features of a network trained anew on twice the classes find "
        "the right images in a gallery of the old network's features at least as often as the old network's do."
    ),
    metric="test accuracy of the nearest neighbour in an old gallery",
    method="new queries, old gallery",
    baseline="old queries, old gallery",
    data="CIFAR-10, frozen features of a pretrained network: five classes, then ten",
    bed="cifar10-lite0",
    threshold=0.0,
    strict=False,
    learned=0.2,
    guard="chance: the gallery knows half of the classes; alone the new network (0.71) beats the features as they are",
)
def d_simplex(budget: Budget, seed: int) -> Measured:
    """Biondi et al., *Stationary Representations: Optimally Approximating Compatibility* (2024): its cross-entropy, and
    its criterion of compatibility.

    `extra` has the new network alone, and the same three with trained classifiers, which nothing makes compatible. The
    features as they come find 0.61 by their cosine, more than an old network that was trained on half of the classes
    and less than the new one.
    """
    rows = photographs(budget, seed, 200)
    classes = int(rows.y.max()) + 1
    known = torch.randperm(classes, generator=torch.Generator().manual_seed(seed))[: classes // 2].to(rows.y.device)
    old = torch.isin(rows.y, known)

    def trained(head: heads.Head, x: Tensor, y: Tensor) -> nn.Module:
        network = nn.Sequential(*body(rows.x.shape[1]), nn.Linear(128, 64)).to(x.device)
        head = head.to(x.device)

        def objective(index: Tensor) -> Tensor:
            return F.cross_entropy(head(network(x[index]), y[index]), y[index])

        parameters = [p for p in (*network.parameters(), *head.parameters()) if p.requires_grad]
        descend(parameters, objective, shuffled(len(x)), epochs=epochs_for(budget, len(x)), rate=1e-3)
        return network

    def right(queries: nn.Module, gallery: nn.Module) -> float:
        with torch.no_grad():
            near = F.normalize(queries(rows.test_x)) @ F.normalize(gallery(rows.x)).T
        return float((rows.y[near.argmax(1)] == rows.test_y).float().mean())

    def tests(fresh: Callable[[], heads.Head]) -> tuple[float, float, float]:
        torch.manual_seed(seed)
        before = trained(fresh(), rows.x[old], rows.y[old])
        after = trained(fresh(), rows.x, rows.y)
        return right(after, before), right(before, before), right(after, after)

    # As in the paper the softmax runs over all corners, used or not.
    cross, alone, new = tests(lambda: heads.Simplex(64, 65))
    plain_cross, plain_alone, plain_new = tests(lambda: heads.Linear(64, classes))
    extra = {
        "simplex: new": new,
        "trained: cross": plain_cross,
        "trained: old": plain_alone,
        "trained: new": plain_new,
    }
    trivial = float(rows.test_y.bincount().max() / len(rows.test_y))
    return Measured(cross, alone, extra, trivial=trivial)
