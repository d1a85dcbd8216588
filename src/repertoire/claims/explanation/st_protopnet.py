"""The claim of *Learning Support and Trivial Prototypes for Interpretable Image Classification* (2023)."""

from __future__ import annotations

import torch

from repertoire.claims import Budget, Measured, claim
from repertoire.claims._training import accuracy, train
from repertoire.claims.beds.drawn_objects import in_pieces
from repertoire.data import ImageSet, load
from repertoire.explain import PrototypeParts, energy_inside
from repertoire.methods import Classifier


def _parts_inside(model: Classifier, images: ImageSet, name: str, device: str) -> float:
    """The share of the activation of one set of prototypes of the true class that falls on the object."""
    show = PrototypeParts(sets=name, normalize=False)  # type: ignore[arg-type]
    shares = [energy_inside(show(model, pixels, labels), masks) for pixels, labels, masks in in_pieces(images, device)]
    return torch.cat(shares).mean().item()


@claim(
    "st-protopnet",
    statement=(
        "Support and trivial prototypes together classify better than either set by itself, whichever of the two is "
        "better."
    ),
    metric="test accuracy",
    method="support and trivial prototypes",
    baseline="support or trivial prototypes alone, the better",
    data="shapes: 6 classes, 32 pixels",
    threshold=0.0,
)
def support_trivial(budget: Budget, seed: int) -> Measured:
    """Wang et al., *Learning Support and Trivial Prototypes for Interpretable Image Classification* (2023).

    Each network takes as many steps. Trivial prototypes alone are a ProtoPNet with cosines, whose prototypes are driven
    apart. In `extra` is the share of the prototypes' activation that falls on the object, for either set of the whole.
    """
    splits = load(f"shapes:count={budget.pick(smoke=90, small=1000, full=20_000)}", size=32, seed=seed)
    accuracies, extra = {}, {}
    for sets in ("both", "support", "trivial"):
        method = train(
            splits,
            method="support-trivial",
            head=f"support-trivial:sets={sets}",
            backbone=budget.pick(smoke="convnet:width=2,depth=2", small="resnet20:width=8", full="resnet32"),
            augment="crop-flip",
            epochs=budget.pick(smoke=1, small=8, full=60),
            seed=seed,
            device=budget.device,
        )
        accuracies[sets] = accuracy(method, splits.test)
        for name in ("support", "trivial") if sets == "both" else ():
            extra[f"{name}, share inside the object"] = _parts_inside(method.model, splits.test, name, budget.device)
    alone = {f"{name} alone": accuracies[name] for name in ("support", "trivial")}
    return Measured(accuracies["both"], max(alone.values()), {**alone, **extra})
