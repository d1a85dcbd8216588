"""The claims of *Medical Unlearnable Examples: Securing Medical Data from Unauthorized Traning via Sparsity-Aware Local
Masking* (2024).

Photographs of garments at 14 pixels on black ground, which is black for the most part, as scans are; 1,000 of them to
learn from, whose pixels may change by a tenth. Who learns from them is a network of the kind that they were made
against, which begins elsewhere. It had been trained for 15 epochs, after which one that learned from plain images
named 0.7605 of the test images on pilot seed 1000, as many as neighbours by raw pixels do (0.761); with 30 it names
0.8085.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire import registry
from repertoire.claims import Budget, Measured, arm, claim
from repertoire.claims.beds._named import get, majority
from repertoire.claims.beds.learned import must_have_learned
from repertoire.claims.beds.raw import raw_accuracy
from repertoire.ops import projected_gradient
from repertoire.protect import sparse_unlearnable

EPSILON = 0.1
CONVNET, OTHER = "convnet:width=16,depth=3", "mlp:hidden=256"


def _network(backbone: str, side: int, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    net = registry.build("backbones", backbone, in_channels=1, image_size=side)
    return nn.Sequential(net, nn.Linear(net.out_features, 10))


def _learned(budget: Budget, network: nn.Module, x: Tensor, y: Tensor, *, withstand: float = 0.0) -> nn.Module:
    """A network trained on images, or on adversarial changes of them of a size that it is to withstand."""
    network.train()
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    epochs = budget.pick(smoke=1, small=30, full=60)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for _ in range(epochs):
        for index in torch.randperm(len(x)).split(64):
            rows, labels = x[index], y[index]
            if withstand:
                rows = projected_gradient(
                    lambda z, labels=labels: F.cross_entropy(network(z), labels, reduction="sum"),  # type: ignore[misc]
                    rows,
                    epsilon=withstand,
                    step_size=withstand / 2,
                    steps=3,
                )
            optimizer.zero_grad()
            F.cross_entropy(network(rows), labels).backward()
            optimizer.step()
        schedule.step()
    return network.eval()


@arm
def learned_from(budget: Budget, seed: int, *, share: float, others: bool = False) -> dict[str, float]:
    """The accuracy on plain test images of a network that learned from protected ones; from plain ones where the share
    is 0.

    Args:
        share: of the pixels of each image, those that may change.
        others: measure also another network, and one that is trained adversarially.
    """
    splits = replace(get("fashion-mnist"), size=14).splits(budget, 0)
    order = torch.randperm(len(splits.train), generator=torch.Generator().manual_seed(seed))
    kept = order[: budget.pick(smoke=60, small=1000, full=8000)].numpy()
    images = torch.from_numpy(splits.train.pixels(kept)).permute(0, 3, 1, 2).contiguous()
    y, truth = torch.from_numpy(splits.train.labels[kept]), torch.from_numpy(splits.test.labels)
    test = torch.from_numpy(splits.test.pixels(slice(None))).permute(0, 3, 1, 2).float().to(budget.device) / 255
    side, found = images.shape[-1], {"majority": majority(splits.test)}
    if share:
        protected = sparse_unlearnable(
            images,
            y,
            _network(CONVNET, side, seed).to(budget.device),
            epsilon=EPSILON,
            share=share,
            rounds=budget.pick(smoke=1, small=5, full=20),
            steps=10,
            step_size=EPSILON / 5,
            enough=1.0,
            generator=torch.Generator().manual_seed(seed),
        )
        images = protected.images
        found["named rightly while protected"] = protected.fooled
        found["pixels changed"] = float((protected.changes != 0).any(1).float().mean())
    found["raw pixels"] = raw_accuracy(replace(splits, train=splits.train.subset(kept)))
    x, y = (images.float() / 255).to(budget.device), y.to(budget.device)

    def right(backbone: str, withstand: float = 0.0) -> float:
        fresh = _network(backbone, side, seed + 500_000).to(budget.device)
        network = _learned(budget, fresh, x, y, withstand=withstand)
        with torch.no_grad():
            return float((network(test).argmax(1).cpu() == truth).float().mean())

    found["accuracy"] = right(CONVNET)
    if others:
        found["a perceptron"] = right(OTHER)
        found["trained adversarially"] = right(CONVNET, EPSILON)
    return found


PLAIN = "the network that learned from the images as they were"
DATA = "Fashion-MNIST at 14 pixels, 1,000 garments on black ground, whose pixels may change by 0.1"


@claim(
    "salm",
    statement=(
        "A network learns less from images of which only the half of the pixels that matter most may change than from "
        "images of which all pixels may change by as much."
    ),
    metric="accuracy on plain test images of a network trained on protected ones",
    method="the half of the pixels with the largest gradients",
    baseline="all pixels",
    data=DATA,
    bed="fashion-mnist",
    threshold=0.01,
    higher_is_better=False,
    learned=0.05,
    guard="a network that learned from the images as they were, which must beat nearest means and neighbours",
)
def less_is_learned(budget: Budget, seed: int) -> Measured:
    """Sun et al. (2024), against the error-minimising noise of Huang et al. (2021). What each must be below is the
    network that learned from the images as they were.

    `extra` says how many pixels were changed, which grey values of 0 and 255 make fewer than may be.
    """
    masked, whole, plain = (learned_from(budget, seed, share=share, others=share == 0.5) for share in (0.5, 1.0, 0.0))
    extra = {f"{name}: half": masked[name] for name in ("pixels changed", "named rightly while protected")}
    extra |= {f"{name}: all": whole[name] for name in ("pixels changed", "named rightly while protected")}
    must_have_learned(budget, plain["accuracy"], plain["raw pixels"], PLAIN)
    return Measured(masked["accuracy"], whole["accuracy"], extra, trivial=plain["accuracy"])


@claim(
    "salm",
    part="protected",
    statement=(
        "A network that learned from images of which the half of the pixels that matter most were changed is less "
        "accurate than one that learned from the images as they were, by a tenth."
    ),
    metric="accuracy on plain test images",
    method="protected images",
    baseline="the images as they were",
    data=DATA,
    bed="fashion-mnist",
    threshold=0.1,
    higher_is_better=False,
    guard="the rival, which learned from the images as they were, must beat nearest means and neighbours",
)
def little_is_learned(budget: Budget, seed: int) -> Measured:
    """Sun et al. (2024). `extra` has a network of another kind that learned from the same protected images, one that
    was trained adversarially, which is known to learn from them all the same, the most frequent class, and raw pixels
    of the images as they were."""
    masked, plain = (learned_from(budget, seed, share=share, others=share == 0.5) for share in (0.5, 0.0))
    must_have_learned(budget, plain["accuracy"], plain["raw pixels"], PLAIN)
    extra = {name: masked[name] for name in ("a perceptron", "trained adversarially", "majority", "raw pixels")}
    return Measured(masked["accuracy"], plain["accuracy"], extra)
