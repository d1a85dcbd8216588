"""The claim of *Contrastive Learning Is Spectral Clustering On Similarity Graph* (2023)."""

from __future__ import annotations

from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.disturbed_digits import DISTURBED, PROBE, probe_each


@claim(
    "kernel-infonce",
    statement=(
        "A linear probe of features learned with a sum of a Gaussian and a Laplacian kernel in InfoNCE is more "
        "accurate than one of features learned with the Gaussian kernel alone."
    ),
    metric=PROBE,
    method="sum of Gaussian and Laplacian kernel",
    baseline="Gaussian kernel, which is NT-Xent",
    data=DISTURBED,
    threshold=0.0,
)
def kernel_info_nce(budget: Budget, seed: int) -> Measured:
    """Tan et al., *Contrastive Learning Is Spectral Clustering On Similarity Graph* (2023)."""
    mixture, gaussian, laplacian = probe_each(
        budget, seed, [f"kernel-info-nce:kernel={kernel}" for kernel in ("sum", "gaussian", "laplacian")]
    )
    return Measured(mixture, gaussian, {"Laplacian kernel": laplacian})
