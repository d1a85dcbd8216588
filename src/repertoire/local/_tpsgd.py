"""Target projection SGD as a rule of the trainer."""

from __future__ import annotations

from typing import Literal

from repertoire.local._rule import BlockRule
from repertoire.local.auxiliaries._target_projection import Distance, Maps
from repertoire.registry import register

__all__ = ["TargetProjectionSGD"]


@register("rules", "tpsgd", paper="tpsgd")
class TargetProjectionSGD(BlockRule):
    """Target projection SGD: every layer is drawn to a fixed random function of the label, in the forward pass.

    Lomnitz, Daniels, Zhang and Piacentino, *Learning with Local Gradients at the Edge* (2022). No gradient passes
    between any two units of the network, and there is no auxiliary network to train: see
    :class:`repertoire.local.TargetProjection` for the formula and the options. The head is a unit of its own, and
    minimises what the method does. Otherwise this is `--rule local`: memory, precision, accumulation, checkpoints and
    early exit are the same.

    Args:
        blocks: "all" (default) trains every unit alone, as the paper does; a number makes blocks that are trained by
            back-propagation inside.
        maps: "pooled" (default), "channels" or "flat".
        distance: "l2" (default), "l1", or "direct" for direct random target projection.
        activation: what the layers end with; "auto" (default) looks it up.
        scale: standard deviation of the random matrices; 1 by default.
        compile: compile each unit with torch.compile.

    Raises:
        ConfigError: the method's network cannot be cut so, or the method does without labels.

    Example:
        >>> from repertoire.local import TargetProjectionSGD
        >>> TargetProjectionSGD(distance="l1").auxiliary
        'target-projection:maps=pooled,distance=l1,activation=auto,scale=1.0'
    """

    labels = True
    head_apart = True

    def __init__(
        self,
        blocks: int | Literal["all"] = "all",
        maps: Maps = "pooled",
        distance: Distance = "l2",
        activation: str = "auto",
        scale: float = 1.0,
        compile: bool = False,
    ) -> None:
        auxiliary = f"target-projection:maps={maps},distance={distance},activation={activation},scale={scale}"
        super().__init__(blocks=blocks, auxiliary=auxiliary, compile=compile)
