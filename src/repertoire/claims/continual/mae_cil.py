"""The claims of *Masked Autoencoders are Efficient Class Incremental Learners* (2023)."""

from __future__ import annotations

from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.patch_stages import CLOTHES, chance, clothes


@claim(
    "mae-cil",
    statement=(
        "With 32 KB of memory, a small transformer that is a masked autoencoder, too, is more accurate at the end, in "
        "the mean over three stages, if it keeps a quarter of the patches of many images and completes them for replay "
        "than if it keeps the fewer whole images of as many bytes, by two percentage points or more."
    ),
    metric="average accuracy over stages at the end",
    method="patches, completed for replay",
    baseline="whole images in as many bytes",
    data=CLOTHES,
    tier="real, small",
    threshold=0.02,
    floor=chance,
    learned=0.1,
    guard="chance, and better than class means of the images before the first class could be forgotten",
    own_data=True,
)
def mae_cil(budget: Budget, seed: int) -> Measured:
    """Zhai et al., *Masked Autoencoders are Efficient Class Incremental Learners* (2023).

    Class means of the images, which nothing can forget, are better than either in the end: 0.71 on pilot seeds.
    """
    ours, theirs = (clothes(budget, seed, store=store) for store in ("patches", "whole"))
    extra = {
        "patches: forgotten": ours["forgetting"],
        "whole images: forgotten": theirs["forgetting"],
        "patches: bytes": ours["memory_bytes"],
        "whole images: bytes": theirs["memory_bytes"],
    }
    return Measured(ours["accuracy"], theirs["accuracy"], extra)


@claim(
    "mae-cil",
    part="drawn",
    statement=(
        "Where a quarter of the patches of each remembered image is kept, a small transformer is more accurate at the "
        "end, in the mean over three stages, if it replays images that its masked autoencoder has completed than if a "
        "mean colour stands for what is missing, by two percentage points or more."
    ),
    metric="average accuracy over stages at the end",
    method="patches, completed for replay",
    baseline="the same patches on a plain ground",
    data=CLOTHES,
    tier="real, small",
    threshold=0.02,
    floor=chance,
    learned=0.1,
    guard="chance, and better than class means of the images before the first class could be forgotten",
    own_data=True,
)
def drawn(budget: Budget, seed: int) -> Measured:
    """Zhai et al., *Masked Autoencoders are Efficient Class Incremental Learners* (2023)."""
    ours, theirs = (clothes(budget, seed, store="patches", draws=draws) for draws in (True, False))
    extra = {"completed: forgotten": ours["forgetting"], "plain: forgotten": theirs["forgetting"]}
    return Measured(ours["accuracy"], theirs["accuracy"], extra)
