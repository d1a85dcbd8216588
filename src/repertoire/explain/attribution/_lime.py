"""LIME: a weighted linear fit to masked inputs; and C-LIME, the same to noise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from repertoire.explain.attribution._local_approximation import Baseline, LocalApproximation, Segments, Sign
from repertoire.explain.attribution._neighbourhoods import Kernel, MaskSampling
from repertoire.registry import register

__all__ = ["CLIME", "LIME"]


@register("explainers", "lime", paper="local-function-approximation")
class LIME(LocalApproximation):
    r"""LIME: what each component adds, by a linear fit to the input with components removed, the nearer the heavier.

    Ribeiro, Singh and Guestrin, *"Why Should I Trust You?": Explaining the Predictions of Any Classifier* (2016); a
    :class:`~repertoire.explain.LocalApproximation` of values on masks. With masks :math:`z_s` of D components and
    :math:`x_s` the input with the baseline where a component is removed:

    .. math::
        \min_{c, \phi} \sum_s e^{-d(1, z_s)^2 / w^2} \big( f(x_s) - c - \phi^T z_s \big)^2 + \lambda \|\phi\|^2

    The paper draws the number of components that stay uniformly (`sampling="count"`), and limits how many of
    :math:`\phi` may differ from zero; all are shown here. The released code keeps each component with probability one
    half (`sampling="coin"`), takes the root of the kernel (`width` larger by the root of two) and has `ridge=1`.

    Args:
        samples: how many masks; the first keeps all. More than there are components, unless there is a ridge.
        kernel: "cosine" or "euclidean" distance d between a mask and the full one.
        width: w; by default 0.25 (cosine) and 0.75 times the root of D (euclidean).
        sampling: "count" or "coin".
        ridge: lambda, added to the sum of weighted squares.
        baseline: what removed values become: a number, a tensor that broadcasts to the inputs (one for each channel,
            `[C]` or `[C, 1, 1]`, or for each column, `[D]`), or "mean" for the mean of each image's channels.
        patch: side in pixels of the squares that are an image's components, by default about a seventh of the shorter
            side. Each column of features is one.
        segments: components instead of squares, such as superpixels: int64 from 0, `[H, W]` or `[N, H, W]` (columns
            that belong together: `[D]` or `[N, D]`), or a function from inputs to that.
        sign: of images when normalised: the "positive" part (evidence for the class), the "magnitude", or "negative"
            (evidence against it).
        seed: of the masks, which all images share.
        batch_size: at most how many masked inputs pass at once.
        normalize: divide each map by its largest value, so that maps lie in [0, 1], and the attribution of features by
            its largest magnitude. Without it, both are signed and in units of the score.
        output: what to take as the scores `[N, C]` of what the model returns.

    Shapes:
        Images `[N, C, H, W]` to `[N, H, W]`, features `[N, D]` to `[N, D]`.

    Raises:
        ConfigError: an option out of range; too few samples.
        ShapeError: inputs, scores, targets, segments or a baseline that do not fit.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from repertoire.explain import LIME
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 5))
        >>> LIME(patch=4)(net, torch.rand(2, 3, 16, 16)).shape
        torch.Size([2, 16, 16])
    """

    def __init__(
        self,
        samples: int = 500,
        kernel: Kernel = "cosine",
        width: float | None = None,
        sampling: MaskSampling = "count",
        ridge: float = 0.0,
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
            "masks", "value", samples=samples, kernel=kernel, width=width, sampling=sampling, ridge=ridge,
            baseline=baseline, patch=patch, segments=segments, sign=sign, seed=seed, batch_size=batch_size,
            normalize=normalize, output=output,
        )  # fmt: skip


@register("explainers", "c-lime", paper="local-function-approximation")
class CLIME(LocalApproximation):
    r"""C-LIME: how the score changes with each component, by a linear fit to the input with noise.

    Agarwal et al., *Towards the Unification and Robustness of Perturbation and Gradient Based Explanations* (2021); a
    :class:`~repertoire.explain.LocalApproximation` of values under noise, without a kernel or a penalty:

    .. math:: \min_{c, \phi} \sum_s \big( f(x + \sigma u_s) - c - \phi^T \sigma u_s \big)^2, \qquad u_s \sim N(0, I)

    With ever more samples it becomes :class:`~repertoire.explain.SmoothGrad`, from scores alone. All pixels and
    channels of an image's component share their noise (`patch=1` for each pixel).

    Args:
        samples: how many points; more than there are components.
        sigma: standard deviation of the noise.
        relative: whether `sigma` is a share of each input's range. By default it is for images, not for features.
        patch: side in pixels of the squares that are an image's components, by default about a seventh of the shorter
            side. Each column of features is one.
        segments: components instead of squares: int64 from 0, `[H, W]` or `[N, H, W]` (columns that belong together:
            `[D]` or `[N, D]`), or a function from inputs to that.
        sign: of images when normalised: the "magnitude" (how sensitive the score is), the "positive" part or
            "negative".
        seed: of the noise, which all images share.
        batch_size: at most how many inputs with noise pass at once.
        normalize: divide each map by its largest value, so that maps lie in [0, 1], and the attribution of features by
            its largest magnitude. Without it, both are signed, in units of the score for each unit of the input.
        output: what to take as the scores `[N, C]` of what the model returns.

    Shapes:
        Images `[N, C, H, W]` to `[N, H, W]`, features `[N, D]` to `[N, D]`.

    Raises:
        ConfigError: an option out of range, such as no noise; too few samples.
        ShapeError: inputs, scores, targets or segments that do not fit.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from repertoire.explain import CLIME
        >>> net = nn.Linear(3, 2)
        >>> slope = CLIME(normalize=False)(net, torch.randn(4, 3), targets=1)
        >>> torch.allclose(slope, net.weight[1].expand(4, 3), atol=1e-4)  # of a linear score, the weights
        True
    """

    def __init__(
        self,
        samples: int = 500,
        sigma: float = 0.15,
        relative: bool | None = None,
        patch: int | None = None,
        segments: Segments = None,
        sign: Sign = "magnitude",
        seed: int = 0,
        batch_size: int = 64,
        normalize: bool = True,
        output: Callable[[Any], Tensor] | None = None,
    ) -> None:
        super().__init__(
            "gaussian", "value", samples=samples, sigma=sigma, relative=relative, patch=patch, segments=segments,
            sign=sign, seed=seed, batch_size=batch_size, normalize=normalize, output=output,
        )  # fmt: skip
