"""SIE: one part of an embedding does not change with a transformation, the other changes predictably."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.errors import ConfigError, ShapeError
from repertoire.losses.contracts._base import ViewsLoss
from repertoire.losses.contracts._views import check_views, full_precision, mean_over_pairs
from repertoire.losses.views._vicreg import covariance_penalty, variance_penalty
from repertoire.ranges import AtLeast, Between, checked
from repertoire.registry import register

__all__ = ["SIE", "sie_loss"]


@checked
def sie_loss(
    *views: Tensor,
    transformation: Tensor,
    hypernetwork: Tensor,
    invariance_weight: Annotated[float, AtLeast(0)] = 10.0,
    equivariance_weight: Annotated[float, AtLeast(0)] = 4.5,
    variance_weight: Annotated[float, AtLeast(0)] = 10.0,
    covariance_weight: Annotated[float, AtLeast(0)] = 1.0,
) -> Tensor:
    r"""SIE: one part of an embedding does not change with a transformation, the other changes predictably.

    Garrido et al., *Self-supervised learning of Split Invariant Equivariant representations* (2023). An embedding is
    split, :math:`z = (z^{inv}, z^{equi})`. With g the parameters of the transformation that leads from the first view,
    z, to the last, z', and a linear predictor whose weights are made from g by a linear hypernetwork H:

    .. math:: \lambda_{inv} \lVert z^{inv} - z'^{inv} \rVert^2 + \lambda_{equi} \lVert P(g)\,z^{equi} - z'^{equi}
        \rVert^2, \qquad P(g) = \sum_k g_k H_k

    in the mean over samples and features, plus the variance and covariance terms of VICReg
    (:func:`repertoire.losses.vicreg_loss`) on both whole embeddings, and its variance term on the predictions. That the
    weights come from g alone keeps the predictor from ignoring it, which would make this part invariant as well.

    The released code halves the variance terms. Views between the first and the last take part in what does not depend
    on g.

    Args:
        views: two or more tensors, float `[N, d]`; row i of each is the same sample.
        transformation: float `[N, p]`, g of each sample: a quaternion in the paper.
        hypernetwork: float `[p, e, e]`, H; the last e features are the equivariant ones, e less than d.
        invariance_weight: of the distance between the invariant parts, 0 or more.
        equivariance_weight: of the distance between prediction and equivariant part, 0 or more.
        variance_weight: of the hinges on the standard deviations, 0 or more.
        covariance_weight: of the covariances between features, 0 or more.

    Returns:
        A scalar; float32 for half-precision embeddings; zero for an empty batch.

    Raises:
        ShapeError: fewer than two views, views of different shapes or dtypes, or a transformation or hypernetwork that
            does not fit.
        ConfigError: a negative weight.

    Example:
        >>> import torch
        >>> from repertoire.losses import sie_loss
        >>> x = torch.tensor([[0.0, 1.0], [0.0, -1.0]])  # one invariant and one equivariant feature
        >>> y = torch.tensor([[0.0, 2.0], [0.0, -2.0]])
        >>> options = {"variance_weight": 0.0, "covariance_weight": 0.0, "hypernetwork": torch.ones(1, 1, 1)}
        >>> sie_loss(x, y, transformation=torch.full((2, 1), 2.0), **options)  # it doubles
        tensor(0.)
        >>> sie_loss(x, y, transformation=torch.full((2, 1), 1.0), **options)
        tensor(4.5000)
    """
    check_views(views)
    rows, width = views[0].shape
    _check(transformation, hypernetwork, rows, width)
    with full_precision(*views, transformation, hypernetwork) as tensors:
        *z, given, maker = tensors
        given, maker = given.to(z[0].dtype), maker.to(z[0].dtype)
        if not rows:
            return torch.stack([view.sum() for view in z]).sum() + 0.0 * maker.sum()
        part = width - maker.shape[-1]
        invariance = mean_over_pairs([view[:, :part] for view in z], F.mse_loss)
        # Summed over the parameters of g before anything of size N x e x e would be made.
        each = torch.einsum("nf,pef->npe", z[0][:, part:], maker)
        predicted = torch.einsum("np,npe->ne", given, each)
        equivariance = F.mse_loss(predicted, z[-1][:, part:])
        variance = 2 * torch.stack([variance_penalty(view) for view in z]).mean() + variance_penalty(predicted)
        covariance = 2 * torch.stack([covariance_penalty(view) for view in z]).mean()
        return (
            invariance_weight * invariance
            + equivariance_weight * equivariance
            + variance_weight * variance
            + covariance_weight * covariance
        )


def _check(transformation: Tensor, hypernetwork: Tensor, rows: int, width: int) -> None:
    if hypernetwork.ndim != 3 or hypernetwork.shape[1] != hypernetwork.shape[2] or hypernetwork.shape[1] >= width:
        raise ShapeError(
            f"hypernetwork must be [p, e, e] with e less than {width}, the width of the views, found "
            f"{list(hypernetwork.shape)}"
        )
    expected = [rows, len(hypernetwork)]
    if list(transformation.shape) != expected or not transformation.is_floating_point():
        raise ShapeError(
            f"transformation must be a floating point {expected}, the parameters of each sample, found "
            f"{transformation.dtype} {list(transformation.shape)}"
        )


@register("losses", "sie", paper="sie")
class SIE(ViewsLoss):
    r"""SIE: one part of an embedding does not change with a transformation, the other changes predictably.

    The module form of :func:`repertoire.losses.sie_loss`, which gives the paper and the formula. Hand its parameter,
    the hypernetwork, to the optimiser together with the network's. It needs the parameters of the transformation, which
    training on a folder of images does not know.

    Args:
        parameters: of a transformation, positive; 4, for a quaternion, in the paper.
        equivariant: share of the features that are equivariant, in (0, 1); one half in the paper.
        invariance_weight: of the distance between the invariant parts, 0 or more.
        equivariance_weight: of the distance between prediction and equivariant part, 0 or more.
        variance_weight: of the hinges on the standard deviations, 0 or more.
        covariance_weight: of the covariances between features, 0 or more.
        dimensions: width of the embeddings, 2 or more; a method that trains with this loss knows it.

    Attributes:
        hypernetwork: float `[p, e, e]`, once the width of the embeddings is known.

    Shapes:
        two or more views, each float `[N, d]`; the transformation float `[N, p]`.

    Raises:
        ConfigError, ValueError: an argument out of range.

    Example:
        >>> import torch
        >>> from repertoire.losses import SIE
        >>> loss = SIE(parameters=2, dimensions=6)
        >>> x, y = torch.randn(2, 8, 6, generator=torch.Generator().manual_seed(0))
        >>> angle = torch.linspace(0, 1, 8)
        >>> loss(x, y, transformation=torch.stack([angle.cos(), angle.sin()], 1)).isfinite()
        tensor(True)
    """

    wants = ("transformation",)
    augmentation = "rotate"
    hypernetwork: nn.Parameter | None

    def __init__(
        self,
        parameters: Annotated[int, AtLeast(1)] = 4,
        equivariant: Annotated[float, Between(0, 1, "()")] = 0.5,
        invariance_weight: Annotated[float, AtLeast(0)] = 10.0,
        equivariance_weight: Annotated[float, AtLeast(0)] = 4.5,
        variance_weight: Annotated[float, AtLeast(0)] = 10.0,
        covariance_weight: Annotated[float, AtLeast(0)] = 1.0,
        dimensions: Annotated[int, AtLeast(2)] | None = None,
    ) -> None:
        super().__init__()
        self.parameters_of_transformation = parameters
        self.equivariant = equivariant
        self.weights = {
            "invariance_weight": invariance_weight,
            "equivariance_weight": equivariance_weight,
            "variance_weight": variance_weight,
            "covariance_weight": covariance_weight,
        }
        self.register_parameter("hypernetwork", None)
        if dimensions is not None:
            self.prepare(dimensions)

    def prepare(self, dimensions: int) -> None:
        """Makes the hypernetwork for embeddings of this width.

        Raises:
            ConfigError: there is no room for two parts.
        """
        if dimensions < 2:
            raise ConfigError(f"dimensions must be 2 or more, for two parts; found {dimensions}")
        part = min(max(round(self.equivariant * dimensions), 1), dimensions - 1)
        count = self.parameters_of_transformation
        # As nn.Linear would draw the weights of a layer with so many inputs.
        weights = torch.empty(count, part, part).uniform_(-1, 1) / math.sqrt(count)
        self.hypernetwork = nn.Parameter(weights)

    def forward(self, *views: Tensor, transformation: Tensor | None = None) -> Tensor:  # type: ignore[override]
        """The loss of two or more views `[N, d]`, the last made from the first by the transformation `[N, p]`."""
        check_views(views)
        if transformation is None:
            raise ShapeError(
                f"SIE needs the transformation that leads from the first view to the last: float [{len(views[0])}, "
                f"{self.parameters_of_transformation}]"
            )
        if self.hypernetwork is None:
            raise ConfigError(
                f"the hypernetwork of SIE is not there yet; say SIE(dimensions={views[0].shape[1]}), so that the "
                "optimiser knows it"
            )
        return sie_loss(*views, transformation=transformation, hypernetwork=self.hypernetwork, **self.weights)
