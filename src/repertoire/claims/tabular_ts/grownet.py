"""The claims of *Gradient Boosting Neural Networks: GrowNet* (2020)."""

from __future__ import annotations

from typing import Any

from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.metrics import r2_score
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds import LETTERS_REDRAWN, _named
from repertoire.claims.beds.frozen import patches, table_rows
from repertoire.claims.beds.raw import raw_accuracy, raw_patches
from repertoire.estimators import GrowNetClassifier, GrowNetRegressor

EPOCHS, STAGES = 3, 20


def _options(budget: Budget, seed: int) -> dict[str, Any]:
    epochs = budget.pick(smoke=1, small=EPOCHS, full=10)
    stages = budget.pick(smoke=2, small=STAGES, full=40)
    return {"n_stages": stages, "epochs": epochs, "corrective_epochs": epochs, "random_state": seed}


def _by_rows(budget: Budget, seed: int) -> float:
    """Test accuracy by the rows as they are."""
    return raw_accuracy(_named.get("letters").splits(budget, seed))


def _by_patches(budget: Budget, seed: int) -> float:
    """R² of what needs no training."""
    rows = patches(budget, seed)
    return max(float(r2_score(rows.test_y.cpu(), found.cpu())) for found in raw_patches(rows))


@claim(
    "grownet",
    statement="On a table of some thousand rows, GrowNet is more accurate than histogram gradient boosting.",
    metric="test accuracy",
    method="GrowNet",
    baseline="histogram gradient boosting of scikit-learn, as it comes",
    bed="letters",
    threshold=0.01,
    learned=0.01,
    floor=_by_rows,
    overlap=LETTERS_REDRAWN,
)
def grownet(budget: Budget, seed: int) -> Measured:
    """Badirli et al., *Gradient Boosting Neural Networks: GrowNet* (2020), whose tables have up to millions of rows.
    `extra` has one network with a hidden layer and as many parameters."""
    rows = table_rows(_named.get("letters").splits(budget, seed))
    x, y, test_x, test_y = (part.numpy() for part in (rows.x, rows.y, rows.test_x, rows.test_y))
    whole = GrowNetClassifier(**_options(budget, seed)).fit(x, y)
    weights = sum(p.numel() for p in whole.module_.learners.parameters())
    width = round(weights / (x.shape[1] + 1 + whole.module_.constant.numel()))
    joint = make_pipeline(StandardScaler(), MLPClassifier((width,), max_iter=500, random_state=seed)).fit(x, y)
    trees = HistGradientBoostingClassifier(max_iter=budget.pick(smoke=5, small=100, full=100), random_state=seed)
    return Measured(
        float(whole.score(test_x, test_y)),
        float(trees.fit(x, y).score(test_x, test_y)),
        {"one network of as many parameters": float(joint.score(test_x, test_y))},
    )


@claim(
    "grownet",
    part="regression",
    statement="On a table of some thousand rows, GrowNet predicts numbers better than histogram gradient boosting.",
    metric="R² on test patches",
    method="GrowNet",
    baseline="histogram gradient boosting of scikit-learn, as it comes",
    data="Landsat, 6,435 patches: the middle pixel from those round it",
    bed="landsat",
    threshold=0.005,
    learned=0.005,
    floor=_by_patches,
    guard="the better of the five nearest neighbours and the mean of the four pixels beside the middle one",
)
def grownet_regression(budget: Budget, seed: int) -> Measured:
    """Badirli et al. (2020), who regress too."""
    rows = patches(budget, seed)
    x, y, test_x, test_y = (part.cpu().numpy() for part in (rows.x, rows.y, rows.test_x, rows.test_y))
    whole = GrowNetRegressor(**_options(budget, seed)).fit(x, y)
    trees = HistGradientBoostingRegressor(max_iter=budget.pick(smoke=5, small=100, full=100), random_state=seed)
    return Measured(float(whole.score(test_x, test_y)), float(trees.fit(x, y).score(test_x, test_y)))
