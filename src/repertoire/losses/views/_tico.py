"""TiCo: views close together, and away from the directions that past embeddings crowd."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor

from repertoire.errors import ShapeError
from repertoire.losses.contracts._base import ViewsLoss
from repertoire.losses.contracts._views import check_views, full_precision
from repertoire.ops import Memory, unit_rows
from repertoire.ranges import AtLeast, Between, checked
from repertoire.registry import register

__all__ = ["TiCo", "tico_loss"]


@checked
def tico_loss(
    *views: Tensor,
    covariance: Tensor,
    decay: Annotated[float, Between(0, 1, "[)")] = 0.9,
    weight: Annotated[float, AtLeast(0)] = 20.0,
) -> tuple[Tensor, Tensor]:
    r"""TiCo: views close together, and away from the directions that past embeddings crowd.

    Zhu et al., *TiCo: Transformation Invariance and Covariance Contrast for Self-Supervised Visual Representation
    Learning* (2022). With z and z' two views of N samples scaled to unit length, and C the running mean of their
    second moments:

    .. math:: C_t = \beta C_{t-1} + (1 - \beta)\,\frac1N \sum_i z_i z_i^\top
    .. math:: -\frac1N \sum_i z_i \cdot z'_i + \frac{\rho}{N} \sum_i z_i^\top C_t z_i

    The second term is the mean squared similarity with all past embeddings: a memory bank without the memory. Its
    gradient flows through the newest part of C as well, which some ports of the method cut off. In the paper the second
    view comes from a slowly moving copy of the network and gets no gradient; here it gets what it is entitled to, so
    detach it where that is meant. With more than two views, z' is each of the others in turn.

    Args:
        views: two or more tensors, float `[N, d]`; row i of each is the same sample. The first is z.
        covariance: float32 or float64 `[d, d]`, C of the step before; zeros at first.
        decay: beta, in [0, 1); 0.9 in the paper.
        weight: rho, 0 or more; 20 in the paper.

    Returns:
        The loss, a scalar, float32 for half-precision embeddings and zero for an empty batch; and the new C, detached.

    Raises:
        ShapeError: fewer than two views, views of different shapes or dtypes, or a covariance that does not fit.
        ConfigError: decay or weight out of range.

    Example:
        >>> import torch
        >>> from repertoire.losses import tico_loss
        >>> loss, covariance = tico_loss(torch.eye(2), torch.eye(2), covariance=torch.zeros(2, 2), weight=10.0)
        >>> loss  # -1 + 10 * 0.1 / 2
        tensor(-0.5000)
        >>> covariance
        tensor([[0.0500, 0.0000],
                [0.0000, 0.0500]])
    """
    check_views(views)
    width = views[0].shape[1]
    if covariance.shape != (width, width) or not covariance.is_floating_point():
        raise ShapeError(
            f"covariance must be a floating point [{width}, {width}] like the views are wide, found {covariance.dtype} "
            f"{list(covariance.shape)}"
        )
    with full_precision(*views) as z:
        if not len(z[0]):
            return torch.stack([view.sum() for view in z]).sum(), covariance.detach()
        z = [unit_rows(view) for view in z]
        online, others = z[0], torch.stack(z[1:]).mean(0)
        new = decay * covariance.to(online.dtype) + (1 - decay) * (online.T @ online) / len(online)
        crowding = ((online @ new) * online).sum()
        loss = (weight * crowding - (online * others).sum()) / len(online)
        return loss, new.detach().to(covariance.dtype)


@register("losses", "tico", paper="tico")
class TiCo(ViewsLoss, Memory):
    r"""TiCo: views close together, and away from the directions that past embeddings crowd.

    The module form of :func:`repertoire.losses.tico_loss`, which gives the paper and the formula. The running mean of
    second moments is a buffer, so that a resumed run goes on with it; it changes in training mode only, and all ranks
    keep the same one.

    Args:
        decay: share of the old second moments in the new ones, in [0, 1); 0.9 in the paper.
        weight: weight of the second term, 0 or more; 20 in the paper.
        dimensions: width of the embeddings; known to a method that trains with this loss, and else taken from the first
            batch.

    Attributes:
        covariance: float `[d, d]`; `[0, 0]` as long as d is not known.

    Shapes:
        two or more views, each float `[N, d]`.

    Raises:
        ConfigError: an argument out of range.

    Example:
        >>> import torch
        >>> from repertoire.losses import TiCo
        >>> loss = TiCo(weight=10.0)
        >>> loss(torch.eye(2), torch.eye(2))
        tensor(-0.5000)
        >>> loss.after_update()
        >>> loss(torch.eye(2), torch.eye(2))  # the first batch is remembered
        tensor(-0.0500)
    """

    remembers: ClassVar[dict[str, Literal["rows", "mean"]]] = {"covariance": "mean"}
    covariance: Tensor

    def __init__(
        self,
        decay: Annotated[float, Between(0, 1, "[)")] = 0.9,
        weight: Annotated[float, AtLeast(0)] = 20.0,
        dimensions: Annotated[int, AtLeast(0)] = 0,
    ) -> None:
        super().__init__()
        self.decay = decay
        self.weight = weight
        self.register_buffer("covariance", torch.zeros(dimensions, dimensions))

    def prepare(self, dimensions: int) -> None:
        """Makes room for the second moments of embeddings of this width."""
        self.covariance = self.covariance.new_zeros(dimensions, dimensions)

    def forward(self, *views: Tensor) -> Tensor:  # type: ignore[override]
        """The loss of two or more views `[N, d]`."""
        check_views(views)
        width = views[0].shape[1]
        past = self.covariance if self.covariance.numel() else torch.zeros(width, width, device=views[0].device)
        loss, new = tico_loss(*views, covariance=past, decay=self.decay, weight=self.weight)
        self.remember(len(views[0]), covariance=new)
        return loss

    def commit(self, covariance: Tensor) -> None:
        """Takes over the second moments of a step; of one past, the mean over pieces and ranks is that of all."""
        if self.covariance.numel():
            self.covariance.copy_(covariance)
        else:
            self.covariance = covariance.to(self.covariance)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        # The width may not be known yet: take that of what is loaded.
        stored = state_dict.get(f"{prefix}covariance")
        if stored is not None and not self.covariance.numel():
            self.covariance = self.covariance.new_zeros(stored.shape)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
