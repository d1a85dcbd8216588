"""Several labels a sample of which only one is known: entropy maximisation, and asymmetric pseudo-labels."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor
from torch.nn import functional as F

from repertoire.errors import ShapeError
from repertoire.losses.contracts._base import Reduction, reduce
from repertoire.losses.contracts._multilabel import MultiLabelLoss, check_multilabel
from repertoire.ranges import AtLeast, Share, checked
from repertoire.registry import register

__all__ = ["SinglePositive", "asymmetric_pseudo_labels", "single_positive_loss"]


@checked
def single_positive_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    alpha: Annotated[float, AtLeast(0)] = 0.1,
    beta: Annotated[float, AtLeast(0)] = 0.2,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Several labels a sample of which only one is known, the others being unknown and not absent.

    Zhou et al., *Acknowledging the Unknown for Multi-label Learning with Single Positive Labels* (2022):

    .. math::
        \ell_i = \frac{1}{C} \sum_c \begin{cases}
            -\log p_{ic} & \text{a known label} \\
            -\alpha\,H(p_{ic}) & \text{an unknown one} \\
            \beta\,\bigl(-q_{ic} \log p_{ic} - (1 - q_{ic}) \log(1 - p_{ic})\bigr) & \text{a pseudo-label q}
        \end{cases}, \qquad p = \sigma(f)

    with the entropy :math:`H(p) = -p \log p - (1 - p) \log(1 - p)`. Where nothing is known the loss asks for no more
    than indecision, and asks it gently near p = 0 and p = 1. After a few epochs :func:`asymmetric_pseudo_labels` turns
    the least likely unknown labels into pseudo-labels.

    Args:
        logits: float `[N, C]`.
        targets: `[N, C]`: 1 for a known label, 0 or -1 for an unknown one, -q for a pseudo-label of probability q
            in (0, 1).
        alpha: weight of the entropy, 0 or more; from 0.01 to 0.2 in the paper.
        beta: weight of the pseudo-labels, 0 or more; from 0.02 to 0.9 in the paper, by data set.
        reduction: "mean" (default) and "sum" over samples give a scalar, "none" gives `[N]`, averaged over labels.

    Returns:
        The loss, which may be negative; float32 for half-precision logits, else of their dtype.

    Raises:
        ShapeError: shapes or dtypes that do not fit, or (on the CPU) targets outside [-1, 1].

    Example:
        >>> import torch
        >>> from repertoire.losses import single_positive_loss
        >>> single_positive_loss(torch.zeros(1, 2), torch.tensor([[1, 0]]))  # (log 2 - 0.1 log 2) / 2
        tensor(0.3119)
    """
    logits, targets, _ = check_multilabel(logits, targets, low=-1.0)
    log_p, log_not_p = F.logsigmoid(logits), F.logsigmoid(-logits)
    p = torch.sigmoid(logits)
    unknown = alpha * (p * log_p + (1 - p) * log_not_p)
    pseudo = beta * (targets * log_p - (1 + targets) * log_not_p)
    losses = torch.where(targets > 0, -log_p, torch.where(targets < 0, pseudo, unknown))
    return reduce(losses.sum(1) / max(logits.shape[1], 1), reduction)


@checked
def asymmetric_pseudo_labels(logits: Tensor, targets: Tensor, *, share: Annotated[float, Share]) -> Tensor:
    """Targets in which the least likely unknown labels of each class have become pseudo-labels.

    Zhou et al., *Acknowledging the Unknown for Multi-label Learning with Single Positive Labels* (2022). Unlikely
    labels are absent almost surely, likely ones present far less surely, so only the former are assigned, with the
    model's own probability as a soft label. The paper assigns 90% of them in equal parts over the epochs after a
    warm-up: call this after each of those epochs, on the whole training set, with `share=0.9 / epochs`.

    Args:
        logits: of the model on the whole training set, float `[N, C]`.
        targets: of the training set, float `[N, C]`: 1 known, 0 unknown, negative a pseudo-label, which stays.
        share: in [0, 1], of each class's labels that are not known positives; so many are assigned, rounded down.

    Returns:
        New targets of the same dtype, for `single_positive_loss`.

    Raises:
        ShapeError: shapes or dtypes that do not fit, or (on the CPU) targets outside [-1, 1].
        ConfigError: a share outside [0, 1].

    Example:
        >>> import torch
        >>> from repertoire.losses import asymmetric_pseudo_labels
        >>> logits = torch.tensor([[3.0], [-2.0], [1.0]])
        >>> asymmetric_pseudo_labels(logits, torch.tensor([[1.0], [0.0], [0.0]]), share=0.5)
        tensor([[ 1.0000],
                [-0.1192],
                [ 0.0000]])
    """
    if not targets.is_floating_point():
        raise ShapeError(f"targets must be floating point to hold pseudo-labels, found {targets.dtype}")
    scores, values, _ = check_multilabel(logits.detach(), targets, low=-1.0)
    unknown = values == 0
    count = ((values <= 0).sum(0).double() * share).floor().long()
    # A stable sort of the whole column: labels that are not unknown go last, and are never assigned.
    order = scores.masked_fill(~unknown, torch.inf).argsort(dim=0, stable=True)
    rank = torch.arange(len(targets), device=targets.device)[:, None].expand_as(order)
    chosen = torch.zeros_like(unknown).scatter(0, order, rank < count) & unknown
    tiny, eps = torch.finfo(targets.dtype).tiny, torch.finfo(targets.dtype).eps
    probability = torch.sigmoid(scores).to(targets.dtype).clamp(tiny, 1 - eps)  # -0 and -1 are unknown
    return torch.where(chosen, -probability, targets)


@register("losses", "single-positive", paper="em-apl")
class SinglePositive(MultiLabelLoss, function=single_positive_loss):
    """Module form of `single_positive_loss`."""

    of_unknown = True
