"""Random target projection: each layer has a target of its own, a fixed random function of the label."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from repertoire.data import Batch
from repertoire.errors import ConfigError, UnknownName
from repertoire.local.auxiliaries._base import Auxiliary, LocalLoss, Site, pooled
from repertoire.methods import Step
from repertoire.ops import evaluating
from repertoire.registry import register

__all__ = ["ACTIVATIONS", "Distance", "Maps", "TargetProjection", "last_activation", "target_distance"]

Distance = Literal["l2", "l1", "direct"]
Maps = Literal["flat", "channels", "pooled"]

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "relu": F.relu,
    "relu6": F.relu6,
    "leaky_relu": F.leaky_relu,
    "elu": F.elu,
    "selu": F.selu,
    "gelu": F.gelu,
    "silu": F.silu,
    "mish": F.mish,
    "softplus": F.softplus,
    "hardtanh": F.hardtanh,
    "hardswish": F.hardswish,
    "hardsigmoid": F.hardsigmoid,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}

_PASSIVE = {
    "dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout",
    "max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d", "fn",
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_max_pool1d", "adaptive_max_pool2d",
    "mean", "amax", "flatten", "unflatten", "view", "reshape", "permute", "transpose", "squeeze", "unsqueeze",
    "contiguous", "clone", "to", "float", "getitem", "get",
}  # fmt: skip
"""What may stand between the last activation and the end of a layer: the range of its values stays the same."""


class _Watch(TorchFunctionMode):
    """Remembers which activation was the last thing that happened."""

    found = "none"

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "").strip("_")
        if name in ACTIVATIONS:
            self.found = name
        elif isinstance(result, Tensor) and name not in _PASSIVE:
            self.found = "none"
        return result


def last_activation(module: nn.Module, x: Tensor) -> str:
    """The name of the activation that a module's output comes from, or "none": a key of `ACTIVATIONS`.

    Pooling, dropout and changes of shape after it do not count. The module runs once, in eval mode and without
    gradient; nothing in it changes.

    Example:
        >>> last_activation(nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Dropout()), torch.zeros(1, 2))
        'tanh'
        >>> last_activation(nn.Sequential(nn.Tanh(), nn.Linear(2, 3)), torch.zeros(1, 2))
        'none'
    """
    with evaluating(module), torch.no_grad(), _Watch() as watch:
        module(x)
    return watch.found


def target_distance(h: Tensor, projected: Tensor, activation: str, distance: Distance) -> Tensor:
    r"""Distance of each output `[N, D]` or `[N, C, ...]` from its target, `[N]`; see `TargetProjection`.

    Args:
        h: outputs; sums go over their second dimension, and means over all that follow.
        projected: :math:`B_l y`, of the shape of the outputs, or of one that broadcasts to it.
        activation: key of `ACTIVATIONS`.
        distance: "l2", "l1" or "direct".
    """
    h, projected = h.float() if h.dtype in (torch.float16, torch.bfloat16) else h, projected.to(h.dtype)
    if distance == "direct":
        terms = -h * projected
    else:
        difference = h - ACTIVATIONS[activation](projected)
        terms = difference.abs() if distance == "l1" else difference.square() / 2
    per_channel = terms.sum(1)
    return per_channel if per_channel.dim() == 1 else per_channel.flatten(1).mean(1)


class NearestTarget(nn.Module):
    r"""Class scores from the distance to the target of each class, :math:`-\tfrac12 \lVert h - t_c \rVert^2` up to
    what all classes have in common. There is nothing in it to train.

    Args:
        projection: B, `[K, D]`; a buffer.
        activation: key of `ACTIVATIONS`.
        places: how many values of a feature vector belong to one channel; the scores are means over them.
    """

    projection: Tensor

    def __init__(self, projection: Tensor, activation: str, places: int = 1) -> None:
        super().__init__()
        self.register_buffer("projection", projection)
        self.activation = activation
        self.places = places

    def forward(self, features: Tensor) -> Tensor:
        """Logits `[N, K]` of features `[N, D]`."""
        targets = ACTIVATIONS[self.activation](self.projection).to(features.dtype)
        return (features @ targets.T - targets.square().sum(1) / 2) / self.places


@register("auxiliaries", "target-projection", paper="tpsgd")
class TargetProjection(Auxiliary):
    r"""A fixed random target for each class: the block is drawn to it, and no auxiliary network is trained.

    Lomnitz, Daniels, Zhang and Piacentino, *Learning with Local Gradients at the Edge* (2022). With the one-hot label
    y, a random matrix :math:`B_l` that is never changed, and the activation :math:`\sigma_l` that the layer ends with:

    .. math:: t_l = \sigma_l(B_l\,y), \qquad
              \mathcal L_l = \tfrac12 \lVert h_l - t_l \rVert_2^2, \qquad h_l = f_l(\operatorname{sg}[h_{l-1}])

    The paper allows any loss between the two. `direct` is the rule that it generalises, direct random target projection
    (Frenkel, Lefebvre and Bol, *Learning Without Feedback*, 2021), where :math:`B_l\,y` itself takes the place of
    the gradient with respect to :math:`h_l`: :math:`\mathcal L_l = -\langle h_l, B_l\,y \rangle`.

    How the target of a map `[C, h, w]` is formed could not be found in the paper's text, and no code was released:
    `maps` offers what is reasonable. Squares are summed over channels and averaged over places, so that the step
    suited to a layer does not depend on the size of its maps. The block answers, as an exit, with the class whose
    target is nearest.

    Used by `--rule tpsgd`, which gives every layer, the head included, a block of its own.

    Args:
        site: where the block stands.
        maps: "pooled" (default): the average over the places of a map has a target for each channel. "channels": all
            places have the same. "flat": each value of the map has its own, as in direct random target projection; the
            matrix then has K times as many entries as the map, which is much where maps are large. A layer that ends in
            a flattening gives vectors, whatever this says.
        distance: "l2" (default), "l1", or "direct".
        activation: what the layer ends with, "relu", "tanh", ..., "none"; by default ("auto") it is looked up, by
            running the layer once.
        scale: standard deviation of the entries of B, which are normal; 1 by default.

    Raises:
        ConfigError: scale is not positive; UnknownName: no such activation.

    Example:
        >>> import torch
        >>> from repertoire.local import LocalLearning
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))
        >>> learner = LocalLearning(net, "all", "target-projection", example=torch.zeros(2, 4),
        ...                         optimizer=lambda block: torch.optim.SGD(block.parameters(), lr=0.1))
        >>> logs = learner.step(torch.randn(6, 4), torch.tensor([0, 1, 2, 0, 1, 2]))
        >>> learner.auxiliaries[0].activation, sum(p.numel() for p in learner.auxiliaries.parameters())
        ('tanh', 0)
    """

    classifier: NearestTarget

    def __init__(
        self,
        site: Site,
        maps: Maps = "pooled",
        distance: Distance = "l2",
        activation: str = "auto",
        scale: float = 1.0,
    ) -> None:
        if not scale > 0:
            raise ConfigError(f"target-projection: scale is {scale}; expected a positive number")
        if activation not in ("auto", *ACTIVATIONS):
            raise UnknownName("activation", activation, ["auto", *ACTIVATIONS])
        for name, value, known in (("maps", maps, Maps), ("distance", distance, Distance)):
            if value not in get_args(known):
                raise ConfigError(
                    f"target-projection: {name} is {value!r}; expected one of {', '.join(get_args(known))}"
                )
        if activation == "auto":
            last = site.own[-1]
            like = next(last.module.parameters())
            activation = last_activation(
                last.module, torch.zeros(1, *last.entering, device=like.device, dtype=like.dtype)
            )
        channels = site.grid[0]
        width = torch.Size(site.shape).numel() if maps == "flat" else channels
        projection = scale * torch.randn(site.classes, width)
        super().__init__(site, width, NearestTarget(projection, activation, width // channels))
        self.maps = maps
        self.distance: Distance = distance
        self.activation = activation
        self._maps = site.maps

    def embed(self, x: Tensor) -> Tensor:
        return x.flatten(1) if self.maps == "flat" else pooled(self._maps(x))

    def check_loss(self, loss: LocalLoss) -> None:
        """Takes any: the loss of the network plays no part in the blocks before the last."""

    def objective(self, x: Tensor, batch: Batch, loss: LocalLoss) -> Step:
        """The distance of the block's output from the target of its class; the network's loss takes no part.

        Samples without a label (-1) take none either.
        """
        labels = batch.targets.repeat(len(batch.views))
        labelled = labels >= 0
        projected = self.classifier.projection[labels.clamp_min(0)]
        features = self.embed(x)
        h = features
        if self.maps == "channels":
            h = self._maps(x)
            projected = projected.view(*projected.shape, *[1] * (h.dim() - 2))
        distances = target_distance(h, projected, self.activation, self.distance) / self.classifier.places
        value = (distances * labelled).sum() / labelled.sum().clamp_min(1)
        accuracy = (self.classifier(features.detach()).argmax(1) == labels).float().mean()
        return Step(value, {"loss": value.detach(), "accuracy": accuracy})
