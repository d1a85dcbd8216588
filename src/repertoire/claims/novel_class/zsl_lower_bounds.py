"""The claims of *Tight Lower Bounds on Worst-Case Guarantees for Zero-Shot Learning with Attributes* (2022)."""

from __future__ import annotations

import numpy as np
from scipy.stats import spearmanr

from repertoire.claims import Budget, Measured, claim
from repertoire.zeroshot import ESZSL, AttributeMatch, worst_case_error, worst_error_of

MATRICES = "random class-attribute matrices, four classes and five attributes"


def _matrix(generator: np.random.Generator) -> np.ndarray:
    """How often each class has each attribute, nearer to always or never for some matrices than for others."""
    sharp = generator.uniform(0.2, 2.0)
    return generator.beta(sharp, sharp, size=(4, 5))


@claim(
    "zsl-lower-bounds",
    statement=(
        "The bound is tight: under the least favourable data no rule errs less, and a randomised rule never errs more."
    ),
    metric="distance of both errors from the bound",
    kind="identity",
    method="linear programme",
    data=MATRICES,
    tier="drawn",
    threshold=1e-3,
)
def tight(budget: Budget, seed: int) -> Measured:
    """Mazzetto et al., *Tight Lower Bounds on Worst-Case Guarantees for Zero-Shot Learning with Attributes* (2022)."""
    generator = np.random.default_rng(seed)
    largest = 0.0
    for _ in range(budget.pick(smoke=2, small=20, full=50)):
        A = _matrix(generator)
        found = worst_case_error(A)
        forced = 1 - found.adversary.max(0).sum() / len(A)
        promised = worst_error_of(found.rule, A)
        largest = max(largest, abs(forced - found.error), abs(promised - found.error))
    return Measured(largest)


@claim(
    "zsl-lower-bounds",
    part="errors",
    statement="Over matrices of attributes, the bound ranks the errors of attribute matching better than chance.",
    metric="Spearman correlation of bound and error",
    method="bound",
    baseline="no relation",
    data=f"rows drawn with independent attributes from {MATRICES}",
    tier="drawn",
    threshold=0.3,
    guard="none: no relation is the rival, and `extra` has how a simple rule ranks, by the two nearest classes",
)
def errors(budget: Budget, seed: int) -> Measured:
    """Whether the bound, which knows nothing of a method, says where methods fail. Half of the classes are seen; errors
    are those on the other half. `extra` has those of a bilinear map, and how well the distance of the two classes
    that are most alike ranks the errors, which takes no linear programme."""
    generator = np.random.default_rng(seed)
    bounds: list[float] = []
    nearest: list[float] = []
    single: list[float] = []
    bilinear: list[float] = []
    for _ in range(budget.pick(smoke=4, small=40, full=100)):
        A = _matrix(generator)
        bounds.append(worst_case_error(A).error)
        apart = np.abs(A[:, None] - A[None]).sum(2)
        nearest.append(-float(apart[np.triu_indices(len(A), 1)].min()))
        others = generator.beta(0.5, 0.5, size=(8, 5))
        told = np.concatenate([A, others])
        y = np.repeat(np.arange(12), 100)
        x = (generator.random((len(y), 5)) < told[y]).astype(np.float64)
        learned = y >= 4
        for model, errors_of in ((AttributeMatch(), single), (ESZSL(), bilinear)):
            found = model.fit(x[learned], y[learned], told).predict(x[~learned], A)
            errors_of.append(float((found != y[~learned]).mean()))
    extra = {
        "bilinear map": float(spearmanr(bounds, bilinear).statistic),
        "the two nearest classes in the place of the bound": float(spearmanr(nearest, single).statistic),
    }
    return Measured(float(spearmanr(bounds, single).statistic), 0.0, extra)
