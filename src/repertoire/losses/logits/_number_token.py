"""Number-token loss: cross-entropy over tokens, in which a token of a nearer number is a smaller mistake."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Tensor

from repertoire.errors import ConfigError, ShapeError
from repertoire.losses.contracts._base import LogitsLoss, Reduction, check_logits, reduce
from repertoire.losses.contracts._classes import at_least_float32, check_classes, target_log_probabilities
from repertoire.losses.contracts._function import Kept
from repertoire.ranges import AtLeast, checked
from repertoire.registry import register

__all__ = ["NumberToken", "number_token_loss", "number_token_penalty"]

Distance = Literal["wasserstein", "squared", "absolute"]


@checked
def number_token_penalty(
    logits: Tensor,
    targets: Tensor,
    values: Tensor | None = None,
    *,
    distance: Distance = "wasserstein",
    reweigh: bool = False,
) -> Tensor:
    r"""Mean distance of the number tokens that a model expects from the right one.

    Zausinger et al., *Regress, Don't Guess: A Regression-like Loss on Number Tokens for Language Models* (2025). With
    the tokens K that stand for numbers v, and the number y of the right token:

    .. math::
        \text{wasserstein} \quad \sum_{k \in K} p_k \lvert v_k - y \rvert, \qquad
        \text{squared} \quad \Bigl(y - \sum_{k \in K} p_k v_k\Bigr)^2, \qquad
        p = \mathrm{softmax}(f_K)

    and "absolute" is the root of the second. The first is the Wasserstein distance between the prediction and the right
    token. The others compare means only: half 3 and half 5 is to them a perfect 4.

    Args:
        logits: float `[N, V]`, over the vocabulary.
        targets: int64 `[N]` in 0..V-1, the right tokens.
        values: what number each token stands for, float `[V]`, NaN for one that stands for none. Without it, token k
            stands for the number k: classes in order.
        distance: "wasserstein" (default), "squared" or "absolute".
        reweigh: the probabilities are those among number tokens, so a model that expects none of them is not asked
            anything. True counts the mass outside as slightly further away than any number can be, as later versions of
            the released code do; False (default) is the paper's.

    Returns:
        float `[N]`, zero where the right token is no number; float32 for half-precision logits, else of their dtype.

    Raises:
        ShapeError: shapes or dtypes that do not fit, or (on the CPU) a target that is no token.

    Example:
        >>> import torch
        >>> from repertoire.losses import number_token_penalty
        >>> values = torch.tensor([3.0, 4.0, 5.0, float("nan")])  # three digits and a word
        >>> logits = torch.tensor([[9.0, -99.0, 9.0, 0.0]])  # 3 or 5
        >>> number_token_penalty(logits, torch.tensor([1]), values)
        tensor([1.])
        >>> number_token_penalty(logits, torch.tensor([1]), values, distance="squared")
        tensor([0.])
    """
    check_logits(logits, targets, soft=False)
    check_classes(targets, logits.shape[1])
    if values is None:
        values = torch.arange(logits.shape[1], device=logits.device)
    if values.shape != logits.shape[1:]:
        raise ShapeError(f"values must be [{logits.shape[1]}], one for each token, found {list(values.shape)}")
    logits = at_least_float32(logits)
    values = values.to(logits)
    tokens = (~values.isnan()).nonzero().flatten()
    numbers, right = values[tokens], values[targets.long()]
    counts, right = ~right.isnan(), right.nan_to_num(0.0)
    p = logits[:, tokens].softmax(1)
    if distance == "wasserstein":
        penalty = (p * (numbers - right[:, None]).abs()).sum(1)
    else:
        away = p @ numbers - right
        penalty = away.square() if distance == "squared" else away.abs()
    if reweigh and len(tokens):
        inside = logits.softmax(1)[:, tokens].sum(1)
        furthest = 1.01 * (numbers.amax() - numbers.amin())
        outside = furthest.square() if distance == "squared" else furthest
        penalty = inside * penalty + (1 - inside) * outside
    return penalty.where(counts, 0.0)


def _as_values(values: list[float] | Tensor | None) -> Tensor | None:
    if values is None:
        return None
    numbers = torch.as_tensor(values, dtype=torch.float32).detach()
    if numbers.ndim != 1 or bool(numbers.isinf().any()):
        raise ConfigError(f"values must be [V], a number or NaN for each token, found {numbers.tolist()}")
    return numbers


@checked
def number_token_loss(
    logits: Tensor,
    targets: Tensor,
    values: Annotated[Tensor | None, Kept(_as_values)] = None,
    *,
    distance: Distance = "wasserstein",
    number_weight: Annotated[float, AtLeast(0)] = 0.3,
    reweigh: bool = False,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Cross-entropy over tokens or ordered classes, in which a nearer number is a smaller mistake.

    Zausinger et al., *Regress, Don't Guess: A Regression-like Loss on Number Tokens for Language Models* (2025):

    .. math:: \ell_i = -\log \mathrm{softmax}(f_i)_{y_i} + \lambda\,d_i

    with the distance d of :func:`repertoire.losses.number_token_penalty`, zero where the right token is no number. The
    paper averages d over the tokens that are numbers; here the mean is over all of them.

    Args:
        logits: float `[N, V]`, over the vocabulary; for sequences flatten `[B, T, V]`.
        targets: int64 `[N]` in 0..V-1, the right tokens.
        values: what number each token stands for, float `[V]`, NaN for none; the numbers 0..V-1 if None.
        distance: "wasserstein" (default), "squared" or "absolute".
        number_weight: lambda, 0 or more; 0.3 in the paper.
        reweigh: whether mass on other tokens counts as far away.
        reduction: "mean" (default) and "sum" give a scalar, "none" gives `[N]`.

    Returns:
        The loss; float32 for half-precision logits, else of their dtype.

    Raises:
        ShapeError: shapes or dtypes that do not fit, or (on the CPU) a target that is no token.

    Example:
        >>> import torch
        >>> from repertoire.losses import number_token_loss
        >>> number_token_loss(torch.zeros(1, 2), torch.tensor([1]))  # log 2 + 0.3 / 2
        tensor(0.8431)
    """
    penalty = number_token_penalty(logits, targets, values, distance=distance, reweigh=reweigh)
    return reduce(number_weight * penalty - target_log_probabilities(logits, targets), reduction)


@register("losses", "number-token", paper="number-token-loss")
class NumberToken(LogitsLoss, function=number_token_loss):
    """Module form of `number_token_loss`."""

    values: Tensor | None
