"""Compact embeddings by the name of their kind and the memory that they may take."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from repertoire.compress.embeddings._base import CompactEmbedding
from repertoire.compress.embeddings._coded import ProductCodeEmbedding, PrunedEmbedding, QuantisedEmbedding
from repertoire.compress.embeddings._factored import LowRankEmbedding, MixedDimensionEmbedding, TensorTrainEmbedding
from repertoire.compress.embeddings._hashed import HashEmbedding, QuotientRemainderEmbedding
from repertoire.errors import ConfigError
from repertoire.ranges import Between, checked

__all__ = ["EmbeddingKind", "embedding"]

EmbeddingKind = Literal[
    "hash",
    "quotient-remainder",
    "low-rank",
    "tensor-train",
    "mixed-dimension",
    "product-codes",
    "quantised",
    "pruned",
]

_KINDS: dict[str, type[CompactEmbedding]] = {
    "hash": HashEmbedding,
    "quotient-remainder": QuotientRemainderEmbedding,
    "low-rank": LowRankEmbedding,
    "tensor-train": TensorTrainEmbedding,
    "mixed-dimension": MixedDimensionEmbedding,
    "product-codes": ProductCodeEmbedding,
    "quantised": QuantisedEmbedding,
    "pruned": PrunedEmbedding,
}


@checked
def embedding(
    kind: EmbeddingKind,
    num_embeddings: int,
    dim: int,
    *,
    share: Annotated[float, Between(0, 1, "(]")] | None = None,
    **options: Any,
) -> CompactEmbedding:
    """A table of learned vectors in less memory than `nn.Embedding` takes, and in its place.

    The kinds are those that Zhang et al., *Experimental Analysis of Large-scale Learnable Vector Storage Compression*
    (2023), compare, one of each branch of their taxonomy. With `share` every kind takes as much of its options as the
    memory allows, so that they can be compared at equal memory. Three learn a whole table and shrink what is kept of
    it: their `training_bytes` are larger, and an optimiser holds a few times as much again.

    Args:
        kind: "hash" (ids share rows), "quotient-remainder" (each id has two rows, which no other has both of),
            "low-rank", "tensor-train", "mixed-dimension" (rare ids, which come last, have narrower vectors),
            "product-codes", "quantised" (whole numbers of few bits), or "pruned" (to be pruned after learning).
        num_embeddings: number of ids.
        dim: width of the vectors.
        share: memory in units of that of the whole table in four bytes a number, in (0, 1]; or give the options.
        options: of the kind; they come before what `share` says.

    Raises:
        ConfigError: no such kind, or there are no options that need as little memory.

    Example:
        >>> import torch
        >>> from repertoire.compress import embedding
        >>> table = embedding("quotient-remainder", 10_000, 16, share=0.1)
        >>> table(torch.tensor([5, 9_999])).shape, table.bytes / (10_000 * 16 * 4) <= 0.1
        (torch.Size([2, 16]), True)
    """
    chosen = _KINDS[kind]
    if share is None:
        return chosen(num_embeddings, dim, **options)
    needed = chosen.options_for(num_embeddings, dim, share * num_embeddings * dim * 4)
    try:
        return chosen(num_embeddings, dim, **{**needed, **options})
    except TypeError as error:
        raise ConfigError(f"embedding {kind!r}: {error}") from None
