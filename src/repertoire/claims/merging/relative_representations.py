"""The claim of *Relative representations enable zero-shot latent space communication* (2022)."""

from __future__ import annotations

from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.digits import digit_rows, fitted_perceptron, hidden_features
from repertoire.diagnostics import stitching


@claim(
    "relative-representations",
    statement=(
        "A classifier of one network's relative representations is more accurate, by 0.3, on those of a network "
        "trained from another seed than a classifier of the representations as they are."
    ),
    metric="test accuracy of a classifier of the first network on the second",
    method="relative to 100 anchors",
    baseline="features as they are",
    data="digits",
    threshold=0.3,
)
def relative(budget: Budget, seed: int) -> Measured:
    """Moschella et al., *Relative Representations Enable Zero-Shot Latent Space Communication* (2022)."""
    (x, y), (u, v) = digit_rows(seed, budget.device)
    epochs = budget.pick(smoke=1, small=30, full=200)
    networks = [fitted_perceptron(2 * seed + k, x, y, 128, epochs) for k in range(2)]
    first, second = (tuple(hidden_features(network, rows).cpu() for network in networks) for rows in (x, u))
    found = stitching((first[0], first[1]), y.cpu(), (second[0], second[1]), v.cpu(), anchors=100, seed=seed)
    assert found.absolute is not None
    return Measured(found.relative, found.absolute, {"within one network": found.own, "chance": found.chance})
