"""Explainers in use that are settings of one: each says its paper, its formula, and what it sets."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any

from repertoire.explain.attribution._local_approximation import LocalApproximation
from repertoire.registry import register

__all__ = [
    "CLIME",
    "LIME",
    "Gradient",
    "GradientXInput",
    "IntegratedGradients",
    "KernelSHAP",
    "Occlusion",
    "SmoothGrad",
]

_PAPER = "local-function-approximation"
_LAST = {"batch_size": 64, "normalize": True, "output": None}


class Preset(LocalApproximation):
    """Base of the settings of :class:`LocalApproximation` that have names.

    A subclass says in its head what it `sets`, and which `options` are left to the user, in order, with their defaults;
    the options of all come after them. Its constructor and the arguments in its docstring are made from the two.
    """

    def __init__(self, *given: Any, **named: Any) -> None:  # of each subclass, the one that is made for it
        super().__init__(*given, **named)

    def __init_subclass__(
        cls, sets: Mapping[str, Any] | None = None, options: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> None:
        if sets is not None:
            cls.__init__ = _constructor(sets, {**(options or {}), **_LAST})  # type: ignore[method-assign]
        super().__init_subclass__(**kwargs)


def _constructor(sets: Mapping[str, Any], options: Mapping[str, Any]) -> Callable[..., None]:
    known = inspect.signature(LocalApproximation.__init__).parameters
    hints = typing.get_type_hints(LocalApproximation.__init__)
    chosen = [known[name].replace(default=value, annotation=hints[name]) for name, value in options.items()]
    signature = inspect.Signature([known["self"], *chosen], return_annotation=None)

    def __init__(self: LocalApproximation, *given: Any, **named: Any) -> None:
        bound = signature.bind(self, *given, **named)
        bound.apply_defaults()
        arguments = {name: value for name, value in bound.arguments.items() if name != "self"}
        LocalApproximation.__init__(self, **sets, **arguments)

    __init__.__signature__ = signature  # type: ignore[attr-defined]
    __init__.__annotations__ = {name: hints[name] for name in options} | {"return": type(None)}
    return __init__


@register("explainers", "gradient", paper=_PAPER)
class Gradient(
    Preset,
    sets={"neighbourhood": "gaussian", "loss": "gradient", "sigma": 0.0},
    options={"channels": "max", "sign": "magnitude"},
):
    r"""Gradient: how fast the score grows with each value of the input.

    Simonyan, Vedaldi and Zisserman, *Deep Inside Convolutional Networks: Visualising Image Classification Models and
    Saliency Maps* (2013); a :class:`~repertoire.explain.LocalApproximation` of gradients under noise that goes to
    nothing:

    .. math:: \phi = \nabla f(x)

    One forward and one backward pass; a pixel shows the largest magnitude of its channels.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from repertoire.explain import Gradient
        >>> Gradient()(nn.Sequential(nn.Flatten(), nn.Linear(48, 5)), torch.rand(2, 3, 4, 4)).shape
        torch.Size([2, 4, 4])
    """


@register("explainers", "gradient-x-input", paper=_PAPER)
class GradientXInput(
    Preset,
    sets={"neighbourhood": "path", "loss": "gradient", "start": 1.0},
    options={"baseline": 0.0, "channels": "sum", "sign": "positive"},
):
    r"""Gradient times input: what each value adds if the score were linear between baseline and input.

    Shrikumar et al., *Not Just a Black Box: Learning Important Features Through Propagating Activation Differences*
    (2016); a :class:`~repertoire.explain.LocalApproximation` of gradients at the very end of the path from a
    baseline b to the input:

    .. math:: \phi = (x - b) \odot \nabla f(x)

    One forward and one backward pass. With the default b = 0 it is the usual definition.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from repertoire.explain import GradientXInput
        >>> net, x = nn.Linear(3, 2, bias=False), torch.randn(4, 3)
        >>> torch.allclose(GradientXInput(normalize=False)(net, x, targets=1).sum(1), net(x)[:, 1], atol=1e-5)
        True
    """


@register("explainers", "smooth-grad", paper=_PAPER)
class SmoothGrad(
    Preset,
    sets={"neighbourhood": "gaussian", "loss": "gradient"},
    options={
        "samples": 32,
        "sigma": 0.15,
        "relative": None,
        "channels": "max",
        "sign": "magnitude",
        "seed": 0,
    },
):
    r"""SmoothGrad: the gradient on average over noise, which takes out what is an accident of the very point.

    Smilkov et al., *SmoothGrad: removing noise by adding noise* (2017); a
    :class:`~repertoire.explain.LocalApproximation` of gradients under noise:

    .. math:: \phi = \frac{1}{S} \sum_s \nabla f(x + \sigma u_s), \qquad u_s \sim N(0, I)

    The authors recommend a `sigma` of 0.1 to 0.2 of the range.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from repertoire.explain import SmoothGrad
        >>> SmoothGrad(samples=8)(nn.Sequential(nn.Flatten(), nn.Linear(48, 5)), torch.rand(2, 3, 4, 4)).shape
        torch.Size([2, 4, 4])
    """


@register("explainers", "integrated-gradients", paper=_PAPER)
class IntegratedGradients(
    Preset,
    sets={"neighbourhood": "path", "loss": "gradient"},
    options={"samples": 32, "rule": "gauss-legendre", "baseline": 0.0, "channels": "sum", "sign": "positive"},
):
    r"""Integrated gradients: what each value adds on the straight way from a baseline to the input.

    Sundararajan, Taly and Yan, *Axiomatic Attribution for Deep Networks* (2017); a
    :class:`~repertoire.explain.LocalApproximation` of gradients on the path from a baseline b:

    .. math:: \phi = (x - b) \odot \int_0^1 \nabla f\big(b + a (x - b)\big) \, da, \qquad \sum_j \phi_j = f(x) - f(b)

    The sum holds as well as the integral is computed. The paper takes a Riemann sum (`rule="right"`); the default needs
    far fewer steps where the score is smooth.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from repertoire.explain import IntegratedGradients
        >>> net, x = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2)), torch.randn(3, 4)
        >>> shares = IntegratedGradients(normalize=False)(net, x, targets=0)
        >>> torch.allclose(shares.sum(1), net(x)[:, 0] - net(torch.zeros_like(x))[:, 0], atol=1e-5)
        True
    """


@register("explainers", "lime", paper=_PAPER)
class LIME(
    Preset,
    sets={"neighbourhood": "masks", "loss": "value"},
    options={
        "samples": None,
        "kernel": "cosine",
        "width": None,
        "sampling": "count",
        "ridge": 0.0,
        "baseline": 0.0,
        "patch": None,
        "segments": None,
        "sign": "positive",
        "seed": 0,
    },
):
    r"""LIME: what each component adds, by a linear fit to the input with components removed, the nearer the heavier.

    Ribeiro, Singh and Guestrin, *"Why Should I Trust You?": Explaining the Predictions of Any Classifier* (2016); a
    :class:`~repertoire.explain.LocalApproximation` of values on masks. With masks :math:`z_s` of D components and
    :math:`x_s` the input with the baseline where a component is removed:

    .. math::
        \min_{c, \phi} \sum_s e^{-d(1, z_s)^2 / w^2} \big( f(x_s) - c - \phi^T z_s \big)^2 + \lambda \|\phi\|^2

    The paper draws the number of components that stay uniformly (`sampling="count"`), and limits how many of
    :math:`\phi` may differ from zero; all are shown here. The released code keeps each component with probability one
    half (`sampling="coin"`), takes the root of the kernel (`width` larger by the root of two) and has `ridge=1`. The
    first mask keeps all components.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from repertoire.explain import LIME
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 5))
        >>> LIME(patch=4)(net, torch.rand(2, 3, 16, 16)).shape
        torch.Size([2, 16, 16])
    """


@register("explainers", "c-lime", paper=_PAPER)
class CLIME(
    Preset,
    sets={"neighbourhood": "gaussian", "loss": "value"},
    options={
        "samples": None,
        "sigma": 0.15,
        "relative": None,
        "patch": None,
        "segments": None,
        "sign": "magnitude",
        "seed": 0,
    },
):
    r"""C-LIME: how the score changes with each component, by a linear fit to the input with noise.

    Agarwal et al., *Towards the Unification and Robustness of Perturbation and Gradient Based Explanations* (2021); a
    :class:`~repertoire.explain.LocalApproximation` of values under noise, without a kernel or a penalty:

    .. math:: \min_{c, \phi} \sum_s \big( f(x + \sigma u_s) - c - \phi^T \sigma u_s \big)^2, \qquad u_s \sim N(0, I)

    With ever more samples it becomes :class:`~repertoire.explain.SmoothGrad`, from scores alone. All pixels and
    channels of an image's component share their noise (`patch=1` for each pixel).

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from repertoire.explain import CLIME
        >>> net = nn.Linear(3, 2)
        >>> slope = CLIME(normalize=False)(net, torch.randn(4, 3), targets=1)
        >>> torch.allclose(slope, net.weight[1].expand(4, 3), atol=1e-4)  # of a linear score, the weights
        True
    """


@register("explainers", "kernel-shap", paper=_PAPER)
class KernelSHAP(
    Preset,
    sets={"neighbourhood": "shapley", "loss": "value"},
    options={
        "samples": None,
        "baseline": 0.0,
        "patch": None,
        "segments": None,
        "sign": "positive",
        "seed": 0,
    },
):
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


@register("explainers", "occlusion", paper=_PAPER)
class Occlusion(
    Preset,
    sets={"neighbourhood": "one-out", "loss": "value"},
    options={"baseline": 0.0, "patch": None, "segments": None, "sign": "positive"},
):
    r"""Occlusion: how much the score falls when a component is hidden.

    Zeiler and Fergus, *Visualizing and Understanding Convolutional Networks* (2014); a
    :class:`~repertoire.explain.LocalApproximation` of values where one component is removed, that agrees with the
    score at the input. With :math:`x_{-j}` the input with the baseline in component j:

    .. math:: \phi_j = f(x) - f(x_{-j})

    One pass for each component; squares do not overlap.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from repertoire.explain import Occlusion
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 14 * 14, 5))
        >>> Occlusion(patch=4)(net, torch.rand(2, 3, 16, 16)).shape
        torch.Size([2, 16, 16])
    """
