"""Occlusion: what is lost when a component is hidden."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from repertoire.explain.attribution._local_approximation import Baseline, LocalApproximation, Segments, Sign
from repertoire.registry import register

__all__ = ["Occlusion"]


@register("explainers", "occlusion", paper="local-function-approximation")
class Occlusion(LocalApproximation):
    r"""Occlusion: how much the score falls when a component is hidden.

    Zeiler and Fergus, *Visualizing and Understanding Convolutional Networks* (2014); a
    :class:`~repertoire.explain.LocalApproximation` of values where one component is removed, that agrees with the
    score at the input. With :math:`x_{-j}` the input with the baseline in component j:

    .. math:: \phi_j = f(x) - f(x_{-j})

    One pass for each component; squares do not overlap.

    Args:
        baseline: what hidden values become: a number, a tensor that broadcasts to the inputs (one for each channel,
            `[C]` or `[C, 1, 1]`, or for each column, `[D]`), or "mean" for the mean of each image's channels.
        patch: side in pixels of the squares that are an image's components, by default about a seventh of the shorter
            side. Each column of features is one.
        segments: components instead of squares: int64 from 0, `[H, W]` or `[N, H, W]` (columns that belong together:
            `[D]` or `[N, D]`), or a function from inputs to that.
        sign: of images when normalised: the "positive" part (evidence for the class), the "magnitude", or "negative"
            (evidence against it).
        batch_size: at most how many inputs pass at once.
        normalize: divide each map by its largest value, so that maps lie in [0, 1], and the attribution of features by
            its largest magnitude. Without it, both are signed and in units of the score.
        output: what to take as the scores `[N, C]` of what the model returns.

    Shapes:
        Images `[N, C, H, W]` to `[N, H, W]`, features `[N, D]` to `[N, D]`.

    Raises:
        ConfigError: an option out of range.
        ShapeError: inputs, scores, targets, segments or a baseline that do not fit.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from repertoire.explain import Occlusion
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 14 * 14, 5))
        >>> Occlusion(patch=4)(net, torch.rand(2, 3, 16, 16)).shape
        torch.Size([2, 16, 16])
    """

    def __init__(
        self,
        baseline: Baseline = 0.0,
        patch: int | None = None,
        segments: Segments = None,
        sign: Sign = "positive",
        batch_size: int = 64,
        normalize: bool = True,
        output: Callable[[Any], Tensor] | None = None,
    ) -> None:
        super().__init__(
            "one-out", "value", baseline=baseline, patch=patch, segments=segments, sign=sign, batch_size=batch_size,
            normalize=normalize, output=output,
        )  # fmt: skip
