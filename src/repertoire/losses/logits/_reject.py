"""Learning when to abstain: a loss for the score that accepts or rejects the answers of a fixed predictor."""

from __future__ import annotations

import math
from typing import Annotated

from torch import Tensor

from repertoire.losses.contracts._base import Reduction, reduce
from repertoire.losses.contracts._multilabel import MultiLabelLoss, check_multilabel
from repertoire.ranges import Between, checked
from repertoire.registry import register

__all__ = ["Reject", "reject_loss"]

# The exponent from which an exponential goes on as its tangent; at r = 0, where it decides, none comes near it.
_STRAIGHT = 10.0


@checked
def reject_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    cost: Annotated[float, Between(0, 1, "()")] = 0.1,
    alpha: Annotated[float, Between(0, 2 * _STRAIGHT, "(]")] = 4.0,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Learning when to abstain: trains the score that accepts or rejects the answers of a fixed predictor.

    Mohri et al., *Learning to Reject with a Fixed Predictor: Application to Decontextualization* (2024). An answer is
    accepted where r > 0. To accept a wrong one costs 1, to reject one costs c, whether right or wrong; in place of that
    step function of r the surrogate is

    .. math::
        \ell_i = e^{\frac{\alpha}{2} (r_i - a_i)} + c\,e^{-\beta r_i}, \qquad
        \beta = \frac{\alpha}{2c} \left( c\,e^{\alpha / 2} + (1 - c)\,e^{-\alpha / 2} \right)

    where a is 1 for a right answer and -1 for a wrong one. With this beta the best r is positive exactly where the
    answer is wrong with a probability below c, so the threshold is 0 and needs no tuning.

    Where an exponent is beyond 10 the exponential goes on as its tangent, so that a poor start does not overflow. The
    surrogate stays convex, and the sign of the best r what it was.

    Args:
        logits: the scores r, float `[N, K]`, for K fixed predictors; K is usually 1.
        targets: `[N, K]`, 1 where the predictor is right, 0 where it is wrong.
        cost: c in (0, 1), the price of an answer rejected; above it in probability of error, rejecting pays.
        alpha: in (0, 20]; how steep the surrogate is. The paper uses 2 to 4.
        reduction: "mean" (default) and "sum" over samples give a scalar, "none" gives `[N]`, summed over predictors.

    Returns:
        The loss; float32 for half-precision logits, else of their dtype.

    Raises:
        ShapeError: shapes or dtypes that do not fit, or (on the CPU) targets outside [0, 1].

    Example:
        >>> import torch
        >>> from repertoire.losses import reject_loss
        >>> reject_loss(torch.zeros(1, 1), torch.tensor([[0]]), cost=0.5, alpha=2.0)  # e + 0.5
        tensor(3.2183)
    """
    scores, targets, known = check_multilabel(logits, targets)
    beta = _beta(cost, alpha)
    accepting = targets * _exp(alpha / 2 * (scores - 1)) + (1 - targets) * _exp(alpha / 2 * (scores + 1))
    each = accepting + cost * _exp(-beta * scores)
    return reduce(each.masked_fill(~known, 0.0).sum(1), reduction)


def _beta(cost: float, alpha: float) -> float:
    return alpha / (2 * cost) * (cost * math.exp(alpha / 2) + (1 - cost) * math.exp(-alpha / 2))


def _exp(exponent: Tensor) -> Tensor:
    bounded = exponent.clamp_max(_STRAIGHT)
    return bounded.exp() + math.exp(_STRAIGHT) * (exponent - bounded)


@register("losses", "reject", paper="reject-fixed-predictor")
class Reject(MultiLabelLoss, function=reject_loss):
    """Module form of `reject_loss`."""
