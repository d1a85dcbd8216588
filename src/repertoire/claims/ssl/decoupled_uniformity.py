"""The claim of *Integrating Prior Knowledge in Contrastive Learning with Kernel* (2022)."""

from __future__ import annotations

import torch
from torch import Tensor

from repertoire import losses
from repertoire.claims import Budget, Measured, arm, claim
from repertoire.claims._training import new_method, optimise, resolved
from repertoire.claims.beds.ssl_photographs import (
    BED,
    LINEAR,
    PHOTOGRAPHS,
    options_of,
    photographs,
    projected,
    told,
    untrained,
)
from repertoire.methods import Embedding

#: Classes of CIFAR-10 that are animals, fly, swim, are kept at home, are larger than a person, run far: no two alike.
ATTRIBUTES = ((2, 3, 4, 5, 6, 7), (0, 2), (6, 8), (1, 3, 5, 7), (0, 1, 4, 7, 8, 9), (1, 4, 5, 7, 9))


def weak_attributes(labels: Tensor, generator: torch.Generator) -> Tensor:
    """Six attributes of each image, 1 or -1, a tenth of them wrong: float `[N, 6]`."""
    true = torch.stack([torch.isin(labels, torch.tensor(classes)) for classes in ATTRIBUTES], 1)
    wrong = torch.rand(true.shape, generator=generator) < 0.1
    return 2.0 * (true ^ wrong) - 1.0


class _Told(losses.ViewsLoss):
    """Decoupled uniformity, told what is known of each sample."""

    wants = ("index",)
    prior: Tensor

    def __init__(self, prior: Tensor) -> None:
        super().__init__()
        self.loss = losses.DecoupledUniformity()
        self.register_buffer("prior", prior)

    def forward(self, *views: Tensor, **known: Tensor | None) -> Tensor:
        return self.loss(*views, prior=self.prior[known["index"]])


@arm
def with_prior(budget: Budget, seed: int, *, prior: str) -> dict[str, float]:
    """Decoupled uniformity with "attributes", with those of "others", or with "none"."""
    splits = photographs(budget, seed)
    config = resolved(splits, method=projected(128), loss="decoupled-uniformity", **options_of(budget, seed))
    method = new_method(splits, config)
    if prior != "none":
        generator = torch.Generator().manual_seed(seed)
        known = weak_attributes(torch.from_numpy(splits.train.labels), generator)
        if prior == "others":
            known = known[torch.randperm(len(known), generator=generator)]
        method = Embedding(method.model, _Told(known), dimensions=128, batch_norm=True).to(budget.device)
    return told(optimise(method, splits, config), splits)


@claim(
    "decoupled-uniformity",
    statement=(
        "Weak attributes, a tenth of them wrong, smooth the mean views of decoupled uniformity so that a linear probe "
        "of the features is more accurate, by one percentage point, than without them."
    ),
    metric=LINEAR,
    method="decoupled uniformity with a kernel on weak attributes",
    baseline="decoupled uniformity",
    bed=BED,
    data=PHOTOGRAPHS,
    threshold=0.01,
    learned=0.02,
    guard="the same network with random weights, read out alike, which here tells more than raw pixels do",
)
def decoupled_uniformity(budget: Budget, seed: int) -> Measured:
    """Dufumier et al., *Integrating Prior Knowledge in Contrastive Learning with Kernel* (2023). The
    attributes come from the labels: six of them tell the ten classes apart, but for the tenth that is wrong. `extra`
    has those of other images, which must not help: they do harm."""
    ours, plain, others = (
        with_prior(budget, seed, prior=prior)["linear"] for prior in ("attributes", "none", "others")
    )
    extra = {"attributes of other images": others}
    return Measured(ours, plain, extra, trivial=untrained(budget, seed)["linear"])
