"""Soft top-k: how surely each label is among the k highest, as a loss for several labels a sample."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor
from torch.nn import functional as F

from repertoire.errors import ShapeError
from repertoire.losses.contracts._base import Reduction, reduce
from repertoire.losses.contracts._classes import at_least_float32
from repertoire.losses.contracts._multilabel import MultiLabelLoss, check_multilabel
from repertoire.ranges import AtLeast, Positive, checked
from repertoire.registry import register

__all__ = ["SoftTopK", "log_soft_topk", "soft_topk_loss"]


@checked
def log_soft_topk(scores: Tensor, k: int | Tensor, *, sharpness: Annotated[float, Positive] = 1.0) -> Tensor:
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
        log z, `[N, C]`; float32 for half-precision scores, else of their dtype. It has second derivatives.

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
    return _log_soft_topk(scores, wanted.expand(len(scores))[:, None], torch.ones_like(scores, dtype=torch.bool))


def _log_soft_topk(scores: Tensor, k: Tensor, known: Tensor) -> Tensor:
    """At sharpness 1, among the known scores; k is `[N, 1]`."""
    if not scores.numel():
        return 0.0 * scores
    inside = (k > 0) & (k < known.sum(1, keepdim=True))
    with torch.no_grad():
        order = scores.detach().masked_fill(~known, -torch.inf).argsort(dim=1, descending=True, stable=True)
        top = known & (order.argsort(dim=1) < k)
        rest = known & ~top
        # Half-way between the last of the k highest and the next; from there on Newton's method, whose steps are safe
        # because the slope is never far from one: the excess is a difference of logarithms.
        last = scores.masked_fill(~top, torch.inf).amin(1, keepdim=True)
        following = scores.masked_fill(~rest, -torch.inf).amax(1, keepdim=True)
        start = torch.where(inside, -(last + following) / 2, 0.0)
        # An infinite score has a place for sure, which would hide it.
        start = start + 0.0 * scores.abs().amax(1, keepdim=True)
        for _ in range(6):
            start = _newton(scores, start, top, rest, inside)
    # Two more steps that autograd follows: as many derivatives of the threshold are exact.
    threshold = _newton(scores, _newton(scores, start, top, rest, inside), top, rest, inside)
    nothing = torch.zeros_like(start).masked_fill(k <= 0, torch.finfo(scores.dtype).min)
    return torch.where(inside, F.logsigmoid(scores + threshold), nothing)


def _newton(scores: Tensor, threshold: Tensor, top: Tensor, rest: Tensor, inside: Tensor) -> Tensor:
    excess, slope = _excess(scores + threshold, top, rest)
    return threshold - torch.where(inside, excess / torch.where(inside, slope, 1.0), 0.0)


def _excess(shifted: Tensor, top: Tensor, rest: Tensor) -> tuple[Tensor, Tensor]:
    """Logarithm of what the others have over what the k highest lack, zero at the threshold, and its slope `[N, 1]`.

    That the sum of all is k cannot be seen in floating point once the k highest round to one.
    """
    logs = F.logsigmoid(torch.where(top, -shifted, shifted))
    least = torch.finfo(logs.dtype).min / 4
    inner, outer = logs.masked_fill(~top, least), logs.masked_fill(~rest, least)
    excess = outer.logsumexp(1, keepdim=True) - inner.logsumexp(1, keepdim=True)
    slope = (outer.softmax(1) * torch.sigmoid(-shifted) + inner.softmax(1) * torch.sigmoid(shifted)).sum(
        1, keepdim=True
    )
    return excess, slope


@checked
def soft_topk_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    k: Annotated[int, AtLeast(1)] | None = None,
    sharpness: Annotated[float, Positive] = 1.0,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Several labels a sample, which are to be among the k highest logits.

    Gupta et al., *Dual-Encoders for Extreme Multi-Label Classification* (2024):

    .. math:: \ell_i = -\sum_{p \in P_i} \log z_{ip}

    with the labels P of sample i and z of :func:`repertoire.losses.log_soft_topk`. Where what counts is the precision
    of the first k answers, order among them does not matter, and nor does what lies far below: what is pushed is near
    the threshold.

    Args:
        logits: float `[N, C]`: of a classifier, or the similarities of N queries and C documents.
        targets: `[N, C]`, 1 where a label holds, 0 where it does not, -1 where nobody knows.
        k: how many answers count, from 1; that of precision at k in the paper. None (default): as many as the sample
            has labels. Where it is C or more, nothing is left to learn and the loss is zero.
        sharpness: alpha, positive; about 1 for the logits of a classifier, 20 for cosines.
        reduction: "mean" (default) and "sum" over samples give a scalar, "none" gives `[N]`, summed over labels;
            the released code divides that sum by the number of labels.

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
    logits, targets, known = check_multilabel(logits, targets, binary=True)
    count = targets.sum(1, keepdim=True).long() if k is None else known.sum(1, keepdim=True).clamp_max(k)
    log_z = _log_soft_topk(logits * sharpness, count, known)
    return reduce(-(targets * log_z).sum(1), reduction)


@register("losses", "soft-topk", paper="dexml")
class SoftTopK(MultiLabelLoss, function=soft_topk_loss):
    """Module form of `soft_topk_loss`."""
