"""Prototypical parts: the places where an image looks like the prototypes of a class."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.data import Batch
from repertoire.errors import ConfigError, option
from repertoire.explain._arguments import one_of
from repertoire.explain._explainer import Explainer, classes, every_row, moved, undisturbed
from repertoire.heads import SupportTrivial
from repertoire.registry import register

__all__ = ["PrototypeExamples", "PrototypeParts", "prototype_examples"]


class PrototypeExamples(NamedTuple):
    """The cell of a training image that is most like each prototype."""

    image: Tensor
    """int64 `[C, K]`: which image, by `batch.index`; -1 where a class had none."""
    cell: Tensor
    """int64 `[C, K, 2]`: row and column of the map."""
    similarity: Tensor
    """`[C, K]`, in [0, 1]."""
    grid: tuple[int, int]
    """Height and width of the map, for the place of a cell in the image."""


@register("explainers", "prototype-parts", paper="st-protopnet")
class PrototypeParts(Explainer):
    r"""Prototypical parts: where an image looks like the prototypes of a class, and how much each counts.

    Wang et al., *Learning Support and Trivial Prototypes for Interpretable Image Classification* (2023); for networks
    that method `support-trivial` has trained. With the similarity :math:`s_{ck}(u)` of cell u to prototype k of class
    c, and the weight w that it has in the score of c:

    .. math:: L(u) = \mathrm{ReLU} \sum_{\text{sets}} \sum_k w_{c,ck} \, s_{ck}(u)

    enlarged bilinearly. The score itself counts of each prototype the most similar cell only, so this is no
    approximation of what the network does but a look at it: one pass, no gradient.

    Args:
        sets: the prototypes to show: "both" (default), "support" or "trivial".

    Raises:
        ConfigError: the model has no prototypes, or not of these sets.

    Example:
        >>> import torch
        >>> from repertoire import backbones, heads
        >>> from repertoire.explain import PrototypeParts
        >>> from repertoire.methods import Classifier, Normalize
        >>> net = backbones.ConvNet(width=4, depth=2)
        >>> model = Classifier(Normalize([0.5] * 3, [0.25] * 3), net, heads.SupportTrivial(net.out_features, 5))
        >>> PrototypeParts()(model, torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 32, 32])
    """

    kinds = ("parts",)

    def __init__(
        self,
        sets: Literal["both", "support", "trivial"] = "both",
        normalize: bool = True,
        output: Callable[..., Tensor] | None = None,
    ) -> None:
        super().__init__(normalize, output)
        one_of(sets=(sets, ("both", "support", "trivial")))
        self.sets = sets

    def _explain(self, model: nn.Module, inputs: Tensor, targets: Tensor | int | None) -> Tensor:
        head = _head(model)
        parts = {k: v for k, v in head.prototypes().items() if self.sets in ("both", k)}
        if not parts:
            raise ConfigError(f"the model has no {self.sets} prototypes, only {', '.join(head.prototypes())} ones")
        kept: list[Tensor] = []
        handle = head.register_forward_pre_hook(lambda module, args: kept.append(args[0]))
        try:
            result = model(inputs)
        finally:
            handle.remove()
        chosen = classes(targets, self.scores(model, result, every_row(inputs)))
        (maps,) = kept
        rows = torch.arange(len(inputs), device=maps.device)
        heat = sum(self._heat(part, maps, chosen, rows) for part in parts.values())
        assert isinstance(heat, Tensor)
        return F.interpolate(heat.relu(), inputs.shape[2:], mode="bilinear", align_corners=False)

    def _heat(self, part: Any, maps: Tensor, chosen: Tensor, rows: Tensor) -> Tensor:
        """Heat of each cell by one set of prototypes, `[Q, N, h, w]`."""
        similarities = part.similarities(maps)[rows, chosen]  # [Q, N, K, h, w]
        count, per_class, _ = part.vectors.shape
        own = part.connections.view(count, count, per_class)[chosen, chosen]  # [Q, N, K]
        return torch.einsum("qnkhw,qnk->qnhw", similarities, own.to(similarities.dtype))


def prototype_examples(model: nn.Module, batches: Iterable[Batch]) -> dict[str, PrototypeExamples]:
    """Finds the part of a training image of its class that is most like each prototype.

    Wang et al., *Learning Support and Trivial Prototypes for Interpretable Image Classification* (2023), who also move
    prototypes there now and then while training. One pass over the images; of each batch only the best are kept.

    Args:
        model: a classifier with the head `support-trivial`; runs in evaluation mode, and is left as it was.
        batches: labelled, such as those of a :class:`repertoire.data.Loader` over the training images.

    Returns:
        The examples of each set, by its name.

    Raises:
        ConfigError: the model has no prototypes, or there is no batch.

    Example:
        >>> import torch
        >>> from repertoire import backbones, heads
        >>> from repertoire.data import Batch
        >>> from repertoire.explain import prototype_examples
        >>> from repertoire.methods import Classifier, Normalize
        >>> net = backbones.ConvNet(width=4, depth=2)
        >>> model = Classifier(Normalize([0.5] * 3, [0.25] * 3), net, heads.SupportTrivial(net.out_features, 2))
        >>> batch = Batch((torch.rand(4, 3, 32, 32),), torch.tensor([0, 0, 1, 1]), torch.arange(4))
        >>> prototype_examples(model, [batch])["support"].image.shape
        torch.Size([2, 5])
    """
    parts = _head(model).prototypes()
    best: dict[str, Tensor] = {}
    place: dict[str, Tensor] = {}
    grid = (0, 0)
    with undisturbed(model):
        for batch in batches:
            maps = _maps(model, moved(model, batch.images))
            grid = (maps.shape[2], maps.shape[3])
            labels, index = batch.targets.to(maps.device), batch.index.to(maps.device)
            for name, part in parts.items():
                similarities = part.similarities(maps).flatten(3)  # [N, C, K, cells]
                known = torch.arange(similarities.shape[1], device=maps.device)[None] == labels[:, None]
                similarities = similarities.masked_fill(~known[:, :, None, None], -1.0)
                values, where = similarities.permute(1, 2, 0, 3).flatten(2).max(2)
                cells = grid[0] * grid[1]
                found = torch.stack([index[where // cells], where % cells], 2)
                found = found.masked_fill((values < 0)[:, :, None], -1)
                if name in best:
                    better = values > best[name]
                    values = torch.where(better, values, best[name])
                    found = torch.where(better[:, :, None], found, place[name])
                best[name], place[name] = values, found
    if not best:
        raise ConfigError("there is no batch to find examples in")
    return {
        name: PrototypeExamples(
            place[name][:, :, 0],
            torch.stack([place[name][:, :, 1] // grid[1], place[name][:, :, 1] % grid[1]], 2),
            best[name].clamp_min(0),
            grid,
        )
        for name in parts
    }


def _head(model: nn.Module) -> SupportTrivial:
    head = getattr(model, "head", None)
    if not isinstance(head, SupportTrivial):
        raise ConfigError(
            f"the {type(model).__name__} has no prototypes to show; train one with "
            f"{option('method', 'support-trivial')}"
        )
    return head


def _maps(model: nn.Module, images: Tensor) -> Tensor:
    """Runs the model for the maps that its head is given."""
    kept: list[Tensor] = []
    handle = _head(model).register_forward_pre_hook(lambda module, args: kept.append(args[0]))
    try:
        model(images)
    finally:
        handle.remove()
    return kept[0]
