"""iSogCLR: a contrastive loss in which every sample of the data set has a temperature of its own."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor

from repertoire.errors import ConfigError, ShapeError
from repertoire.losses.contracts._base import ViewsLoss, check_index
from repertoire.losses.contracts._views import check_views, full_precision, similarities_of_views
from repertoire.ops import Memory, pair_logsumexp, pair_sum, unit_rows
from repertoire.ranges import AtLeast, Between, Positive, checked
from repertoire.registry import register

__all__ = ["IndividualTemperatures", "individual_temperature_loss"]

_CLIP = 3.0
"""Bound on the gradient of a temperature, as in the released code."""


@checked
def individual_temperature_loss(
    *views: Tensor,
    temperatures: Tensor,
    log_means: Tensor | None = None,
    decay: Annotated[float, Between(0, 1, "[)")] = 0.2,
    spread: Annotated[float, AtLeast(0)] = 0.3,
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Contrastive loss with a temperature and a running denominator for each sample.

    Qiu et al., *Not All Semantics are Created Equal: Contrastive Self-supervised Learning with Automatic Temperature
    Individualization* (2023). Contrast that is robust to how negatives are distributed, within a Kullback-Leibler
    distance :math:`\rho` of the empirical distribution, has the temperature as its multiplier. With z scaled to unit
    length, the embeddings u of other samples and another view v of the anchor's sample i:

    .. math:: \min_{\tau_i}\ \tau_i \log \mathbb{E}_u \exp\bigl((z_i \cdot u - z_i \cdot v) / \tau_i\bigr) + \tau_i \rho

    The expectation is over the whole data set. A batch gives an estimate :math:`g_i`, which is averaged over epochs,
    :math:`s_i \leftarrow \beta s_i + (1 - \beta) g_i`, so that no large batch is needed; the gradient is that of the
    formula with :math:`s_i` in the denominator.

    The loss is the mean over the embeddings of all views, and over the other views where there are several.

    Args:
        views: two or more tensors, float `[N, d]`; row i of each is the same sample.
        temperatures: float `[N]`, tau of each sample, positive.
        log_means: float `[N]`, the logarithm of s of each sample, -inf where there is none yet; None for all.
        decay: beta, share of the old s in the new one, in [0, 1).
        spread: rho, 0 or more.

    Returns:
        The loss, a scalar, float32 for half-precision embeddings, zero, with a zero gradient, for fewer than two
        samples; its gradient with respect to the temperature of each sample, `[N]`; the new logarithms of s, `[N]`.

    Raises:
        ShapeError: fewer than two views, views of different shapes or dtypes, or temperatures or means of another
            number.
        ConfigError: decay or spread out of range.

    Example:
        >>> import torch
        >>> from repertoire.losses import individual_temperature_loss
        >>> x = torch.eye(2)  # cosines 0 with the others: the expectation is 1
        >>> loss, gradient, log_means = individual_temperature_loss(x, x, temperatures=torch.tensor([0.1, 0.3]))
        >>> loss  # 0.3 * 0.2 - 1
        tensor(-0.9400)
        >>> gradient, log_means  # one over tau below: all negatives are that much further away than the positive
        (tensor([0.3000, 0.3000]), tensor([-10.0000,  -3.3333]))
    """
    check_views(views)
    count, samples = len(views), len(views[0])
    for name, values in (("temperatures", temperatures), ("log_means", log_means)):
        if values is not None and (values.shape != (samples,) or not values.is_floating_point()):
            raise ShapeError(
                f"{name} must be a floating point [{samples}], one number a sample, found {values.dtype} "
                f"{list(values.shape)}"
            )
    with full_precision(*views) as z:
        x = unit_rows(torch.cat(z))
        tau = temperatures.detach().to(x.dtype)
        old = torch.full_like(tau, -torch.inf) if log_means is None else log_means.detach().to(x.dtype)
        if samples < 2:
            return 0.0 * x.sum(), torch.zeros_like(tau), old
        own = torch.arange(samples, device=x.device).repeat(count)
        scale = tau.reciprocal().repeat(count)
        lse = pair_logsumexp(x, scale=scale, pairs="different", groups=own)
        estimate = lse - math.log(count * (samples - 1))
        positive = similarities_of_views(x, count).mean(1)
        tau = tau.repeat(count)
        # What is averaged over epochs is relative to the positive of its batch, as in the released code.
        estimate = estimate - scale * positive
        with torch.no_grad():
            fresh = estimate.detach()
            blended = torch.logaddexp(old.repeat(count) + math.log(decay or 1e-38), fresh + math.log1p(-decay))
            mean = torch.where(old.repeat(count) == -torch.inf, fresh, blended)
            weight = torch.exp(fresh - mean)
            value = (tau * (mean + spread)).mean()
        # The value is that of the formula, the gradient the one with the running mean in the denominator.
        surrogate = (tau * weight * estimate).mean()
        loss = value + (surrogate - surrogate.detach())
        gradient = (
            mean
            + spread
            - weight * scale * (_mean_similarity(x.detach(), scale, own, lse.detach()) - positive.detach())
        )
        return loss, gradient.view(count, samples).mean(0), _mean_of_logs(mean.view(count, samples))


def _mean_similarity(x: Tensor, scale: Tensor, own: Tensor, lse: Tensor) -> Tensor:
    """Mean cosine of each row with the others under its softmax: the slope of the log-sum-exp in the scale."""

    def weighed(tile: Tensor, rows: slice, columns: slice) -> Tensor:
        return (tile - lse[rows, None]).clamp_max(0).exp() * tile

    return pair_sum(x, function=weighed, scale=scale, pairs="different", groups=own) / scale


def _mean_of_logs(values: Tensor) -> Tensor:
    """Logarithm of the mean over the first dimension of what these are the logarithms of."""
    return values.logsumexp(0) - math.log(len(values))


@register("losses", "individual-temperatures", paper="isogclr")
class IndividualTemperatures(ViewsLoss, Memory):
    r"""Contrastive loss with a temperature of its own for every sample, which is found while training.

    The module form of :func:`repertoire.losses.individual_temperature_loss`, which gives the paper and the formula.
    Each step in training mode moves the temperatures of the samples of the batch down their gradient, with momentum:
    samples that are like many others end up with a large temperature, rare ones with a small one. All is kept in
    buffers with a number for each sample of the data set, so that a resumed run goes on exactly; all ranks keep the
    same.

    Args:
        samples: of the data set; training supplies it.
        temperature: of each sample at the start, positive.
        least_temperature: the least that a temperature may become, positive; 0.05 in the authors' library.
        largest_temperature: the largest that it may become; 0.7 in the authors' library.
        spread: rho, how far from the empirical distribution the negatives may be, 0 or more; the larger, the smaller
            the temperatures, down to the least for all where it exceeds the logarithm of the number of negatives. 0.3
            in the authors' library.
        decay: share of the old running mean in the new one, in [0, 1); 0.2 in the released code.
        step: of a temperature down its gradient, 0 or more; 0.01 in the authors' library.
        momentum: share of the old direction of that step in the new one, in [0, 1); 0.1 in the released code.

    Attributes:
        temperatures: float `[samples]`.
        log_means: float `[samples]`, logarithms of the running means; -inf for a sample that was not seen yet.
        directions: float `[samples]`, running means of the gradients of the temperatures.

    Shapes:
        two or more views, each float `[N, d]`; index int64 `[N]` in 0..samples-1.

    Raises:
        ConfigError: an argument out of range.

    Example:
        >>> import torch
        >>> from repertoire.losses import IndividualTemperatures
        >>> loss = IndividualTemperatures(samples=5, temperature=0.2)
        >>> loss(torch.eye(2), torch.eye(2), index=torch.tensor([4, 0]))
        tensor(-0.9400)
        >>> loss.after_update()
        >>> loss.temperatures
        tensor([0.1973, 0.2000, 0.2000, 0.2000, 0.1973])
    """

    wants = ("index",)
    remembers: ClassVar[dict[str, Literal["rows", "mean"]]] = {"index": "rows", "gradient": "rows", "means": "rows"}
    temperatures: Tensor
    log_means: Tensor
    directions: Tensor

    def __init__(
        self,
        samples: Annotated[int, AtLeast(1)],
        temperature: Annotated[float, Positive] = 0.1,
        least_temperature: Annotated[float, Positive] = 0.05,
        largest_temperature: Annotated[float, Positive] = 0.7,
        spread: Annotated[float, AtLeast(0)] = 0.3,
        decay: Annotated[float, Between(0, 1, "[)")] = 0.2,
        step: Annotated[float, AtLeast(0)] = 0.01,
        momentum: Annotated[float, Between(0, 1, "[)")] = 0.1,
    ) -> None:
        super().__init__()
        if not least_temperature <= temperature <= largest_temperature:
            raise ConfigError(
                f"temperature must be between least_temperature and largest_temperature, {least_temperature} and "
                f"{largest_temperature}; found {temperature}"
            )
        self.least, self.largest = least_temperature, largest_temperature
        self.spread, self.decay = spread, decay
        self.step, self.momentum = step, momentum
        self.register_buffer("temperatures", torch.full((samples,), float(temperature)))
        self.register_buffer("log_means", torch.full((samples,), -torch.inf))
        self.register_buffer("directions", torch.zeros(samples))

    def forward(self, *views: Tensor, index: Tensor | None = None) -> Tensor:  # type: ignore[override]
        """The loss of two or more views `[N, d]` of the samples with these numbers `[N]`."""
        check_views(views)
        rows, samples = len(views[0]), len(self.temperatures)
        if index is None:
            raise ShapeError(
                f"individual temperatures need index, int64 [{rows}]: the number of each sample in the data"
            )
        check_index(index, rows, samples)
        index = index.long()
        loss, gradient, means = individual_temperature_loss(
            *views,
            temperatures=self.temperatures[index],
            log_means=self.log_means[index],
            decay=self.decay,
            spread=self.spread,
        )
        self.remember(rows, index=index, gradient=gradient, means=means)
        return loss

    def commit(self, index: Tensor, gradient: Tensor, means: Tensor) -> None:
        """Takes a step of the temperatures of the samples that were seen."""
        dtype = self.directions.dtype
        gradient = gradient.clamp(-_CLIP, _CLIP).to(dtype)
        self.log_means[index] = means.to(dtype)
        self.directions[index] = self.momentum * self.directions[index] + (1 - self.momentum) * gradient
        moved = self.temperatures[index] - self.step * self.directions[index]
        self.temperatures[index] = moved.clamp(self.least, self.largest)
