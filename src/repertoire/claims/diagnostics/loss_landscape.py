"""The claim of *Visualizing the Loss Landscape of Neural Nets* (2017)."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.claims import Budget, Measured, claim
from repertoire.claims._training import fit_tensors, perceptron
from repertoire.claims.beds.frozen import Rows
from repertoire.claims.beds.handwriting import GARMENTS, drawn_rows
from repertoire.claims.beds.learned import must_have_learned
from repertoire.claims.beds.raw import raw_accuracy_of_rows
from repertoire.diagnostics import loss_landscape, random_directions


@claim(
    "loss-landscape",
    statement=(
        "Among networks trained by two optimisers, with small and large batches, with and without weight decay, the "
        "rise of the loss along filter-normalised directions ranks with the test error better, by 0.1, than along "
        "plain random directions of one length for all networks."
    ),
    metric="rank correlation of the rise of the loss with the test error, over sixteen networks",
    method="filter-normalised directions",
    baseline="plain directions of a common length",
    bed="fashion-mnist",
    data=GARMENTS + ", 400 of them to train on",
    threshold=0.1,
    guard="the networks must be more accurate in the mean than nearest means and neighbours of the pixels",
)
def landscape(budget: Budget, seed: int) -> Measured:
    """Li et al., *Visualizing the Loss Landscape of Neural Nets* (2018). All networks take as many steps, so that those
    with large batches are no less trained than the others; `extra` has the largest loss that is left of training.
    Digits had been taken before, of which neighbours by raw pixels name 0.856 of the test images on pilot seed 1000 and
    some of the networks fewer; of garments they name 0.704, and networks in the mean 0.737. Batches of 16 take the
    place of 8, which after as many steps had learned too little: 0.65 to 0.69."""
    (inputs, labels), (test_inputs, test_labels) = drawn_rows(budget, seed, 400, bed="fashion-mnist")
    floor = raw_accuracy_of_rows(Rows(inputs, labels, inputs[:0], labels[:0], test_inputs, test_labels))
    width, steps = budget.pick(smoke=(16, 4), small=(64, 600), full=(512, 5000))
    count = budget.pick(smoke=1, small=8, full=32)
    networks, errors, left = [], [], []
    batches = budget.pick(smoke=(16, 400), small=(16, 32, 128, 400), full=(16, 32, 128, 400))
    for kind, batch, decay in itertools.product(("sgd", "adam"), batches, (0.0, 5e-3)):
        torch.manual_seed(seed)
        network = perceptron(inputs.shape[1], 10, width).to(budget.device)
        optimizer = _optimizer(kind, network, decay)
        epochs = math.ceil(steps * batch / len(inputs))
        fit_tensors(network, inputs, labels, F.cross_entropy, epochs=epochs, batch_size=batch, optimizer=optimizer)
        with torch.no_grad():
            left.append(float(F.cross_entropy(network(inputs), labels)))
            errors.append(float((network(test_inputs).argmax(1) != test_labels).float().mean()))
        networks.append(network)
    must_have_learned(budget, 1 - float(np.mean(errors)), floor, "the mean of the networks")
    length = float(np.mean([_length(network) for network in networks]))
    rises = [
        [_rise(n, inputs, labels, None, count, seed), _rise(n, inputs, labels, length, count, seed)] for n in networks
    ]
    ours, plain = (_rank_correlation([pair[i] for pair in rises], errors) for i in (0, 1))
    before, after = (
        _rise(network, inputs, labels, None, count, seed) for network in (networks[0], _rescaled(networks[0]))
    )
    plain_after = _rise(_rescaled(networks[0]), inputs, labels, length, count, seed)
    return Measured(
        ours,
        plain,
        {
            "change of the rise when two layers are rescaled by ten": abs(after / before - 1),
            "the same, plain directions": abs(plain_after / rises[0][1] - 1),
            "lowest test error": min(errors),
            "highest test error": max(errors),
            "mean test error": float(np.mean(errors)),
            "test error of raw pixels": 1 - floor,
            "largest training loss": max(left),
        },
    )


def _optimizer(kind: str, network: nn.Module, decay: float) -> torch.optim.Optimizer:
    if kind == "sgd":
        return torch.optim.SGD(network.parameters(), lr=0.03, momentum=0.9, weight_decay=decay)
    return torch.optim.Adam(network.parameters(), lr=1e-3, weight_decay=decay)


def _length(network: nn.Module) -> float:
    return math.sqrt(sum(float(p.detach().square().sum()) for p in network.parameters() if p.ndim > 1))


def _rise(network: nn.Module, inputs: Tensor, labels: Tensor, length: float | None, count: int, seed: int) -> float:
    """The mean rise of the loss from -1 to 1 along some directions; plain ones of a length, if one is given."""
    rises = []
    for direction in random_directions(network, count, normalise="filter" if length is None else "none", seed=seed):
        if length is not None:
            norm = math.sqrt(sum(float(part.square().sum()) for part in direction.values()))
            direction = {name: part * (length / norm) for name, part in direction.items()}
        rises.append(loss_landscape(network, [(inputs, labels)], [direction], x=9, together=9).rise)
    return float(np.mean(rises))


def _rescaled(network: nn.Module) -> nn.Module:
    """The same function of rectifiers, with the first layer ten times as large and the last a tenth."""
    same = copy.deepcopy(network)
    with torch.no_grad():
        for name, parameter in same.named_parameters():
            if name in ("0.weight", "0.bias", "2.bias"):
                parameter.mul_(10)
            elif name == "4.weight":
                parameter.div_(10)
    return same


def _rank_correlation(first: Sequence[float], second: Sequence[float]) -> float:
    from scipy.stats import rankdata

    a, b = rankdata(first), rankdata(second)
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])
