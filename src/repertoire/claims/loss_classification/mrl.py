"""The claim of *Matryoshka Representation Learning* (2022)."""

from __future__ import annotations

import numpy as np
from sklearn.neighbors import KNeighborsClassifier

from repertoire.claims import Budget, Measured, claim
from repertoire.claims._training import embeddings, train
from repertoire.data import ImageSet, Splits
from repertoire.methods import Method


def _nearest_neighbour(method: Method, splits: Splits, width: int) -> float:
    """Test accuracy of the nearest neighbour by cosine in the first `width` coordinates."""

    def prefix(images: ImageSet) -> np.ndarray:
        features = embeddings(method, images)[:, :width]
        return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)

    neighbours = KNeighborsClassifier(1).fit(prefix(splits.train), splits.train.labels)
    return float(neighbours.score(prefix(splits.test), splits.test.labels))


@claim(
    "mrl",
    statement=(
        "The first eighth of the coordinates of an embedding trained with nested heads finds the right nearest "
        "neighbour more often than the first eighth of one trained with a single head."
    ),
    metric="1-nearest-neighbour test accuracy at one eighth of the width",
    method="Matryoshka heads",
    baseline="one head, truncated",
    data="shapes: 8 classes, 32 pixels",
    threshold=0.0,
    own_data=True,
)
def mrl(budget: Budget, seed: int) -> Measured:
    """Kusupati et al., *Matryoshka Representation Learning* (2022): 1-NN accuracy by embedding size.

    `extra` has a network trained for that one size, which the paper finds no better than the nested prefix.
    """
    count = budget.pick(smoke=300, small=2500, full=50_000)
    splits = budget.splits(f"shapes:count={count},classes=8", size=32, seed=seed)
    options = {
        "backbone": budget.pick(smoke="convnet:width=8", small="convnet:width=16", full="resnet32:width=32"),
        "augment": "crop-flip",
        "epochs": budget.pick(smoke=1, small=15, full=100),
        "seed": seed,
        "device": budget.device,
    }
    nested = train(splits, head="matryoshka", **options)
    plain = train(splits, head="linear", **options)
    full = plain.model.backbone.out_features
    eighth = full // 8
    separate = train(splits, head=f"matryoshka:sizes=({eighth})", **options)
    return Measured(
        method=_nearest_neighbour(nested, splits, eighth),
        baseline=_nearest_neighbour(plain, splits, eighth),
        extra={
            "trained for an eighth": _nearest_neighbour(separate, splits, eighth),
            "Matryoshka heads, full width": _nearest_neighbour(nested, splits, full),
            "one head, full width": _nearest_neighbour(plain, splits, full),
        },
    )
