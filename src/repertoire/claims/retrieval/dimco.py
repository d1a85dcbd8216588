"""The claim of *Discrete Infomax Codes for Supervised Representation Learning* (2019)."""

from __future__ import annotations

import torch
from sklearn.metrics import average_precision_score
from torch import Tensor

from repertoire import losses
from repertoire.claims import Budget, Measured, claim
from repertoire.claims._training import fit_embedding, fit_tensors, perceptron
from repertoire.claims.beds.places import seen_places


@claim(
    "dimco",
    statement=(
        "Codes of 32 bits that were trained to tell the class retrieve images of unseen classes better than the signs "
        "of 32 features that were trained with cross-entropy."
    ),
    metric="mean average precision among test images of 16 unseen classes",
    method="DIMCO, 8 positions of 16 symbols",
    baseline="signs of 32 features about their medians, cross-entropy",
    data="40 classes: digits in four turns; those of four digits are unseen",
    threshold=0.0,
)
def dimco(budget: Budget, seed: int) -> Measured:
    """Lee et al., *Discrete Infomax Codes for Supervised Representation Learning* (2019).

    Codes are compared by how many positions agree. `extra` has the 32 features themselves, 1024 bits, by cosine.
    """
    inputs, labels, test_inputs, test_labels = seen_places(seed)
    epochs = budget.pick(smoke=1, small=20, full=100)
    encoder = fit_embedding(losses.DIMCO(symbols=16), inputs, labels, epochs=epochs, seed=seed, dimensions=128)
    torch.manual_seed(seed)
    features, classifier = perceptron(inputs.shape[1], 32), torch.nn.Linear(32, 40)
    whole = torch.nn.Sequential(features, classifier)
    fit_tensors(whole, inputs, labels, losses.CrossEntropy(), epochs=epochs, batch_size=128)
    with torch.no_grad():
        codes = losses.dimco_codes(encoder(test_inputs), symbols=16)
        plain = features(test_inputs)
        signs = plain > features(inputs).median(0).values
        z = torch.nn.functional.normalize(plain)
    precision = [
        _mean_average_precision(similarity, test_labels)
        for similarity in (
            (codes[:, None] == codes).sum(2).float(),
            (signs[:, None] == signs).sum(2).float(),
            z @ z.T,
        )
    ]
    return Measured(precision[0], precision[1], {"the features themselves": precision[2]})


def _mean_average_precision(similarity: Tensor, labels: Tensor) -> float:
    """Of the ranking of all other rows, for each row; rows of equal similarity are taken together."""
    others = ~torch.eye(len(labels), dtype=torch.bool)
    same = labels[:, None] == labels
    scores = [
        average_precision_score(same[row][others[row]].numpy(), similarity[row][others[row]].numpy())
        for row in range(len(labels))
    ]
    return float(sum(scores) / len(scores))
