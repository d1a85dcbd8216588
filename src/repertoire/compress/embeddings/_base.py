"""What all compact embeddings have in common: vectors for ids, and the bytes that they take."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Self

import torch
from torch import Tensor, nn

from repertoire.errors import ConfigError, ShapeError

__all__ = ["CompactEmbedding"]


class CompactEmbedding(nn.Module, ABC):
    """A table of one vector for each id, stored in fewer bytes than the table has. Call it as `nn.Embedding`.

    Attributes:
        num_embeddings: number of ids.
        embedding_dim: width of the vectors.
    """

    def __init__(self, num_embeddings: int, dim: int) -> None:
        super().__init__()
        if num_embeddings < 1 or dim < 1:
            raise ConfigError(f"num_embeddings and dim must be positive, found {num_embeddings} and {dim}")
        self.num_embeddings = num_embeddings
        self.embedding_dim = dim

    @classmethod
    @abstractmethod
    def options_for(cls, num_embeddings: int, dim: int, size: float) -> dict[str, Any]:
        """Options with which it takes at most so many bytes.

        Raises:
            ConfigError: there are none.
        """

    @property
    @abstractmethod
    def bytes(self) -> int:
        """Bytes of what is needed to answer, codes and scales included. What an optimiser needs comes on top."""

    @property
    def training_bytes(self) -> int:
        """Bytes while it is trained, without those of the optimiser: some learn a whole table and shrink it later."""
        return sum(tensor.nbytes for tensor in (*self.parameters(), *self.buffers()))

    @abstractmethod
    def vectors(self, ids: Tensor) -> Tensor:
        """Ids int64 `[N]` to vectors `[N, dim]`."""

    @abstractmethod
    def approximate(self, table: Tensor) -> None:
        """Takes the values that come near a table `[num_embeddings, dim]`."""

    def forward(self, ids: Tensor) -> Tensor:
        # On other devices looking at the ids would mean waiting for them.
        if ids.device.type == "cpu" and ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < self.num_embeddings:
            raise ShapeError(
                f"ids must lie in 0..{self.num_embeddings - 1}, found {int(ids.min())} to {int(ids.max())}"
            )
        return self.vectors(ids.flatten()).view(*ids.shape, self.embedding_dim)

    def table(self) -> Tensor:
        """All vectors `[num_embeddings, dim]`."""
        return self.vectors(torch.arange(self.num_embeddings, device=next(self.parameters()).device))

    @torch.no_grad()
    def fit(self, table: Tensor) -> Self:
        """Compresses a table that is there already, without training.

        Args:
            table: float `[num_embeddings, dim]`, as in `nn.Embedding(...).weight`.

        Raises:
            ShapeError: the table is of another shape.
        """
        if tuple(table.shape) != (self.num_embeddings, self.embedding_dim):
            raise ShapeError(
                f"table is {list(table.shape)}; this embedding has [{self.num_embeddings}, {self.embedding_dim}]"
            )
        self.approximate(table.detach())
        return self

    def extra_repr(self) -> str:
        return f"{self.num_embeddings}, {self.embedding_dim}, bytes={self.bytes}"
