"""The claim of *Discrete Infomax Codes for Supervised Representation Learning* (2019)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire import losses
from repertoire.claims import Budget, Measured, claim
from repertoire.claims.beds.frozen import UNSEEN, Rows, descend, drawings, groups
from repertoire.metrics import retrieval_average_precision

SYMBOLS, POSITIONS, BITS = 16, 8, 32


def embedded(rows: Rows, objective: nn.Module, outputs: int, seed: int, epochs: int, rate: float) -> nn.Module:
    """A linear map, trained on batches of four rows each of 32 classes, with a module that makes a loss of its outputs.

    A hidden layer in between fits the classes that it sees better, and those that it does not see worse.
    """
    torch.manual_seed(seed)
    network = nn.Linear(rows.x.shape[1], outputs).to(rows.x.device)

    def loss(index: Tensor) -> Tensor:
        return objective(network(rows.x[index]), rows.y[index])

    descend([*network.parameters(), *objective.parameters()], loss, groups(rows.y), epochs=epochs, rate=rate)
    return network.eval()


class Softmax(nn.Module):
    """Cross-entropy behind a linear layer."""

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(inputs, classes)

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(self.head(z), labels)


def codes(network: nn.Module, x: Tensor) -> Tensor:
    """Codes as rows of which the dot product says how many positions agree."""
    return F.one_hot(losses.dimco_codes(network(x), symbols=SYMBOLS), SYMBOLS).flatten(1).float()


def signs(network: nn.Module, x: Tensor, about: Tensor) -> Tensor:
    """1 where a feature lies above its median over other rows, else -1."""
    return (network(x) > network(about).median(0).values).float() * 2 - 1


@claim(
    "dimco",
    statement=(
        "Codes of 32 bits that were trained to tell the class retrieve images of unseen classes better than the signs "
        "of 32 features that were trained with cross-entropy."
    ),
    metric="mean average precision among unseen characters",
    method="DIMCO, 8 positions of 16 symbols",
    baseline="signs of 32 features about their medians, cross-entropy",
    data=UNSEEN,
    bed="omniglot-all",
    threshold=0.01,
    learned=0.05,
    guard="the signs of a random map",
)
def dimco(budget: Budget, seed: int) -> Measured:
    """Lee et al., *Discrete Infomax Codes for Supervised Representation Learning* (2019).

    Both are linear in frozen features, with the rate of 0.003, 0.01 and 0.03, and of 0.001 and 0.003, that was best on
    the validation rows of a pilot seed. Codes are compared by how many positions agree. `extra` has the 32 features
    themselves, 1024 bits, by cosine. The trivial answer is that of the signs of a random map.
    """
    rows = drawings(budget, seed, "characters")
    epochs = budget.pick(smoke=1, small=60, full=300)
    encoder = embedded(rows, losses.DIMCO(symbols=SYMBOLS), POSITIONS * SYMBOLS, seed, epochs, 3e-2)
    torch.manual_seed(seed)
    softmax = Softmax(BITS, int(rows.y.max()) + 1).to(rows.x.device)
    features = embedded(rows, softmax, BITS, seed, epochs, 3e-3)
    random = embedded(rows, softmax, BITS, seed, 0, 0.0)

    def precision(z: Tensor) -> float:
        return retrieval_average_precision(z, rows.test_y)

    with torch.no_grad():
        extra = {"the features themselves": precision(features(rows.test_x))}
        ours = precision(codes(encoder, rows.test_x))
        plain, trivial = (precision(signs(network, rows.test_x, rows.x)) for network in (features, random))
    return Measured(ours, plain, extra, trivial=trivial)
