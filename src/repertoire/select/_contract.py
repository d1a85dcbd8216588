"""What selectors share: how one is called, and what it refuses."""

from __future__ import annotations

import inspect

import torch
from torch import Tensor

from repertoire import registry
from repertoire.errors import ConfigError, ShapeError

__all__ = ["check_budget", "check_features", "check_probabilities", "highest", "select"]

_WANTED = {
    "probabilities": "probabilities [N, C] of each class",
    "features": "features [N, d]",
    "labelled": "features of the labelled samples [M, d]",
}


def select(
    spec: str,
    budget: int,
    *,
    probabilities: Tensor | None = None,
    features: Tensor | None = None,
    labelled: Tensor | None = None,
    seed: int = 0,
) -> Tensor:
    """Chooses samples by a registered selector, from whatever is known of them.

    Args:
        spec: of the selector: "margin", "typical:neighbours=10".
        budget: how many, from 1 to N.
        probabilities: float `[N, C]`, what a model says of each.
        features: float `[N, d]`.
        labelled: float `[M, d]`, the features of samples that have a label already.
        seed: of whatever is drawn.

    Returns:
        int64 `[budget]`: positions, none twice, the most wanted first.

    Raises:
        ConfigError: the selector needs what is not given, or a budget out of range. UnknownName: there is no such one.
        ShapeError: what is given does not fit together.

    Example:
        >>> import torch
        >>> from repertoire.select import select
        >>> select("margin", 1, probabilities=torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]]))
        tensor([1])
    """
    parsed = registry.parse(spec)
    wanted = inspect.signature(registry.get("selectors", parsed.name).factory).parameters
    known = {"probabilities": probabilities, "features": features, "labelled": labelled}
    for name, value in known.items():
        parameter = wanted.get(name)
        if value is None and parameter is not None and parameter.default is inspect.Parameter.empty:
            raise ConfigError(f"selector {parsed.name!r} needs {_WANTED[name]}, and these were not given")
    counts = {name: len(value) for name, value in known.items() if value is not None and name != "labelled"}
    if len(set(counts.values())) > 1:
        said = " and ".join(f"{count} {name}" for name, count in counts.items())
        raise ShapeError(f"what is known must be of the same samples, found {said}")
    # What a selector has a default for, it can do without.
    given = {name: value for name, value in known.items() if value is not None}
    if "count" in wanted:
        given["count"] = next(iter(counts.values()), 0)  # type: ignore[assignment]
    generator = torch.Generator().manual_seed(seed)
    try:
        chosen: Tensor = registry.build("selectors", parsed, **given, budget=budget, generator=generator)
    except ConfigError as error:
        # The registry takes every complaint for one about options.
        if isinstance(error.__cause__, ShapeError):
            raise error.__cause__ from None
        raise
    return chosen


def check_budget(budget: int, count: int) -> None:
    """Raises `ConfigError` unless so many of so many samples can be chosen."""
    if not 1 <= budget <= count:
        raise ConfigError(f"budget must be from 1 to {count}, the number of samples; found {budget}")


def check_features(features: Tensor, labelled: Tensor | None = None) -> None:
    """Raises `ShapeError` unless these are finite floating point matrices of one width."""
    for name, value in (("features", features), ("labelled", labelled)):
        if value is None:
            continue
        if value.ndim != 2 or not value.is_floating_point() or value.shape[1] != features.shape[1]:
            width = f"{features.shape[1]}" if name == "labelled" and features.ndim == 2 else "d"
            raise ShapeError(f"{name} must be a floating point [N, {width}], found {value.dtype} {list(value.shape)}")
        if not bool(value.isfinite().all()):
            raise ShapeError(f"{name} must be finite, and row {int((~value.isfinite()).any(1).nonzero()[0])} is not")


def check_probabilities(probabilities: Tensor) -> None:
    """Raises `ShapeError` unless each row is a distribution over two classes or more."""
    if probabilities.ndim != 2 or not probabilities.is_floating_point() or probabilities.shape[1] < 2:
        raise ShapeError(
            f"probabilities must be a floating point [N, C] with C of 2 or more, found {probabilities.dtype} "
            f"{list(probabilities.shape)}"
        )
    wrong = (probabilities < 0).any(1) | ~((probabilities.double().sum(1) - 1).abs() < 1e-2)
    if bool(wrong.any()):
        row = int(wrong.nonzero()[0])
        raise ShapeError(f"probabilities must be rows that sum to 1, and row {row} is no distribution")


def highest(scores: Tensor, budget: int) -> Tensor:
    """Positions of the highest scores, the highest first; of equal ones, the first."""
    check_budget(budget, len(scores))
    return scores.argsort(descending=True, stable=True)[:budget]
