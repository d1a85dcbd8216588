"""One stage of a boosted hidden layer: a few neurons fitted by least squares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from scipy.optimize import minimize
from torch import Tensor

__all__ = ["Activation", "Neurons", "activate", "fit_neurons", "loss_and_gradient"]

Activation = Literal["logistic", "tanh", "relu"]
Solver = Literal["lbfgs", "adam"]


@dataclass(frozen=True)
class Neurons:
    """J neurons on d features with K outputs.

    Attributes:
        weight: `[J, d]`.
        bias: `[J]`.
        out_weight: `[K, J]`.
        out_bias: `[K]`.
    """

    weight: Tensor
    bias: Tensor
    out_weight: Tensor
    out_bias: Tensor

    def __call__(self, x: Tensor, activation: Activation) -> Tensor:
        """Outputs `[N, K]` of features `[N, d]`."""
        return activate(x @ self.weight.T + self.bias, activation) @ self.out_weight.T + self.out_bias

    @classmethod
    def unpack(cls, flat: Tensor, shape: tuple[int, int, int]) -> Neurons:
        """Views into one vector; `shape` is (J, d, K)."""
        j, d, k = shape
        weight, bias, out_weight, out_bias = flat.split([j * d, j, k * j, k])
        return cls(weight.view(j, d), bias, out_weight.view(k, j), out_bias)


def activate(z: Tensor, activation: Activation) -> Tensor:
    """The activation of hidden neurons."""
    return z.sigmoid() if activation == "logistic" else z.tanh() if activation == "tanh" else z.relu()


def loss_and_gradient(
    flat: Tensor, shape: tuple[int, int, int], x: Tensor, targets: Tensor, activation: Activation, alpha: float
) -> tuple[Tensor, Tensor]:
    r"""Half the mean squared error plus :math:`\tfrac{\alpha}{2N} \lVert W \rVert^2`, and its gradient `[P]`.

    Written out by hand, since L-BFGS calls it for a handful of neurons some thousand times.
    """
    neurons = Neurons.unpack(flat, shape)
    h = activate(x @ neurons.weight.T + neurons.bias, activation)
    error = h @ neurons.out_weight.T + neurons.out_bias - targets
    decay = alpha / len(x)
    loss = error.square().sum() / (2 * len(x)) + decay / 2 * (
        neurons.weight.square().sum() + neurons.out_weight.square().sum()
    )
    error = error / len(x)
    slope = h * (1 - h) if activation == "logistic" else 1 - h.square() if activation == "tanh" else (h > 0).to(h)
    inner = (error @ neurons.out_weight) * slope
    gradient = torch.cat(
        [
            (inner.T @ x + decay * neurons.weight).flatten(),
            inner.sum(0),
            (error.T @ h + decay * neurons.out_weight).flatten(),
            error.sum(0),
        ]
    )
    return loss, gradient


def fit_neurons(
    x: Tensor,
    targets: Tensor,
    count: int,
    *,
    activation: Activation,
    solver: Solver,
    max_iter: int,
    alpha: float,
    generator: torch.Generator,
) -> tuple[Neurons, int]:
    """Fits J = `count` neurons to targets `[N, K]`, from weights drawn as Glorot and Bengio (2010) do.

    Also gives the number of iterations, or of passes, that it took.

    Args:
        x: features `[N, d]`.
        targets: what to fit.
        count: J.
        activation: of the neurons.
        solver: "lbfgs", or "adam" in batches of 200.
        max_iter: iterations of L-BFGS, or passes of Adam over the data.
        alpha: weight of the penalty.
        generator: of the starting weights, and of the batches.
    """
    shape = (count, x.shape[1], targets.shape[1])
    gain = 2.0 if activation == "logistic" else 6.0
    start = []
    for rows, columns in ((count, x.shape[1]), (targets.shape[1], count)):
        bound = (gain / (rows + columns)) ** 0.5
        start.append(bound * (2 * torch.rand(rows * columns + rows, generator=generator, dtype=torch.float64) - 1))
    flat = torch.cat(start).to(x.device)
    if solver == "adam":
        return Neurons.unpack(_adam(flat, shape, x, targets, activation, alpha, max_iter, generator), shape), max_iter

    def evaluate(point: object) -> tuple[float, object]:
        at = torch.as_tensor(point, dtype=torch.float64, device=x.device)
        loss, gradient = loss_and_gradient(at, shape, x, targets, activation, alpha)
        return float(loss), gradient.cpu().numpy()

    found = minimize(evaluate, flat.cpu().numpy(), jac=True, method="L-BFGS-B", options={"maxiter": max_iter})
    return Neurons.unpack(torch.from_numpy(found.x).to(x.device), shape), int(found.nit)


def _adam(
    flat: Tensor,
    shape: tuple[int, int, int],
    x: Tensor,
    targets: Tensor,
    activation: Activation,
    alpha: float,
    epochs: int,
    generator: torch.Generator,
) -> Tensor:
    parameter = torch.nn.Parameter(flat)
    optimizer = torch.optim.Adam([parameter], lr=1e-3)
    for _ in range(epochs):
        for rows in torch.randperm(len(x), generator=generator).to(x.device).split(200):
            parameter.grad = loss_and_gradient(parameter.detach(), shape, x[rows], targets[rows], activation, alpha)[1]
            optimizer.step()
    return parameter.detach()
