"""What a mean of weights gets right that both of its networks get wrong."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from repertoire.errors import ShapeError

__all__ = ["MergeRight", "both_wrong_merge_right"]


class MergeRight(NamedTuple):
    """Shares of all samples, in [0, 1].

    Attributes:
        both_wrong: both networks are wrong.
        merge_right: both networks are wrong, and the merged one is right.
        both_right: both networks are right.
        merge_wrong: both networks are right, and the merged one is wrong.
    """

    both_wrong: float
    merge_right: float
    both_right: float
    merge_wrong: float


def both_wrong_merge_right(
    first: Tensor | np.ndarray, second: Tensor | np.ndarray, merged: Tensor | np.ndarray, labels: Tensor | np.ndarray
) -> MergeRight:
    """How often a merged network is right where both of its parents are wrong, and the other way round.

    Lin et al., *Spurious Feature Diversification Improves Out-of-distribution Generalization* (2023), see many such
    samples under a change of distribution. No choice between the two networks could get these right; the paper explains
    them by spurious cues that err in different directions.

    Args:
        first, second, merged: logits or probabilities `[N, C]` of the networks, or their answers, integers `[N]`.
        labels: integers `[N]`.

    Returns:
        Shares of all samples.

    Raises:
        ShapeError: the outputs are not of the same samples, or there are none.

    Example:
        >>> import torch
        >>> from repertoire.diagnostics import both_wrong_merge_right
        >>> answers = [torch.tensor(row) for row in ([1, 0, 2, 2], [2, 0, 1, 2], [0, 0, 1, 1])]
        >>> both_wrong_merge_right(*answers, labels=torch.tensor([0, 0, 0, 2]))
        MergeRight(both_wrong=0.5, merge_right=0.25, both_right=0.5, merge_wrong=0.25)
    """
    truth = torch.as_tensor(labels)
    right = []
    for name, outputs in (("first", first), ("second", second), ("merged", merged)):
        values = torch.as_tensor(outputs)
        answers = values.argmax(1) if values.ndim == 2 else values
        if answers.shape != truth.shape or truth.ndim != 1 or len(truth) == 0:
            raise ShapeError(
                f"{name} must be outputs [N, C] or answers [N] for the N > 0 labels, found {list(values.shape)} for "
                f"{list(truth.shape)}"
            )
        right.append(answers.to(truth.device) == truth)
    both, neither = right[0] & right[1], ~right[0] & ~right[1]
    parts = (neither, neither & right[2], both, both & ~right[2])
    return MergeRight(*(float(part.double().mean()) for part in parts))
