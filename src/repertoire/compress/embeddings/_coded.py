"""Embeddings whose numbers are shortened: product codes, rows of few bits, and most of them zero."""

from __future__ import annotations

import math
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from repertoire.compress.embeddings._base import CompactEmbedding
from repertoire.errors import ConfigError
from repertoire.ops import kmeans
from repertoire.ranges import AtLeast, Between, Positive, checked

__all__ = ["ProductCodeEmbedding", "PrunedEmbedding", "QuantisedEmbedding"]


class ProductCodeEmbedding(CompactEmbedding):
    r"""Vectors put together from parts, each of them one of a few.

    Chen et al., *Differentiable Product Quantization for End-to-End Embedding Compression* (2020). A learned table says
    which parts: of each part of its row the nearest of `codes` centroids is taken,

    .. math:: e_i = [\, c^{(1)}_{k_1}, \dots, c^{(D)}_{k_D} \,], \qquad k_j = \arg\min_k \| q_i^{(j)} - c^{(j)}_k \|.

    The gradient of the vector goes to the centroid and, straight through, to the row. The rows are needed only while it
    learns: to answer takes the codes and the centroids, which is what `bytes` counts.

    Args:
        num_embeddings: number of ids.
        dim: width of the vectors.
        parts: D; it divides the width.
        codes: centroids of each part.
        std: standard deviation of the first vectors.

    Raises:
        ConfigError: the parts do not divide the width.

    Example:
        >>> import torch
        >>> from repertoire.compress import ProductCodeEmbedding
        >>> table = ProductCodeEmbedding(1000, 16, parts=4, codes=16)
        >>> table(torch.tensor([3, 4])).shape, table.bytes, table.training_bytes
        (torch.Size([2, 16]), 3024, 65024)
    """

    @checked
    def __init__(
        self,
        num_embeddings: int,
        dim: int,
        *,
        parts: Annotated[int, AtLeast(1)],
        codes: Annotated[int, AtLeast(2)],
        std: Annotated[float, Positive] = 1.0,
    ) -> None:
        super().__init__(num_embeddings, dim)
        if dim % parts:
            raise ConfigError(f"parts is {parts}, which does not divide the width of {dim}")
        self.rows = nn.Parameter(std * torch.randn(num_embeddings, dim))
        drawn = torch.randint(num_embeddings, (codes,))
        self.centroids = nn.Parameter(self.rows.detach()[drawn].view(codes, parts, -1).transpose(0, 1).clone())

    @classmethod
    def options_for(cls, num_embeddings: int, dim: int, size: float) -> dict[str, Any]:
        best: tuple[int, int] | None = None
        for bits in range(1, 9):
            for parts in (part for part in range(1, dim + 1) if dim % part == 0):
                if 4 * 2**bits * dim + math.ceil(num_embeddings * parts * bits / 8) > size:
                    continue
                if best is None or parts * bits > best[0] * best[1]:
                    best = parts, bits
        if best is None:
            raise ConfigError(f"codes of {num_embeddings} ids do not fit into {size:g} bytes")
        return {"parts": best[0], "codes": 2 ** best[1]}

    @property
    def bytes(self) -> int:
        parts, codes, _ = self.centroids.shape
        return self.centroids.nbytes + math.ceil(self.num_embeddings * parts * math.ceil(math.log2(codes)) / 8)

    def codes(self, ids: Tensor) -> Tensor:
        """The centroid of each part, int64 `[N, parts]`."""
        rows = self.rows.detach()[ids].unflatten(1, (len(self.centroids), -1)).transpose(0, 1)
        return torch.cdist(rows, self.centroids.detach()).argmin(2).T

    def vectors(self, ids: Tensor) -> Tensor:
        rows = self.rows[ids]
        part = torch.arange(len(self.centroids), device=ids.device)
        return self.centroids[part, self.codes(ids)].flatten(1) + (rows - rows.detach())

    def approximate(self, table: Tensor) -> None:
        """k-means in each part."""
        parts, codes, _ = self.centroids.shape
        self.rows.copy_(table)
        generator = torch.Generator().manual_seed(0)
        for number, part in enumerate(table.double().chunk(parts, 1)):
            found = kmeans(part.contiguous(), min(codes, len(part)), generator=generator).centres
            self.centroids[number, : len(found)] = found.to(self.centroids)
            self.centroids[number, len(found) :] = found[:1].to(self.centroids)


class QuantisedEmbedding(CompactEmbedding):
    r"""Vectors in whole numbers of few bits, with a scale for each.

    .. math:: e_i = s_i \, \mathrm{round}(w_i / s_i), \qquad s_i = \max_j |w_{ij}| / (2^{b - 1} - 1)

    Weights are kept in full while it learns, and the gradient goes straight through the rounding; `bytes` counts the
    whole numbers and a scale of four bytes a vector.

    Args:
        num_embeddings: number of ids.
        dim: width of the vectors.
        bits: b, 2 to 8 (default).
        std: standard deviation of the first vectors.

    Example:
        >>> import torch
        >>> from repertoire.compress import QuantisedEmbedding
        >>> table = QuantisedEmbedding(1000, 16)
        >>> table(torch.tensor([3, 4])).shape, table.bytes
        (torch.Size([2, 16]), 20000)
    """

    @checked
    def __init__(
        self,
        num_embeddings: int,
        dim: int,
        *,
        bits: Annotated[int, Between(2, 8)] = 8,
        std: Annotated[float, Positive] = 1.0,
    ) -> None:
        super().__init__(num_embeddings, dim)
        self.bits = bits
        self.weight = nn.Parameter(std * torch.randn(num_embeddings, dim))

    @classmethod
    def options_for(cls, num_embeddings: int, dim: int, size: float) -> dict[str, Any]:
        fitting = [
            bits for bits in range(2, 9) if num_embeddings * 4 + math.ceil(num_embeddings * dim * bits / 8) <= size
        ]
        if not fitting:
            raise ConfigError(f"two bits for each of {num_embeddings} x {dim} numbers do not fit into {size:g} bytes")
        return {"bits": fitting[-1]}

    @property
    def bytes(self) -> int:
        return 4 * self.num_embeddings + math.ceil(self.num_embeddings * self.embedding_dim * self.bits / 8)

    def vectors(self, ids: Tensor) -> Tensor:
        rows = self.weight[ids]
        held = rows.detach()
        scale = (held.abs().amax(1, keepdim=True) / (2 ** (self.bits - 1) - 1)).clamp_min(torch.finfo(held.dtype).tiny)
        return (held / scale).round() * scale + (rows - held)

    def approximate(self, table: Tensor) -> None:
        self.weight.copy_(table)


class PrunedEmbedding(CompactEmbedding):
    """A table most of whose numbers are zero, stored as one bit for each number and the values that are left.

    Deng et al., *DeepLight: Deep Lightweight Feature Interactions for Accelerating CTR Predictions in Ad Serving*
    (2021), prune the smallest in several steps while the table learns: call `prune` with a falling density.

    Args:
        num_embeddings: number of ids.
        dim: width of the vectors.
        density: share of the numbers that `prune` leaves by default.
        std: standard deviation of the first vectors.

    Example:
        >>> import torch
        >>> from repertoire.compress import PrunedEmbedding
        >>> table = PrunedEmbedding(1000, 16, density=0.1)
        >>> whole = table.bytes
        >>> table.prune()
        >>> whole, table.bytes
        (66000, 8400)
    """

    mask: Tensor

    @checked
    def __init__(
        self,
        num_embeddings: int,
        dim: int,
        *,
        density: Annotated[float, Between(0, 1, "(]")] = 0.1,
        std: Annotated[float, Positive] = 1.0,
    ) -> None:
        super().__init__(num_embeddings, dim)
        self.density = density
        self.weight = nn.Parameter(std * torch.randn(num_embeddings, dim))
        self.register_buffer("mask", torch.ones(num_embeddings, dim, dtype=torch.bool))

    @classmethod
    def options_for(cls, num_embeddings: int, dim: int, size: float) -> dict[str, Any]:
        density = (size - math.ceil(num_embeddings * dim / 8)) / (4 * num_embeddings * dim)
        if not density > 0:
            raise ConfigError(f"the bits of {num_embeddings} x {dim} numbers do not fit into {size:g} bytes")
        return {"density": min(1.0, density)}

    @property
    def bytes(self) -> int:
        return 4 * int(self.mask.sum()) + math.ceil(self.mask.numel() / 8)

    @torch.no_grad()
    def prune(self, density: float | None = None) -> None:
        """Leaves the largest numbers of what is left.

        Args:
            density: share of all numbers that is kept; that of the module if None.
        """
        kept = int((self.density if density is None else density) * self.mask.numel())
        magnitudes = (self.weight.abs() + 1) * self.mask  # what was removed before is smaller than what is zero
        self.mask.zero_()
        self.mask.view(-1)[magnitudes.flatten().topk(kept).indices] = True

    def vectors(self, ids: Tensor) -> Tensor:
        return self.weight[ids] * self.mask[ids]

    def approximate(self, table: Tensor) -> None:
        """The largest numbers of the table."""
        self.weight.copy_(table)
        self.mask.fill_(True)
        self.prune()
