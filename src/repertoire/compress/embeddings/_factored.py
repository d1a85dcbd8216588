"""Embeddings whose table is a product of smaller ones: low-rank, tensor-train, and blocks of several widths."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from repertoire.compress.embeddings._base import CompactEmbedding
from repertoire.errors import ConfigError
from repertoire.ranges import AtLeast, Positive, checked

__all__ = ["LowRankEmbedding", "MixedDimensionEmbedding", "TensorTrainEmbedding"]


class LowRankEmbedding(CompactEmbedding):
    """A narrow table, and a matrix that makes its vectors wider: the table is of low rank.

    Args:
        num_embeddings: number of ids n.
        dim: width of the vectors d.
        rank: r of the product of `[n, r]` and `[r, d]`.
        std: standard deviation of the first vectors.

    Example:
        >>> import torch
        >>> from repertoire.compress import LowRankEmbedding
        >>> LowRankEmbedding(1000, 16, rank=2)(torch.tensor([3, 4])).shape
        torch.Size([2, 16])
    """

    @checked
    def __init__(
        self,
        num_embeddings: int,
        dim: int,
        *,
        rank: Annotated[int, AtLeast(1)],
        std: Annotated[float, Positive] = 1.0,
    ) -> None:
        super().__init__(num_embeddings, dim)
        each = math.sqrt(std) * rank**-0.25
        self.narrow = nn.Parameter(each * torch.randn(num_embeddings, rank))
        self.wide = nn.Parameter(each * torch.randn(rank, dim))

    @classmethod
    def options_for(cls, num_embeddings: int, dim: int, size: float) -> dict[str, Any]:
        rank = int(size / (4 * (num_embeddings + dim)))
        return {"rank": _fitting(min(rank, num_embeddings, dim), num_embeddings, size)}

    @property
    def bytes(self) -> int:
        return self.narrow.nbytes + self.wide.nbytes

    def vectors(self, ids: Tensor) -> Tensor:
        return self.narrow[ids] @ self.wide

    def approximate(self, table: Tensor) -> None:
        """The singular value decomposition, cut off."""
        narrow, wide = _split(table.double(), self.narrow.shape[1])
        self.narrow.copy_(narrow)
        self.wide.copy_(wide)


class TensorTrainEmbedding(CompactEmbedding):
    r"""A table as a chain of three small tensors.

    Yin et al., *TT-Rec: Tensor Train Compression for Deep Learning Recommendation Models* (2021). With an id written in
    three digits and the vector folded into three axes, each entry is a product of matrices:

    .. math:: e_{(i_1 i_2 i_3), (j_1 j_2 j_3)} = G_1[i_1, j_1] \, G_2[i_2, j_2] \, G_3[i_3, j_3]

    Args:
        num_embeddings: number of ids; it is rounded up to a product of three.
        dim: width of the vectors, which is divided into three factors.
        rank: largest size of the matrices.
        std: standard deviation of the first vectors.

    Example:
        >>> import torch
        >>> from repertoire.compress import TensorTrainEmbedding
        >>> TensorTrainEmbedding(1000, 16, rank=8)(torch.tensor([3, 4])).shape
        torch.Size([2, 16])
    """

    @checked
    def __init__(
        self,
        num_embeddings: int,
        dim: int,
        *,
        rank: Annotated[int, AtLeast(1)],
        std: Annotated[float, Positive] = 1.0,
    ) -> None:
        super().__init__(num_embeddings, dim)
        self.digits, self.axes = _digits(num_embeddings), _axes(dim)
        first, last = _ranks(self.digits, self.axes, rank)
        each = (std**2 / (first * last)) ** (1 / 6)
        shapes = zip((1, first, last), self.digits, self.axes, (first, last, 1), strict=True)
        self.cores = nn.ParameterList([each * torch.randn(shape) for shape in shapes])

    @classmethod
    def options_for(cls, num_embeddings: int, dim: int, size: float) -> dict[str, Any]:
        digits, axes = _digits(num_embeddings), _axes(dim)
        rank = 0
        for tried in range(1, max(digits) * max(axes) + 1):
            a, b = _ranks(digits, axes, tried)
            if 4 * (digits[0] * axes[0] * a + a * digits[1] * axes[1] * b + b * digits[2] * axes[2]) > size:
                break
            rank = tried
        return {"rank": _fitting(rank, num_embeddings, size)}

    @property
    def bytes(self) -> int:
        return sum(core.nbytes for core in self.cores)

    def vectors(self, ids: Tensor) -> Tensor:
        _, second, third = self.digits
        places = (ids // (second * third), ids // third % second, ids % third)
        x = self.cores[0][0, places[0]]  # [N, axis, rank]
        for core, place in zip(list(self.cores)[1:], places[1:], strict=True):
            x = torch.einsum("nar,rnbs->nabs", x, core[:, place]).flatten(1, 2)
        return x.squeeze(2)

    def approximate(self, table: Tensor) -> None:
        """Oseledets, *Tensor-Train Decomposition* (2011): singular values, cut off from left to right."""
        (n1, n2, n3), (d1, d2, d3) = self.digits, self.axes
        padded = torch.zeros(n1 * n2 * n3, d1 * d2 * d3, dtype=torch.float64, device=table.device)
        padded[: len(table)] = table.double()
        rest = padded.view(n1, n2, n3, d1, d2, d3).permute(0, 3, 1, 4, 2, 5)
        a, b = (self.cores[k].shape[3] for k in (0, 1))
        left, rest = _split(rest.reshape(n1 * d1, -1), a)
        middle, right = _split(rest.reshape(a * n2 * d2, -1), b)
        parts = left.view(1, n1, d1, a), middle.view(a, n2, d2, b), right.view(b, n3, d3, 1)
        for core, part in zip(self.cores, parts, strict=True):
            core.copy_(part)


class MixedDimensionEmbedding(CompactEmbedding):
    r"""Frequent ids have wide vectors and rare ones narrow ones, which a matrix for each width brings to one width.

    Ginart et al., *Mixed Dimension Embeddings with Application to Memory-Efficient Recommendation Systems* (2019). Ids
    are numbered by falling frequency, as vocabularies are; the first `sizes[0]` have vectors of `dims[0]`, and so on.

    Args:
        num_embeddings: number of ids.
        dim: width of the vectors.
        sizes: how many ids each block has.
        dims: width of each block; a block of full width has no matrix.
        std: standard deviation of the first vectors.

    Raises:
        ConfigError: the blocks do not have as many ids in all, or a width is not in 1..dim.

    Example:
        >>> import torch
        >>> from repertoire.compress import MixedDimensionEmbedding
        >>> table = MixedDimensionEmbedding(1000, 16, sizes=(100, 900), dims=(16, 2))
        >>> table(torch.tensor([3, 400])).shape, table.bytes
        (torch.Size([2, 16]), 13728)
    """

    @checked
    def __init__(
        self,
        num_embeddings: int,
        dim: int,
        *,
        sizes: Sequence[int],
        dims: Sequence[int],
        std: Annotated[float, Positive] = 1.0,
    ) -> None:
        super().__init__(num_embeddings, dim)
        if sum(sizes) != num_embeddings or len(sizes) != len(dims) or min(sizes) < 1:
            raise ConfigError(f"sizes {tuple(sizes)} and dims {tuple(dims)} do not divide {num_embeddings} ids")
        if not all(1 <= width <= dim for width in dims):
            raise ConfigError(f"dims must lie in 1..{dim}, found {tuple(dims)}")
        self.blocks = nn.ParameterList([std * torch.randn(n, width) for n, width in zip(sizes, dims, strict=True)])
        self.matrices = nn.ParameterList(
            [torch.eye(dim)[:0] if width == dim else torch.randn(width, dim) / math.sqrt(width) for width in dims]
        )

    @classmethod
    def options_for(cls, num_embeddings: int, dim: int, size: float) -> dict[str, Any]:
        """Blocks that grow by a factor of 8, with widths that fall with the 0.3rd power of how often an id occurs, as
        the authors have it, where every block is as frequent as any other."""
        sizes, left, part = [], num_embeddings, max(1, num_embeddings // 512)
        while left > 0:
            sizes.append(min(part, left) if left > 2 * part else left)
            left, part = left - sizes[-1], 8 * part
        best: dict[str, Any] | None = None
        for step in range(1, 64 * dim + 1):
            dims = [min(dim, max(1, round(step / 64 * (sizes[0] / n) ** 0.3 * 8))) for n in sizes]
            needed = sum(n * w + (w * dim if w < dim else 0) for n, w in zip(sizes, dims, strict=True))
            if 4 * needed <= size:
                best = {"sizes": sizes, "dims": dims}
        if best is None:
            raise ConfigError(f"a table of {num_embeddings} ids does not fit into {size:g} bytes, a number each")
        return best

    @property
    def bytes(self) -> int:
        return sum(part.nbytes for part in (*self.blocks, *self.matrices))

    def vectors(self, ids: Tensor) -> Tensor:
        result = self.blocks[0].new_zeros(len(ids), self.embedding_dim)
        start = 0
        for block, matrix in zip(self.blocks, self.matrices, strict=True):
            inside = ((ids >= start) & (ids < start + len(block))).nonzero().flatten()
            rows = block[ids[inside] - start]
            result = result.index_put((inside,), rows @ matrix if len(matrix) else rows)
            start += len(block)
        return result

    def approximate(self, table: Tensor) -> None:
        """The singular value decomposition of each block, cut off."""
        start = 0
        for block, matrix in zip(self.blocks, self.matrices, strict=True):
            part = table[start : start + len(block)]
            if len(matrix):
                narrow, wide = _split(part.double(), block.shape[1])
                block.copy_(narrow)
                matrix.copy_(wide)
            else:
                block.copy_(part)
            start += len(block)


def _split(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Two factors of the nearest matrix of that rank, of the same scale; zeros where the matrix has fewer."""
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    root = s.sqrt()
    left, right = (u * root)[:, :rank], (root[:, None] * v)[:rank]
    missing = rank - left.shape[1]
    return nn.functional.pad(left, (0, missing)), nn.functional.pad(right, (0, 0, 0, missing))


def _fitting(rank: int, num_embeddings: int, size: float) -> int:
    """The rank, unless not even a rank of one fits."""
    if rank < 1:
        raise ConfigError(f"a table of {num_embeddings} ids has no rank that fits into {size:g} bytes")
    return rank


def _digits(count: int) -> tuple[int, int, int]:
    """Three numbers, near to one another, whose product is the count or little more."""
    first = math.ceil(count ** (1 / 3) - 1e-9)
    second = math.ceil(math.sqrt(count / first) - 1e-9)
    return first, second, -(-count // (first * second))


def _axes(dim: int) -> tuple[int, int, int]:
    """Three factors of the width that are as near to one another as they can be."""
    triples = [
        (a, b, dim // (a * b))
        for a in range(1, dim + 1)
        if dim % a == 0
        for b in range(a, dim // a + 1)
        if dim // a % b == 0 and dim // (a * b) >= b
    ]
    return min(triples, key=sum)


def _ranks(digits: Sequence[int], axes: Sequence[int], rank: int) -> tuple[int, int]:
    """The ranks of the chain, which is exact where they are no larger than the sides of its matrices."""
    first, second, third = (n * d for n, d in zip(digits, axes, strict=True))
    return min(rank, first, second * third), min(rank, first * second, third)
