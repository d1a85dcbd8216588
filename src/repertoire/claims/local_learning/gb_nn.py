"""The claim of *Sequential Training of Neural Networks with Gradient Boosting* (2019)."""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from repertoire.claims import Budget, Measured, claim
from repertoire.estimators import BoostedNetworkClassifier


def _without_random_units(joint: Pipeline, share: float, seed: int) -> Pipeline:
    """Switches off a share of the hidden units of a network that was trained as a whole. Changes it in place."""
    weights = joint[-1].coefs_[1]
    off = np.random.default_rng(seed).permutation(len(weights))[: int(share * len(weights))]
    weights[off] = 0.0
    return joint


@claim(
    "gb-nn",
    statement=(
        "A hidden layer trained by gradient boosting, with the quarter of its units that came last switched off, is no "
        "more than one point less accurate than the same layer trained as a whole, with all of its units."
    ),
    metric="test accuracy, mean over the data sets",
    method="boosted hidden layer, the last quarter of its units off",
    baseline="hidden layer of the same width, trained as a whole by Adam",
    data="breast cancer, wine and digits of scikit-learn",
    threshold=-0.01,
)
def gb_nn(budget: Budget, seed: int) -> Measured:
    """Emami and Martínez-Muñoz, *Sequential Training of Neural Networks with Gradient Boosting* (2019): both halves of
    what it says, that the boosted network is competitive and that its last units can be switched off. `extra` has all
    units, half of them, the joint network without a random quarter of its units, and boosted trees."""
    stages = budget.pick(smoke=4, small=28, full=50)
    sets = {"breast cancer": load_breast_cancer, "wine": load_wine, "digits": load_digits}
    scores: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        scores.setdefault(name, []).append(float(value))

    for fetch in budget.pick(smoke=[load_wine], small=[*sets.values()], full=[*sets.values()]):
        x, y = fetch(return_X_y=True)
        seen, held_out, labels, test_labels = train_test_split(x, y, test_size=0.3, random_state=seed, stratify=y)
        boosted = BoostedNetworkClassifier(n_stages=stages, n_neurons=4, max_iter=60, random_state=seed)
        boosted.fit(seen, labels)
        for name, share in (("boosted, all units", 1.0), ("boosted, 3/4", 0.75), ("boosted, half of the units", 0.5)):
            used = round(share * boosted.n_stages_)
            note(name, (boosted.predict(held_out, stages=used) == test_labels).mean())
        joint = make_pipeline(
            StandardScaler(),
            MLPClassifier(hidden_layer_sizes=(4 * stages,), activation="logistic", max_iter=1000, random_state=seed),
        ).fit(seen, labels)
        note("joint, all units", joint.score(held_out, test_labels))
        note("joint, a random quarter off", _without_random_units(joint, 0.25, seed).score(held_out, test_labels))
        trees = HistGradientBoostingClassifier(max_iter=budget.pick(smoke=5, small=100, full=100), random_state=seed)
        note("histogram gradient boosting", trees.fit(seen, labels).score(held_out, test_labels))
    means = {name: float(np.mean(values)) for name, values in scores.items()}
    return Measured(means.pop("boosted, 3/4"), means.pop("joint, all units"), means)
