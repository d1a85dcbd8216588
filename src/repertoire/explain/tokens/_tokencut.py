"""TokenCut: the object of an image, cut out of the graph of its tokens, without a label."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.errors import ConfigError, ShapeError
from repertoire.explain._explainer import Explainer
from repertoire.explain._layers import Layer, Where, check_where, choose_layers
from repertoire.explain.cam._activation import record
from repertoire.registry import register

__all__ = ["Cut", "TokenCut", "token_cut"]

#: Entries of the affinities that are looked at together; their eigenvectors need a few times as much memory.
ENTRIES = 2**22


class Cut(NamedTuple):
    """The object in each image, by a cut of its tokens."""

    mask: Tensor
    """bool `[N, h, w]`: the object; empty where the graph has nothing to cut."""
    side: Tensor
    """bool `[N, h, w]`: all of the object's side of the cut, connected or not."""
    eigenvector: Tensor
    """float64 `[N, h, w]`: what the cut was made in, with the sign that makes the object positive; zero where there is
    nothing to cut."""
    boxes: Tensor
    """int64 `[N, 4]`: left, top, right and bottom of the object, in cells; right and bottom are the first outside."""


def token_cut(features: Tensor, *, tau: float = 0.2, eps: float = 1e-5) -> Cut:
    r"""The most salient object in maps of features, by a normalised cut of the graph of their cells.

    Wang et al., *Self-Supervised Transformers for Unsupervised Object Discovery using Normalized Cut* (2022). Cells
    with features f are linked by

    .. math::
        W_{ij} = \begin{cases} 1 & \cos(f_i, f_j) \ge \tau \\ \epsilon & \text{otherwise} \end{cases}, \qquad
        D_{ii} = \sum_j W_{ij}, \qquad (D - W)\,y = \lambda D y

    and divided at the mean of the y of the second smallest eigenvalue. The object's side is that of the cell with the
    largest :math:`|y|`, and the object the four-connected part of it that holds this cell. All images are solved in one
    batch, in double precision. (The released code links above tau, not from it on.)

    Args:
        features: float `[N, k, h, w]`, of two cells or more; their length does not matter.
        tau: cosine from which on two cells are linked, in [-1, 1]; the paper's 0.2 is for the keys of a transformer.
        eps: weight of all other links, above 0.

    Returns:
        masks, the sides of the cut, eigenvectors and boxes. Where all pairs of cells are linked alike there is nothing
        to cut: the mask is empty and the box 0.

    Raises:
        ShapeError: features of another shape or dtype.
        ConfigError: tau or eps out of range.

    Example:
        >>> import torch
        >>> from repertoire.explain import token_cut
        >>> maps = torch.zeros(1, 2, 4, 4)
        >>> maps[:, 0] = 1.0
        >>> maps[:, :, 1:3, 2] = torch.tensor([[[0.0, 0.0], [1.0, 1.0]]])
        >>> token_cut(maps).boxes
        tensor([[2, 1, 3, 3]])
    """
    _check(tau, eps)
    if features.ndim != 4 or not features.is_floating_point() or features.shape[2:].numel() < 2:
        raise ShapeError(
            f"features must be floating point maps [N, k, h, w] of two cells or more, found {features.dtype} "
            f"{list(features.shape)}"
        )
    count, _, h, w = features.shape
    rows = max(1, ENTRIES // (h * w) ** 2)
    tokens = F.normalize(features.detach().double().flatten(2), dim=1)
    y = torch.cat([_second(part, tau, eps) for part in tokens.split(rows)])
    seed = y.abs().argmax(1, keepdim=True)
    y = y * y.gather(1, seed).sign()
    side = y > y.mean(1, keepdim=True)
    mask = _part_of(side.view(count, h, w), seed)
    return Cut(mask, side.view(count, h, w), y.view(count, h, w), _boxes(mask))


def _check(tau: float, eps: float) -> None:
    if not -1 <= tau <= 1:
        raise ConfigError(f"tau is a cosine, in [-1, 1]; found {tau}")
    if not 0 < eps < 1:
        raise ConfigError(f"eps must lie between 0 and 1, found {eps}")


def _second(tokens: Tensor, tau: float, eps: float) -> Tensor:
    """The eigenvector y of the second smallest eigenvalue, `[n, T]`, of unit tokens `[n, k, T]`; zero without a cut."""
    cosines = tokens.transpose(1, 2) @ tokens
    weights = torch.where(cosines >= tau, 1.0, eps).to(tokens.dtype)
    scale = weights.sum(2).rsqrt()
    # D^-1/2 W D^-1/2 has the eigenvalues 1 - lambda and the eigenvectors D^1/2 y.
    _, vectors = torch.linalg.eigh(scale[:, :, None] * weights * scale[:, None, :])
    y = vectors[:, :, -2] * scale
    # The diagonal says nothing of how cells are linked with each other.
    size = weights.shape[1]
    others = weights.flatten(1)[:, 1:].unflatten(1, (size - 1, size + 1))[:, :, :-1].flatten(1)
    return y * (others.amin(1) < others.amax(1))[:, None]


def _part_of(side: Tensor, seed: Tensor) -> Tensor:
    """The four-connected part of each map `[N, h, w]` that holds its seed, an index `[N, 1]` into the cells."""
    from scipy import ndimage

    structure = np.zeros((3, 3, 3), dtype=bool)
    structure[1] = ndimage.generate_binary_structure(2, 1)  # nothing is connected across images
    labels, _ = ndimage.label(side.cpu().numpy(), structure)
    parts = torch.from_numpy(labels).to(side.device).flatten(1)
    return ((parts == parts.gather(1, seed)) & (parts > 0)).view_as(side)


def _boxes(mask: Tensor) -> Tensor:
    """Left, top, right and bottom of masks `[N, h, w]`, int64 `[N, 4]`; 0 where a mask is empty."""

    def ends(line: Tensor) -> tuple[Tensor, Tensor]:
        size = line.shape[1]
        place = torch.arange(size, device=line.device)
        first = torch.where(line, place, size).amin(1)
        return first.where(line.any(1), 0), torch.where(line, place + 1, 0).amax(1)

    (left, right), (top, bottom) = ends(mask.any(1)), ends(mask.any(2))
    return torch.stack([left, top, right, bottom], 1)


@register("explainers", "tokencut", paper="tokencut")
class TokenCut(Explainer):
    """TokenCut: the most salient object, found without a label by a normalised cut of a network's tokens.

    Wang et al., *Self-Supervised Transformers for Unsupervised Object Discovery using Normalized Cut* (2022);
    :func:`repertoire.explain.token_cut` has the formula. The map is 1 on the object and 0 elsewhere, the same for every
    class, and needs no gradient; the pass ends at the layer that is looked at.

    A transformer is looked at as in the paper: the keys of its last attention, all heads together. They are the middle
    third of what a linear layer called `qkv` gives, as in Repertoire's ViT and those of timm. Any other network gives
    the features of its last maps. These are positive after a ReLU, and then all of them are alike: so the mean of an
    image's features is taken off them, which the paper does not do with keys.

    Args:
        layer: where to take features instead: a module of the model or its name; see
            :class:`repertoire.explain.GradCAM`.
        tau: cosine from which on two tokens are linked, in [-1, 1].
        eps: weight of all other links, above 0.
        centred: take the mean of an image's features off them; by default of all but keys.
        whole: all of the object's side of the cut instead of the one connected part with the most salient token.
        output: what to take as the scores `[N, C]` of what the model returns; only for checking `targets`.

    Raises:
        ConfigError: options out of range, or a layer that is of no use.

    Example:
        >>> import torch
        >>> from repertoire import backbones
        >>> from repertoire.explain import TokenCut
        >>> net = backbones.ViT(image_size=32, dim=24, depth=2)
        >>> TokenCut()(net, torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 32, 32])
    """

    class_dependent = False

    # `layer` may be a module; Any, because the registry checks options by type and knows no modules.
    def __init__(
        self,
        layer: str | Any = None,
        tau: float = 0.2,
        eps: float = 1e-5,
        centred: bool | None = None,
        whole: bool = False,
        output: Callable[..., Tensor] | None = None,
    ) -> None:
        super().__init__(normalize=False, output=output)
        self.layer: Where = check_where(layer)
        if isinstance(self.layer, list):
            raise ConfigError(f"tokencut cuts the features of one layer, found {len(self.layer)} layers")
        _check(tau, eps)
        self.tau, self.eps, self.centred, self.whole = tau, eps, centred, whole

    def _explain(self, model: nn.Module, inputs: Tensor, targets: Tensor | int | None) -> Tensor:
        keys = _keys(model, inputs) if self.layer is None else None
        layer = keys or choose_layers(model, self.layer, inputs, slopes=False)[0][0]
        seen = record(self, model, [layer], inputs, targets, slopes=False, until_scores=targets is not None)
        (maps,) = seen.maps
        if self.centred or (self.centred is None and keys is None):
            maps = maps - maps.mean((2, 3), keepdim=True)
        cut = token_cut(maps, tau=self.tau, eps=self.eps)
        found = (cut.side if self.whole else cut.mask).to(maps.dtype)
        heat = F.interpolate(found[:, None], inputs.shape[2:], mode="nearest")[:, 0]
        return heat.expand(1 if seen.chosen is None else len(seen.chosen), *heat.shape)


def _keys(model: nn.Module, inputs: Tensor) -> Layer | None:
    """The keys of the last attention as maps; None for a network whose attention does not show them."""
    named = [(name, module) for name, module in model.named_modules() if name.rpartition(".")[2] == "qkv"]
    found = [(n, m) for n, m in named if isinstance(m, nn.Linear) and m.out_features == 3 * m.in_features]
    if not found:
        return None
    name, module = found[-1]
    layer = choose_layers(model, module, inputs, slopes=False)[0][0]

    def to_maps(output: Tensor) -> Tensor:
        if output.ndim != 3 or len(output) != len(inputs):
            raise ConfigError(
                f"layer {name!r} gives {list(output.shape)} for {len(inputs)} images: its attention does not see all "
                "tokens of an image together; say with layer= where features are to be taken"
            )
        return layer.to_maps(output.chunk(3, -1)[1])

    return Layer(module, name, to_maps)
