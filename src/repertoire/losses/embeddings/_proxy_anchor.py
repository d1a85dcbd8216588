"""Proxy-Anchor: a learned vector for each class, which looks at all samples of the batch."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.errors import ConfigError
from repertoire.losses.contracts._base import EmbeddingLoss, check_embeddings
from repertoire.losses.contracts._positives import check_dimensions, check_proxies, warn_if_none
from repertoire.ops import LARGEST_BOUND, pair_logsumexp, unit_rows
from repertoire.ranges import AtLeast, Between, Finite, checked
from repertoire.registry import register

__all__ = ["ProxyAnchor", "proxy_anchor_loss"]

#: Added to the logarithm of a term that is to vanish: its exponential is zero in float64.
_NOTHING = -1e4


def _check(alpha: float, margin: float) -> None:
    if alpha * margin > LARGEST_BOUND:
        raise ConfigError(f"alpha times margin must be at most {LARGEST_BOUND:g}, found {alpha} and {margin}")


@checked(also=_check)
def proxy_anchor_loss(
    embeddings: Tensor,
    labels: Tensor,
    proxies: Tensor,
    *,
    alpha: Annotated[float, Between(0, LARGEST_BOUND, "(]")] = 32.0,
    margin: Annotated[float, Finite] = 0.1,
    reference: Tensor | None = None,
    reference_labels: Tensor | None = None,
) -> Tensor:
    r"""Proxy-Anchor loss: each class has a vector, which pulls the samples of its class and pushes all others.

    Kim et al., *Proxy Anchor Loss for Deep Metric Learning* (2020). With s the cosine, P the proxies, P⁺ those whose
    class is in the batch, and X⁺ and X⁻ the samples that are and that are not of a proxy's class:

    .. math::
        \ell = \frac{1}{|P^+|} \sum_{p \in P^+} \log\Bigl(1 + \sum_{x \in X_p^+} e^{-\alpha (s(x, p) - \delta)}\Bigr)
             + \frac{1}{|P|} \sum_{p \in P} \log\Bigl(1 + \sum_{x \in X_p^-} e^{\alpha (s(x, p) + \delta)}\Bigr)

    The hardest samples of the batch weigh most, as in a loss on pairs, at the price of a loss on proxies: NC pairs,
    which are streamed. The positives need the cosines to a sample's own proxy only.

    Args:
        embeddings: float `[N, d]` of any length.
        labels: int64 `[N]` in 0..C-1; below 0 for a sample without a class, which takes no part.
        proxies: float `[C, d]` of any length, the vectors of the classes.
        alpha: sharpness, positive, at most 64; the paper uses 32.
        margin: delta; the paper uses 0.1.
        reference: float `[M, d]`, further samples, of a memory or another rank.
        reference_labels: int64 `[M]`.

    Returns:
        A scalar; float32 for half-precision embeddings. Zero, with a zero gradient, if no sample has a class.

    Raises:
        ShapeError: shapes or dtypes that do not fit, or (on the CPU) a label without a proxy.
        ConfigError: alpha out of range.

    Example:
        >>> import torch
        >>> from repertoire.losses import proxy_anchor_loss
        >>> proxies = torch.eye(2)
        >>> proxy_anchor_loss(torch.eye(2), torch.tensor([0, 1]), proxies, alpha=1.0)
        tensor(1.0856)
    """
    check_embeddings(embeddings, labels, reference, reference_labels)
    if reference is not None and reference_labels is not None:
        embeddings, labels = torch.cat([embeddings, reference]), torch.cat([labels, reference_labels])
    check_proxies(labels, proxies, embeddings.shape[1])
    z = unit_rows(embeddings)
    p = unit_rows(proxies.to(z.dtype))
    known = labels >= 0
    warn_if_none(known)
    target = labels.clamp_min(0).long()
    own = (-alpha * ((z * p[target]).sum(1) - margin)).masked_fill(~known, -torch.inf)
    # log(1 + sum of e^own) of each class, relative to its largest exponent where that is positive: a sample opposite
    # its proxy has the exponent alpha (1 + margin), whose power may be no number.
    largest = own.new_zeros(len(p)).scatter_reduce(0, target, own.detach(), "amax")
    powers = own.new_zeros(len(p)).index_add(0, target, torch.exp(own - largest[target]))
    pulled = torch.log1p(powers + torch.expm1(-largest)) + largest
    present = torch.zeros_like(pulled).index_add(0, target, known.to(pulled)) > 0
    pushed = pair_logsumexp(
        p,
        z,
        scale=alpha,
        y_bias=torch.zeros_like(own).masked_fill(~known, _NOTHING),
        bound=alpha,
        pairs="different",
        groups=torch.arange(len(p), device=p.device),
        y_groups=labels.long(),
    )
    return pulled.sum() / present.sum().clamp_min(1) + F.softplus(pushed + alpha * margin).mean()


@register("losses", "proxy-anchor")
class ProxyAnchor(EmbeddingLoss):
    r"""Proxy-Anchor loss: each class has a vector, which pulls the samples of its class and pushes all others.

    The module form of :func:`repertoire.losses.proxy_anchor_loss`, which gives the paper and the formula. It owns the
    vectors, which are trained and stored with the method. The paper trains them with 100 times the learning rate of the
    network: give `loss.parameters()` an optimiser group of their own for that.

    Args:
        num_classes: C, positive.
        dimensions: d; told by the method if None.
        alpha: sharpness, positive, at most 64; the paper uses 32.
        margin: delta; the paper uses 0.1.

    Attributes:
        proxies: float `[C, d]`, the vectors of the classes.

    Shapes:
        embeddings float `[N, d]`, labels int64 `[N]` in 0..C-1, or below 0 without a class; a reference set float
        `[M, d]` with labels int64 `[M]`.

    Raises:
        ConfigError: `num_classes` or `dimensions` out of range, or called before the dimensions are known.
        ConfigError: alpha out of range.

    Example:
        >>> import torch
        >>> from repertoire.losses import ProxyAnchor
        >>> loss = ProxyAnchor(num_classes=2, dimensions=8)
        >>> loss(torch.randn(4, 8), torch.tensor([0, 0, 1, 1])).shape
        torch.Size([])
    """

    proxied = True

    def __init__(
        self,
        num_classes: Annotated[int, AtLeast(1)],
        dimensions: Annotated[int, AtLeast(1)] | None = None,
        alpha: Annotated[float, Between(0, LARGEST_BOUND, "(]")] = 32.0,
        margin: Annotated[float, Finite] = 0.1,
    ) -> None:
        super().__init__()
        _check(alpha, margin)
        self.num_classes = num_classes
        self.alpha = alpha
        self.margin = margin
        self.proxies: nn.Parameter | None = None
        if dimensions is not None:
            self.prepare(dimensions)

    def prepare(self, dimensions: int) -> None:
        """Makes the proxies, in random directions."""
        check_dimensions(dimensions, None if self.proxies is None else self.proxies.shape[1])
        if self.proxies is None:
            self.proxies = nn.Parameter(F.normalize(torch.randn(self.num_classes, dimensions), dim=1))

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor,
        reference: Tensor | None = None,
        reference_labels: Tensor | None = None,
    ) -> Tensor:
        """The loss of embeddings `[N, d]` with labels `[N]`, and of those of a reference set."""
        if self.proxies is None:
            raise ConfigError("dimensions of the embeddings are not known yet: give dimensions, or call prepare")
        return proxy_anchor_loss(
            embeddings,
            labels,
            self.proxies,
            alpha=self.alpha,
            margin=self.margin,
            reference=reference,
            reference_labels=reference_labels,
        )
