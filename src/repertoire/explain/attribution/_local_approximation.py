"""Explanations as linear functions that are near a network where it is asked: one solver, many explainers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from repertoire.docstrings import described
from repertoire.errors import ShapeError
from repertoire.explain._explainer import Explainer, moved, undisturbed
from repertoire.explain.attribution._local_problem import Problem, solve
from repertoire.explain.attribution._neighbourhoods import Kernel, MaskSampling, Rule
from repertoire.explain.attribution._setting import Baseline, Channels, Loss, Neighbourhood, Segments, Setting, Sign
from repertoire.registry import register

__all__ = ["LocalApproximation", "by_sign"]


@register("explainers", "lfa", paper="local-function-approximation")
class LocalApproximation(Explainer, Setting):
    r"""Explanations as linear functions that are near a network in a neighbourhood of your choice.

    Han, Srinivas and Lakkaraju, *Which Explanation Should I Choose? A Function Approximation Perspective to
    Characterizing Post Hoc Explanations* (2022). The explanation of a score f at x is the linear function g that is
    best, on average over a neighbourhood, in what a loss compares, values or gradients:

    .. math::
        \min_g \mathbb{E}_{u} \big( f(x_u) - g(u) \big)^2 \quad \text{or} \quad
        \min_g \mathbb{E}_{u} \big\| \nabla_u f(x_u) - \nabla_u g(u) \big\|^2, \qquad g(u) = c + \phi^T u

    A point is either :math:`x_u = x + u`, with noise added, or :math:`x_u = b + u \odot (x - b)`, on the way from a
    baseline b. Eight explainers in use are settings of the two, and each is registered under its own name:

    - gaussian, value: :class:`~repertoire.explain.CLIME`;
    - gaussian, gradient: :class:`~repertoire.explain.SmoothGrad`, at `sigma=0` :class:`~repertoire.explain.Gradient`;
    - path, gradient: :class:`~repertoire.explain.IntegratedGradients`, at `start=1`
      :class:`~repertoire.explain.GradientXInput`;
    - masks, value: :class:`~repertoire.explain.LIME`;
    - shapley, value: :class:`~repertoire.explain.KernelSHAP`;
    - one-out, value: :class:`~repertoire.explain.Occlusion`.

    The other settings are explainers as well. The samples of a neighbourhood are drawn once, from `seed`, and shared by
    the images: results repeat, and do not depend on what else is in the batch. Values are fitted by least squares in
    double precision, in one solution for all images and targets; gradients are averaged as they come.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from repertoire.explain import LocalApproximation
        >>> net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2))
        >>> near = LocalApproximation("gaussian", "value", sigma=0.1)
        >>> near(net, torch.randn(5, 3), targets=1).shape
        torch.Size([5, 3])
    """

    takes_features = True

    _arguments: ClassVar[Mapping[str, str]] = described(
        """
        neighbourhood: "gaussian" (noise of `sigma`), "path" (a uniform share of the way from baseline to input),
            "masks" (components kept or removed, near the input by a kernel), "shapley" (coalitions of components
            under the Shapley kernel; g agrees with f at input and baseline) or "one-out" (one component removed; g
            agrees with f at the input).
        loss: "value" or "gradient".
        samples: how many points are looked at; steps of a path. By default 100 for gradients, and for values 500,
            or four for each component where those are more. One-out has one for each component, and Shapley all
            coalitions where there are no more than that.
        sigma: standard deviation of the noise.
        relative: whether `sigma` is a share of each input's range, largest value less smallest. By default it is
            for images, and not for features.
        start: where the path starts, from 0 (baseline) to 1 (input, where nothing but the input is looked at).
        rule: how a path is integrated: "gauss-legendre", or a Riemann sum, "right" or "midpoint".
        kernel: of masks: exp(-d^2/width^2) of the "cosine" or "euclidean" distance d between a mask and the full
            one.
        width: of the kernel; by default 0.25 (cosine) and 0.75 times the root of the number of components
            (euclidean).
        sampling: of masks: "count" draws how many are kept uniformly, then which; "coin" keeps each with
            probability one half.
        ridge: added to the sum of weighted squares of noise and masks: ridge times the squared norm of phi.
        baseline: what removed values become: a number, a tensor that broadcasts to the inputs (one for each
            channel, `[C]` or `[C, 1, 1]`, or for each column, `[D]`), or "mean" for the mean of each image's
            channels.
        patch: side in pixels of the squares that are the components of an image. By default about a seventh of the
            shorter side for values and masks, and for other gradients each pixel of each channel is one. Each
            column of features is one.
        segments: components instead of squares, such as superpixels: int64 from 0, `[H, W]` or `[N, H, W]` (columns
            that belong together: `[D]` or `[N, D]`), or a function from inputs to that.
        channels: how the channels of a pixel become one number: their "sum", or the one of "max" magnitude.
        sign: of images when normalised: the "positive" part (evidence for the class), the "magnitude" (how
            sensitive the score is), or "negative" (evidence against it).
        seed: of masks and noise, which all images share.
        batch_size: at most how many perturbed inputs pass at once; memory does not grow with `samples`.
        normalize: divide each map by its largest value, so that maps lie in [0, 1]; attributions of features keep
            their signs and are divided by the largest magnitude. Without it, both are signed, in units of the score
            (for noise, of the score for each unit of input).
        """
    )
    _docstring: ClassVar[Mapping[str, str]] = {
        "Shapes": """
            Images `[N, C, H, W]` to `[N, H, W]`, features `[N, D]` to `[N, D]`; with K targets for each `[N, K,
                ...]`. A component's number stands at each of its pixels or columns.
        """,
        "Raises": """
            ConfigError: an option out of range, or settings that do not go together; too few samples for the
                components; a score that does not depend on the input.
            ShapeError: inputs, scores, targets, segments or a baseline that do not fit.
            DataError: the network gives scores that are not numbers.
        """,
    }

    def __init__(
        self,
        neighbourhood: Neighbourhood = "gaussian",
        loss: Loss = "gradient",
        samples: int | None = None,
        sigma: float = 0.15,
        relative: bool | None = None,
        start: float = 0.0,
        rule: Rule = "gauss-legendre",
        kernel: Kernel = "cosine",
        width: float | None = None,
        sampling: MaskSampling = "count",
        ridge: float = 0.0,
        baseline: Baseline = 0.0,
        patch: int | None = None,
        segments: Segments = None,
        channels: Channels = "sum",
        sign: Sign = "positive",
        seed: int = 0,
        batch_size: int = 64,
        normalize: bool = True,
        output: Callable[..., Tensor] | None = None,
    ) -> None:
        Explainer.__init__(self, normalize, output)
        Setting.__init__(
            self, neighbourhood, loss, samples, sigma, relative, start, rule, kernel, width, sampling, ridge, baseline,
            patch, segments, channels, sign, seed, batch_size,
        )  # fmt: skip

    def _explain(self, model: nn.Module, inputs: Tensor, targets: Tensor | int | None) -> Tensor:
        return solve(self, self.scores, model, inputs, targets, lambda problem: problem.attributions())

    def _scaled(self, heat: Tensor, features: bool) -> Tensor:
        return super()._scaled(heat if features else by_sign(heat, self.sign), features)

    def slopes(self, model: nn.Module, inputs: Tensor, targets: Tensor | int | None = None) -> Tensor:
        """The gradient of the linear function in the inputs, whatever the attribution is in units of.

        A component's number is divided among its values: equally for noise, and for masks in proportion to how far each
        is from the baseline, so that to remove the component costs what the number says.

        Args:
            model, inputs, targets: as for the explanation.

        Returns:
            `[N, *shape of an input]`, or `[N, K, *shape of an input]` for several targets of each.
        """
        found = self._undisturbed(model, inputs, targets, lambda problem: problem.slopes())
        return found.transpose(0, 1) if _several(targets) else found[0]

    def errors(
        self, model: nn.Module, inputs: Tensor, slopes: Tensor, targets: Tensor | int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Measures how far linear functions are from the network in this neighbourhood, under this loss.

        What an explainer does not state is set to the best: the constant of "gaussian" and "masks". Of "one-out" it is
        what makes g agree with f at the input; of "shapley", what is missing to agree at both ends is shared out
        evenly.

        Args:
            model, inputs, targets: as for the explanation.
            slopes: E linear functions, `[E, N, *shape of an input]`, or `[E, N, K, ...]` for several targets.

        Returns:
            The mean squared error of each function, `[E, N]` (or `[E, N, K]`), and that of a constant, `[N]` (or
            `[N, K]`); float64.
        """
        each = slopes.movedim(2, 0) if _several(targets) else slopes[None]
        each = torch.cat([torch.zeros_like(each[:, :1]), each], 1)  # [K, 1 + E, N, *shape]
        found = self._undisturbed(model, inputs, targets, lambda problem: problem.errors(each), dim=2)
        found = found.movedim(0, 2) if _several(targets) else found[0]
        return found[1:], found[0]

    def _undisturbed(
        self,
        model: nn.Module,
        inputs: Tensor,
        targets: Tensor | int | None,
        make: Callable[[Problem], Tensor],
        dim: int = 1,
    ) -> Tensor:
        self._check_inputs(inputs)
        if not len(inputs):
            raise ShapeError("inputs are an empty batch; a linear function is that of an input")
        model = getattr(model, "_orig_mod", model)
        with undisturbed(model):
            return solve(self, self.scores, model, moved(model, inputs), targets, make, dim)


def _several(targets: Tensor | int | None) -> bool:
    return isinstance(targets, Tensor) and targets.ndim == 2


def by_sign(heat: Tensor, sign: Sign) -> Tensor:
    """The part of signed maps that is to be shown, none of it negative."""
    return {"positive": heat, "magnitude": heat.abs(), "negative": -heat}[sign].clamp_min(0)
