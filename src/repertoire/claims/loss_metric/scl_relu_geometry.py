"""The claim of *Symmetric Neural-Collapse Representations with Supervised Contrastive Loss: The Impact of ReLU and
Batching* (2023).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from repertoire.claims import Budget, Measured, claim
from repertoire.claims._training import accuracy, train
from repertoire.claims.beds import get
from repertoire.claims.beds.learned import must_have_learned
from repertoire.claims.beds.raw import raw_accuracy
from repertoire.claims.beds.unseen_classes import thinned_out
from repertoire.data import ImageSet
from repertoire.methods import Method


@claim(
    "scl-relu-geometry",
    statement=(
        "Where half of the classes have a tenth of the images of the others, embeddings with a ReLU and a fixed "
        "example of each class in every batch end up with class means at more nearly the same angle to each other."
    ),
    metric="standard deviation of the cosines between class means of the training embeddings",
    method="supervised contrastive loss, ReLU and batch binding",
    baseline="supervised contrastive loss",
    data="Fashion-MNIST: five classes with 100 photographs and five with 10",
    bed="fashion-mnist",
    threshold=0.05,
    higher_is_better=False,
    guard="all three networks must be more accurate than nearest means and neighbours of the pixels",
)
def scl_relu_geometry(budget: Budget, seed: int) -> Measured:
    """Kini et al., *Symmetric Neural-Collapse Representations with Supervised Contrastive Loss* (2023).

    `extra` has the ReLU without binding, the mean cosine, which is to be zero with the ReLU, and accuracies.
    """
    splits = get("fashion-mnist").splits(budget, seed)
    splits = replace(splits, train=thinned_out(splits.train, seed, [100] * 5 + [10] * 5))
    options: dict[str, Any] = {
        "backbone": "mlp:hidden=128",
        "loss": "supcon",
        "augment": "none",
        "batch_size": 50,
        "epochs": budget.pick(smoke=1, small=60, full=300),
        "seed": seed,
        "device": budget.device,
    }
    floor = raw_accuracy(splits)
    found, extra = {}, {"raw pixels": floor}
    for name, method in (("bound", "relu-embedding"), ("relu", "relu-embedding:bind=false"), ("plain", "embedding")):
        trained = train(splits, method=method, **options)
        cosines = _class_cosines(trained, splits.train)
        found[name] = float(cosines.std())
        extra[f"{name}: mean cosine"] = float(cosines.mean())
        right = extra[f"{name}: test accuracy"] = accuracy(trained, splits.test)
        must_have_learned(budget, right, floor, f"the network '{name}'")
    return Measured(found["bound"], found["plain"], {"ReLU without binding": found["relu"], **extra})


@torch.no_grad()
def _class_cosines(method: Method, images: ImageSet) -> Tensor:
    """Cosines between the means of different classes' unit embeddings, as the loss saw them."""
    device = next(method.parameters()).device
    inputs = torch.from_numpy(images.pixels(slice(None))).to(device).permute(0, 3, 1, 2).float() / 255
    z = F.normalize(method.projector(method.model.embed(inputs)))  # type: ignore[operator]
    members = F.one_hot(torch.from_numpy(images.labels).to(device), len(images.classes)).float()
    means = F.normalize(members.T @ z)
    return (means @ means.T)[~torch.eye(len(means), dtype=torch.bool, device=device)]
