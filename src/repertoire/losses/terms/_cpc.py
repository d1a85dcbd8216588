"""Contrastive predictive coding of sequences: each prediction should find what came among all that is in the batch."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from repertoire.errors import ShapeError
from repertoire.losses.contracts._views import full_precision
from repertoire.ops import pair_logsumexp
from repertoire.ranges import AtLeast, Positive, checked

__all__ = ["cpc_loss"]


@checked
def cpc_loss(
    latents: Tensor,
    predictions: Tensor,
    *,
    first: Annotated[int, AtLeast(1)] = 1,
    temperature: Annotated[float, Positive] = 1.0,
) -> Tensor:
    r"""InfoNCE over time: what was predicted of the future should be found among all that is in the batch.

    van den Oord et al., *Representation Learning with Contrastive Predictive Coding* (2018). With the latents
    :math:`z_{nt}` of N sequences and the predictions :math:`\hat z^k_{nt} = W_k c_{nt}` made at time t, from the past
    up to and including t, of the latent k steps later:

    .. math::
        \ell^k_{nt} = -\log \frac{\exp(\hat z^k_{nt} \cdot z_{n, t + k} / \tau)}
            {\sum_{m, s} \exp(\hat z^k_{nt} \cdot z_{ms} / \tau)}

    The loss is the mean over all predictions of a k whose future lies within the sequence, and over the k. Other times
    of the same sequence are negatives too, as they are for the images of the paper, whose appendix has predictions a
    tenth as large: that is a temperature of 10.

    Neither side is scaled to unit length. log(N T) less the loss is a lower bound of the mutual information of past and
    future. All pairs are streamed.

    Args:
        latents: float `[N, T, d]`.
        predictions: float `[K, N, T, d]` of the same dtype: of what comes first, first + 1, ... steps later. A linear
            layer without a bias from contexts to K d numbers makes them, reshaped.
        first: how many steps ahead the first predictions look, 1 or more. Where neighbouring steps see some of the same
            input, the first that does not.
        temperature: tau, positive.

    Returns:
        A scalar; float32 for half-precision input; zero if there is nothing to predict.

    Raises:
        ShapeError: shapes or dtypes that do not fit, or `first` below 1. ValueError: the temperature is not positive.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from repertoire.losses import cpc_loss
        >>> latents = torch.eye(4).view(1, 4, 4)  # a sequence of four steps, no two of them alike
        >>> past = nn.GRU(4, 8, batch_first=True)
        >>> ahead = nn.Linear(8, 2 * 4, bias=False)  # W_1 and W_2
        >>> contexts, _ = past(latents)
        >>> predictions = ahead(contexts).unflatten(2, (2, 4)).permute(2, 0, 1, 3)
        >>> cpc_loss(latents, torch.zeros_like(predictions))  # whoever predicts nothing guesses: log 4
        tensor(1.3863)
    """
    if latents.ndim != 3 or not latents.is_floating_point():
        raise ShapeError(f"latents must be a floating point [N, T, d], found {latents.dtype} {list(latents.shape)}")
    if predictions.ndim != 4 or predictions.shape[1:] != latents.shape or predictions.dtype != latents.dtype:
        raise ShapeError(
            f"predictions must be {latents.dtype} [K, {', '.join(map(str, latents.shape))}] to go with the latents, "
            f"found {predictions.dtype} {list(predictions.shape)}"
        )
    scale, length = 1 / temperature, latents.shape[1]
    with full_precision(latents, predictions) as (z, p):
        # Steps that look beyond the end of every sequence have nothing to find.
        ahead = [(p[k, :, : length - first - k], z[:, first + k :]) for k in range(min(len(p), length - first))]
        if not ahead or not len(z):
            return 0 * (z.sum() + p.sum())
        anchors = torch.cat([anchor.flatten(0, 1) for anchor, _ in ahead])
        positives = torch.cat([positive.flatten(0, 1) for _, positive in ahead])
        weights = torch.cat([anchor.new_full((len(z) * anchor.shape[1],), 1 / anchor.shape[1]) for anchor, _ in ahead])
        everything = pair_logsumexp(anchors, z.flatten(0, 1), scale=scale)
        losses = everything - scale * (anchors * positives).sum(1)
        return (weights * losses).sum() / (len(z) * len(ahead))
