"""Prototype-sample relations: class prototypes keep their order of the samples at hand while features move."""

from __future__ import annotations

from typing import Annotated

from torch import Tensor
from torch.nn import functional as F

from repertoire.errors import ShapeError
from repertoire.losses.contracts._positives import full_precision
from repertoire.ops import unit_rows
from repertoire.ranges import Positive, checked

__all__ = ["relation_distillation"]


@full_precision
@checked
def relation_distillation(
    features: Tensor,
    prototypes: Tensor,
    old_features: Tensor,
    old_prototypes: Tensor,
    *,
    temperature: Annotated[float, Positive] = 1.0,
) -> Tensor:
    r"""How far prototypes have come from seeing a batch of samples as they did before.

    Asadi et al., *Prototype-Sample Relation Distillation: Towards Replay-Free Continual Learning* (2023). With features
    :math:`z_i` of a batch B and the prototypes :math:`p_k` of classes of which there are no samples any more, both as
    they are and as they were before the stage (with a bar), the term is the sum over prototypes of

    .. math:: \mathrm{KL}\bigl(P(\bar p_k, \bar z) \,\|\, P(p_k, z)\bigr), \qquad
              P(p, z)_i = \frac{\exp(\cos(p, z_i) / \tau)}{\sum_{j \in B} \exp(\cos(p, z_j) / \tau)}

    A prototype may move, with the features, as long as it is as near to this sample and as far from that one as it was.
    The batch is what the distributions are over, so it should be large: 128 samples or more. The paper's softmax is
    over samples, as here; that of the authors' first code is over the prototypes of a task.

    Args:
        features: float `[N, d]`, now.
        prototypes: float `[K, d]`, now.
        old_features, old_prototypes: the same before the stage, without gradient.
        temperature: tau, positive; 1 in the authors' code.

    Returns:
        A scalar, 0 or more; zero without samples or prototypes; float32 for half-precision features.

    Raises:
        ShapeError: shapes that do not fit.
        ConfigError: the temperature is not positive.

    Example:
        >>> import torch
        >>> from repertoire.losses import relation_distillation
        >>> z, p = torch.randn(8, 4), torch.randn(2, 4)
        >>> turn, _ = torch.linalg.qr(torch.randn(4, 4))
        >>> bool(relation_distillation(z @ turn, p @ turn, z, p) < 1e-6)  # a rotation changes no relation
        True
    """
    for name, now, old in (("features", features, old_features), ("prototypes", prototypes, old_prototypes)):
        if now.ndim != 2 or now.shape != old.shape or now.shape[1] != features.shape[1]:
            raise ShapeError(
                f"{name} must be [rows, {features.shape[-1]}] before and now, found {list(old.shape)} and "
                f"{list(now.shape)}"
            )
    if not len(features):
        return features.sum() + 0.0 * prototypes.sum()
    z, p, old_z, old_p = (unit_rows(rows) for rows in (features, prototypes, old_features, old_prototypes))
    now = F.linear(p.to(z.dtype), z).div(temperature).log_softmax(1)
    before = F.linear(old_p.to(z.dtype), old_z.to(z.dtype)).div(temperature).log_softmax(1)
    return F.kl_div(now, before, reduction="sum", log_target=True)
