"""GradientSHAP: integrated gradients on average over a set of baselines."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, get_args

import torch
from torch import Tensor, nn

from repertoire.docstrings import described
from repertoire.errors import ShapeError
from repertoire.explain._arguments import at_least, check_seed, one_of
from repertoire.explain._explainer import Explainer, every_row
from repertoire.explain.attribution._local_approximation import LocalApproximation, by_sign
from repertoire.explain.attribution._parts import check_baseline, stand_in
from repertoire.explain.attribution._perturbed import Passes, blocks
from repertoire.explain.attribution._setting import Channels, Sign
from repertoire.registry import register

__all__ = ["GradientSHAP"]


@register("explainers", "gradient-shap")
class GradientSHAP(Explainer):
    r"""GradientSHAP: what each value adds on the way from a baseline that is drawn from a set of them.

    Lundberg and Lee, *A Unified Approach to Interpreting Model Predictions* (2017), by the expectation of Erion et al.,
    *Improving Performance of Deep Learning Models with Axiomatic Attribution Priors and Expected Gradients* (2021).
    With baselines b, shares a of the way and noise u drawn at random:

    .. math::
        \phi = \mathbb{E}_{b,\, a \sim U(0, 1),\, u} \Big[ (x + \sigma u - b) \odot
        \nabla f\big(b + a (x + \sigma u - b)\big) \Big], \qquad
        \sum_j \phi_j \approx f(x) - \mathbb{E}_b f(b)

    One baseline says what makes an image differ from black; a set of other images, what makes it differ from those.
    With one baseline and no noise it is :class:`IntegratedGradients`, integrated at random points.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from repertoire.explain import GradientSHAP
        >>> net, x, others = nn.Linear(3, 2), torch.randn(4, 3), torch.randn(1, 3)
        >>> shares = GradientSHAP(others, normalize=False)(net, x, targets=1)
        >>> torch.allclose(shares.sum(1), (net(x) - net(others))[:, 1], atol=1e-5)
        True
    """

    takes_features = True

    _arguments: ClassVar[Mapping[str, str]] = {
        **LocalApproximation._arguments,
        **described(
            """
            baselines: the set to draw from: a tensor `[B, *shape of an input]`, such as training images; or one
                baseline, as :class:`IntegratedGradients` takes it.
            samples: how many points are looked at, 64 by default; their draw is shared by the images.
            noise: sigma, standard deviation of what is added to the input, as a share of its range; 0 by default.
            seed: of baselines, shares and noise.
            """
        ),
    }
    _docstring: ClassVar[Mapping[str, str]] = LocalApproximation._docstring

    def __init__(
        self,
        baselines: Any = 0.0,
        samples: int = 64,
        noise: float = 0.0,
        channels: Channels = "sum",
        sign: Sign = "positive",
        seed: int = 0,
        batch_size: int = 64,
        normalize: bool = True,
        output: Callable[..., Tensor] | None = None,
    ) -> None:
        super().__init__(normalize, output)
        at_least(1, samples=samples, batch_size=batch_size)
        at_least(0, noise=noise)
        one_of(channels=(channels, get_args(Channels)), sign=(sign, get_args(Sign)))
        check_seed(seed)
        self.baselines, self.samples, self.noise = check_baseline(baselines), samples, noise
        self.channels, self.sign, self.seed, self.batch_size = channels, sign, seed, batch_size

    def _explain(self, model: nn.Module, inputs: Tensor, targets: Tensor | int | None) -> Tensor:
        passes = Passes(model, self.scores, inputs, targets, self.batch_size, every_row(inputs))
        generator = torch.Generator().manual_seed(self.seed)
        base, several = self._set(inputs)
        drawn = torch.randint(len(base) if several else 1, (self.samples,), generator=generator).to(inputs.device)
        shares = torch.rand(self.samples, generator=generator, dtype=torch.float64)
        spread = self.noise * (inputs.flatten(1).amax(1) - inputs.flatten(1).amin(1)).view(-1, *[1] * (inputs.ndim - 1))
        noise = torch.Generator().manual_seed(self.seed + 1)
        total: Tensor | None = None
        wide = torch.promote_types(inputs.dtype, torch.float32)
        added: tuple[int, Tensor] = (-1, inputs)
        for which, images in blocks(self.samples, len(inputs), self.batch_size):
            x = inputs[images]
            if self.noise:
                if added[0] != which.start:  # sample by sample, or it would depend on the number of images
                    each_one = range(which.stop - which.start)
                    fresh = [torch.randn(inputs.shape[1:], generator=noise) for _ in each_one]
                    added = which.start, torch.stack(fresh).to(inputs)[:, None]
                x = x + spread[images] * added[1]
            start = base[drawn[which]][:, None] if several else base[images]
            share = shares[which].to(inputs).view(-1, *[1] * inputs.ndim)
            _, each = passes.slopes(torch.lerp(start, x, share), images)
            for k, slope in enumerate(each):
                if total is None:  # not before the number of targets is known
                    total = inputs.new_zeros((len(passes.chosen), *inputs.shape), dtype=wide)
                total[k, images] += (slope.to(wide) * (x - start).to(wide)).sum(0) / self.samples
        assert total is not None
        if inputs.ndim == 2:
            return total
        if self.channels == "sum":
            return total.sum(2)
        return total.gather(2, total.abs().argmax(2, keepdim=True)).squeeze(2)

    def _set(self, inputs: Tensor) -> tuple[Tensor, bool]:
        """The baselines `[B, *shape]`, or those of each input; and whether it is the first."""
        given = self.baselines
        if not isinstance(given, Tensor) or given.ndim != inputs.ndim:
            return stand_in(inputs, given), False
        if given.shape[1:] != inputs.shape[1:] or not len(given):
            raise ShapeError(
                f"baselines must be [B, {', '.join(map(str, inputs.shape[1:]))}] like the inputs, found "
                f"{list(given.shape)}"
            )
        return given.detach().to(inputs), True

    def _scaled(self, heat: Tensor, features: bool) -> Tensor:
        return super()._scaled(heat if features else by_sign(heat, self.sign), features)
