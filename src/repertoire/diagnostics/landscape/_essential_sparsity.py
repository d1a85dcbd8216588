"""Essential sparsity: how many weights of a network can be removed, smallest first, before its answers suffer."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from repertoire.data import Batch
from repertoire.errors import ConfigError, ShapeError
from repertoire.ops import evaluating
from repertoire.ranges import AtLeast, Share, checked

__all__ = ["SparsityKnee", "magnitude_masks", "prunable_weights", "sparsity_knee"]

Answers = Callable[[nn.Module], Tensor]
"""A network to the scores of its samples `[N]`; higher is better. It may train the network that it is given."""


@dataclass(frozen=True)
class SparsityKnee:
    """Score of a network over the share of its weights that is removed.

    Attributes:
        shares: shares of the weights that were removed, ascending from 0.
        scores: mean score of the samples at each.
        knee: the share beyond which the score falls much faster: the essential sparsity.
        interval: in which the knee lies when the samples are drawn again, in 95 of 100 cases.
        names: of the weights that were pruned.
    """

    shares: tuple[float, ...]
    scores: tuple[float, ...]
    knee: float
    interval: tuple[float, float]
    names: tuple[str, ...]

    def within(self, tolerance: float = 0.01) -> float:
        """The largest share up to which no score lies more than `tolerance` below that of the whole network.

        >>> SparsityKnee((0.0, 0.5, 0.9), (0.8, 0.795, 0.3), 0.5, (0.5, 0.5), ()).within(0.01)
        0.5
        """
        kept = 0.0
        for share, score in zip(self.shares, self.scores, strict=True):
            if score < self.scores[0] - tolerance:
                break
            kept = share
        return kept


def prunable_weights(model: nn.Module, skip: Sequence[str] = ()) -> dict[str, Tensor]:
    """The weights that pruning looks at: those of linear layers and convolutions, without biases and normalisation.

    Args:
        model: any module.
        skip: layers that are left whole, as module names; what lies inside them, too.

    Returns:
        Name of the parameter to the parameter, in the order of the model; what is shared is there once.

    Raises:
        ConfigError: `skip` names what the model does not have.

    Example:
        >>> from torch import nn
        >>> from repertoire.diagnostics import prunable_weights
        >>> list(prunable_weights(nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2)), skip=["2"]))
        ['0.weight']
    """
    modules = dict(model.named_modules())
    unknown = [name for name in skip if name not in modules]
    if unknown:
        raise ConfigError(f"skip names {unknown[0]!r}, which {type(model).__name__} does not have")
    owners = {
        f"{name}.{own}" if name else own: module
        for name, module in modules.items()
        for own, _ in module.named_parameters(recurse=False)
    }
    return {
        name: parameter
        for name, parameter in model.named_parameters()
        if parameter.ndim >= 2
        and isinstance(owners[name], nn.Linear | _ConvNd)
        and not any(name.startswith(f"{prefix}.") for prefix in skip)
    }


@checked
@torch.no_grad()
def magnitude_masks(
    weights: Mapping[str, Tensor], share: Annotated[float, Share], *, group: Annotated[int, AtLeast(2)] | None = None
) -> dict[str, Tensor]:
    """Masks that remove the smallest weights by magnitude: of all tensors together, or within small groups (N:M).

    Of equal magnitudes the later is removed first, so that the masks of a smaller share hold those of a larger one.

    Args:
        weights: name to weight, of any shapes; N:M needs `[out, ...]`.
        share: of the weights to remove, in [0, 1]; the number is rounded.
        group: None (default) compares all weights of all tensors. With M, of every M consecutive weights into one unit
            (what a row of the weight `[out, inputs]` holds) M - N are removed, where N is (1 - share) M, rounded: 2:4
            is a share of 0.5 in groups of 4. What is left at the end of a row and fills no group keeps its N largest.

    Returns:
        Name to bool mask of the weight's shape; true is kept.

    Raises:
        ConfigError: the share is out of its range.
        ShapeError: with a group, a weight has fewer than two dimensions.

    Example:
        >>> import torch
        >>> from repertoire.diagnostics import magnitude_masks
        >>> weight = torch.tensor([[1.0, -4.0, 3.0, 2.0]])
        >>> magnitude_masks({"w": weight}, 0.25)["w"], magnitude_masks({"w": weight}, 0.5, group=2)["w"]
        (tensor([[False,  True,  True,  True]]), tensor([[False,  True,  True, False]]))
    """
    if group is not None:
        return {name: _grouped(name, weight, group, round((1 - share) * group)) for name, weight in weights.items()}
    sizes = [weight.numel() for weight in weights.values()]
    kept = sum(sizes) - round(share * sum(sizes))
    flat = torch.cat([weight.abs().flatten().float() for weight in weights.values()]) if sizes else torch.zeros(0)
    mask = torch.zeros_like(flat, dtype=torch.bool)
    mask[flat.argsort(descending=True, stable=True)[:kept]] = True
    parts = mask.split(sizes)
    return {name: part.view(weights[name].shape) for name, part in zip(weights, parts, strict=True)}


def _grouped(name: str, weight: Tensor, group: int, kept: int) -> Tensor:
    if weight.ndim < 2:
        raise ShapeError(f"{name} is {list(weight.shape)}; masks in groups need a weight of [out, inputs]")
    rows = weight.abs().flatten(1).float()
    missing = -rows.shape[1] % group
    padded = torch.nn.functional.pad(rows, (0, missing), value=-1.0).unflatten(1, (-1, group))
    largest = padded.argsort(dim=2, descending=True, stable=True)[..., :kept]
    mask = torch.zeros_like(padded, dtype=torch.bool).scatter_(2, largest, True)
    return mask.flatten(1)[:, : rows.shape[1]].reshape(weight.shape)


@checked
def sparsity_knee(
    model: nn.Module,
    data: Answers | Iterable[Batch | tuple[Tensor, Tensor]],
    *,
    points: Annotated[int, AtLeast(3)] = 20,
    group: Annotated[int, AtLeast(2)] | None = None,
    skip: Sequence[str] = (),
    draws: Annotated[int, AtLeast(1)] = 1000,
    seed: int = 0,
) -> SparsityKnee:
    r"""The share of a network's weights that can be removed at once, smallest first, before its score drops sharply.

    Jaiswal et al., *The Emergence of Essential Sparsity in Large Pre-trained Models: The Weights that Matter* (2023):
    the weights of all layers are compared by magnitude, the smallest are set to zero in one go, and the score is taken
    over the share s that is removed. The knee is where the curve stands highest above its chord,

    .. math:: s^* = \arg\max_s \; a(s) - \left( a(0) + \frac{s}{s_K} \, (a(s_K) - a(0)) \right),

    with s_K the largest share; where the last score is no worse than the first, it is that share. The authors fine-tune
    the pruned network on their task before they score it: give a function that does so. With pairs of inputs and labels
    nothing is trained, which is what the paper calls one-shot. Biases, normalisation and embeddings are not pruned. The
    model is not changed.

    Args:
        model: inputs to logits, or whatever `data` makes use of.
        data: pairs of inputs and labels, int64 `[N]`, or batches of `repertoire.data`: the score is accuracy. Or a
            function that takes a copy of the pruned network, may train it (what is removed does not stay zero by
            itself), and gives scores of samples `[N]`, the same samples at each call.
        points: number of shares, at equal distances from 0 (included) to 1 (not included), 20 by default.
        group: None (default) prunes over all layers; with M, of each M consecutive inputs of a unit M - 1, M - 2, ... 0
            are kept, which are the patterns N:M, and `points` is not looked at.
        skip: names of layers that are left whole; the paper leaves out a classifier that was not pretrained.
        draws: bootstrap draws of the samples for the interval, 1000 by default.
        seed: of these draws.

    Returns:
        The curve, its knee and the interval of that.

    Raises:
        ConfigError: there are no weights to prune, no samples, or options out of range.
        ShapeError: the scores of two calls are not of the same number of samples.

    Example:
        >>> import torch
        >>> from repertoire.diagnostics import sparsity_knee
        >>> model = torch.nn.Linear(4, 2, bias=False)
        >>> _ = model.weight.data.copy_(torch.tensor([[2.0, 0.1, 0.1, 0.1], [-2.0, 0.1, 0.1, 0.1]]))
        >>> x = torch.tensor([[1.0, 0.0, 0.0, 0.0], [-1.0, 0.0, 0.0, 0.0]])
        >>> sparsity_knee(model, [(x, torch.tensor([0, 1]))], points=4).knee
        0.75
    """
    names = tuple(prunable_weights(model, skip))
    if not names:
        raise ConfigError(f"{type(model).__name__} has no linear layer and no convolution to prune")
    whole = {name: weight.detach() for name, weight in prunable_weights(model, skip).items()}
    shares = [n / (group or points) for n in range(group or points)]
    answers = data if callable(data) else _accuracy(data)
    rows: list[Tensor] = []
    for share in shares:
        pruned = copy.deepcopy(model)
        masks = magnitude_masks(whole, share, group=group)
        with torch.no_grad():
            for name, weight in prunable_weights(pruned, skip).items():
                weight *= masks[name]
        row = torch.as_tensor(answers(pruned)).detach().double().flatten().cpu()
        if not len(row):
            raise ConfigError("data holds no samples; give at least one batch")
        if rows and len(row) != len(rows[0]):
            raise ShapeError(f"data gave scores of {len(row)} samples, and of {len(rows[0])} before")
        rows.append(row)
    scores = torch.stack(rows).numpy()
    random = np.random.default_rng(seed)
    counts = random.multinomial(scores.shape[1], np.full(scores.shape[1], 1 / scores.shape[1]), size=draws)
    knees = [_knee(shares, curve) for curve in counts @ scores.T / scores.shape[1]]
    low, high = np.quantile(knees, [0.025, 0.975])
    curve = scores.mean(1)
    return SparsityKnee(tuple(shares), tuple(map(float, curve)), _knee(shares, curve), (float(low), float(high)), names)


def _knee(shares: Sequence[float], curve: np.ndarray) -> float:
    if curve[-1] >= curve[0]:
        return shares[-1]
    chord = curve[0] + np.asarray(shares) / shares[-1] * (curve[-1] - curve[0])
    return shares[int(np.argmax(curve - chord))]


def _accuracy(data: Iterable[Batch | tuple[Tensor, Tensor]]) -> Answers:
    held = list(data) if isinstance(data, Iterator) else data

    def answers(model: nn.Module) -> Tensor:
        device = next(model.parameters()).device
        right = []
        with evaluating(model), torch.no_grad():
            for batch in held:
                inputs, targets = (batch.images, batch.targets) if isinstance(batch, Batch) else batch
                right.append((model(inputs.to(device)).argmax(1) == targets.to(device)).cpu())
        return torch.cat(right).double() if right else torch.zeros(0)

    return answers
