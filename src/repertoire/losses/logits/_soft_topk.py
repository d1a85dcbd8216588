"""Soft top-k: how surely each label is among the k highest, as a loss for several labels a sample."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from repertoire.errors import ShapeError
from repertoire.losses.contracts._base import Reduction, check_finite, reduce
from repertoire.losses.contracts._classes import at_least_float32
from repertoire.losses.contracts._multilabel import MultiLabelLoss, check_multilabel
from repertoire.registry import register

__all__ = ["SoftTopK", "log_soft_topk", "soft_topk_loss"]


def log_soft_topk(scores: Tensor, k: int | Tensor, *, sharpness: float = 1.0) -> Tensor:
    r"""Logarithms of how surely each score is among the k highest of its row, a differentiable top-k operator.

    Gupta et al., *Dual-Encoders for Extreme Multi-Label Classification* (2024):

    .. math:: z_{ic} = \sigma\bigl(\alpha (s_{ic} + t_i)\bigr), \qquad t_i \text{ such that } \sum_c z_{ic} = k_i

    The threshold t is found by bisection, in 32 passes over the scores (64 in double precision). The gradient through
    it is exact, by the implicit function theorem, so nothing is kept of the passes.

    Args:
        scores: float `[N, C]`.
        k: how many there are to choose, in 0..C; an int, or one for each row, integers `[N]`. Where it is C, all z are
            1; where it is 0, the result is the least finite number. Neither has a gradient.
        sharpness: alpha, positive; the larger, the closer to a hard choice.

    Returns:
        log z, `[N, C]`; float32 for half-precision scores, else of their dtype. Differentiable once.

    Raises:
        ShapeError: scores that are not floating point `[N, C]`, a k of another shape, or (on the CPU) out of range.

    Example:
        >>> import torch
        >>> from repertoire.losses import log_soft_topk
        >>> log_soft_topk(torch.tensor([[3.0, 1.0, 1.0, -3.0]]), 2, sharpness=2.0).exp().round(decimals=2)
        tensor([[0.9800, 0.5100, 0.5100, 0.0000]])
    """
    if scores.ndim != 2 or not scores.is_floating_point():
        raise ShapeError(f"scores must be floating point [N, C], found {scores.dtype} {list(scores.shape)}")
    wanted = torch.as_tensor(k, device=scores.device)
    if wanted.is_floating_point() or wanted.shape not in ((), scores.shape[:1]):
        raise ShapeError(
            f"k must be an integer, or one for each row [{len(scores)}], found {wanted.dtype} {list(wanted.shape)}"
        )
    if wanted.device.type == "cpu" and wanted.numel() and not torch.compiler.is_compiling():
        low, high = (int(bound) for bound in wanted.aminmax())
        if low < 0 or high > scores.shape[1]:
            raise ShapeError(f"k must lie in 0..{scores.shape[1]}, found {low if low < 0 else high}")
    scores = at_least_float32(scores) * sharpness
    found: Tensor = _LogSoftTopK.apply(scores, wanted.to(scores.dtype).expand(len(scores))[:, None])
    return found


class _LogSoftTopK(torch.autograd.Function):
    """At sharpness 1; k is `[N, 1]`."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, k: Tensor) -> Tensor:
        count = scores.shape[1]
        if not scores.numel():
            return torch.zeros_like(scores)
        inside = (k > 0) & (k < count)
        share = torch.where(inside, k / count, 0.5)
        # With the largest score in the place of all others the sum would be at most k, with the smallest at least.
        least, most = scores.aminmax(dim=1, keepdim=True)
        low, high = torch.logit(share) - most, torch.logit(share) - least
        for _ in range(32 if scores.dtype == torch.float32 else 64):
            middle = (low + high) / 2
            above = torch.sigmoid(scores + middle).sum(1, keepdim=True) > k
            low, high = torch.where(above, low, middle), torch.where(above, middle, high)
        shifted = scores + (low + high) / 2
        ctx.save_for_backward(shifted, inside)
        nothing = torch.zeros_like(k).masked_fill(k <= 0, torch.finfo(scores.dtype).min)
        return torch.where(inside, F.logsigmoid(shifted), nothing)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None]:
        if not gradient.numel():
            return gradient, None
        shifted, inside = ctx.saved_tensors
        direct = gradient * torch.sigmoid(-shifted)
        # The threshold moves by z (1 - z), over its sum; from logarithms, because all of them may underflow.
        share = (F.logsigmoid(shifted) + F.logsigmoid(-shifted)).softmax(1)
        return (direct - direct.sum(1, keepdim=True) * share).masked_fill(~inside, 0.0), None


def soft_topk_loss(
    logits: Tensor, targets: Tensor, *, k: int | None = None, sharpness: float = 1.0, reduction: Reduction = "mean"
) -> Tensor:
    r"""Several labels a sample, which are to be among the k highest logits.

    Gupta et al., *Dual-Encoders for Extreme Multi-Label Classification* (2024):

    .. math:: \ell_i = -\sum_{p \in P_i} \log z_{ip}

    with the labels P of sample i and z of :func:`repertoire.losses.log_soft_topk`. Where what counts is the precision
    of the first k answers, order among them does not matter, and nor does what lies far below: what is pushed is near
    the threshold.

    Args:
        logits: float `[N, C]`: of a classifier, or the similarities of N queries and C documents.
        targets: `[N, C]`, 1 where a label holds, 0 where it does not.
        k: how many answers count, from 1; that of precision at k in the paper. None (default): as many as the sample
            has labels. Where it is C or more, nothing is left to learn and the loss is zero.
        sharpness: alpha, positive; about 1 for the logits of a classifier, 20 for cosines.
        reduction: "mean" (default) and "sum" over samples give a scalar, "none" gives `[N]`, summed over labels.

    Returns:
        The loss; float32 for half-precision logits, else of their dtype.

    Raises:
        ShapeError: shapes or dtypes that do not fit, or (on the CPU) targets other than 0 and 1.

    Example:
        >>> import torch
        >>> from repertoire.losses import soft_topk_loss
        >>> soft_topk_loss(torch.zeros(1, 4), torch.tensor([[1, 1, 0, 0]]))  # each is in with probability 1/2: 2 log 2
        tensor(1.3863)
    """
    logits, targets = check_multilabel(logits, targets, binary=True)
    count = targets.sum(1).long() if k is None else min(k, logits.shape[1])
    log_z = log_soft_topk(logits, count, sharpness=sharpness)
    return reduce(-(targets * log_z).sum(1), reduction)


@register("losses", "soft-topk", paper="dexml")
class SoftTopK(MultiLabelLoss):
    r"""Several labels a sample, which are to be among the k highest logits.

    The module form of :func:`repertoire.losses.soft_topk_loss`, which gives the paper and the formula.

    Args:
        k: how many answers count, from 1; as many as the sample has labels if None.
        sharpness: how close to a hard choice, positive; about 1 for the logits of a classifier, 20 for cosines.
        reduction: "mean" (default) and "sum" give a scalar, "none" gives `[N]`.

    Shapes:
        logits float `[N, C]`; targets multi-hot `[N, C]`.

    Raises:
        ValueError: k below 1, or a sharpness that is not positive.

    Example:
        >>> import torch
        >>> from repertoire.losses import SoftTopK
        >>> SoftTopK(k=2)(torch.zeros(1, 4), torch.tensor([[1, 1, 0, 0]]))
        tensor(1.3863)
    """

    def __init__(self, k: int | None = None, sharpness: float = 1.0, reduction: Reduction = "mean") -> None:
        super().__init__(reduction)
        if k is not None and k < 1:
            raise ValueError(f"k must be 1 or more, found {k}")
        if not sharpness > 0:
            raise ValueError(f"sharpness must be positive, found {sharpness}")
        check_finite(sharpness=sharpness)
        self.k = k
        self.sharpness = sharpness

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss of logits `[N, C]` against multi-hot targets `[N, C]`."""
        return soft_topk_loss(logits, targets, k=self.k, sharpness=self.sharpness, reduction=self.reduction)
