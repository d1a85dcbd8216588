"""The claim of *Debiased Contrastive Learning* (2020)."""

from __future__ import annotations

from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.disturbed_digits import DISTURBED, PROBE, probe_each


@claim(
    "dcl",
    statement=(
        "With ten classes, and a prior that says so, a linear probe of features learned with the debiased contrastive "
        "loss is more accurate than one of features learned with the same loss without the correction."
    ),
    metric=PROBE,
    method="debiased contrastive loss, prior 0.1",
    baseline="prior 0, which is NT-Xent",
    data=DISTURBED,
    threshold=0.0,
)
def dcl(budget: Budget, seed: int) -> Measured:
    """Chuang et al., *Debiased Contrastive Learning* (2020)."""
    specs = [f"debiased-contrastive:class_prior={prior}" for prior in (0.1, 0.0)]
    debiased, plain, hard = probe_each(budget, seed, [*specs, "debiased-contrastive:class_prior=0.1,hardness=1"])
    return Measured(debiased, plain, {"and hard negatives": hard})
