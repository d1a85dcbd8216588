"""A hinge on the energy of logits, inside and outside of the data."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from repertoire.errors import ShapeError

__all__ = ["energy_hinge"]


def energy_hinge(inside: Tensor, outside: Tensor, low: float, high: float) -> Tensor:
    r"""What it costs that samples have too high an energy, and outliers too low a one.

    With the energy :math:`E = -\log \sum_k e^{f_k}` of logits, and H the loss of Huber with a threshold of 1,

    .. math:: \operatorname{mean}_i H\bigl(\max(0, E_i - t_{in})\bigr) +
        \operatorname{mean}_j H\bigl(\max(0, t_{out} - E_j)\bigr)

    as in Huang, Chen and Hsu, *OVOR: OnePrompt with Virtual Outlier Regularization for Rehearsal-Free Class-Incremental
    Learning* (2024).

    Args:
        inside: floating point `[N, K]`, logits of samples.
        outside: floating point `[M, K]`, logits of outliers.
        low: t_in, what the energy of samples should be at most.
        high: t_out, what that of outliers should be at least.

    Returns:
        A scalar; what is empty costs nothing.

    Raises:
        ShapeError: these are no matrices.

    Example:
        >>> import torch
        >>> from repertoire.ops import energy_hinge
        >>> energy_hinge(torch.tensor([[3.0]]), torch.tensor([[1.5]]), low=-2.0, high=-1.0)
        tensor(0.1250)
    """
    for name, logits in (("inside", inside), ("outside", outside)):
        if logits.ndim != 2 or not logits.is_floating_point():
            raise ShapeError(f"{name} must be floating point logits [N, K], found {logits.dtype} {list(logits.shape)}")
    total = inside.new_zeros(())
    for excess in (-inside.logsumexp(1) - low, high + outside.logsumexp(1)):
        if len(excess):
            total = total + F.huber_loss(excess.relu(), torch.zeros_like(excess))
    return total
