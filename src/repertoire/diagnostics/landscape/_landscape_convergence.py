"""Change of the loss landscape when one more sample is added."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.diagnostics._objective import Loss, finite
from repertoire.diagnostics.landscape._directions import trainable
from repertoire.errors import ConfigError, DataError, ShapeError
from repertoire.ops import evaluating, handing_copies

__all__ = ["LandscapeConvergence", "landscape_convergence"]


class LandscapeConvergence(NamedTuple):
    """The change of a landscape with the number of samples.

    Attributes:
        sizes: int64 `[N - 1]`, k from 1 to N - 1.
        change: float64 `[N - 1]`, the mean square of the change of the mean loss when sample k + 1 is added.
        scale: the spread of the loss of one sample about the mean loss: where samples are drawn alike, the change is
            about the square of `scale / (k + 1)`.
    """

    sizes: Tensor
    change: Tensor
    scale: float

    def samples_for(self, tolerance: float) -> int:
        """After how many samples one more changes the mean loss by no more than a tolerance, in the root mean square.

        >>> LandscapeConvergence(torch.tensor([1]), torch.tensor([0.25]), scale=1.0).samples_for(0.01)
        99
        """
        if not tolerance > 0:
            raise ConfigError(f"tolerance must be positive, found {tolerance}")
        return max(1, math.ceil(self.scale / tolerance) - 1)


@torch.no_grad()
def landscape_convergence(
    model: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    loss: Loss | None = None,
    *,
    sigma: float = 0.0,
    points: int = 16,
    orders: int = 16,
    seed: int = 0,
) -> LandscapeConvergence:
    r"""Measures the change of the mean loss near the weights when one more sample is added.

    Kiselev and Grabovoy, *Unraveling the Hessian: A Key to Smooth Convergence in Loss Function Landscapes* (2024), look
    at

    .. math:: L_{k+1}(\theta) - L_k(\theta) = \frac{\ell_{k+1}(\theta) - L_k(\theta)}{k + 1}

    and bound it through the loss at the optimum and the Hessians of the samples there; its size falls like 1/k. Here
    its mean square is taken over Gaussian points :math:`\theta \sim \mathcal{N}(\theta^*, \sigma^2 I)` and over random
    orders of the samples. The released code draws one order, and looks only at the optimum: :math:`\sigma = 0`. (The
    paper's expansion of the second order has lost its factor one half when it comes to the difference; nothing here
    depends on it.)

    All sizes come from one pass over the samples for each point: the mean losses are running sums.

    Args:
        model: any module, with the weights of a minimum; left as it was, and evaluated in evaluation mode.
        inputs: `[N, ...]`.
        targets: `[N, ...]`.
        loss: of outputs and targets, called as `loss(outputs, targets, reduction="none")` and giving `[N]` or
            `[N, ...]`, which is averaged; cross-entropy by default.
        sigma: standard deviation of each weight about the minimum, at least 0.
        points: number of Gaussian points; one without a sigma.
        orders: number of random orders.
        seed: of points and orders.

    Returns:
        The change for each size.

    Raises:
        ConfigError: an option out of range, or no parameter needs a gradient. DataError: fewer than two samples.
        ShapeError: inputs and targets of different lengths. NonFiniteLoss: the loss of a sample is not finite.

    Example:
        >>> import torch
        >>> from repertoire.diagnostics import landscape_convergence
        >>> model, x = torch.nn.Linear(1, 1, bias=False), torch.linspace(-1, 1, 500)[:, None]
        >>> _ = torch.nn.init.zeros_(model.weight)
        >>> found = landscape_convergence(model, x, x, torch.nn.functional.mse_loss)
        >>> round(found.scale, 2), found.samples_for(0.01)
        (0.3, 29)
    """
    if not 0 <= sigma < math.inf or points < 1 or orders < 1:
        raise ConfigError(
            f"sigma must be at least 0, points and orders at least 1, found {sigma}, {points} and {orders}"
        )
    if len(inputs) != len(targets):
        raise ShapeError(f"there are {len(inputs)} inputs and {len(targets)} targets")
    if len(inputs) < 2:
        raise DataError(f"there must be at least two samples, found {len(inputs)}")
    weights = trainable(model)
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.stack([torch.randperm(len(inputs), generator=generator) for _ in range(orders)])
    sizes = torch.arange(1, len(inputs))
    change = torch.zeros(len(sizes), dtype=torch.float64)
    spread = 0.0
    count = points if sigma > 0 else 1
    with evaluating(model), handing_copies(model):
        for _ in range(count):
            moved = {
                name: weight + sigma * torch.randn(weight.shape, generator=generator).to(weight)
                if sigma > 0
                else weight
                for name, weight in weights.items()
            }
            losses = _sample_losses(model, moved, inputs, targets, loss).double().cpu()
            spread += float(losses.var())
            rows = losses[shuffled]
            running = rows.cumsum(1)[:, :-1] / sizes
            change += ((rows[:, 1:] - running) / (sizes + 1)).square().mean(0)
    return LandscapeConvergence(sizes, change / count, (spread / count) ** 0.5)


def _sample_losses(
    model: nn.Module, weights: dict[str, Tensor], inputs: Tensor, targets: Tensor, loss: Loss | None
) -> Tensor:
    function = F.cross_entropy if loss is None else loss
    device = next(iter(weights.values())).device
    parts = []
    for x, t in zip(inputs.split(1024), targets.split(1024), strict=True):
        outputs = torch.func.functional_call(model, weights, (x.to(device),))
        values = function(outputs, t.to(device), reduction="none")  # type: ignore[call-arg]
        if values.ndim == 0 or len(values) != len(x):
            raise ShapeError(f"loss must give one value a sample, [{len(x)}], found {list(values.shape)}")
        parts.append(values.reshape(len(x), -1).mean(1))
    return finite(torch.cat(parts), "the loss of single samples")
