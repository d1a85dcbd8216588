"""Embeddings whose ids share rows: by a hash, and by quotient and remainder."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from repertoire.compress.embeddings._base import CompactEmbedding
from repertoire.errors import ConfigError
from repertoire.ranges import AtLeast, Positive, checked

__all__ = ["HashEmbedding", "QuotientRemainderEmbedding"]

_PRIME = 2**31 - 1


class HashEmbedding(CompactEmbedding):
    r"""Ids that share the rows of a smaller table as a hash has it.

    Weinberger et al., *Feature Hashing for Large Scale Multitask Learning* (2009). An id i has the row

    .. math:: ((a i + b) \operatorname{mod} (2^{31} - 1)) \operatorname{mod} m

    with a and b drawn by the seed. Give each feature a seed of its own, or their ids collide alike.

    Args:
        num_embeddings: number of ids, up to 2 to the power of 31.
        dim: width of the vectors.
        rows: m of the table.
        seed: of the hash; None takes the id modulo m, which the benchmark of Zhang et al. (2023) does.
        std: standard deviation of the first weights, as `nn.Embedding` has it by default.

    Example:
        >>> import torch
        >>> from repertoire.compress import HashEmbedding
        >>> table = HashEmbedding(1000, 8, rows=100)
        >>> table(torch.tensor([[3, 4]])).shape, table.bytes
        (torch.Size([1, 2, 8]), 3200)
    """

    @checked
    def __init__(
        self,
        num_embeddings: int,
        dim: int,
        *,
        rows: Annotated[int, AtLeast(1)],
        seed: int | None = 0,
        std: Annotated[float, Positive] = 1.0,
    ) -> None:
        super().__init__(num_embeddings, dim)
        self.rows = rows
        self.factors: tuple[int, int] | None = None
        if seed is not None:
            generator = torch.Generator().manual_seed(seed)
            a, b = torch.randint(1, _PRIME, (2,), generator=generator).tolist()
            self.factors = a, b
        self.weight = nn.Parameter(std * torch.randn(rows, dim))

    @classmethod
    def options_for(cls, num_embeddings: int, dim: int, size: float) -> dict[str, Any]:
        return {"rows": _rows(size, dim)}

    @property
    def bytes(self) -> int:
        return self.weight.nbytes

    def places(self, ids: Tensor) -> Tensor:
        """The row of each id."""
        if self.factors is None:
            return ids % self.rows
        a, b = self.factors
        return (a * ids + b) % _PRIME % self.rows

    def vectors(self, ids: Tensor) -> Tensor:
        return self.weight[self.places(ids)]

    def approximate(self, table: Tensor) -> None:
        """The mean of the vectors that share a row."""
        places = self.places(torch.arange(len(table), device=table.device))
        sums = torch.zeros(self.rows, table.shape[1], dtype=torch.float64, device=table.device)
        sums.index_add_(0, places, table.double())
        counts = torch.bincount(places, minlength=self.rows)
        self.weight.copy_(sums / counts.clamp_min(1)[:, None])


class QuotientRemainderEmbedding(CompactEmbedding):
    r"""Ids whose vectors are made of two: that of their remainder, and that of their quotient.

    Shi et al., *Compositional Embeddings Using Complementary Partitions for Memory-Efficient Recommendation Systems*
    (2019). No two ids share both, so that each has a vector of its own:

    .. math:: e_i = r_{i \operatorname{mod} m} \odot q_{\lfloor i / m \rfloor}

    Args:
        num_embeddings: number of ids n.
        dim: width of the vectors.
        rows: m, the number of remainders; there are n / m quotients, rounded up.
        combine: "mul" (default), or "sum" of the two.
        std: standard deviation of the first vectors.

    Example:
        >>> import torch
        >>> from repertoire.compress import QuotientRemainderEmbedding
        >>> table = QuotientRemainderEmbedding(1000, 8, rows=90)
        >>> table(torch.tensor([3, 4])).shape, table.bytes
        (torch.Size([2, 8]), 3264)
    """

    @checked
    def __init__(
        self,
        num_embeddings: int,
        dim: int,
        *,
        rows: Annotated[int, AtLeast(1)],
        combine: Literal["mul", "sum"] = "mul",
        std: Annotated[float, Positive] = 1.0,
    ) -> None:
        super().__init__(num_embeddings, dim)
        self.rows = rows
        self.combine = combine
        each = math.sqrt(std) if combine == "mul" else std / math.sqrt(2)
        self.remainder = nn.Parameter(each * torch.randn(rows, dim))
        self.quotient = nn.Parameter(each * torch.randn(-(-num_embeddings // rows), dim))

    @classmethod
    def options_for(cls, num_embeddings: int, dim: int, size: float) -> dict[str, Any]:
        total = _rows(size, dim)
        fitting = [m for m in range(1, total) if m + -(-num_embeddings // m) <= total]
        if not fitting:
            raise ConfigError(f"quotient and remainder of {num_embeddings} ids do not fit into {total} rows")
        return {"rows": fitting[-1]}

    @property
    def bytes(self) -> int:
        return self.remainder.nbytes + self.quotient.nbytes

    def vectors(self, ids: Tensor) -> Tensor:
        r, q = self.remainder[ids % self.rows], self.quotient[ids // self.rows]
        return r * q if self.combine == "mul" else r + q

    def approximate(self, table: Tensor) -> None:
        """Alternating least squares, which is exact where there is one quotient."""
        ids = torch.arange(len(table), device=table.device)
        targets = table.double()
        r_of, q_of = ids % self.rows, ids // self.rows
        product = self.combine == "mul"
        q = torch.full(self.quotient.shape, float(product), dtype=torch.float64, device=table.device)
        r = torch.zeros(self.remainder.shape, dtype=torch.float64, device=table.device)
        for _ in range(20):
            r = _least_squares(targets, q[q_of], r_of, self.rows, product)
            if len(q) > 1:
                q = _least_squares(targets, r[r_of], q_of, len(q), product)
        self.remainder.copy_(r)
        self.quotient.copy_(q)


def _least_squares(targets: Tensor, other: Tensor, owner: Tensor, count: int, product: bool) -> Tensor:
    """For each owner and dimension the value that, with the other ones given, is nearest to its targets."""

    def added(values: Tensor) -> Tensor:
        return torch.zeros(count, targets.shape[1], dtype=targets.dtype, device=targets.device).index_add_(
            0, owner, values
        )

    if product:
        return added(targets * other) / added(other.square()).clamp_min(1e-30)
    return added(targets - other) / torch.bincount(owner, minlength=count).clamp_min(1)[:, None]


def _rows(size: float, dim: int) -> int:
    rows = int(size / (4 * dim))
    if rows < 1:
        raise ConfigError(f"{size:g} bytes hold no vector of {dim} numbers; give a larger share")
    return rows
