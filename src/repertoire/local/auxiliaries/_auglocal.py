"""Auxiliary networks made of copies of the network's own later units."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from repertoire.errors import ConfigError
from repertoire.local._units import Unit
from repertoire.local.auxiliaries._base import Auxiliary, Site, averaged, pooled
from repertoire.registry import register

__all__ = ["Adapter", "AugLocal", "chosen", "depth_at", "redraw"]


@register("auxiliaries", "auglocal", paper="auglocal")
class AugLocal(Auxiliary):
    r"""Fresh copies of units chosen evenly from the rest of the network, so that a block learns what is to come.

    Ma, Wu, Si and Tan, *Scaling Supervised Local Learning with Augmented Auxiliary Networks* (ICLR 2024). The block
    that ends with unit l of L (counted from 0) gets the d units

    .. math:: l_i = \operatorname{round}\!\Big(l + \frac{L - 1 - l}{d}\, i\Big), \quad i = 1 \dots d

    or all that are left, if they are fewer, and block k of K has the depth ("pyramidal", with coefficient c)

    .. math:: d_k = \max\!\Big(1, \operatorname{round}\!\big(d\,(1 - \tfrac{kc}{K - 2}) + \tfrac{kc}{K - 2}\big)\Big)

    The copies have weights of their own, drawn anew. Where the maps do not fit the next copy they are averaged down to
    its resolution, and a 1x1 convolution with batch normalisation changes the channels; tokens are averaged over their
    grid. The released code builds new residual blocks instead, and halves the resolution at most once for each of
    them, so that its copies of late units work on larger maps than in the network; here they work on maps of the size
    that they have in the network, or smaller, which costs less.

    Args:
        site: where the network stands.
        depth: d, units in the auxiliary network of the first block, 1 or more; 2 by default.
        pyramid: c, from 0 (all have depth d) to 1 (the last has depth 1); 0.5 by default.
        size: largest side of the maps that the copies see, in pixels: what is cheap on a CPU. None (default) for the
            size in the network.

    Raises:
        ConfigError: an option out of range; or units that cannot be made to fit each other.

    Example:
        >>> import torch
        >>> from repertoire import backbones, heads
        >>> from repertoire.local import LocalLearning
        >>> from repertoire.methods import Classifier, Normalize
        >>> net = backbones.resnet20()
        >>> model = Classifier(Normalize([0.5] * 3, [0.25] * 3), net, heads.Linear(net.out_features, 10))
        >>> learner = LocalLearning(model, blocks=4, auxiliary="auglocal:depth=2", example=torch.zeros(2, 3, 32, 32),
        ...                         optimizer=lambda block: torch.optim.SGD(block.parameters(), lr=0.1))
        >>> [network.names for network in learner.auxiliaries]
        [['blocks.5', 'blocks.9'], ['blocks.6', 'blocks.9'], ['blocks.6', 'blocks.9']]
    """

    def __init__(self, site: Site, depth: int = 2, pyramid: float = 0.5, size: int | None = None) -> None:
        if depth < 1:
            raise ConfigError(f"auglocal: depth is {depth}; expected 1 or more")
        if not 0 <= pyramid <= 1:
            raise ConfigError(f"auglocal: pyramid is {pyramid}; expected a number from 0 to 1")
        if size is not None and size < 1:
            raise ConfigError(f"auglocal: size is {size}; expected 1 or more pixels")
        units = chosen(site, depth_at(site, depth, pyramid))
        layers, shape = _fitted(site, units, size)
        with torch.no_grad():
            width = int(pooled(site.maps(torch.zeros(1, *shape))).shape[1])
        super().__init__(site, width)
        self.names = [unit.name for unit in units]
        self.layers = nn.Sequential(*layers)
        self._maps = site.maps

    def embed(self, x: Tensor) -> Tensor:
        return pooled(self._maps(self.layers(x)))


def depth_at(site: Site, depth: int, pyramid: float) -> int:
    """Number of units in the auxiliary network of a block."""
    share = site.index * pyramid / (site.count - 2) if site.count > 2 else 0.0
    return max(1, round(depth * (1 - share) + share))


def chosen(site: Site, depth: int) -> list[Unit]:
    """The units to copy: evenly spaced among those that follow, the last one always among them."""
    left = len(site.following)
    if depth >= left:
        return list(site.following)
    return [site.following[round(site.unit + left / depth * i) - site.unit - 1] for i in range(1, depth + 1)]


def redraw(module: nn.Module) -> nn.Module:
    """Gives a copied module fresh weights: matrices from a normal distribution as wide as they were, norms and biases
    as they begin.

    The width is taken from the weights themselves, so that whatever initialisation the network has is kept.
    """
    for part in module.modules():
        statistics = getattr(part, "reset_running_stats", None)
        if callable(statistics):
            statistics()
        norm = "Norm" in type(part).__name__
        for name, parameter in part.named_parameters(recurse=False):
            with torch.no_grad():
                if norm:
                    parameter.fill_(0.0 if name == "bias" else 1.0)
                elif parameter.dim() > 1:
                    parameter.normal_(0.0, float(parameter.float().std()))
                elif name == "bias":
                    parameter.zero_()
    return module


def _fitted(site: Site, units: Sequence[Unit], size: int | None) -> tuple[list[nn.Module], tuple[int, ...]]:
    """Copies of the units with adapters between them, and the shape of what comes out."""
    layers: list[nn.Module] = []
    shape = site.shape
    for unit in units:
        copied = redraw(copy.deepcopy(unit.module)).requires_grad_(True)
        like = next(copied.parameters())
        wanted = _at_most(unit.entering, site.maps, size)
        for target in dict.fromkeys((wanted, unit.entering)):
            adapter = Adapter.between(shape, target, site.maps)
            found = _shape_after(nn.Sequential(*adapter, copied), shape, like)
            if found is not None:
                break
        else:
            raise ConfigError(
                f"auglocal: unit {unit.name} takes {list(unit.entering)}, and block {site.index + 1} gives "
                f"{list(shape)}, which cannot be made to fit; use another auxiliary network, such as 'conv' or 'linear'"
            )
        layers += [*adapter, copied]
        shape = found
    return layers, shape


def _at_most(shape: tuple[int, ...], maps: Callable[[Tensor], Tensor], size: int | None) -> tuple[int, ...]:
    """The shape of maps, no larger than `size`; tokens and vectors stay as they are."""
    if size is None or len(shape) != 3 or _layout(shape, maps) != "maps":
        return shape
    return (shape[0], min(shape[1], size), min(shape[2], size))


def _shape_after(module: nn.Module, shape: tuple[int, ...], like: Tensor) -> tuple[int, ...] | None:
    """The shape that a module makes of a shape, or None if it cannot take it. Leaves the module in training mode."""
    module = module.eval().to(device=like.device, dtype=like.dtype)
    try:
        with torch.no_grad():
            found = module(torch.zeros(2, *shape, device=like.device, dtype=like.dtype))
    except (RuntimeError, ValueError, IndexError):
        return None
    finally:
        module.train()
    return tuple(found.shape[1:]) if isinstance(found, Tensor) else None


def _layout(shape: tuple[int, ...], maps: Callable[[Tensor], Tensor]) -> str:
    """Layout of activations of this shape: "maps" (C, h, w), "last" (h, w, C), "tokens" (T, C), "vectors"."""
    if len(shape) == 3:
        with torch.no_grad():
            as_maps = tuple(maps(torch.zeros(1, *shape)).shape[1:])
        return "last" if as_maps != shape else "maps"
    return {1: "vectors", 2: "tokens"}.get(len(shape), "other")


class Adapter(nn.Module):
    """Makes activations of one shape fit another: averages them down, and mixes their channels.

    Args:
        source: shape of what comes in, without the batch.
        target: shape that is wanted, of the same or of a smaller resolution. Nothing is ever enlarged.
        maps: activations as maps `[N, C, h, w]`.
    """

    def __init__(self, source: tuple[int, ...], target: tuple[int, ...], maps: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self._maps = maps
        self.layout = _layout(target, maps)
        with torch.no_grad():
            before = tuple(maps(torch.zeros(1, *source)).shape[1:])
            after = tuple(maps(torch.zeros(1, *target)).shape[1:])
        self.side: tuple[int, int] | None = None
        if len(before) == 3 and len(after) == 3:
            self.side = (min(before[1], after[1]), min(before[2], after[2]))
            if self.side == before[1:]:
                self.side = None
        self.vectors = len(after) == 1
        channels, wanted = before[0], after[0]
        self.mix: nn.Module = nn.Identity()
        if self.vectors:
            self.mix = nn.Sequential(nn.Linear(channels, wanted), nn.ReLU())
        elif channels != wanted:
            self.mix = nn.Sequential(nn.Conv2d(channels, wanted, 1, bias=False), nn.BatchNorm2d(wanted), nn.ReLU())

    @staticmethod
    def between(source: tuple[int, ...], target: tuple[int, ...], maps: Callable[[Tensor], Tensor]) -> list[nn.Module]:
        """An adapter where one is needed, in a list."""
        return [] if source == target else [Adapter(source, target, maps)]

    def forward(self, x: Tensor) -> Tensor:
        x = self._maps(x)
        if self.vectors:
            return self.mix(pooled(x))
        if x.dim() != 4:
            x = x[..., None, None]
        if self.side is not None:
            x = averaged(x, self.side)
        x = self.mix(x)
        if self.layout == "last":
            return x.permute(0, 2, 3, 1)
        return x.flatten(2).transpose(1, 2) if self.layout == "tokens" else x
