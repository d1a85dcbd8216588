"""What the losses on embeddings share: which rows have a positive, and the mean over those that have."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import wraps
from typing import Concatenate, Literal, NamedTuple, ParamSpec, Unpack

import torch
from torch import Tensor

from repertoire.errors import ConfigError, RepertoireWarning, ShapeError
from repertoire.ops import Which, class_index, transformed

__all__ = [
    "Groups",
    "check_dimensions",
    "check_proxies",
    "full_precision",
    "group",
    "mean_over",
    "poison",
    "warn_if_none",
    "warn_once",
    "warn_without_positives",
]


P = ParamSpec("P")
Function = Callable[Concatenate[Tensor, P], Tensor]


def full_precision(function: Function[P]) -> Function[P]:
    """A loss whose matrix products are not made in half precision where autocast would make them so."""

    @wraps(function)
    def precise(embeddings: Tensor, *args: P.args, **kwargs: P.kwargs) -> Tensor:
        with torch.autocast(embeddings.device.type, enabled=False):
            return function(embeddings, *args, **kwargs)

    return precise


class Groups(NamedTuple):
    """Classes of the embeddings and of the rows that they are compared with, as indices 0..K-1.

    Attributes:
        own: int64 `[N]`, the class of each embedding.
        other: int64 `[M]`, the class of each row it is compared with; `own` itself without a reference set.
        counts: int64 `[K]`, how many rows of each class the embeddings are compared with.
        positives: int64 `[N]`, how many of them have the class of the embedding, itself left out.
        within: whether the embeddings are compared with each other.
    """

    own: Tensor
    other: Tensor
    counts: Tensor
    positives: Tensor
    within: bool

    def pairs(self, kind: Literal["same", "different"], **more: Unpack[Which]) -> Which:
        """The pairs of the same class, without those of a row with itself, or of different classes."""
        # A literal: compiled code cannot follow the call of a typed dictionary.
        which: Which = {
            "pairs": kind,
            "groups": self.own,
            "y_groups": None if self.within else self.other,
            "exclude_self": self.within and kind == "same",
        }
        which.update(more)
        return which

    @property
    def anchors(self) -> Tensor:
        """bool `[N]`: which embeddings have a positive. Those that have none add nothing to a loss."""
        return self.positives > 0


def group(labels: Tensor, reference_labels: Tensor | None = None, *, warn: bool = True) -> Groups:
    """The classes of a batch and of what it is compared with: itself, or a reference set.

    Warns once, where the labels are on the CPU, if no embedding has a positive.
    """
    if reference_labels is None:
        index, counts = class_index(labels)
        found = Groups(index, index, counts, counts[index] - 1, True)
    else:
        everything, sizes = class_index(torch.cat([labels, reference_labels]))
        index, other = everything.split([len(labels), len(reference_labels)])
        counts = torch.zeros_like(sizes).scatter_add_(0, other, torch.ones_like(other))
        found = Groups(index, other, counts, counts[index], False)
    if warn:
        warn_if_none(found.anchors)
    return found


def warn_if_none(anchors: Tensor) -> None:
    """Warns once if there are rows, all on the CPU, of which none has a positive."""
    if torch.compiler.is_compiling() or transformed():
        return
    if anchors.device.type == "cpu" and len(anchors) and not bool(anchors.any()):
        warn_without_positives()


#: What was warned about already.
_warned: set[str] = set()


def warn_once(about: str, message: str) -> None:
    """Warns about something the first time that it is met."""
    if about not in _warned:
        _warned.add(about)
        warnings.warn(message, RepertoireWarning, stacklevel=5)


def warn_without_positives() -> None:
    """Warns once that a batch has no positives."""
    warn_once(
        "positives",
        "no embedding of the batch has another one with its label: the contrastive loss is zero and nothing is "
        "learned from it; use larger batches, several views, or batches with several samples of a class",
    )


def mean_over(values: Tensor, chosen: Tensor) -> Tensor:
    """Mean of the chosen values; zero, with a zero gradient, if none is. The others may be anything but NaN."""
    return values.masked_fill(~chosen, 0.0).sum() / chosen.sum().clamp_min(1)


def poison(*rows: Tensor | None) -> Tensor | float:
    """Zero, or NaN if a row is not finite. Added to a loss that chooses among pairs, which would leave the pairs of
    such a row out and give a number as if nothing was wrong."""
    return sum((0.0 * r.detach().sum() for r in rows if r is not None), 0.0)


def check_proxies(labels: Tensor, proxies: Tensor, dimensions: int) -> None:
    """Raises `ShapeError` unless proxies are `[C, d]` and no label on the CPU is C or more.

    Labels below zero are those of samples without a class.
    """
    if proxies.ndim != 2 or proxies.shape[1] != dimensions or not proxies.is_floating_point():
        raise ShapeError(
            f"proxies must be a floating point [C, {dimensions}], found {proxies.dtype} {list(proxies.shape)}"
        )
    if (
        labels.device.type == "cpu"
        and len(labels)
        and not torch.compiler.is_compiling()
        and (most := int(labels.max())) >= len(proxies)
    ):
        raise ShapeError(
            f"labels must lie in 0..{len(proxies) - 1}, or below 0 for samples without a class, found {most}; "
            "give num_classes"
        )


def check_dimensions(dimensions: int, known: int | None) -> None:
    """Raises `ConfigError` unless the dimensions are positive and, where they are known already, the same."""
    if dimensions < 1:
        raise ConfigError(f"dimensions must be positive, found {dimensions}")
    if known is not None and known != dimensions:
        raise ConfigError(
            f"the loss was made for embeddings of {known} dimensions and the method makes {dimensions}; leave the "
            "dimensions of the loss out"
        )
