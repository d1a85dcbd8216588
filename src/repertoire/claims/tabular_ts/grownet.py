"""The claim of *Gradient Boosting Neural Networks: GrowNet* (2020)."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_wine
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from repertoire.claims import Budget, Measured, claim
from repertoire.estimators import GrowNetClassifier, GrowNetRegressor


@claim(
    "grownet",
    statement="On tables of a few hundred rows, GrowNet predicts better than histogram gradient boosting.",
    metric="mean over the data sets of test accuracy, and of R² where a number is predicted",
    method="GrowNet",
    baseline="histogram gradient boosting of scikit-learn, as it comes",
    data="breast cancer, wine, digits and diabetes of scikit-learn",
    threshold=0.0,
)
def grownet(budget: Budget, seed: int) -> Measured:
    """Badirli et al., *Gradient Boosting Neural Networks: GrowNet* (2020), whose tables have up to millions of rows.
    `extra` has GrowNet without each of its parts, and one network with a hidden layer and as many parameters."""
    parts = ("propagate", "second_order", "corrective")
    sets = {"breast cancer": load_breast_cancer, "wine": load_wine, "digits": load_digits, "diabetes": load_diabetes}
    epochs = budget.pick(smoke=1, small=10, full=10)
    options: dict[str, Any] = {
        "n_stages": budget.pick(smoke=2, small=6, full=20),
        "epochs": epochs,
        "corrective_epochs": epochs,
        "random_state": seed,
    }
    scores: dict[str, list[float]] = {}
    for name, fetch in sets.items():
        if budget.name == "smoke" and name != "wine":
            continue
        x, y = fetch(return_X_y=True)
        numbers = name == "diabetes"
        kind = GrowNetRegressor if numbers else GrowNetClassifier
        seen, held_out, targets, test_targets = train_test_split(
            x, y, test_size=0.3, random_state=seed, stratify=None if numbers else y
        )
        whole = kind(**options).fit(seen, targets)
        weights = sum(p.numel() for p in whole.module_.learners.parameters())
        outputs = whole.module_.constant.numel()
        joint = (MLPRegressor if numbers else MLPClassifier)(
            hidden_layer_sizes=(round(weights / (x.shape[1] + 1 + outputs)),), max_iter=500, random_state=seed
        )
        trees = HistGradientBoostingRegressor if numbers else HistGradientBoostingClassifier
        estimators = {
            "GrowNet": whole,
            "trees": trees(max_iter=budget.pick(smoke=5, small=100, full=100), random_state=seed).fit(seen, targets),
            "one network of as many parameters": make_pipeline(StandardScaler(), joint).fit(seen, targets),
        }
        for part in parts:
            estimators[f"GrowNet without {part}"] = kind(**{**options, part: False}).fit(seen, targets)
        for label, estimator in estimators.items():
            scores.setdefault(label, []).append(float(estimator.score(held_out, test_targets)))
            if label in ("GrowNet", "trees"):
                scores[f"{name}: {label}"] = [scores[label][-1]]
    means = {label: float(np.mean(values)) for label, values in scores.items()}
    return Measured(means.pop("GrowNet"), means.pop("trees"), means)
