"""Sy-CON: contrast in which the current and the previous network give the negatives of each other."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from repertoire.errors import ShapeError
from repertoire.losses.contracts._base import ViewsLoss
from repertoire.losses.contracts._views import check_views, full_precision
from repertoire.losses.views._nt_xent import nt_xent_loss
from repertoire.ops import pair_logsumexp, unit_rows
from repertoire.ranges import Positive, checked
from repertoire.registry import register

__all__ = ["SyCon", "sycon_loss"]


@checked
def sycon_loss(
    *views: Tensor,
    temperature: Annotated[float, Positive] = 0.2,
    predicted: Tensor | None = None,
    previous: Tensor | None = None,
) -> Tensor:
    r"""Contrast of new samples that keeps what an earlier network knew: both networks give negatives to both terms.

    Cha and Moon, *Sy-CON: Symmetric Contrastive Loss for Continual Self-Supervised Representation Learning* (2023; now
    *Regularizing with Pseudo-Negatives for Continual Self-Supervised Learning*). With the VN embeddings z of the views
    by the current network, those by a frozen copy of it from before the stage, :math:`\tilde z`, and g(z), a prediction
    of them, all of unit length, p(i) the other view of i, and the sums over all rows but i:

    .. math::
        \ell_i = -\log \frac{e^{z_i \cdot z_{p(i)} / \tau}}{\sum_k e^{z_i \cdot z_k / \tau}
                     + \sum_k e^{z_i \cdot \tilde z_k / \tau}}
                 -\log \frac{e^{g(z_i) \cdot \tilde z_i / \tau}}{e^{g(z_i) \cdot \tilde z_i / \tau}
                     + \sum_k e^{g(z_i) \cdot \tilde z_k / \tau} + \sum_k e^{g(z_i) \cdot z_k / \tau}}

    The first term learns, the second keeps, and no weight stands between them: negatives of the earlier network keep
    new samples from where old ones lie, and those of the current one let the second term tell the new ones apart. The
    loss is the mean over the rows. Without `predicted` and `previous`, in the first stage, it is NT-Xent.

    In the authors' code for SimCLR the denominator of the second term leaves the positive out, and has it in that for
    MoCo; here it is in it. With more than two views, which the paper does not consider, the first term is the mean over
    the positives.

    No pair is ever stored (:func:`repertoire.ops.pair_logsumexp`): memory is O(Nd).

    Args:
        views: two or more tensors, float `[N, d]`; row i of each is the same sample.
        temperature: tau, positive; 0.2 in the authors' code.
        predicted: float `[N, V, d]`, g of the embedding of each view.
        previous: float `[N, V, d]`, the earlier network's embedding of each view, without gradient.

    Returns:
        A scalar; float32 for half-precision embeddings; zero for an empty batch.

    Raises:
        ShapeError: fewer than two views, shapes or dtypes that do not fit, or one of `predicted` and `previous` alone.
        ConfigError: the temperature is not positive.

    Example:
        >>> import torch
        >>> from repertoire.losses import nt_xent_loss, sycon_loss
        >>> views = torch.eye(2), torch.eye(2)
        >>> same = torch.stack(views, 1)  # an earlier network that is the current one
        >>> loss = sycon_loss(*views, temperature=1.0, predicted=same, previous=same)
        >>> first = nt_xent_loss(*views, temperature=1.0) + torch.tensor(2.0).log()  # each negative twice
        >>> second = (torch.tensor(1.0).exp() + 2 * (torch.tensor(1.0).exp() + 2)).log() - 1
        >>> torch.allclose(loss, first + second)
        True
    """
    check_views(views)
    if predicted is None and previous is None:
        return nt_xent_loss(*views, temperature=temperature)
    if predicted is None or previous is None:
        raise ShapeError("predicted and previous go together: give both or neither")
    count, samples, width = len(views), *views[0].shape
    for name, rows in (("predicted", predicted), ("previous", previous)):
        if rows.shape != (samples, count, width) or rows.dtype != views[0].dtype:
            raise ShapeError(
                f"{name} must be {views[0].dtype} [{samples}, {count}, {width}], the embedding of each view, found "
                f"{rows.dtype} {list(rows.shape)}"
            )
    scale = 1.0 / temperature
    with full_precision(*views, predicted, previous) as given:
        *now, foreseen, before = given
        z = unit_rows(torch.cat(now))
        if not samples:
            return z.sum() + 0.0 * foreseen.sum()
        # As the views are: one after the other.
        p, old = (unit_rows(rows.transpose(0, 1).reshape(-1, width)) for rows in (foreseen, before))
        itself = torch.arange(len(z), device=z.device)
        lengths = torch.linalg.vector_norm(z.detach(), dim=1)
        together = z.view(count, samples, -1).sum(0).square().sum() - lengths.square().sum()
        attraction = together / (count * (count - 1) * samples)
        new = torch.logaddexp(
            pair_logsumexp(z, scale=scale, bound=scale, exclude_self=True),
            pair_logsumexp(z, old, scale=scale, bound=scale, exclude=itself),
        )
        kept = torch.logaddexp(
            pair_logsumexp(p, old, scale=scale, bound=scale),
            pair_logsumexp(p, z, scale=scale, bound=scale, exclude=itself),
        )
        return new.mean() - scale * attraction + (kept - scale * (p * old).sum(1)).mean()


@register("losses", "sy-con", paper="sy-con")
class SyCon(ViewsLoss, function=sycon_loss):
    """Module form of `sycon_loss`."""
