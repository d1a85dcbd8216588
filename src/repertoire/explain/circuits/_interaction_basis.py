"""The local interaction basis: directions in a layer by what they do to the next, and how few of them interact."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from repertoire.errors import ConfigError, ShapeError
from repertoire.explain._frozen import frozen
from repertoire.ops import evaluating, handing_copies

__all__ = ["Basis", "interaction_edges", "local_interaction_basis"]

#: Entries of the Jacobians that are held at once.
ENTRIES = 2**22


class Basis(NamedTuple):
    """Directions in the activations of a layer, the most important first."""

    mean: Tensor
    """`[d]`, of the activations."""
    into: Tensor
    """`[k, d]`: features of an activation f are `into @ (f - mean)`."""
    back: Tensor
    """`[d, k]`: features to activations, the pseudo-inverse of `into`."""
    importance: Tensor
    """`[k]`: mean square of what a typical change along each direction does to the features of the next layer."""

    def features(self, activations: Tensor) -> Tensor:
        """Features `[N, k]` of activations `[N, d]`."""
        return (activations - self.mean) @ self.into.T

    def kept(self, activations: Tensor, count: int) -> Tensor:
        """Activations `[N, d]` of which only the first `count` directions are left; all others have their mean."""
        return self.mean + self.features(activations)[:, :count] @ self.back[:, :count].T


def local_interaction_basis(
    layers: Iterable[nn.Module], inputs: Tensor, *, tolerance: float = 1e-6, method: str = "lib"
) -> list[Basis]:
    r"""Directions in the activations of each layer of a network, chosen by what they do to the next.

    Bushnaq et al., *The Local Interaction Basis: Identifying Computationally-Relevant and Sparsely Interacting Features
    in Neural Networks* (2024). From the last layer backwards, with activations :math:`f^l` of covariance :math:`U D
    U^\top` (directions of negligible variance are dropped) and the Jacobian :math:`J_x` from :math:`f^l` to the
    features :math:`\hat f^{l+1}` of the next layer:

    .. math::
        D^{1/2} U^\top \Bigl( \tfrac{1}{N} \sum_x J_x^\top J_x \Bigr) U D^{1/2} = V \Lambda V^\top, \qquad
        \hat f^l = \Lambda^{1/2} V^\top D^{-1/2} U^\top (f^l - \bar f^l)

    so features are uncorrelated, ordered and scaled by how much they change what follows, and those that change nothing
    are dropped. The features of the last layer are its principal components. The paper folds biases in as a direction
    of their own; here activations are centred instead, which is the same for all others.

    Args:
        layers: the network as a list of modules, each from `[N, d]` to `[N, d']`; they run in evaluation mode. An
            :class:`torch.nn.Sequential` is one.
        inputs: float `[N, d]`, what the first layer is given.
        tolerance: share of the largest variance, and of the largest importance, below which a direction is dropped.
        method: "lib" (default), or "pca" for the principal components of each layer, with their variance as the
            importance.

    Returns:
        A basis for the inputs and one for the output of each layer, one more than there are layers; in double
        precision.

    Raises:
        ShapeError: inputs or activations that are not `[N, d]`, or fewer than two samples.
        ConfigError: no layers, an unknown method, or a tolerance outside [0, 1).

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from repertoire.explain import local_interaction_basis
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> [tuple(basis.into.shape) for basis in local_interaction_basis(net, torch.randn(50, 4))]
        [(4, 4), (4, 8), (3, 8), (3, 3)]
    """
    if method not in ("lib", "pca"):
        raise ConfigError(f"method must be lib or pca, found {method!r}")
    if not 0 <= tolerance < 1:
        raise ConfigError(f"tolerance must lie in [0, 1), found {tolerance}")
    layers = list(layers)
    activations = _activations(layers, inputs)
    bases = [_principal(activations[-1], tolerance)]
    for layer, f in zip(reversed(layers), reversed(activations[:-1]), strict=True):
        principal = _principal(f, tolerance)
        if method == "pca":
            bases.insert(0, principal)
            continue
        following = bases[0]
        # In units of standard deviations along the principal components.
        spread = principal.back * principal.importance.sqrt()
        total = f.new_zeros(spread.shape[1], spread.shape[1], dtype=torch.float64)
        for jacobian in _jacobians(layer, f):
            moved = following.into @ jacobian.double() @ spread
            total += torch.einsum("nij,nik->jk", moved, moved) / len(f)
        values, vectors = torch.linalg.eigh(total)
        order = values.argsort(descending=True)
        order = order[values[order] > max(tolerance * float(values.max()), 1e-300)]
        importance, rotation = values[order], vectors[:, order]
        whitened = principal.into / principal.importance.sqrt()[:, None]
        into = importance.sqrt()[:, None] * (rotation.T @ whitened)
        back = spread @ rotation / importance.sqrt()
        bases.insert(0, Basis(principal.mean, into, back, importance))
    return bases


def interaction_edges(layers: Iterable[nn.Module], bases: Sequence[Basis], inputs: Tensor) -> list[Tensor]:
    r"""Computes the weights of the interaction graph: the effect of each feature of a layer on each of the next.

    Bushnaq et al., *The Local Interaction Basis* (2024):

    .. math:: E^l_{ij} = \frac{1}{N} \sum_x \Bigl( \frac{\partial \hat f^{l+1}_i}{\partial \hat f^l_j} \Bigr)^2

    Args:
        layers, inputs: as :func:`local_interaction_basis` takes them.
        bases: what it gave, or other bases, one more than there are layers.

    Returns:
        For each layer `[k of the next basis, k of this one]`, in double precision.

    Raises:
        ShapeError: inputs or activations that are not `[N, d]`, or bases that are not one more than layers.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from repertoire.explain import interaction_edges, local_interaction_basis
        >>> net, x = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)), torch.randn(50, 4)
        >>> [tuple(edges.shape) for edges in interaction_edges(net, local_interaction_basis(net, x), x)]
        [(4, 4), (3, 4), (3, 3)]
    """
    layers = list(layers)
    if len(bases) != len(layers) + 1:
        raise ShapeError(f"{len(layers)} layers have {len(layers) + 1} bases, found {len(bases)}")
    activations = _activations(layers, inputs)
    edges = []
    for number, layer in enumerate(layers):
        f, this, following = activations[number], bases[number], bases[number + 1]
        total = f.new_zeros(len(following.into), len(this.into), dtype=torch.float64)
        for jacobian in _jacobians(layer, f):
            total += (following.into @ jacobian.double() @ this.back).square().sum(0) / len(f)
        edges.append(total)
    return edges


def _activations(layers: Sequence[nn.Module], inputs: Tensor) -> list[Tensor]:
    """Input of the first layer and output of each."""
    if not layers:
        raise ConfigError("layers is empty")
    found = [inputs.detach()]
    for number, layer in enumerate([None, *layers]):
        if layer is not None:
            with torch.no_grad(), evaluating(layer), handing_copies(layer):
                found.append(layer(found[-1]))
        x = found[-1]
        if not isinstance(x, Tensor) or x.ndim != 2 or not x.is_floating_point() or len(x) < 2:
            where = "inputs" if layer is None else f"the output of layer {number - 1}"
            what = list(x.shape) if isinstance(x, Tensor) else type(x).__name__
            raise ShapeError(f"{where} must be floating point [N, d] of two samples or more, found {what}")
    return found


def _principal(f: Tensor, tolerance: float) -> Basis:
    """Principal components, by their variance."""
    wide = f.double()
    mean = wide.mean(0)
    values, vectors = torch.linalg.eigh((wide - mean).T @ (wide - mean) / len(f))
    order = values.argsort(descending=True)
    order = order[values[order] > max(tolerance * float(values.max()), 1e-300)]
    return Basis(mean, vectors[:, order].T, vectors[:, order], values[order])


def _jacobians(layer: nn.Module, f: Tensor) -> Iterator[Tensor]:
    """The Jacobian of a layer at each sample, `[n, d', d]`, some samples at a time."""
    with torch.no_grad(), evaluating(layer), handing_copies(layer):
        width = layer(f[:2]).shape[1]
    rows = max(1, ENTRIES // (width * f.shape[1]))

    def one(x: Tensor) -> Tensor:
        return layer(x[None])[0]

    jacobian: Callable[[Tensor], Tensor] = torch.func.vmap(torch.func.jacrev(one))
    with evaluating(layer), frozen(layer), handing_copies(layer):
        for part in f.split(rows):
            yield jacobian(part).detach()
