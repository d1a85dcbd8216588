"""The claim of *Contrastive Learning Is Spectral Clustering On Similarity Graph* (2023)."""

from __future__ import annotations

from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.ssl_photographs import BED, LINEAR, PHOTOGRAPHS, learned, projected, untrained


@claim(
    "kernel-infonce",
    statement=(
        "A linear probe of features learned with a sum of a Gaussian and a Laplacian kernel in InfoNCE is more "
        "accurate, by half a percentage point, than one of features learned with the Gaussian kernel alone."
    ),
    metric=LINEAR,
    method="sum of Gaussian and Laplacian kernel",
    baseline="Gaussian kernel, which is NT-Xent",
    bed=BED,
    data=PHOTOGRAPHS,
    threshold=0.005,
    own_data=True,
    learned=0.02,
    guard="the same network with random weights, read out alike, which here tells more than raw pixels do",
)
def kernel_info_nce(budget: Budget, seed: int) -> Measured:
    """Tan et al., *Contrastive Learning Is Spectral Clustering On Similarity Graph* (2023)."""
    mixture, gaussian = (
        learned(budget, seed, method=projected(128), loss=f"kernel-info-nce:kernel={kernel}")
        for kernel in ("sum", "gaussian")
    )
    extra = {"sum: nearest neighbours": mixture["neighbours"], "Gaussian: nearest neighbours": gaussian["neighbours"]}
    return Measured(mixture["linear"], gaussian["linear"], extra, trivial=untrained(budget, seed)["linear"])
