"""Directions in the space of weights, along which a loss is looked at."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from repertoire.errors import ConfigError, DataError, ShapeError, UnknownName

__all__ = ["Direction", "Trajectory", "random_directions", "trajectory_directions"]

Direction = Mapping[str, Tensor]
"""A change of each parameter by name; parameters that it does not name stay."""

Normalise = Literal["filter", "layer", "none"]


class Trajectory(NamedTuple):
    """The plane in which training moved most.

    Attributes:
        directions: two, of unit length and at right angles.
        coordinates: float64 `[T, 2]`, where each checkpoint lies, from the model's weights at (0, 0).
        explained: share of the variance of the checkpoints that lies along each direction.
    """

    directions: list[dict[str, Tensor]]
    coordinates: Tensor
    explained: tuple[float, float]


def random_directions(
    model: nn.Module,
    count: int = 2,
    *,
    normalise: Normalise = "filter",
    vectors: Literal["keep", "move"] = "keep",
    seed: int = 0,
) -> list[dict[str, Tensor]]:
    r"""Random directions, each filter of which is as long as that of the weights.

    Li, Xu, Taylor, Studer and Goldstein, *Visualizing the Loss Landscape of Neural Nets* (2018): a Gaussian direction d
    is rescaled filter by filter,

    .. math:: d_{ij} \leftarrow \frac{d_{ij}}{\lVert d_{ij} \rVert} \lVert \theta_{ij} \rVert

    where a filter is what gives one output of a layer: the first index of a weight. A network of rectifiers computes
    the same when a filter is scaled up and what reads it is scaled down; a fixed step would then look large for one and
    small for the other. With these directions the two have the same picture.

    Biases and the parameters of normalisation layers (all that have one dimension) stay where they are, as in the
    paper's figures and by the option "biasbn" that its released commands give. What that code does without the option
    is to take the parameter itself as its direction; `vectors="move"` does so.

    Args:
        model: any module; its parameters that need a gradient.
        count: how many directions.
        normalise: "filter"; "layer", each layer as long as its weights; or "none", plain Gaussian.
        vectors: what parameters of one dimension do: "keep" their place, or "move" along themselves.
        seed: of the Gaussian numbers, which are the same on all devices.

    Returns:
        Of each direction, a tensor for each parameter by name.

    Raises:
        ConfigError: count below 1, or no parameter needs a gradient. UnknownName: no such normalisation.

    Example:
        >>> import torch
        >>> from repertoire.diagnostics import random_directions
        >>> model = torch.nn.Linear(8, 2)
        >>> (direction,) = random_directions(model, 1)
        >>> torch.allclose(direction["weight"].norm(dim=1), model.weight.norm(dim=1))
        True
        >>> direction["bias"]
        tensor([0., 0.])
    """
    if count < 1:
        raise ConfigError(f"count must be at least 1, found {count}")
    if normalise not in ("filter", "layer", "none"):
        raise UnknownName("normalisation", normalise, ["filter", "layer", "none"])
    if vectors not in ("keep", "move"):
        raise UnknownName("option of vectors", vectors, ["keep", "move"])
    weights = trainable(model)
    generator = torch.Generator().manual_seed(seed)
    return [
        {name: _random(weight, normalise, vectors, generator) for name, weight in weights.items()} for _ in range(count)
    ]


def _random(weight: Tensor, normalise: str, vectors: str, generator: torch.Generator) -> Tensor:
    # Drawn for all parameters, so that what the others get does not depend on what the vectors do.
    direction = torch.empty_like(weight).copy_(torch.randn(weight.shape, generator=generator))
    if weight.ndim <= 1 and vectors == "keep":
        return torch.zeros_like(weight)
    if normalise == "none":
        return direction
    if weight.ndim <= 1:
        return weight.clone()
    axes = tuple(range(1 if normalise == "filter" else 0, weight.ndim))
    length, wanted = (torch.linalg.vector_norm(x, dim=axes, keepdim=True) for x in (direction, weight))
    return direction * (wanted / length.clamp_min(1e-10))


def trajectory_directions(
    model: nn.Module, checkpoints: Iterable[Mapping[str, Tensor]], *, vectors: Literal["keep", "move"] = "keep"
) -> Trajectory:
    r"""The two directions in which training moved most, and the path of training in their plane.

    Li et al., *Visualizing the Loss Landscape of Neural Nets* (2018), section 7: principal components of the matrix of
    :math:`\theta_t - \theta` over the checkpoints, :math:`\theta` being the model's own weights. Two random directions
    would show hardly any of the path, being nearly orthogonal to it in so many dimensions.

    Args:
        model: with the last weights; its parameters that need a gradient.
        checkpoints: state dictionaries over the course of training, at least three; more than the parameters in them is
            not looked at. Each is kept as one float32 vector.
        vectors: whether parameters of one dimension count: "keep" (the released code's "biasbn") or "move".

    Returns:
        Directions, the coordinates of each checkpoint, and the share of variance along each direction.

    Raises:
        DataError: fewer than three checkpoints, one that lacks a parameter or is not finite, or no movement.
        ShapeError: a parameter has another shape than the model's.

    Example:
        >>> import torch
        >>> from repertoire.diagnostics import trajectory_directions
        >>> model = torch.nn.Linear(2, 1, bias=False)
        >>> path = [{"weight": model.weight.detach() + torch.tensor([[a, a * a]])} for a in (3.0, 2.0, 1.0, 0.0)]
        >>> found = trajectory_directions(model, path)
        >>> [round(share, 2) for share in found.explained], found.coordinates.shape
        ([0.99, 0.01], torch.Size([4, 2]))
    """
    weights = {n: w for n, w in trainable(model).items() if vectors == "move" or w.ndim > 1}
    if not weights:
        raise ConfigError("the model has only parameters of one dimension, which stay; use vectors='move'")
    rows = [_difference(number, state, weights) for number, state in enumerate(checkpoints)]
    if len(rows) < 3:
        raise DataError(f"a plane of training needs at least three checkpoints, found {len(rows)}")
    moved = torch.stack(rows)
    centred = moved - moved.mean(0)
    # Few checkpoints, many weights: the products of all pairs of checkpoints are a small matrix.
    values, vectors_ = torch.linalg.eigh((centred @ centred.T).double())
    total = float(values.clamp_min(0).sum())
    if not total > 0:
        raise DataError("all checkpoints have the same weights, so there is no direction in which training moved")
    axes = centred.T @ vectors_[:, [-1, -2]].to(centred)
    axes, _ = torch.linalg.qr(axes)
    first = axes.T @ centred.T  # a sign that does not depend on the solver: the path starts on the positive side
    axes = axes * torch.where(first[:, 0] < 0, -1.0, 1.0)
    directions = []
    for axis in axes.unbind(1):
        parts = axis.split([weight.numel() for weight in weights.values()])
        shaped = {n: part.view(w.shape).to(w) for part, (n, w) in zip(parts, weights.items(), strict=True)}
        directions.append({n: shaped.get(n, torch.zeros_like(w)) for n, w in trainable(model).items()})
    shares = (max(float(values[-1]), 0.0) / total, max(float(values[-2]), 0.0) / total)
    return Trajectory(directions, (moved @ axes).double().cpu(), shares)


def _difference(number: int, state: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> Tensor:
    missing = [name for name in weights if name not in state]
    if missing:
        raise DataError(f"checkpoint {number} has no parameter {missing[0]!r}; it is of another network")
    parts = []
    for name, weight in weights.items():
        if state[name].shape != weight.shape:
            raise ShapeError(
                f"{name!r} is {list(state[name].shape)} in checkpoint {number} and {list(weight.shape)} in the model"
            )
        parts.append((state[name].to(weight.device).float() - weight.float()).reshape(-1))
    row = torch.cat(parts)
    if not bool(row.isfinite().all()):
        raise DataError(f"checkpoint {number}, or the model, has weights that are not finite")
    return row


def trainable(model: nn.Module) -> dict[str, Tensor]:
    """The parameters that need a gradient, detached, by name."""
    found = {n: p.detach() for n, p in model.named_parameters() if p.requires_grad and p.is_floating_point()}
    if not found:
        raise ConfigError(
            f"{type(model).__name__} has no parameter that needs a gradient, so it has no direction to move in"
        )
    return found


def check_directions(model: nn.Module, directions: Sequence[Direction]) -> list[dict[str, Tensor]]:
    """One or two directions with a finite tensor of the right shape for each trainable parameter.

    Raises:
        ConfigError: neither one direction nor two, or a name that is no parameter. ShapeError: another shape.
        DataError: not finite, or zero everywhere.
    """
    if len(directions) not in (1, 2):
        raise ConfigError(f"directions must be one (a line) or two (a plane), found {len(directions)}")
    weights = trainable(model)
    checked = []
    for direction in directions:
        for name, change in direction.items():
            if name not in weights:
                raise UnknownName("trainable parameter", name, list(weights))
            if change.shape != weights[name].shape:
                raise ShapeError(
                    f"the direction of {name!r} is {list(change.shape)}, the parameter {list(weights[name].shape)}"
                )
            if not bool(change.isfinite().all()):
                raise DataError(f"the direction of {name!r} is not finite")
        if not any(bool(change.any()) for change in direction.values()):
            raise DataError("a direction is zero everywhere: is the model made of parameters of one dimension only?")
        checked.append({n: direction[n].to(w) if n in direction else torch.zeros_like(w) for n, w in weights.items()})
    return checked
