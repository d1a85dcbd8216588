"""The claim of *Unraveling the Hessian: A Key to Smooth Convergence in Loss Function Landscapes* (2024)."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.claims import Budget, Measured, claim
from repertoire.claims._training import fit_tensors, perceptron, pixels
from repertoire.data import load
from repertoire.diagnostics import Hessian, fit_power_law, hessian_eigenvalues, landscape_convergence


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
