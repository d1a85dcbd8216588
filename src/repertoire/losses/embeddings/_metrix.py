"""Metrix: mixup for losses on pairs."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from repertoire.errors import ShapeError
from repertoire.losses.contracts._added import AddedTerm
from repertoire.losses.contracts._base import EmbeddingLoss, Loss, check_embeddings
from repertoire.losses.contracts._positives import group, mean_over, poison
from repertoire.ops import LARGEST_BOUND, pair_logsumexp, unit_rows
from repertoire.ranges import AtLeast, Finite, Positive, checked
from repertoire.registry import register

__all__ = ["Metrix", "metrix_loss"]

#: Added to the logarithm of a term that is to vanish: its exponential is zero in float64.
_NOTHING = -1e4


@checked
def metrix_loss(
    embeddings: Tensor,
    labels: Tensor,
    mixed: Tensor,
    first: Tensor,
    second: Tensor,
    share: Tensor,
    *,
    alpha: Annotated[float, Positive] = 2.0,
    beta: Annotated[float, Positive] = 50.0,
    threshold: Annotated[float, Finite] = 0.5,
    anchors: Tensor | None = None,
) -> Tensor:
    r"""Metrix: a mixed sample is in part a positive and in part a negative of an anchor.

    Venkataramanan et al., *It Takes Two to Tango: Mixup for Deep Metric Learning* (2021), in the form of the
    multi-similarity loss. With v a mixture, in the shares :math:`\mu` and :math:`1 - \mu`, of a sample of class a and
    one of class b, :math:`y_{iv} = \mu [y_i = a] + (1 - \mu) [y_i = b]`, s the cosines, and M(i) the mixtures in which
    the class of i has a part:

    .. math::
        \ell_i = \frac{1}{\alpha} \log\Bigl(1 + \sum_{v \in M(i)} y_{iv}\, e^{-\alpha (s_{iv} - \lambda)}\Bigr)
               + \frac{1}{\beta} \log\Bigl(1 + \sum_{v \in M(i)} (1 - y_{iv})\, e^{\beta (s_{iv} - \lambda)}\Bigr)

    What is mixed is up to the caller: inputs, features inside the network, or embeddings. The paper adds this term to
    the loss of the samples themselves.

    No pair is ever stored: four passes over all pairs are streamed.

    Args:
        embeddings: float `[N, d]` of any length, the anchors.
        labels: int64 `[N]` of any values.
        mixed: float `[M, d]`, the embeddings of the mixtures.
        first, second: int64 `[M]`, the classes of what was mixed.
        share: float `[M]` in [0, 1], mu.
        alpha: how much the least similar part of a positive outweighs the others, positive.
        beta: how much the most similar part of a negative outweighs the others, positive.
        threshold: lambda, the cosine that tells similar from dissimilar.
        anchors: bool `[N]`, which rows to take the mean over; those with a mixture to compare with if None.

    Returns:
        A scalar; float32 for half-precision embeddings. Zero, with a zero gradient, for no anchors.

    Raises:
        ShapeError: shapes or dtypes that do not fit.
        ConfigError: alpha or beta is not positive.

    Example:
        >>> import torch
        >>> from repertoire.losses import metrix_loss
        >>> x, labels = torch.eye(2), torch.tensor([0, 1])
        >>> half = torch.tensor([0.5])
        >>> value = metrix_loss(x, labels, x.mean(0, keepdim=True), labels[:1], labels[1:], half, alpha=1.0, beta=1.0)
        >>> value  # log(1 + e^-0.2071 / 2) + log(1 + e^0.2071 / 2)
        tensor(0.8205)
    """
    check_embeddings(embeddings, labels, mixed, first)
    if share.numel() and share.device.type == "cpu" and not torch.compiler.is_compiling():
        low, high = (float(bound) for bound in share.detach().aminmax())
        if low < 0 or high > 1:
            raise ShapeError(f"share must lie in [0, 1], found {low if low < 0 else high}")
    for name, values in (("second", second), ("share", share)):
        if values.shape != first.shape:
            raise ShapeError(f"{name} must be [{len(first)}], one for each mixture, found {list(values.shape)}")
    z, v = unit_rows(embeddings), unit_rows(mixed)
    parts = group(labels, torch.cat([first, second]), warn=False)
    one, two = parts.other.chunk(2)
    share = share.to(z.dtype)
    # A weight is added to the exponent as its logarithm. Of a mixture of a class with itself nothing is negative.
    pure = one == two
    positive: list[Tensor] = []
    negative: list[Tensor] = []
    for classes, weight in ((one, share), (two, 1 - share)):
        rest = (1 - weight).masked_fill(pure, 0.0)
        for found, factor, scale in ((positive, weight, -alpha), (negative, rest, beta)):
            bias = factor.log().clamp_min(_NOTHING) - scale * threshold
            reach = abs(scale) * (1 + abs(threshold))
            lse = pair_logsumexp(
                z,
                v,
                scale=scale,
                y_bias=bias,
                # Weights make exponents smaller only, which does no harm.
                bound=reach if reach <= LARGEST_BOUND else None,
                pairs="same",
                groups=parts.own,
                y_groups=classes,
            )
            found.append(lse.clamp_min(_NOTHING))
    if anchors is None:
        anchors = parts.anchors
    pulled = F.softplus(torch.logaddexp(*positive)) / alpha
    pushed = F.softplus(torch.logaddexp(*negative)) / beta
    return mean_over(pulled + pushed, anchors) + poison(z, v)


@register("losses", "metrix", paper="metrix")
class Metrix(AddedTerm, EmbeddingLoss):
    r"""Metrix: beside a loss on pairs one on mixtures of embeddings, which are in part positive and in part negative.

    The objective of Venkataramanan et al. (2021) with mixtures of embeddings: while training, each embedding is mixed
    with that of a random other sample, in shares from a Beta distribution, and `weight` times
    :func:`repertoire.losses.metrix_loss`, which gives the formula, is added to the base. For mixtures of inputs or of
    features call that function. Mixtures are drawn from torch's random state. In evaluation the loss is the base.

    The paper picks pairs for each anchor: a positive or itself, and a hard negative. Here one mixture a sample serves
    all anchors whose class has a part in it.

    Args:
        base: a loss on embeddings that compares them with each other, or the spec of one.
        weight: of the term on mixtures, 0 or more; the paper uses 0.4.
        mixing: both parameters of the Beta distribution of the shares, positive; the paper uses 2.
        alpha, beta, threshold: see :func:`repertoire.losses.metrix_loss`.
        counts, num_classes, samples: passed on to the base where it wants them.

    Shapes:
        embeddings float `[N, d]`, labels int64 `[N]`; a reference set float `[M, d]` with labels int64 `[M]`, whose
        rows are mixed in place of the embeddings.

    Raises:
        ConfigError: an option is out of its range, or the base is no loss on embeddings.

    Example:
        >>> import torch
        >>> from repertoire.losses import Metrix
        >>> loss = Metrix("supcon:temperature=0.1")
        >>> x, labels = torch.eye(4), torch.tensor([0, 0, 1, 1])
        >>> loss.eval()(x, labels)  # the base: log 3
        tensor(1.0986)
        >>> bool(loss.train()(x, labels) > 1.0986)
        True
    """

    random = True

    def __init__(
        self,
        base: str | Loss = "multi-similarity",
        weight: Annotated[float, AtLeast(0)] = 0.4,
        mixing: Annotated[float, Positive] = 2.0,
        alpha: Annotated[float, Positive] = 2.0,
        beta: Annotated[float, Positive] = 50.0,
        threshold: Annotated[float, Finite] = 0.5,
        counts: Tensor | None = None,
        num_classes: int | None = None,
        samples: int | None = None,
    ) -> None:
        super().__init__()
        known = {"counts": counts, "num_classes": num_classes, "samples": samples}
        self.make({"base": base, "weight": weight, **known})
        self.mixing = mixing
        self.alpha = alpha
        self.beta = beta
        self.threshold = threshold

    def forward(self, *inputs: Tensor, **known: Any) -> Tensor:  # type: ignore[override]
        """The loss of embeddings `[N, d]` with labels `[N]`, among themselves or against a reference set."""
        value: Tensor = (
            super().forward(*inputs, **known) if self.training and self.weight else self.base(*inputs, **known)
        )
        return value

    def term(self, *inputs: Tensor, **known: Tensor | None) -> Tensor:
        """The loss of one mixture a sample, drawn anew in every call."""
        embeddings, labels = inputs
        rows, row_labels = known.get("reference"), known.get("reference_labels")
        if rows is None or row_labels is None:
            rows, row_labels = embeddings, labels
        z = unit_rows(rows)
        partner = torch.randperm(len(z), device=z.device)
        both = torch.full_like(z[:, 0], self.mixing).detach()
        share = torch.distributions.Beta(both, both).sample() if len(z) else both
        mixed = z * share[:, None] + z[partner] * (1 - share)[:, None]
        return metrix_loss(
            unit_rows(embeddings),
            labels.long(),
            mixed,
            row_labels.long(),
            row_labels[partner].long(),
            share,
            alpha=self.alpha,
            beta=self.beta,
            threshold=self.threshold,
            anchors=group(labels, known.get("reference_labels"), warn=False).anchors,
        )
