"""Losses on embeddings that add a term to another one."""

from __future__ import annotations

from torch import Tensor

from repertoire import registry
from repertoire.errors import ConfigError
from repertoire.losses.contracts._base import EmbeddingLoss

__all__ = ["WrappedLoss"]


class WrappedLoss(EmbeddingLoss):
    """Base of losses that add a term to a loss on embeddings of the user's choice.

    Args:
        base: a loss on embeddings, or the spec of one.
        counts, num_classes, samples: passed on to a base that is built from a spec.

    Raises:
        ConfigError: the base is no loss on embeddings.
    """

    def __init__(
        self,
        base: str | EmbeddingLoss,
        *,
        counts: Tensor | None = None,
        num_classes: int | None = None,
        samples: int | None = None,
    ) -> None:
        super().__init__()
        if isinstance(base, str):
            known = {"counts": counts, "num_classes": num_classes, "samples": samples}
            base = registry.build("losses", base, **{name: v for name, v in known.items() if v is not None})
        if not isinstance(base, EmbeddingLoss):
            raise ConfigError(f"base must be a loss on embeddings, found {type(base).__name__}")
        self.base: EmbeddingLoss = base
        self.views = base.views
        self.wants = base.wants
        if base.proxied:
            raise ConfigError(f"base must compare embeddings with each other, found {type(base).__name__}")

    def prepare(self, dimensions: int) -> None:
        """Prepares the base."""
        self.base.prepare(dimensions)

    def after_update(self) -> None:
        """Tells the base."""
        self.base.after_update()
