"""No targets at all."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import numpy as np

from repertoire.tasks._base import Best, Outputs, Task

__all__ = ["NoTargets", "rank_me", "spread_out"]


def rank_me(embeddings: np.ndarray, epsilon: float = 1e-7) -> float:
    r"""The effective rank of embeddings: how many directions they really use.

    Garrido et al., *RankMe: Assessing the Downstream Performance of Pretrained Self-Supervised Representations by Their
    Rank* (2023): the exponential of the entropy of the singular values,

    .. math:: \exp\Bigl(-\sum_k p_k \log p_k\Bigr), \qquad p_k = \frac{\sigma_k}{\sum_j \sigma_j} + \epsilon

    Args:
        embeddings: float `[N, d]`; the paper takes 25,600 of them.
        epsilon: keeps the logarithm finite; the paper's value for float32.

    Returns:
        A number from 1 to min(N, d).

    Example:
        >>> import numpy as np
        >>> round(rank_me(np.eye(4)), 3)
        4.0
    """
    values = np.linalg.svd(embeddings.astype(np.float64), compute_uv=False)
    share = values / max(values.sum(), np.finfo(np.float64).tiny) + epsilon
    return float(np.exp(-(share * np.log(share)).sum()))


MOST = 5_000
"""Embeddings that are looked at, evenly spaced, where there are more."""


def spread_out(embeddings: np.ndarray) -> dict[str, float]:
    """Measures of how far embeddings are from all being the same, without looking at any target.

    Args:
        embeddings: float `[N, d]`, N at least 1; of more than 5,000, so many evenly spaced ones are looked at.

    Returns:
        `rank`, the effective rank (see `rank_me`), and `spread`, the mean standard deviation of a coordinate of the
        embeddings of unit length times the root of their width: 0 where all samples are mapped to one point, 1 at most.

    Example:
        >>> import numpy as np
        >>> spread_out(np.ones((8, 4)))["spread"]
        0.0
    """
    some = embeddings[np.unique(np.linspace(0, len(embeddings) - 1, min(MOST, len(embeddings))).astype(int))]
    length = np.linalg.norm(some, axis=1, keepdims=True)
    unit = some / np.maximum(length, np.finfo(np.float32).tiny)
    return {"rank": rank_me(some), "spread": float(unit.std(0).mean() * np.sqrt(some.shape[1]))}


class NoTargets(Task):
    """Samples without any target: only the embedding can be judged, by the directions that it uses.

    A rank says that an embedding has not collapsed, and ranks runs of one method well; it does not say that it is good.
    """

    kind = "none"
    loss = "cross-entropy"
    best = Best("rank", True, "", "effective rank of the embedding (RankMe)")
    headline = MappingProxyType({"rank": "rank {:.1f}"})

    @property
    def outputs(self) -> int:
        """A read-out needs a width; nothing is trained through it."""
        return max(2, len(self.names))

    def check(self, samples: Any) -> None:
        """Whatever targets there are, none is looked at."""

    def score(self, outputs: Outputs) -> dict[str, Any]:
        """Keys: `samples`; `rank` and `spread` of the embeddings (see `spread_out`); `dimensions`, their width."""
        embeddings = outputs.embeddings
        if not len(embeddings):
            return {"samples": 0}
        found = spread_out(embeddings)
        return {"samples": len(embeddings), "dimensions": int(embeddings.shape[1]), **found}
