"""Noise of the gradient of a batch, and the batch size up to which samples are well spent."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from repertoire.diagnostics._objective import Batches, Loss, Objective
from repertoire.errors import ConfigError, DataError
from repertoire.methods import Method

__all__ = ["GradientNoise", "gradient_noise_scale"]


class GradientNoise(NamedTuple):
    """Signal and noise of a gradient.

    Attributes:
        scale: the simple noise scale in samples: noise over signal. Batches much smaller than it are mostly noise,
            batches much larger waste samples. Infinite where no signal can be told from the noise.
        signal: estimate of the squared length of the true gradient; negative where the noise is too large to tell.
        noise: estimate of the trace of the covariance of the gradient of one sample.
    """

    scale: float
    signal: float
    noise: float


def gradient_noise_scale(model: nn.Module, batches: Batches, loss: Loss | None = None) -> GradientNoise:
    r"""The simple gradient noise scale: about the largest batch whose samples are all worth it.

    McCandlish, Kaplan, Amodei et al., *An Empirical Model of Large-Batch Training* (2018),

    .. math:: B_\mathrm{simple} = \frac{\operatorname{tr} \Sigma}{\lVert G \rVert^2}

    with the mean gradient G and the covariance :math:`\Sigma` of the gradient of one sample. Both are estimated without
    bias from gradients of n batches of :math:`b_i` samples and of all N samples together, as in the paper's appendix A,
    here for batches that need not be of one size:

    .. math::
        \operatorname{tr} \Sigma \approx \frac{\sum_i b_i \lVert g_i \rVert^2 - N \lVert g \rVert^2}{n - 1}, \qquad
        \lVert G \rVert^2 \approx \lVert g \rVert^2 - \frac{\operatorname{tr} \Sigma}{N}, \qquad
        g = \frac{1}{N} \sum_i b_i g_i

    For n equal batches that is the paper's pair of a small and a big batch. The ratio itself has a bias; more batches
    make it smaller. One pass over the batches, in the memory of two gradients. The model is in evaluation mode and
    is left as it was.

    Args:
        model: any module; the gradient is that of its parameters that need one.
        batches: at least two, of samples drawn at random: pairs of inputs and targets, or batches of `repertoire.data`.
        loss: of outputs and targets; cross-entropy by default, a method's own for batches of `repertoire.data`.

    Returns:
        The scale in samples, and the two estimates it comes from.

    Raises:
        DataError: fewer than two batches.
        ConfigError: no parameter needs a gradient, or the loss is that of a method that compares the samples of a
            batch, which has no gradient of one sample.
        NonFiniteLoss: a loss or gradient is not finite.

    Example:
        >>> import torch
        >>> from repertoire.diagnostics import gradient_noise_scale
        >>> model = torch.nn.Linear(1, 1, bias=False)
        >>> batches = [(torch.ones(2, 1), torch.ones(2, 1)), (torch.ones(2, 1), torch.ones(2, 1))]
        >>> gradient_noise_scale(model, batches, torch.nn.functional.mse_loss).scale  # all samples say the same
        0.0
    """
    objective = Objective(model, batches, loss)
    if loss is None and isinstance(model, Method) and not model.needs.per_sample:
        raise ConfigError(
            f"{type(model).__name__} compares the samples of a batch with each other, so that there is no gradient of "
            "one sample; give a loss of outputs and targets"
        )
    total: Tensor | None = None
    squares, count, samples = 0.0, 0, 0
    for gradient, _, size in objective.gradients():
        squares += size * _square(gradient)
        total = gradient * size if total is None else total.add_(gradient, alpha=size)
        count += 1
        samples += size
    if total is None or count < 2:
        raise DataError(f"the gradient noise needs at least two batches to compare, found {count}; make them smaller")
    mean = _square(total / samples)
    noise = max(squares - samples * mean, 0.0) / (count - 1)
    # Of equal gradients, rounding leaves some 1e-7 of their squares.
    if noise * (count - 1) <= 8 * torch.finfo(total.dtype).eps * squares:
        noise = 0.0
    signal = mean - noise / samples
    scale = 0.0 if noise == 0 else noise / signal if signal > 0 else math.inf
    return GradientNoise(scale, signal, noise)


def _square(vector: Tensor) -> float:
    return float(vector.double().square().sum())
