"""The claim of *RelP: Faithful and Efficient Circuit Discovery via Relevance Patching* (2025)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from repertoire.claims import Budget, Measured, claim
from repertoire.claims._training import accuracy, train
from repertoire.claims.beds.handwriting import GARMENTS, split_images
from repertoire.claims.beds.learned import must_have_learned
from repertoire.claims.beds.raw import raw_accuracy
from repertoire.data import plain
from repertoire.explain import activation_patching, estimated_patching


def _correlation(estimates: dict[str, Tensor], effects: dict[str, Tensor]) -> float:
    """Pearson correlation over all components, their pieces and all samples."""
    found, true = (torch.cat([one.flatten() for one in some.values()]).double() for some in (estimates, effects))
    return float(torch.corrcoef(torch.stack([found, true]))[0, 1])


@claim(
    "relp",
    statement=(
        "Relevance patching is closer to activation patching of a transformer's MLP outputs than attribution patching, "
        "which uses the gradient."
    ),
    metric="Pearson correlation with activation patching, over layers, tokens and samples",
    method="relevance patching",
    baseline="attribution patching",
    bed="fashion-mnist",
    data=GARMENTS + ": pairs of two classes; a transformer of 6 layers",
    threshold=0.0,
    learned=0.1,
    trivial=0.0,
    guard="no relation; the network must be more accurate than nearest means and neighbours of the pixels",
)
def relp(budget: Budget, seed: int) -> Measured:
    """Jafari et al., *RelP: Faithful and Efficient Circuit Discovery via Relevance Patching* (2025).

    An image's logit against that of the class of another image, which is patched in token by token. In `extra` are the
    correlations for the residual stream, for which it is the other way round: there relevance is nearer to patching
    than the gradient. The networks are right for 0.62 of the test digits.
    """
    splits = split_images(budget, seed, budget.pick(smoke=300, small=3000, full=9000), bed="fashion-mnist")
    depth = budget.pick(smoke=2, small=6, full=12)
    method = train(
        splits,
        backbone=f"vit:patch=7,dim={budget.pick(smoke=16, small=64, full=96)},depth={depth},heads=2",
        optimizer="adamw",
        augment="none",
        batch_size=budget.pick(smoke=128, small=64, full=32),
        epochs=budget.pick(smoke=1, small=20, full=60),
        seed=seed,
        device=budget.device,
    )
    right, floor = accuracy(method, splits.test), raw_accuracy(splits)
    must_have_learned(budget, right, floor)
    count = budget.pick(smoke=16, small=100, full=300)
    images = plain(torch.from_numpy(splits.test.pixels(np.arange(count)))).to(budget.device)
    labels = torch.from_numpy(splits.test.labels[:count]).to(budget.device)
    # The partner of each image is the next one of another class.
    order = torch.arange(count, device=labels.device)
    later = (order[None] - order[:, None] - 1) % count
    partner = torch.where(labels[None] != labels[:, None], later, count).argmin(1)

    def margin(logits: Tensor) -> Tensor:
        return (logits.gather(1, labels[:, None]) - logits.gather(1, labels[partner][:, None]))[:, 0]

    blocks = [f"backbone.blocks.{i}" for i in range(1, depth)] + [f"backbone.blocks.{depth}.0"]
    given = method.model, images, images[partner], margin
    found = {}
    for place, names in (("MLP outputs", [f"{name}.mlp" for name in blocks]), ("residual stream", blocks)):
        effects = activation_patching(*given, names, axis=1)
        for rule in ("relevance", "gradient"):
            estimates = estimated_patching(*given, names, axis=1, rule=rule)
            found[f"{rule}, {place}"] = _correlation(estimates, effects)
    ours, plainly = found.pop("relevance, MLP outputs"), found.pop("gradient, MLP outputs")
    return Measured(ours, plainly, {**found, "test accuracy": right, "raw pixels": floor})
