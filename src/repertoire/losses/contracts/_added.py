"""Losses that are another loss plus a term."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any

import torch
from torch import Tensor

from repertoire import registry
from repertoire.errors import ConfigError
from repertoire.losses.contracts._base import EmbeddingLoss, Loss
from repertoire.losses.contracts._function import derive
from repertoire.ranges import AtLeast

__all__ = ["AddedTerm"]

_CONTEXT = ("counts", "num_classes", "samples")
_REFERENCE = ("reference", "reference_labels")


class AddedTerm(Loss):
    """A loss of the user's choice plus a weighted term. To derive from, together with the contract of both.

    The term is a function of the same inputs; a function of one tensor is a term of each view. What the base wants to
    know, what it is told when it is built, and what it remembers is passed on.

    Args:
        base: a loss of the same contract, or its name with options: "nt-xent:temperature=0.5".
        weight: of the term, 0 or more.
        counts, num_classes, samples: passed on to a base that is built from its name.

    Raises:
        ConfigError: the base has another contract, or compares with learned vectors instead of other embeddings.
    """

    def __init_subclass__(cls, *, base: str = "", weight: float = 1.0, **more: Any) -> None:
        cls.default_base, cls.default_weight = base, weight
        super().__init_subclass__(**more)

    default_base: str = ""
    default_weight: float = 1.0
    of_each_view: bool = False

    @classmethod
    def from_function(cls, function: Callable[..., Any]) -> None:
        def option(name: str, default: Any, annotation: Any) -> inspect.Parameter:
            return inspect.Parameter(
                name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default, annotation=annotation
            )

        first, *_ = inspect.signature(function).parameters.values()
        cls.of_each_view = cls.contract == "views" and first.kind is not inspect.Parameter.VAR_POSITIONAL
        derive(
            cls,
            function,
            before=[
                option("base", cls.default_base, str | Loss),
                option("weight", cls.default_weight, Annotated[float, AtLeast(0)]),
            ],
            after=[
                option("counts", None, Tensor | None),
                option("num_classes", None, int | None),
                option("samples", None, int | None),
            ],
            texts={
                "base": "the loss that the term is added to, or its name with options: nt-xent:temperature=0.5.",
                "weight": "of the term, 0 or more.",
                **dict.fromkeys(_CONTEXT, "told to a base that is built from its name."),
            },
        )

    def make(self, values: dict[str, Any]) -> None:
        base = values.pop("base")
        known = {name: value for name in _CONTEXT if (value := values.pop(name)) is not None}
        super().make(values)
        named = repr(base) if isinstance(base, str) else type(base).__name__
        if isinstance(base, str):
            base = registry.build("losses", base, **known)
        if not isinstance(base, Loss) or base.contract != self.contract:
            kind = f", which is one on {base.contract}" if isinstance(base, Loss) else ""
            raise ConfigError(f"base must be a loss on {self.contract}, found {named}{kind}")
        if isinstance(base, EmbeddingLoss) and base.proxied:
            raise ConfigError(f"base must compare embeddings with each other, found {named}")
        self.base: Loss = base
        self.views = max(self.views, base.views)
        self.wants = base.wants

    def prepare(self, dimensions: int) -> None:
        """Tells the base how wide the embeddings will be."""
        self.base.prepare(dimensions)

    def after_update(self) -> None:
        """Tells the base that the weights have changed."""
        super().after_update()
        self.base.after_update()

    def term(self, *inputs: Tensor, **known: Tensor | None) -> Tensor:
        """Term that is added, before it is weighted."""
        if self.of_each_view:
            return torch.stack([self.call(view) for view in inputs]).mean()
        return self.call(*inputs, **known)

    def forward(self, *inputs: Tensor, **known: Any) -> Tensor:
        """The loss of the inputs of the contract; `known` is what the base wants to know beside them."""
        value: Tensor = self.base(*inputs, **known)
        references: dict[str, Any] = {}
        if self.contract == "embeddings":
            references = dict(zip(_REFERENCE, inputs[2:], strict=False))
            references |= {name: known[name] for name in _REFERENCE if name in known}
            inputs = inputs[:2]
        weight: float = self.weight  # type: ignore[assignment]
        return value + weight * self.term(*inputs, **references)
