"""Selection by how unsure a model is."""

from __future__ import annotations

import torch
from torch import Tensor

from repertoire.registry import register
from repertoire.select._contract import check_probabilities, highest

__all__ = ["entropy", "least_confidence", "margin"]


@register("selectors", "entropy")
def entropy(probabilities: Tensor, budget: int) -> Tensor:
    r"""Takes the samples whose predicted distribution is the most spread out.

    Settles, *Active Learning Literature Survey* (2009). The score is :math:`-\sum_c p_c \log p_c`.

    Args:
        probabilities: float `[N, C]`, rows that sum to 1.
        budget: how many, from 1 to N.

    Returns:
        int64 `[budget]`, the most unsure first.

    Raises:
        ShapeError: no distributions. ConfigError: a budget out of range.

    Example:
        >>> import torch
        >>> from repertoire.select import entropy
        >>> entropy(torch.tensor([[0.98, 0.01, 0.01], [0.5, 0.5, 0.0], [0.4, 0.3, 0.3]]), 2)
        tensor([2, 1])
    """
    check_probabilities(probabilities)
    return highest(torch.special.entr(probabilities.double()).sum(1), budget)


@register("selectors", "margin")
def margin(probabilities: Tensor, budget: int) -> Tensor:
    """Takes the samples whose two most probable classes are nearest to each other.

    Scheffer, Decomain and Wrobel, *Active Hidden Markov Models for Information Extraction* (2001). The score is the
    second largest probability less the largest.

    Args:
        probabilities: float `[N, C]`, rows that sum to 1.
        budget: how many, from 1 to N.

    Returns:
        int64 `[budget]`, the closest call first.

    Raises:
        ShapeError: no distributions. ConfigError: a budget out of range.

    Example:
        >>> import torch
        >>> from repertoire.select import margin
        >>> margin(torch.tensor([[0.98, 0.01, 0.01], [0.5, 0.5, 0.0], [0.4, 0.3, 0.3]]), 2)
        tensor([1, 2])
    """
    check_probabilities(probabilities)
    first, second = probabilities.double().topk(2, dim=1).values.unbind(1)
    return highest(second - first, budget)


@register("selectors", "least-confidence")
def least_confidence(probabilities: Tensor, budget: int) -> Tensor:
    """Takes the samples whose most probable class is the least probable.

    Lewis and Gale, *A Sequential Algorithm for Training Text Classifiers* (1994).

    Args:
        probabilities: float `[N, C]`, rows that sum to 1.
        budget: how many, from 1 to N.

    Returns:
        int64 `[budget]`, the least confident first.

    Raises:
        ShapeError: no distributions. ConfigError: a budget out of range.

    Example:
        >>> import torch
        >>> from repertoire.select import least_confidence
        >>> least_confidence(torch.tensor([[0.98, 0.01, 0.01], [0.5, 0.5, 0.0], [0.4, 0.3, 0.3]]), 1)
        tensor([2])
    """
    check_probabilities(probabilities)
    return highest(-probabilities.double().amax(1), budget)
