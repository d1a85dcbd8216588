"""Where an image looks like the prototypes of a class."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.errors import ConfigError
from repertoire.explain._explainer import Explainer, classes
from repertoire.heads import SupportTrivial
from repertoire.registry import register

__all__ = ["PrototypeParts"]


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
        normalize: divide each map by its largest value, so that maps lie in [0, 1].
        output: what to take as the scores `[N, C]` of what the model returns.

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
        output: Callable[[Any], Tensor] | None = None,
    ) -> None:
        super().__init__(normalize, output)
        if sets not in ("both", "support", "trivial"):
            raise ConfigError(f"sets must be both, support or trivial, found {sets!r}")
        self.sets = sets

    def _explain(self, model: nn.Module, inputs: Tensor, targets: Tensor | int | None) -> Tensor:
        head = getattr(model, "head", None)
        if not isinstance(head, SupportTrivial):
            raise ConfigError(
                f"the {type(model).__name__} has no prototypes to show; train one with --method support-trivial"
            )
        parts = {k: v for k, v in head.prototypes().items() if self.sets in ("both", k)}
        if not parts:
            raise ConfigError(f"the model has no {self.sets} prototypes, only {', '.join(head.prototypes())} ones")
        kept: list[Tensor] = []
        handle = head.register_forward_pre_hook(lambda module, args: kept.append(args[0]))
        try:
            result = model(inputs)
        finally:
            handle.remove()
        chosen = classes(targets, self.scores(model, result, len(inputs)))
        (maps,) = kept
        rows = torch.arange(len(inputs), device=maps.device)
        heat = sum(self._heat(part, maps, chosen, rows) for part in parts.values())
        assert isinstance(heat, Tensor)
        return F.interpolate(heat.relu(), inputs.shape[2:], mode="bilinear", align_corners=False)

    def _heat(self, part: Any, maps: Tensor, chosen: Tensor, rows: Tensor) -> Tensor:
        """What one set says of each cell, `[Q, N, h, w]`."""
        similarities = part.similarities(maps)[rows, chosen]  # [Q, N, K, h, w]
        count, per_class, _ = part.vectors.shape
        own = part.connections.view(count, count, per_class)[chosen, chosen]  # [Q, N, K]
        return torch.einsum("qnkhw,qnk->qnhw", similarities, own.to(similarities.dtype))
