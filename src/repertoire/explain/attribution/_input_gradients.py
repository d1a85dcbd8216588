"""Gradients in the input: at the input, near it, and on the way to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from repertoire.explain.attribution._local_approximation import Baseline, Channels, LocalApproximation, Sign
from repertoire.explain.attribution._neighbourhoods import Rule
from repertoire.registry import register

__all__ = ["Gradient", "GradientXInput", "IntegratedGradients", "SmoothGrad"]


@register("explainers", "gradient", paper="local-function-approximation")
class Gradient(LocalApproximation):
    r"""Gradient: how fast the score grows with each value of the input.

    Simonyan, Vedaldi and Zisserman, *Deep Inside Convolutional Networks: Visualising Image Classification Models and
    Saliency Maps* (2013); a :class:`~repertoire.explain.LocalApproximation` of gradients under noise that goes to
    nothing:

    .. math:: \phi = \nabla f(x)

    One forward and one backward pass; a pixel shows the largest magnitude of its channels.

    Args:
        channels: how the channels of a pixel become one number: the one of "max" magnitude, or their "sum".
        sign: of images when normalised: the "magnitude" (how sensitive the score is), the "positive" part or
            "negative".
        batch_size: at most how many inputs pass at once.
        normalize: divide each map by its largest value, so that maps lie in [0, 1], and the attribution of features by
            its largest magnitude. Without it, both are signed, in units of the score for each unit of the input.
        output: what to take as the scores `[N, C]` of what the model returns.

    Shapes:
        Images `[N, C, H, W]` to `[N, H, W]`, features `[N, D]` to `[N, D]`.

    Raises:
        ConfigError: an option out of range; the score does not depend on the input.
        ShapeError: inputs, scores or targets that do not fit.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from repertoire.explain import Gradient
        >>> Gradient()(nn.Sequential(nn.Flatten(), nn.Linear(48, 5)), torch.rand(2, 3, 4, 4)).shape
        torch.Size([2, 4, 4])
    """

    def __init__(
        self,
        channels: Channels = "max",
        sign: Sign = "magnitude",
        batch_size: int = 64,
        normalize: bool = True,
        output: Callable[[Any], Tensor] | None = None,
    ) -> None:
        super().__init__(
            "gaussian", "gradient", sigma=0.0, channels=channels, sign=sign, batch_size=batch_size,
            normalize=normalize, output=output,
        )  # fmt: skip


@register("explainers", "gradient-x-input", paper="local-function-approximation")
class GradientXInput(LocalApproximation):
    r"""Gradient times input: what each value adds if the score were linear between baseline and input.

    Shrikumar et al., *Not Just a Black Box: Learning Important Features Through Propagating Activation Differences*
    (2016); a :class:`~repertoire.explain.LocalApproximation` of gradients at the very end of the path from a
    baseline b to the input:

    .. math:: \phi = (x - b) \odot \nabla f(x)

    One forward and one backward pass. With the default b = 0 it is the usual definition.

    Args:
        baseline: b: a number, a tensor that broadcasts to the inputs (one for each channel, `[C]` or `[C, 1, 1]`, or
            for each column, `[D]`), or "mean" for the mean of each image's channels.
        channels: how the channels of a pixel become one number: their "sum", or the one of "max" magnitude.
        sign: of images when normalised: the "positive" part (evidence for the class), the "magnitude", or "negative"
            (evidence against it).
        batch_size: at most how many inputs pass at once.
        normalize: divide each map by its largest value, so that maps lie in [0, 1], and the attribution of features by
            its largest magnitude. Without it, both are signed and in units of the score.
        output: what to take as the scores `[N, C]` of what the model returns.

    Shapes:
        Images `[N, C, H, W]` to `[N, H, W]`, features `[N, D]` to `[N, D]`.

    Raises:
        ConfigError: an option out of range; the score does not depend on the input.
        ShapeError: inputs, scores, targets or a baseline that do not fit.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from repertoire.explain import GradientXInput
        >>> net, x = nn.Linear(3, 2, bias=False), torch.randn(4, 3)
        >>> torch.allclose(GradientXInput(normalize=False)(net, x, targets=1).sum(1), net(x)[:, 1], atol=1e-5)
        True
    """

    def __init__(
        self,
        baseline: Baseline = 0.0,
        channels: Channels = "sum",
        sign: Sign = "positive",
        batch_size: int = 64,
        normalize: bool = True,
        output: Callable[[Any], Tensor] | None = None,
    ) -> None:
        super().__init__(
            "path", "gradient", start=1.0, baseline=baseline, channels=channels, sign=sign, batch_size=batch_size,
            normalize=normalize, output=output,
        )  # fmt: skip


@register("explainers", "smooth-grad", paper="local-function-approximation")
class SmoothGrad(LocalApproximation):
    r"""SmoothGrad: the gradient on average over noise, which takes out what is an accident of the very point.

    Smilkov et al., *SmoothGrad: removing noise by adding noise* (2017); a
    :class:`~repertoire.explain.LocalApproximation` of gradients under noise:

    .. math:: \phi = \frac{1}{S} \sum_s \nabla f(x + \sigma u_s), \qquad u_s \sim N(0, I)

    Args:
        samples: S.
        sigma: standard deviation of the noise; the authors recommend 0.1 to 0.2 of the range.
        relative: whether `sigma` is a share of each input's range, largest value less smallest. By default it is for
            images, not for features.
        channels: how the channels of a pixel become one number: the one of "max" magnitude, or their "sum".
        sign: of images when normalised: the "magnitude" (how sensitive the score is), the "positive" part or
            "negative".
        seed: of the noise, which all images share.
        batch_size: at most how many inputs pass at once.
        normalize: divide each map by its largest value, so that maps lie in [0, 1], and the attribution of features by
            its largest magnitude. Without it, both are signed, in units of the score for each unit of the input.
        output: what to take as the scores `[N, C]` of what the model returns.

    Shapes:
        Images `[N, C, H, W]` to `[N, H, W]`, features `[N, D]` to `[N, D]`.

    Raises:
        ConfigError: an option out of range; the score does not depend on the input.
        ShapeError: inputs, scores or targets that do not fit.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from repertoire.explain import SmoothGrad
        >>> SmoothGrad(samples=8)(nn.Sequential(nn.Flatten(), nn.Linear(48, 5)), torch.rand(2, 3, 4, 4)).shape
        torch.Size([2, 4, 4])
    """

    def __init__(
        self,
        samples: int = 32,
        sigma: float = 0.15,
        relative: bool | None = None,
        channels: Channels = "max",
        sign: Sign = "magnitude",
        seed: int = 0,
        batch_size: int = 64,
        normalize: bool = True,
        output: Callable[[Any], Tensor] | None = None,
    ) -> None:
        super().__init__(
            "gaussian", "gradient", samples=samples, sigma=sigma, relative=relative, channels=channels, sign=sign,
            seed=seed, batch_size=batch_size, normalize=normalize, output=output,
        )  # fmt: skip


@register("explainers", "integrated-gradients", paper="local-function-approximation")
class IntegratedGradients(LocalApproximation):
    r"""Integrated gradients: what each value adds on the straight way from a baseline to the input.

    Sundararajan, Taly and Yan, *Axiomatic Attribution for Deep Networks* (2017); a
    :class:`~repertoire.explain.LocalApproximation` of gradients on the path from a baseline b:

    .. math:: \phi = (x - b) \odot \int_0^1 \nabla f\big(b + a (x - b)\big) \, da, \qquad \sum_j \phi_j = f(x) - f(b)

    The sum holds as well as the integral is computed. The paper takes a Riemann sum (`rule="right"`); the default needs
    far fewer steps where the score is smooth.

    Args:
        samples: steps of the path.
        rule: "gauss-legendre", or a Riemann sum, "right" or "midpoint".
        baseline: b: a number, a tensor that broadcasts to the inputs (one for each channel, `[C]` or `[C, 1, 1]`, or
            for each column, `[D]`), or "mean" for the mean of each image's channels.
        channels: how the channels of a pixel become one number: their "sum", or the one of "max" magnitude.
        sign: of images when normalised: the "positive" part (evidence for the class), the "magnitude", or "negative"
            (evidence against it).
        batch_size: at most how many inputs pass at once.
        normalize: divide each map by its largest value, so that maps lie in [0, 1], and the attribution of features by
            its largest magnitude. Without it, both are signed and in units of the score.
        output: what to take as the scores `[N, C]` of what the model returns.

    Shapes:
        Images `[N, C, H, W]` to `[N, H, W]`, features `[N, D]` to `[N, D]`.

    Raises:
        ConfigError: an option out of range; the score does not depend on the input.
        ShapeError: inputs, scores, targets or a baseline that do not fit.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from repertoire.explain import IntegratedGradients
        >>> net, x = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2)), torch.randn(3, 4)
        >>> shares = IntegratedGradients(normalize=False)(net, x, targets=0)
        >>> torch.allclose(shares.sum(1), net(x)[:, 0] - net(torch.zeros_like(x))[:, 0], atol=1e-5)
        True
    """

    def __init__(
        self,
        samples: int = 32,
        rule: Rule = "gauss-legendre",
        baseline: Baseline = 0.0,
        channels: Channels = "sum",
        sign: Sign = "positive",
        batch_size: int = 64,
        normalize: bool = True,
        output: Callable[[Any], Tensor] | None = None,
    ) -> None:
        super().__init__(
            "path", "gradient", samples=samples, rule=rule, baseline=baseline, channels=channels, sign=sign,
            batch_size=batch_size, normalize=normalize, output=output,
        )  # fmt: skip
