"""Number of distinct features of a layer: channels with nearly equal incoming weights are one."""

from __future__ import annotations

import copy
import itertools
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from repertoire.errors import ConfigError, ShapeError

__all__ = ["FeatureComplexity", "feature_complexity", "merge_features", "network_complexity"]

_BETWEEN = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid, nn.Identity, nn.Dropout, nn.Dropout2d,
    nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d,
)  # fmt: skip


@dataclass(frozen=True)
class FeatureComplexity:
    """Channels of a layer that stay when those with nearly equal incoming weights are merged.

    Attributes:
        name: of the layer.
        channels: C.
        distinct: channels that stay, in 1..C.
        groups: int64 `[C]`, the merged channel that each belongs to, in 0..distinct-1.
    """

    name: str
    channels: int
    distinct: int
    groups: Tensor

    @property
    def share(self) -> float:
        """Share of the channels that stay."""
        return self.distinct / max(1, self.channels)


@torch.no_grad()
def feature_complexity(
    weight: Tensor, bias: Tensor | None = None, *, threshold: float = 0.1, keep: int | None = None, name: str = ""
) -> FeatureComplexity:
    r"""Counts the distinct features of a layer: iterative feature merging, without data.

    Chen, Zhou and Yan, *Going Beyond Neural Network Feature Similarity: The Network Feature Complexity and Its
    Interpretation Using Category Theory* (2023). The two channels with the closest incoming weights become one, with
    their mean, until no two are close enough. As a distance that means the same in every layer,

    .. math:: d(i, j) = \frac{\lVert w_i - w_j \rVert}{\sqrt{\tfrac1C \sum_k \lVert w_k \rVert^2}}

    is compared with the threshold here: independent channels are about 1.4 apart. A merged channel counts as many times
    in a mean as it has members. Time O(C²(D + m)) for m merges, memory O(C²): layers, not samples.

    Args:
        weight: `[C, ...]`, the incoming weights of each channel.
        bias: `[C]`; part of the incoming weights.
        threshold: channels at most this far apart are merged, 0 or more.
        keep: merge until so many are left, however far apart they are; the threshold is not looked at then.
        name: of the layer, for the result.

    Raises:
        ShapeError: a bias that does not fit, or no channel. ConfigError: a negative threshold, or `keep` outside 1..C.

    Example:
        >>> import torch
        >>> from repertoire.diagnostics import feature_complexity
        >>> feature_complexity(torch.tensor([[1.0, 0.0], [0.99, 0.01], [0.0, 1.0]])).distinct
        2
    """
    if weight.ndim < 2 or not len(weight) or (bias is not None and bias.shape != weight.shape[:1]):
        found = "none" if bias is None else list(bias.shape)
        raise ShapeError(f"weight must be [C, ...] with C >= 1 and bias [C], found {list(weight.shape)} and {found}")
    if not threshold >= 0:
        raise ConfigError(f"threshold must be 0 or more, found {threshold}")
    channels = len(weight)
    if keep is not None and not 1 <= keep <= channels:
        raise ConfigError(f"keep must lie in 1..{channels}, the number of channels, found {keep}")
    rows = weight.detach().flatten(1).double()
    if bias is not None:
        rows = torch.cat([rows, bias.detach().double()[:, None]], 1)
    rows = rows / rows.square().sum(1).mean().sqrt().clamp_min(1e-300)
    far = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist").fill_diagonal_(torch.inf)
    size = torch.ones(channels, dtype=torch.float64, device=rows.device)
    group = torch.arange(channels, device=rows.device)
    for left in range(channels, 1, -1):
        if keep is not None and left <= keep:
            break
        i, j = divmod(int(far.argmin()), channels)
        if keep is None and not float(far[i, j]) <= threshold:
            break
        rows[i] = (size[i] * rows[i] + size[j] * rows[j]) / (size[i] + size[j])
        size[i] += size[j]
        group[group == j] = i
        far[j] = far[:, j] = torch.inf
        distance = (rows - rows[i]).norm(dim=1).where(far[i].isfinite(), torch.inf)
        far[i] = far[:, i] = distance
    _, groups = group.unique(return_inverse=True)
    return FeatureComplexity(name, channels, int(groups.max()) + 1, groups.cpu())


def network_complexity(model: nn.Module, *, threshold: float = 0.1) -> list[FeatureComplexity]:
    """`feature_complexity` of every linear and convolutional layer of a network, in the order of its modules.

    Args:
        model: any network.
        threshold: see :func:`repertoire.diagnostics.feature_complexity`.

    Example:
        >>> from torch import nn
        >>> from repertoire.diagnostics import network_complexity
        >>> [(row.name, row.channels) for row in network_complexity(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)))]
        [('0', 4), ('1', 2)]
    """
    return [
        feature_complexity(module.weight, module.bias, threshold=threshold, name=name or "model")
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
    ]


@torch.no_grad()
def merge_features(model: nn.Sequential, *, threshold: float = 0.1, share: float | None = None) -> nn.Sequential:
    r"""A smaller network of the same function, nearly: channels with nearly equal incoming weights become one.

    The incoming weights of a group are averaged and its outgoing weights added up, layer by layer, as in Chen, Zhou and
    Yan (2023), see :func:`repertoire.diagnostics.feature_complexity`. Needs no data. The last layer keeps its channels.

    Args:
        model: a chain of `Linear` and `Conv2d` (of one group) with activations, pooling, dropout and `Flatten` between
            them; it is left alone.
        threshold: see `feature_complexity`.
        share: keep this share of the channels of each layer instead, in (0, 1].

    Returns:
        A new network.

    Raises:
        ConfigError: a module between two layers through which channels cannot be followed, which is named; or a share
            out of range.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from repertoire.diagnostics import merge_features
        >>> merge_features(nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2)), share=0.5)
        Sequential(
          (0): Linear(in_features=3, out_features=4, bias=True)
          (1): ReLU()
          (2): Linear(in_features=4, out_features=2, bias=True)
        )
    """
    if share is not None and not 0 < share <= 1:
        raise ConfigError(f"share must lie in (0, 1], found {share}")
    modules = [copy.deepcopy(module) for module in model]
    layers = [i for i, module in enumerate(modules) if isinstance(module, nn.Linear | nn.Conv2d)]
    for i, j in itertools.pairwise(layers):
        for k in range(i + 1, j):
            if not isinstance(modules[k], (*_BETWEEN, nn.Flatten)):
                raise ConfigError(
                    f"module {k} of the network, {type(modules[k]).__name__}, stands between two layers, and channels "
                    "cannot be followed through it; fold it into a layer, or leave it out"
                )
        first, second = modules[i], modules[j]
        assert isinstance(first, nn.Linear | nn.Conv2d)
        assert isinstance(second, nn.Linear | nn.Conv2d)
        if any(isinstance(layer, nn.Conv2d) and layer.groups != 1 for layer in (first, second)):
            raise ConfigError(f"module {i} or {j} of the network is a grouped convolution, which cannot be merged")
        keep = None if share is None else max(1, round(share * len(first.weight)))
        found = feature_complexity(first.weight, first.bias, threshold=threshold, keep=keep)
        groups = found.groups.to(first.weight.device)
        _shrink_output(first, groups, found.distinct)
        _shrink_input(second, groups, found.distinct)
    return nn.Sequential(*modules).train(model.training)


def _sums(rows: Tensor, groups: Tensor, count: int) -> Tensor:
    return rows.new_zeros(count, *rows.shape[1:]).index_add_(0, groups, rows)


def _shrink_output(layer: nn.Linear | nn.Conv2d, groups: Tensor, count: int) -> None:
    sizes = torch.bincount(groups, minlength=count)
    means = _sums(layer.weight, groups, count) / sizes.view(-1, *[1] * (layer.weight.ndim - 1))
    layer.weight = nn.Parameter(means)
    if layer.bias is not None:
        layer.bias = nn.Parameter(_sums(layer.bias, groups, count) / sizes)
    if isinstance(layer, nn.Linear):
        layer.out_features = count
    else:
        layer.out_channels = count


def _shrink_input(layer: nn.Linear | nn.Conv2d, groups: Tensor, count: int) -> None:
    weight = layer.weight
    # After a Flatten each channel has several columns, side by side.
    each = weight.shape[1] // len(groups)
    grouped = weight.reshape(len(weight), len(groups), -1).transpose(0, 1)
    summed = _sums(grouped, groups, count).transpose(0, 1)
    layer.weight = nn.Parameter(summed.reshape(len(weight), count * each, *weight.shape[2:]))
    if isinstance(layer, nn.Linear):
        layer.in_features = count * each
    else:
        layer.in_channels = count
