"""The mean-shifted contrastive loss: views are compared as they are seen from the centre of normal data."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from repertoire.errors import ConfigError, ShapeError
from repertoire.losses.contracts._base import ViewsLoss
from repertoire.losses.contracts._function import Kept
from repertoire.losses.contracts._views import check_views, full_precision
from repertoire.losses.views._nt_xent import nt_xent_loss
from repertoire.ops import unit_rows
from repertoire.ranges import AtLeast, Positive, checked
from repertoire.registry import register

__all__ = ["MeanShiftedContrast", "mean_shifted_loss"]


def _as_centre(centre: list[float] | Tensor | None) -> Tensor | None:
    """The centre as a module keeps it: a detached float tensor `[d]`, or None."""
    if centre is None:
        return None
    values = torch.as_tensor(centre).detach()
    values = values if values.is_floating_point() else values.float()
    if values.ndim != 1 or not bool(values.isfinite().all()):
        raise ConfigError(f"centre must be finite numbers [d], found {list(values.shape)}")
    return values


@checked
def mean_shifted_loss(
    *views: Tensor,
    centre: Annotated[Tensor | None, Kept(_as_centre)] = None,
    temperature: Annotated[float, Positive] = 0.25,
    angular: Annotated[float, AtLeast(0)] = 0.0,
) -> Tensor:
    r"""NT-Xent of directions from the centre of normal data, so that features stay where they are.

    Reiss and Hoshen, *Mean-Shifted Contrastive Loss for Anomaly Detection* (2021). Pretrained features of one kind of
    image lie close together on the sphere. To tell them apart, NT-Xent spreads them over all of it, and what
    pretraining knew is lost. Seen from their centre c, they already point everywhere. With f the features of a view,
    scaled to unit length, and both views of all samples together:

    .. math:: \theta = \frac{f - c}{\lVert f - c \rVert}, \qquad
        \ell = \text{NT-Xent}(\theta) + \beta\, \Bigl(1 - \frac{f \cdot c}{\lVert c \rVert}\Bigr)

    The second term, the paper's angular centre loss, keeps features near the direction of the centre; the loss is the
    mean over samples and views. Without a centre, or with one of zero, it is NT-Xent, and the second term is left out.

    Args:
        views: two or more tensors, float `[N, d]`; row i of each is the same sample.
        centre: c, float `[d]`: the mean of the features of normal samples, each scaled to unit length, before anything
            was trained on them.
        temperature: tau, positive; the paper uses 0.25.
        angular: beta, 0 or more; left out by default, 1 in the paper. The released code adds the squared distances to
            the centre of both views, which is a beta of 4.

    Returns:
        A scalar; float32 for half-precision embeddings; zero for an empty batch.

    Raises:
        ShapeError: fewer than two views, views of different shapes or dtypes, or a centre of another width.
        ConfigError: an option is out of its range.

    Example:
        >>> import torch
        >>> from repertoire.losses import mean_shifted_loss, nt_xent_loss
        >>> views = torch.randn(4, 3), torch.randn(4, 3)
        >>> bool(torch.isclose(mean_shifted_loss(*views), nt_xent_loss(*views, temperature=0.25)))
        True
    """
    check_views(views)
    if centre is None:
        return nt_xent_loss(*views, temperature=temperature)
    if centre.shape != views[0].shape[1:]:
        raise ShapeError(f"centre must be [{views[0].shape[1]}], as wide as the views, found {list(centre.shape)}")
    with full_precision(*views) as wide:
        units = [unit_rows(view) for view in wide]
        c = centre.to(units[0])
        loss = nt_xent_loss(*(unit - c for unit in units), temperature=temperature)
        if not angular:
            return loss
        length = torch.linalg.vector_norm(c)
        near = torch.cat(units) @ (c / length.clamp_min(torch.finfo(c.dtype).tiny))
        # A centre of zero has no direction.
        return loss + angular * (length > 0) * (1 - near).sum() / max(len(near), 1)


@register("losses", "mean-shifted", paper="msc-anomaly")
class MeanShiftedContrast(ViewsLoss, function=mean_shifted_loss):
    """Module form of `mean_shifted_loss`."""
