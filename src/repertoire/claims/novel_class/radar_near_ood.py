"""The claims of *Near out-of-distribution detection for low-resolution radar micro-Doppler signatures* (2022)."""

from __future__ import annotations

from typing import Literal

import numpy as np
from sklearn.ensemble import IsolationForest
from sklearn.preprocessing import StandardScaler
from sklearn.svm import OneClassSVM

from repertoire.claims import Budget, Measured, arm, claim
from repertoire.claims.beds.radar import DRAWN, LENGTHS, ROTORS, UNKNOWN, covariances, echoes, log_euclidean, spectra
from repertoire.metrics import auroc
from repertoire.openset import DeepSAD, DeepSVDD, NearestNeighbours

SHARES = (0.1, 0.05, 0.02, 0.0)

Form = Literal["spectrum", "covariance"]


@arm
def detected(budget: Budget, seed: int, form: Form, share: float, any_length: bool = False) -> dict[str, float]:
    """AUROC of each detector, trained on echoes of the known kinds of which a share is of the unknown one.

    Args:
        form: what a detector sees of an echo.
        share: of the training samples that are of the unknown kind, and not marked.
        any_length: whether the seed draws how long the blades of the unknown kind are.
    """
    generator = np.random.default_rng(seed)
    strange = (*UNKNOWN[:2], generator.uniform(*LENGTHS)) if any_length else UNKNOWN
    each = budget.pick(smoke=20, small=200, full=1000)
    seen, asked = (np.concatenate([echoes(kind, each, generator) for kind in ROTORS]) for _ in range(2))
    odd, marked, hidden = (echoes(strange, count, generator) for count in (3 * each, 10, len(seen)))
    mixed = generator.permutation(len(seen))[: round(share * len(seen))]
    seen[mixed] = hidden[mixed]

    def viewed(heard: np.ndarray) -> np.ndarray:
        return spectra(heard) if form == "spectrum" else log_euclidean(covariances(heard))

    scaler = StandardScaler().fit(viewed(seen))
    x, test, unknown, known_odd = (scaler.transform(viewed(heard)) for heard in (seen, asked, odd, marked))
    both, truth = np.concatenate([test, unknown]), np.arange(len(test) + len(unknown)) < len(test)
    epochs = budget.pick(smoke=2, small=50, full=100)
    found = {
        "OCSVM": OneClassSVM(nu=0.1).fit(x).decision_function(both),
        "isolation forest": IsolationForest(random_state=seed).fit(x).score_samples(both),
        "Deep SVDD": DeepSVDD(epochs=epochs, seed=seed).fit(x)(both),
        "Deep SAD": DeepSAD(epochs=epochs, seed=seed).fit(x, anomalies=known_odd)(both),
    }
    return {name: auroc(scores, truth) for name, scores in found.items()}


def nearest(budget: Budget, seed: int) -> float:
    """AUROC of the distance to the nearest known spectrum, none of those being of the unknown kind."""
    generator = np.random.default_rng(seed)
    each = budget.pick(smoke=20, small=200, full=1000)
    seen, asked = (np.concatenate([echoes(kind, each, generator) for kind in ROTORS]) for _ in range(2))
    scaler = StandardScaler().fit(spectra(seen))
    x, test, odd = (scaler.transform(spectra(heard)) for heard in (seen, asked, echoes(UNKNOWN, 3 * each, generator)))
    score = NearestNeighbours(1).fit(x)
    return auroc([*score(test), *score(odd)], [True] * len(test) + [False] * len(odd))


@claim(
    "radar-near-ood",
    statement=(
        "Deep SVDD tells unknown rotors less well the more of them are hidden among its training samples: between a "
        "tenth and none, AUROC rises by more than one point."
    ),
    metric="AUROC, known rotors against an unknown one",
    arms=[f"{share:.0%} of the training samples unknown" for share in SHARES],
    kind="trend",
    points=[1 - share for share in SHARES],
    data=DRAWN,
    tier="drawn",
    threshold=0.1,
    floor=nearest,
    learned=0.02,
    learned_by="best",
    guard="the nearest known spectrum; samples of the unknown kind make Deep SVDD fail, which is the claim",
)
def contamination(budget: Budget, seed: int) -> Measured:
    """Bauw et al., *Near out-of-distribution detection for low-resolution radar micro-Doppler signatures* (2022), on
    spectra. `extra` has the other detectors without contamination and with most of it; Deep SAD is told ten unknown
    samples."""
    found = [detected(budget, seed, form="spectrum", share=share) for share in SHARES]
    extra = {
        f"{name}, {share:.0%}": row[name]
        for share, row in ((SHARES[0], found[0]), (SHARES[-1], found[-1]))
        for name in row
        if name != "Deep SVDD"
    }
    return Measured.of([row["Deep SVDD"] for row in found], extra)


@claim(
    "radar-near-ood",
    part="covariance",
    statement=(
        "Of the same echoes, a one-class support vector machine tells unknown rotors at least as well by their "
        "covariance as by their spectrum."
    ),
    metric="AUROC, known rotors against an unknown one",
    method="covariance, log-Euclidean",
    baseline="mean spectrum",
    data=f"{DRAWN}, with blades of a length that the seed draws",
    tier="drawn",
    threshold=0.0,
    strict=False,
    learned=0.02,
    trivial=0.5,
    guard="chance: nothing is learned but a boundary around inputs of either form",
)
def covariance(budget: Budget, seed: int) -> Measured:
    """Bauw et al. (2022). `extra` has the other detectors.

    The sign depends on how long the blades of the unknown rotor are (pilots: 0.14 for 0.6, 0.20 for 1, -0.07 for 1.5,
    where blades of the known ones are 0.9 to 1.1 long), and of blades of length 1 the spectrum alone says nothing: a
    first bed, with these, failed. So every seed draws a length.
    """
    second, first = (
        detected(budget, seed, form=form, share=0.0, any_length=True) for form in ("covariance", "spectrum")
    )
    extra = {
        f"{form}: {name}": row[name] for form, row in (("covariance", second), ("spectrum", first)) for name in row
    }
    return Measured(second["OCSVM"], first["OCSVM"], extra)
