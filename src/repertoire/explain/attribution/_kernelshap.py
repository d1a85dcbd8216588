"""KernelSHAP: Shapley values by least squares."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from repertoire.explain.attribution._local_approximation import Baseline, LocalApproximation, Segments, Sign
from repertoire.registry import register

__all__ = ["KernelSHAP"]


@register("explainers", "kernel-shap", paper="local-function-approximation")
class KernelSHAP(LocalApproximation):
    r"""KernelSHAP: the Shapley value of each component, by a linear fit to coalitions.

    Lundberg and Lee, *A Unified Approach to Interpreting Model Predictions* (2017); a
    :class:`~repertoire.explain.LocalApproximation` of values on coalitions z of the D components under the Shapley
    kernel, which is infinite for the empty coalition b (the baseline) and for the full one x:

    .. math::
        \min_\phi \sum_z \frac{D - 1}{\binom{D}{|z|} |z| (D - |z|)} \big( f(x_z) - f(b) - \phi^T z \big)^2
        \quad \text{with} \quad \sum_j \phi_j = f(x) - f(b)

    The constraint is met exactly. Where there are at most `samples` coalitions all are used, and the result is the
    Shapley values; else they are drawn from the kernel, each beside its complement, which takes out much of the noise
    (Covert and Lee, *Improving KernelSHAP*, 2021).

    Args:
        samples: at most how many coalitions.
        baseline: what the values of absent components become: a number, a tensor that broadcasts to the inputs (one for
            each channel, `[C]` or `[C, 1, 1]`, or for each column, `[D]`), or "mean" for the mean of each image's
            channels.
        patch: side in pixels of the squares that are an image's components, by default about a seventh of the shorter
            side. Each column of features is one.
        segments: components instead of squares, such as superpixels: int64 from 0, `[H, W]` or `[N, H, W]` (columns
            that belong together: `[D]` or `[N, D]`), or a function from inputs to that.
        sign: of images when normalised: the "positive" part (evidence for the class), the "magnitude", or "negative"
            (evidence against it).
        seed: of the coalitions, which all images share.
        batch_size: at most how many inputs pass at once.
        normalize: divide each map by its largest value, so that maps lie in [0, 1], and the attribution of features by
            its largest magnitude. Without it, both are signed and in units of the score.
        output: what to take as the scores `[N, C]` of what the model returns.

    Shapes:
        Images `[N, C, H, W]` to `[N, H, W]`, features `[N, D]` to `[N, D]`.

    Raises:
        ConfigError: an option out of range; fewer samples than twice the components, unless they are all coalitions.
        ShapeError: inputs, scores, targets, segments or a baseline that do not fit.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from repertoire.explain import KernelSHAP
        >>> net, x = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), torch.randn(3, 4)
        >>> shares = KernelSHAP(normalize=False)(net, x, targets=0)
        >>> rise = net(x)[:, 0] - net(torch.zeros_like(x))[:, 0]
        >>> torch.allclose(shares.sum(1), rise, atol=1e-5)
        True
    """

    def __init__(
        self,
        samples: int = 500,
        baseline: Baseline = 0.0,
        patch: int | None = None,
        segments: Segments = None,
        sign: Sign = "positive",
        seed: int = 0,
        batch_size: int = 64,
        normalize: bool = True,
        output: Callable[[Any], Tensor] | None = None,
    ) -> None:
        super().__init__(
            "shapley", "value", samples=samples, baseline=baseline, patch=patch, segments=segments, sign=sign,
            seed=seed, batch_size=batch_size, normalize=normalize, output=output,
        )  # fmt: skip
