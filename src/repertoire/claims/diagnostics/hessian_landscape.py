"""The claim of *Unraveling the Hessian: A Key to Smooth Convergence in Loss Function Landscapes* (2024)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.claims import Budget, Measured, claim
from repertoire.claims._training import fit_tensors, perceptron
from repertoire.claims.beds.digits import share_right
from repertoire.claims.beds.frozen import Rows
from repertoire.claims.beds.handwriting import GARMENTS, drawn_rows
from repertoire.claims.beds.learned import must_have_learned
from repertoire.claims.beds.raw import raw_accuracy_of_rows
from repertoire.diagnostics import Hessian, fit_power_law, hessian_eigenvalues

DISTANCES = (3e-4, 3e-3, 3e-2)
"""Standard deviations of a weight about the minimum: two orders of magnitude."""


@claim(
    "hessian-landscape",
    statement=(
        "Near the minimum of k samples, the change of the mean loss that one more sample brings is no larger than the "
        "bound from the losses at the minimum, the largest eigenvalue of the difference of the Hessians there, and the "
        "distance."
    ),
    metric="the largest change of the mean loss as a multiple of its bound",
    method="changes near the minima of five sample sizes",
    kind="identity",
    bed="fashion-mnist",
    data=GARMENTS,
    threshold=1.0,
    guard="over the sample sizes, the networks must be more accurate than nearest means and neighbours of the pixels",
)
def bounded_change(budget: Budget, seed: int) -> Measured:
    r"""Kiselev and Grabovoy, *Unraveling the Hessian: A Key to Smooth Convergence in Loss Function Landscapes* (2024).

    The bound, for a point at the distance r from the minimum:

    .. math:: |L_{k+1} - L_k| \le \frac{1}{k + 1} \Bigl( |\ell_{k+1} - L_k|_{\theta^*}
              + \tfrac12 \lVert H_{k+1} - \overline{H}_k \rVert_2 \, r^2 \Bigr)

    It takes the gradient of the new sample to vanish at the minimum of the others, which nothing ensures, and the loss
    to be of the second order: either may break it. `extra` has the median of the multiples, the share that exceed the
    bound at each distance, and the exponent of the decay with the number of samples, which is 1 for a new sample whose
    loss does not depend on that number. Digits had been taken before, of which networks of any of these sizes name
    fewer than neighbours by raw pixels do.
    """
    sizes = budget.pick(smoke=[30, 60, 90], small=[100, 200, 400, 800, 1600], full=[100, 200, 400, 800, 1600, 3000])
    width, steps = budget.pick(smoke=(8, 20), small=(64, 500), full=(128, 2000))
    fresh, points = budget.pick(smoke=(2, 2), small=(16, 8), full=(64, 16))
    (x, y), (u, v) = drawn_rows(budget, seed, sizes[-1], bed="fashion-mnist")
    ratios, changes, right, floors = [], [], [], []
    for size in sizes:
        torch.manual_seed(seed)
        network = perceptron(x.shape[1], 10, width).to(x.device)
        fit_tensors(network, x[:size], y[:size], F.cross_entropy, epochs=math.ceil(steps * 64 / size))
        right.append(share_right(network, u, v))
        floors.append(raw_accuracy_of_rows(Rows(x[:size], y[:size], x[:0], y[:0], u, v)))
        change, bound = changes_and_bounds(network, (x[:size], y[:size]), (u[:fresh], v[:fresh]), points, seed)
        ratios.append(change / bound)
        changes.append(float(change.square().mean().sqrt()))
    accuracy, floor = (sum(values) / len(values) for values in (right, floors))
    must_have_learned(budget, accuracy, floor, "the mean of the networks")
    found = torch.stack(ratios)
    extra = {"median multiple": float(found.median()), "test accuracy": accuracy, "raw pixels": floor}
    for place, distance in enumerate(DISTANCES):
        extra[f"share beyond the bound at {distance:g}"] = float((found[:, :, place] > 1).float().mean())
    extra["exponent of the decay"] = fit_power_law(sizes, changes, floor=False).exponent
    return Measured(float(found.max()), extra=extra)


def changes_and_bounds(
    network: nn.Module, seen: tuple[Tensor, Tensor], fresh: tuple[Tensor, Tensor], points: int, seed: int
) -> tuple[Tensor, Tensor]:
    """What each fresh sample changes the mean loss by at points about the weights, and its bound: `[M, D, P]` each, for
    M samples, D distances and P points."""
    whole = Hessian(network, [seen])
    weights = {name: p.detach() for name, p in network.named_parameters()}
    with torch.no_grad():
        mean = F.cross_entropy(network(seen[0]), seen[1])
        apart = (F.cross_entropy(network(fresh[0]), fresh[1], reduction="none") - mean).abs()
    norms = []
    for place in range(len(fresh[0])):
        one = Hessian(network, [(fresh[0][place : place + 1], fresh[1][place : place + 1])])
        pairs = ((one, whole), (whole, one))
        norms.append(max(float(hessian_eigenvalues(_Difference(*pair), iterations=24).values[0]) for pair in pairs))
    norm = torch.tensor(norms).to(apart)
    generator = torch.Generator().manual_seed(seed)
    count = len(seen[0]) + 1
    changes = torch.zeros(len(apart), len(DISTANCES), points)
    bounds = torch.zeros_like(changes)
    for place, distance in enumerate(DISTANCES):
        for point in range(points):
            steps = {n: distance * torch.randn(w.shape, generator=generator).to(w) for n, w in weights.items()}
            moved = {n: weights[n] + step for n, step in steps.items()}
            squared = sum(float(step.square().sum()) for step in steps.values())
            with torch.no_grad():
                there = F.cross_entropy(torch.func.functional_call(network, moved, (seen[0],)), seen[1])
                new = F.cross_entropy(
                    torch.func.functional_call(network, moved, (fresh[0],)), fresh[1], reduction="none"
                )
            changes[:, place, point] = ((new - there).abs() / count).cpu()
            bounds[:, place, point] = ((apart + 0.5 * norm * squared) / count).cpu()
    return changes, bounds


class _Difference:
    """One Hessian minus another."""

    def __init__(self, first: Hessian, second: Hessian) -> None:
        self.first, self.second = first, second
        self.dimension, self.like = first.dimension, first.like

    def __matmul__(self, vectors: Tensor) -> Tensor:
        return self.first @ vectors - self.second @ vectors
