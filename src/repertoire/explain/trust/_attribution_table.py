"""The attribution of a row of features as a table with names, largest first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from repertoire.errors import ShapeError

__all__ = ["Attributed", "attribution_table"]


class Attributed(NamedTuple):
    """One line of an attribution table.

    Attributes:
        name: of the column.
        attribution: what the column is worth to the score.
        value: what the row has in the column; None if the row was not given.
    """

    name: str
    attribution: float
    value: float | None


def attribution_table(
    attribution: Tensor, names: Sequence[str], row: Tensor | None = None, top: int | None = None
) -> list[Attributed]:
    """The columns of a row of features by what they are worth to the score, the largest magnitude first.

    Args:
        attribution: `[D]`, of an explainer that takes features.
        names: of the D columns.
        row: the features themselves, `[D]`, to be shown beside.
        top: how many columns; all by default.

    Returns:
        A list of named tuples (name, attribution, value).

    Raises:
        ShapeError: not one name, attribution and value for each column.

    Example:
        >>> import torch
        >>> from repertoire.explain import attribution_table
        >>> for line in attribution_table(torch.tensor([0.25, -1.0, 0.5]), ["age", "income", "debt"], top=2):
        ...     print(f"{line.name:<8} {line.attribution:+.2f}")
        income   -1.00
        debt     +0.50
    """
    for what, given in (("attribution", attribution), ("row", row)):
        if given is not None and tuple(given.shape) != (len(names),):
            raise ShapeError(f"{what} must be [{len(names)}], one number for each name, found {list(given.shape)}")
    worth = attribution.detach().cpu().double()
    order = worth.abs().argsort(descending=True, stable=True)[:top].tolist()
    values = [None] * len(names) if row is None else row.detach().cpu().tolist()
    return [Attributed(names[i], float(worth[i]), values[i]) for i in order]
