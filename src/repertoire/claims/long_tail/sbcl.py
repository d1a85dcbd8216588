"""The claim of *Subclass-balancing Contrastive Learning for Long-tailed Recognition* (2023)."""

from __future__ import annotations

import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from repertoire import losses
from repertoire.claims import Budget, Measured, arm, claim
from repertoire.claims.beds.frozen import Rows, descend, photographs, shuffled
from repertoire.claims.beds.raw import raw_accuracy_of_rows

MOST, FOLD, RARE, CLASSES = 400, 10, 3, 10


def from_common_to_rare(seed: int) -> Tensor:
    """The classes, the commonest first."""
    return torch.randperm(CLASSES, generator=torch.Generator().manual_seed(seed))


def tail(budget: Budget, seed: int) -> Rows:
    """Features of photographs that are ten times rarer in one class than in another."""
    counts = torch.empty(CLASSES, dtype=torch.long)
    sizes = [round(MOST * FOLD ** (-place / (CLASSES - 1))) for place in range(CLASSES)]
    counts[from_common_to_rare(seed)] = torch.tensor(sizes)
    return photographs(budget, seed, counts.tolist())


def raw(budget: Budget, seed: int) -> float:
    """The mean of the classes' accuracies that the features give as they come."""
    return raw_accuracy_of_rows(tail(budget, seed), balanced=True)


def linear_map(rows: Rows, criterion: losses.EmbeddingLoss, epochs: int, rate: float) -> nn.Linear:
    """An embedding of 64 that is linear in the features, trained on batches of 128."""
    network = nn.Linear(rows.x.shape[1], 64).to(rows.x.device)
    criterion.prepare(64)
    criterion.to(rows.x.device)

    def objective(index: Tensor) -> Tensor:
        more = {"index": index} if "index" in criterion.wants else {}
        return criterion(network(rows.x[index]), rows.y[index], **more)

    batches = shuffled(len(rows.x), 128)
    descend(network.parameters(), objective, batches, epochs=epochs, rate=rate, after=criterion.after_update)
    return network


@arm
def long_tailed(budget: Budget, seed: int, *, clusters: bool, rate: float) -> dict[str, float]:
    """A linear read-out of an embedding of photographs that are ten times rarer in one class than in another.

    Returns:
        The means of the accuracies of all `test` classes, of the three `rare` ones, and of all on `validation` images.
    """
    order, rows = from_common_to_rare(seed), tail(budget, seed)
    epochs = budget.pick(smoke=2, small=20, full=100)
    loss: losses.EmbeddingLoss = losses.SupCon()
    if clusters:
        loss = losses.SubclassContrastive(samples=len(rows.x), warmup=max(1, epochs // 4), every=max(1, epochs // 8))
    torch.manual_seed(seed)
    network = linear_map(rows, loss, epochs, rate)
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.001, max_iter=1000, class_weight="balanced"))
    with torch.no_grad():
        seen, chosen, unseen = (network(x).cpu().numpy() for x in (rows.x, rows.val_x, rows.test_x))
    classifier.fit(seen, rows.y.cpu().numpy())

    def each(z: object, labels: Tensor) -> Tensor:
        right = torch.from_numpy(classifier.predict(z)) == labels.cpu()
        return torch.stack([right[labels.cpu() == c].float().mean() for c in range(CLASSES)])

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
    data="CIFAR-10, frozen features of a pretrained network: 400 images of the commonest class, 40 of the rarest",
    bed="cifar10-lite0",
    threshold=0.01,
    learned=0.0,
    floor=raw,
)
def sbcl(budget: Budget, seed: int) -> Measured:
    """Hou et al., *Subclass-balancing Contrastive Learning for Long-tailed Recognition* (2023), on single views, at the
    mildest imbalance of the paper's. Clusters are made from a quarter of the epochs on, and made anew each eighth. The
    read-out weighs classes equally.

    Until the embedding was linear, the tail one of 10 to 1 instead of 100 to 1, the epochs 20 instead of 80 and the
    read-out held back, both arms were below the nearest class mean of the features. On pilot seed 1000 that has 0.681,
    and with a hidden layer they end at 0.65 to 0.68.

    `extra` has the mean accuracy of the three rarest classes alone.
    """
    ours, plain = (long_tailed(budget, seed, clusters=both, rate=1e-3) for both in (True, False))
    return Measured(
        ours["test"], plain["test"], {"rare classes: SBCL": ours["rare"], "rare classes: supcon": plain["rare"]}
    )
