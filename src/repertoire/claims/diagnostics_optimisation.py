"""Claims of papers on landscapes, curvature, and the bias that a task asks for."""

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
from repertoire.claims._training import fit_tensors, perceptron, pixels
from repertoire.data import load
from repertoire.diagnostics import (
    Hessian,
    counted_inductive_bias,
    fit_power_law,
    gaussian_process_errors,
    hessian_eigenvalues,
    inductive_bias,
    landscape_convergence,
    loss_landscape,
    random_directions,
)


@claim(
    "loss-landscape",
    statement=(
        "Among networks trained by two optimisers, with small and large batches, with and without weight decay, the "
        "rise of the loss along filter-normalised directions ranks with the test error better than along plain random "
        "directions of one length for all networks."
    ),
    metric="rank correlation of the rise of the loss with the test error, over eight networks",
    method="filter-normalised directions",
    baseline="plain directions of a common length",
    data="digits, 400 of them to train on",
    threshold=0.0,
)
def landscape(budget: Budget, seed: int) -> Measured:
    """Li et al., *Visualizing the Loss Landscape of Neural Nets* (2018)."""
    splits = load("digits", seed=seed)
    inputs, labels = (part[:400].to(budget.device) for part in pixels(splits.train))
    test_inputs, test_labels = (part.to(budget.device) for part in pixels(splits.test))
    width, epochs = budget.pick(smoke=(16, 1), small=(64, 40), full=(512, 200))
    count = budget.pick(smoke=1, small=8, full=32)
    networks, errors = [], []
    for kind, batch, decay in itertools.product(("sgd", "adam"), (16, 400), (0.0, 5e-3)):
        torch.manual_seed(seed)
        network = perceptron(inputs.shape[1], 10, width).to(budget.device)
        optimizer = _optimizer(kind, network, decay)
        fit_tensors(network, inputs, labels, F.cross_entropy, epochs=epochs, batch_size=batch, optimizer=optimizer)
        with torch.no_grad():
            errors.append(float((network(test_inputs).argmax(1) != test_labels).float().mean()))
        networks.append(network)
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
        },
    )


def _optimizer(kind: str, network: nn.Module, decay: float) -> torch.optim.Optimizer:
    if kind == "sgd":
        return torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=decay)
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


@claim(
    "hessian-landscape",
    statement=(
        "The change of the mean loss near a minimum when one sample is added falls with the number of samples nearer "
        "to 1/k, the rate of the bound, than to one over the root of k, the rate at which a mean itself settles."
    ),
    metric="distance of the fitted exponent of the decay from the predicted one",
    method="exponent 1",
    baseline="exponent 1/2",
    data="digits, a network trained on each of six subsets",
    threshold=0.0,
    higher_is_better=False,
)
def convergence(budget: Budget, seed: int) -> Measured:
    """Kiselev and Grabovoy, *Unraveling the Hessian: A Key to Smooth Convergence in Loss Function Landscapes* (2024):
    the root mean square of the change over Gaussian weights about the minimum of k samples, and over new samples."""
    splits = load("digits", seed=seed)
    inputs, labels = (part.to(budget.device) for part in pixels(splits.train))
    sizes = budget.pick(smoke=[50, 100, 200], small=[50, 90, 160, 290, 520, 900], full=[50, 90, 160, 290, 520, 900])
    width, steps = budget.pick(smoke=(8, 20), small=(32, 500), full=(128, 2000))
    changes, sigma = [], 0.02
    for size in sizes:
        torch.manual_seed(seed)
        network = perceptron(inputs.shape[1], 10, width).to(budget.device)
        epochs = math.ceil(steps * 64 / size)
        fit_tensors(network, inputs[:size], labels[:size], F.cross_entropy, epochs=epochs)
        changes.append(_change(network, inputs, labels, size, sigma, seed))
    slope = fit_power_law(sizes, changes, floor=False).exponent
    fixed = landscape_convergence(network, inputs, labels, sigma=sigma, seed=seed)
    places = torch.logspace(1.5, math.log10(len(fixed.sizes) / 2), 12).long()
    smooth = [float(fixed.change[place // 2 : place * 2].mean()) ** 0.5 for place in places]
    at_one_minimum = fit_power_law((places + 1).tolist(), smooth, floor=False).exponent
    bound = _hessian_bound(network, inputs, labels, sizes[-1], sigma)
    return Measured(
        abs(slope - 1),
        abs(slope - 0.5),
        {
            "fitted exponent": slope,
            "exponent at one minimum": at_one_minimum,
            "bound through Hessians over the change, at the most samples": bound / changes[-1],
        },
    )


@torch.no_grad()
def _change(network: nn.Module, inputs: Tensor, labels: Tensor, size: int, sigma: float, seed: int) -> float:
    """Root mean square of L(k + 1) - L(k) over points about the weights, and over the samples that were not seen."""
    generator = torch.Generator().manual_seed(seed)
    weights = {name: p.detach() for name, p in network.named_parameters()}
    squares = []
    for _ in range(16):
        moved = {n: w + sigma * torch.randn(w.shape, generator=generator).to(w) for n, w in weights.items()}
        losses = F.cross_entropy(torch.func.functional_call(network, moved, (inputs,)), labels, reduction="none")
        squares.append(((losses[size:] - losses[:size].mean()) / (size + 1)).square().mean())
    return float(torch.stack(squares).mean().sqrt())


def _hessian_bound(network: nn.Module, inputs: Tensor, labels: Tensor, size: int, sigma: float) -> float:
    """The bound on the change: the losses at the minimum, and half of the norm of the difference of the Hessians times
    the squared distance, which is sigma squared times the number of weights; root mean square of four new samples."""
    whole = Hessian(network, [(inputs[:size], labels[:size])])
    with torch.no_grad():
        losses = F.cross_entropy(network(inputs), labels, reduction="none")
    bounds = []
    for place in range(size, size + 4):
        one = Hessian(network, [(inputs[place : place + 1], labels[place : place + 1])])
        pairs = ((one, whole), (whole, one))
        norm = max(float(hessian_eigenvalues(_Difference(*pair), iterations=12).values[0]) for pair in pairs)
        loss = abs(float(losses[place] - losses[:size].mean()))
        bounds.append((loss + 0.5 * norm * sigma**2 * whole.dimension) / (size + 1))
    return math.sqrt(float(np.mean(np.square(bounds))))


class _Difference:
    """One Hessian minus another."""

    def __init__(self, first: Hessian, second: Hessian) -> None:
        self.first, self.second = first, second
        self.dimension, self.like = first.dimension, first.like

    def __matmul__(self, vectors: Tensor) -> Tensor:
        return self.first @ vectors - self.second @ vectors


@claim(
    "exact-inductive-bias",
    statement=(
        "On a finite space of hypotheses, where the inductive bias of a task can be counted, the fitted tail of the "
        "errors of 200 hypotheses comes nearer to it than their count does."
    ),
    metric="distance from the exact inductive bias in bits",
    method="fitted distribution of errors",
    baseline="count of good ones among the 200",
    data="linear functions with whole weights from -2 to 2, of which all that fit two points are known",
    threshold=0.0,
    higher_is_better=False,
)
def bits_of_bias(budget: Budget, seed: int) -> Measured:
    """Boopathy et al., *Towards Exact Computation of Inductive Bias* (2024): the target is an error that one in 1024
    hypotheses that fit reaches. Count: (good ones + 1/2) / 201, which is finite where there are none."""
    dimensions = budget.pick(smoke=7, small=8, full=9)
    random = np.random.default_rng(seed)
    space = np.array(list(itertools.product(range(-2, 3), repeat=dimensions)), dtype=np.int8)
    truth = random.integers(-2, 3, dimensions)
    train = random.integers(-1, 2, (2, dimensions))
    fits = space[((space - truth) @ train.T == 0).all(1)].astype(float)
    others = random.standard_normal((200, dimensions))
    quadratic = others.T @ others / len(others)
    # Of the truth itself, the error is zero; so little noise does not matter to any count.
    errors = np.einsum("ni,ij,nj->n", fits - truth, quadratic, fits - truth) + 1e-6
    target = float(np.quantile(errors, 2.0**-10))
    exact = counted_inductive_bias(errors, target)
    distances = []
    for _ in range(budget.pick(smoke=1, small=10, full=100)):
        drawn = random.choice(errors, 200, replace=False)
        ours = inductive_bias(drawn, target, resamples=0).bits
        count = -math.log2((float((drawn <= target).sum()) + 0.5) / 201)
        distances.append((abs(ours - exact), abs(count - exact)))
    extra = {"hypotheses that fit": float(len(fits)), "exact bits": exact}
    for d in (1, 2, 4):
        generator = torch.Generator().manual_seed(seed)
        x, x_test = torch.rand(16, d, generator=generator), torch.rand(100, d, generator=generator)
        process = gaussian_process_errors((x, x.mean(1)), (x_test, x_test.mean(1)), width=0.3, samples=200, seed=seed)
        bits = inductive_bias(process, 1e-3, resamples=0).bits
        extra[f"bits for an error of 0.001, functions of {d} variables"] = bits
    ours, count = np.mean(distances, 0)
    return Measured(float(ours), float(count), extra)
