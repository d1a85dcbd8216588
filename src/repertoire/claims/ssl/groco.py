"""The claim of *Learning by Sorting: Self-supervised Learning with Group Ordering Constraints* (2023)."""

from __future__ import annotations

from torch import nn

from repertoire import losses
from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.disturbed_digits import (
    DISTURBED,
    PROBE,
    DisturbedDigits,
    Network,
    disturbed_digits,
    encoded,
    epochs_of,
    pretrained,
    probed_accuracy,
)


def _neighbours_agree(network: Network, data: DisturbedDigits, count: int = 5) -> float:
    """Accuracy of the majority among the nearest training images, by the cosine of features."""
    seen, held_out = (
        nn.functional.normalize(encoded(network, images), dim=1) for images in (data.images, data.test_images)
    )
    nearest = data.labels[(held_out @ seen.T).topk(count, 1).indices]
    return float((nearest.mode(1).values == data.test_labels).float().mean())


@claim(
    "groco",
    statement=(
        "The five nearest neighbours of a test image, by features learned with group ordering constraints, name its "
        "class more often than by features learned with NT-Xent."
    ),
    metric="accuracy of five nearest neighbours",
    method="GroCo, two views",
    baseline="NT-Xent at temperature 0.2",
    data=DISTURBED,
    threshold=0.0,
)
def groco(budget: Budget, seed: int) -> Measured:
    """Shvetsova et al., *Learning by Sorting: Self-supervised Learning with Group Ordering Constraints* (2023)."""
    data = disturbed_digits(budget, seed)
    networks = {
        name: pretrained(loss, data.images, epochs=epochs_of(budget), seed=seed)
        for name, loss in (("GroCo", losses.GroCo()), ("NT-Xent", losses.NTXent(0.2)))
    }
    scores = [_neighbours_agree(network, data) for network in networks.values()]
    probed = {f"{name}: {PROBE}": probed_accuracy(network, data) for name, network in networks.items()}
    return Measured(scores[0], scores[1], probed)
