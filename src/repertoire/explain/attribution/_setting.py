"""Options of local approximations: the neighbourhood, the loss, and all that goes with them."""

from __future__ import annotations

from typing import Any, Literal, get_args

from torch import Tensor

from repertoire.errors import ConfigError
from repertoire.explain._arguments import at_least, check_seed, one_of
from repertoire.explain.attribution._neighbourhoods import Kernel, MaskSampling, Rule
from repertoire.explain.attribution._parts import check_baseline

__all__ = ["Baseline", "Channels", "Loss", "Neighbourhood", "Segments", "Setting", "Sign"]

Neighbourhood = Literal["gaussian", "path", "masks", "shapley", "one-out"]
Loss = Literal["value", "gradient"]
Channels = Literal["sum", "max"]
Sign = Literal["positive", "magnitude", "negative"]
# Tensors and functions pass the registry as they are; text is looked at when the explainer is built.
Baseline = float | str | Any
Segments = Any


class Setting:
    """The options of :class:`~repertoire.explain.LocalApproximation`, which describes them.

    Raises:
        ConfigError: an option out of range, or settings that do not go together.
    """

    def __init__(
        self,
        neighbourhood: Neighbourhood,
        loss: Loss,
        samples: int | None,
        sigma: float,
        relative: bool | None,
        start: float,
        rule: Rule,
        kernel: Kernel,
        width: float | None,
        sampling: MaskSampling,
        ridge: float,
        baseline: Baseline,
        patch: int | None,
        segments: Segments,
        channels: Channels,
        sign: Sign,
        seed: int,
        batch_size: int,
    ) -> None:
        one_of(
            neighbourhood=(neighbourhood, get_args(Neighbourhood)),
            loss=(loss, get_args(Loss)),
            rule=(rule, get_args(Rule)),
            kernel=(kernel, get_args(Kernel)),
            sampling=(sampling, get_args(MaskSampling)),
            channels=(channels, get_args(Channels)),
            sign=(sign, get_args(Sign)),
        )
        at_least(1, samples=samples, batch_size=batch_size, patch=patch)
        at_least(0, sigma=sigma, ridge=ridge)
        if not 0 <= start <= 1:
            raise ConfigError(f"start must lie in [0, 1], found {start}")
        if width is not None and not 0 < width < float("inf"):
            raise ConfigError(f"width must be positive, found {width}")
        check_seed(seed)
        if loss == "value" and (neighbourhood == "path" or (neighbourhood == "gaussian" and sigma == 0)):
            where = "path" if neighbourhood == "path" else "point itself (sigma=0)"
            raise ConfigError(f"values on the {where} say nothing of single components; use loss='gradient'")
        if patch is not None and segments is not None:
            raise ConfigError("patch and segments both say what the components are; give one of them")
        if not (segments is None or isinstance(segments, Tensor) or callable(segments)):
            raise ConfigError(f"segments must be a tensor or a function, found a {type(segments).__name__}")
        self.neighbourhood, self.loss = neighbourhood, loss
        self.samples, self.sigma, self.relative = samples, sigma, relative
        self.start, self.rule, self.kernel, self.width, self.sampling = start, rule, kernel, width, sampling
        self.ridge, self.baseline, self.patch, self.segments = ridge, check_baseline(baseline), patch, segments
        self.channels, self.sign, self.seed, self.batch_size = channels, sign, seed, batch_size

    def samples_of(self, components: int) -> int:
        """The number of points for inputs of so many components: what was asked for, or by default enough."""
        if self.samples is not None:
            return self.samples
        # Four for each component, where a fit is made: long images have many squares.
        return 100 if self.loss == "gradient" else max(500, 4 * components)
