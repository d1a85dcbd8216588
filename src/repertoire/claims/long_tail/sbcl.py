"""The claim of *Subclass-balancing Contrastive Learning for Long-tailed Recognition* (2023)."""

from __future__ import annotations

import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from repertoire import losses
from repertoire.claims import Budget, Measured, arm, claim
from repertoire.claims.beds.frozen import embedded, photographs

MOST, FOLD, RARE = 400, 100, 3


@arm
def long_tailed(budget: Budget, seed: int, *, clusters: bool, rate: float) -> dict[str, float]:
    """A linear read-out of an embedding of photographs that are a hundred times rarer in one class than in another.

    Returns:
        The means of the accuracies of all `test` classes, of the three `rare` ones, and of all on `validation` images.
    """
    known = 10
    order = torch.randperm(known, generator=torch.Generator().manual_seed(seed))
    counts = torch.empty(known, dtype=torch.long)
    counts[order] = torch.tensor([round(MOST * FOLD ** (-place / (known - 1))) for place in range(known)])
    rows = photographs(budget, seed, counts.tolist())
    epochs = budget.pick(smoke=2, small=80, full=400)
    loss: losses.EmbeddingLoss = losses.SupCon()
    if clusters:
        loss = losses.SubclassContrastive(samples=len(rows.x), warmup=max(1, epochs // 4), every=max(1, epochs // 8))
    network = embedded(loss, rows.x, rows.y, seed=seed, epochs=epochs, rate=rate)
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000, class_weight="balanced"))
    with torch.no_grad():
        seen, chosen, unseen = (network(x).cpu().numpy() for x in (rows.x, rows.val_x, rows.test_x))
    classifier.fit(seen, rows.y.cpu().numpy())

    def each(z: object, labels: Tensor) -> Tensor:
        right = torch.from_numpy(classifier.predict(z)) == labels.cpu()
        return torch.stack([right[labels.cpu() == c].float().mean() for c in range(known)])

    told = each(unseen, rows.test_y)
    return {
        "test": float(told.mean()),
        "rare": float(told[order[-RARE:]].mean()),
        "validation": float(each(chosen, rows.val_y).mean()),
    }


@claim(
    "sbcl",
    statement=(
        "Of a long tail, contrast between clusters of the frequent classes beside that between classes makes a linear "
        "read-out more accurate than the supervised contrastive loss does."
    ),
    metric="mean of the classes' test accuracies, by a linear probe",
    method="subclass-balancing contrastive loss",
    baseline="supervised contrastive loss",
    data="CIFAR-10, frozen features of a pretrained network: 400 images of the commonest class, 4 of the rarest",
    bed="cifar10-lite0",
    threshold=0.01,
    learned=0.2,
    trivial=0.1,
)
def sbcl(budget: Budget, seed: int) -> Measured:
    """Hou et al., *Subclass-balancing Contrastive Learning for Long-tailed Recognition* (2023), on single views, at an
    imbalance of the paper's. Clusters are made from a quarter of the epochs on, and made anew each eighth. The read-out
    weighs classes equally.

    `extra` has the mean accuracy of the three rarest classes alone.
    """
    ours, plain = (long_tailed(budget, seed, clusters=both, rate=3e-4) for both in (True, False))
    return Measured(
        ours["test"], plain["test"], {"rare classes: SBCL": ours["rare"], "rare classes: supcon": plain["rare"]}
    )
