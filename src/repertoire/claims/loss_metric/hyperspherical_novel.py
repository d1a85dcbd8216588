"""The claim of *Hyperspherical embedding for novel class classification* (2021)."""

from __future__ import annotations

from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.frozen import DRAWINGS, retrieved


@claim(
    "hyperspherical-novel",
    statement=(
        "Features trained with the normalised softmax separate unseen classes better than those trained with triplets: "
        "accuracy is higher by more than one percentage point."
    ),
    metric="accuracy among unseen characters, by the nearest mean of five references each",
    method="normalised softmax",
    baseline="batch-hard triplets, soft margin",
    data=DRAWINGS,
    bed="omniglot-all",
    threshold=0.01,
    learned=0.01,
    guard="the features as they come, before anything was learned on them",
    ceiling=1.0,
)
def hyperspherical_novel(budget: Budget, seed: int) -> Measured:
    """Pereira et al., *Hyperspherical Embedding for Novel Class Classification* (2021), whose rivals compare pairs.
    `extra` has multi-similarity and an ordinary softmax."""
    ours = retrieved(budget, seed, head="normalized-softmax", rate=3e-3)
    triplets = retrieved(budget, seed, loss="triplet", rate=1e-3, nearness="euclidean")
    others = {
        "multi-similarity": retrieved(budget, seed, loss="multi-similarity", rate=3e-4),
        "softmax": retrieved(budget, seed, head="linear", rate=3e-3),
    }
    metric = "nearest mean of five"
    extra = {name: found[metric] for name, found in others.items()}
    return Measured(ours[metric], triplets[metric], extra, trivial=ours[f"untrained: {metric}"])
