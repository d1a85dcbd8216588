"""Discovery from pairs: rows that look alike should be of one class, whichever it is."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from repertoire.discover._base import Found
from repertoire.discover._network import Batch, Network, OnPrototypes, spread_out, supervised
from repertoire.losses import pairwise_bce_loss, same_rank
from repertoire.ranges import AtLeast, Share
from repertoire.registry import register

__all__ = ["ContrastivePseudo", "RankStatistics", "local_similarity", "partners"]

_PAIRS = 2**22
"""Pairs of rows that are compared at once."""


@register("discoverers", "rank-statistics", paper="ncd-survey")
class RankStatistics(OnPrototypes):
    r"""Known classes and pairs of new rows learned together: a pair is of one class if its largest features agree.

    The one-stage way of Troisemaine et al., *Novel Class Discovery: an Introduction and Key Concepts* (2023), as Han et
    al., *Automatically Discovering and Learning New Visual Categories with Ranking Statistics* (2020) do it, on frozen
    features:

    .. math:: \ell = \ell_{\text{ce}} + \ell_{\text{pairs}} + \omega(t)\, \ell_{\text{mse}}

    with cross-entropy on the labels, the binary cross-entropy of pairs of rows without one
    (:func:`repertoire.losses.pairwise_bce_loss`, with pseudo-labels from :func:`repertoire.losses.same_rank`), and the
    squared difference of the answers to two views, whose weight grows along a Gaussian ramp. In the paper no row
    without a label is of a known class, and each kind of rows has a head of its own; with `mixed`, the default, some
    may be, and answers are over all classes.

    Args:
        mixed: whether rows without a label may be of a known class.
        largest: how many features are compared; 5 in the paper.
        consistency: omega in the end; 5 by default, as in the paper for CIFAR-10.
        even: weight of the entropy of the mean answer, 0 or more. The paper has none.

    Example:
        >>> import torch
        >>> from repertoire.discover import RankStatistics
        >>> truth = torch.arange(5).repeat_interleave(20)
        >>> x = 9 * torch.eye(5, 8)[truth] + torch.randn(100, 8, generator=torch.Generator().manual_seed(0))
        >>> found = RankStatistics(classes=5, epochs=5, largest=1).fit(x, torch.where(truth < 3, truth, -1))
        >>> sorted(set(found.labels_[60:].tolist()))
        [3, 4]
    """

    mixed: bool = True
    largest: Annotated[int, AtLeast(1)] = 5
    consistency: Annotated[float, AtLeast(0)] = 5.0
    even: Annotated[float, AtLeast(0)] = 0.0

    @staticmethod
    def example_options() -> dict[str, Any]:
        """Few epochs for a small example, whose classes have one large feature each."""
        return {"epochs": 10, "hidden": 32, "largest": 1}

    def _objective(self, network: Network, rows: Tensor, batch: Batch) -> Tensor:
        labels, seen = batch.labels, batch.labels >= 0
        z = network(batch.views)
        logits = network.cosines(z).view(2, len(labels), -1) / self.temperature
        if not self.mixed:
            # Each kind of rows has the classes that it can be of.
            old = torch.arange(logits.shape[2]) < batch.known
            logits = logits.masked_fill(old != seen[:, None], -torch.inf)
        p = logits.softmax(2)
        ramp = float(torch.tensor(-5 * (1 - batch.progress) ** 2).exp())
        loss = self.consistency * ramp * (p[0] - p[1]).square().mean() + self.even * spread_out(logits)
        loss = loss + supervised(logits, labels)
        free = ~seen
        if int(free.sum()) > 1:
            features = z.detach().view(2, len(labels), -1)[0, free]
            same = same_rank(features, min(self.largest, features.shape[1]))
            loss = loss + pairwise_bce_loss(p[0, free], p[1, free], same)
        return loss


@register("discoverers", "contrastive-pseudo", paper="cpl-deepfake")
class ContrastivePseudo(OnPrototypes):
    r"""Pairs that look alike as a whole and part by part, and soft answers that count as much as they are sure.

    Sun et al., *Contrastive Pseudo Learning for Open-World DeepFake Attribution* (2023), on frozen features, in our
    reading. Each row has one partner, which global and local similarity vote for: among the `neighbours` nearest rows
    by the cosine of the means of their patches, and also by

    .. math:: s_{ij} = \frac{1}{P} \sum_p \max_q \cos(f_{ip}, f_{jq})

    it is the one with the largest sum of both; a row without one keeps itself. Then

    .. math:: \ell = \ell_{\text{ce}} - \frac{1}{B} \sum_i \log p_i \cdot p_{j(i)} - \frac{1}{B} \sum_i w_i \sum_c
        q_{ic} \log p_{ic} - \epsilon\, H(\bar p)

    where q is the sharper answer to the other view and :math:`w_i`, its largest probability, says how sure it is. For
    the first fifth of the steps there is only :math:`\ell_{\text{ce}}`; the last term of rows without a label comes in
    after half of them.

    The paper trains a network on faces; here it stays as it is, a residual layer learns on its features, and views are
    features with noise.

    Args:
        votes: "both" (default), or "global" for whole rows alone. Where rows have no patches the two are the same.
        soft: whether answers are soft and weighted (default), or the class above `threshold` and nothing otherwise.
        threshold: of the probability of a class that counts as an answer where these are not soft; in [0, 1].
        neighbours: of the vote, 1 or more.
        even: epsilon, 0 or more.
        temperature: of the answers, 0.1; half of it for q.

    Raises:
        ConfigError: an option out of range. When fitted, see :meth:`repertoire.discover.Discoverer.fit`; X may be
            `[N, P, d]`, P patches a row.

    Example:
        >>> import torch
        >>> from repertoire.discover import ContrastivePseudo
        >>> truth = torch.arange(5).repeat_interleave(20)
        >>> x = 5 * torch.eye(5)[truth] + torch.randn(100, 5, generator=torch.Generator().manual_seed(0))
        >>> found = ContrastivePseudo(classes=5, epochs=5).fit(x, torch.where(truth < 3, truth, -1))
        >>> sorted(set(found.labels_[60:].tolist()))
        [3, 4]
    """

    patches = True

    votes: Literal["both", "global"] = "both"
    soft: bool = True
    threshold: Annotated[float, Share] = 0.95
    neighbours: Annotated[int, AtLeast(1)] = 10
    even: Annotated[float, AtLeast(0)] = 2.0

    def _discover(self, x: Tensor, labels: Tensor, known: int, generator: torch.Generator) -> Found:
        patches = x if x.ndim == 3 else x[:, None]
        whole = patches.mean(1)
        self._partner = partners(whole, patches, self.neighbours, local=self.votes == "both")
        return super()._discover(whole, labels, known, generator)

    def _objective(self, network: Network, rows: Tensor, batch: Batch) -> Tensor:
        labels = batch.labels
        logits = network.cosines(network(batch.views)).view(2, len(labels), -1) / self.temperature
        loss = supervised(logits, labels)
        if batch.progress < 0.2:
            return loss + 0 * logits.sum()
        beside = network.cosines(network(rows[self._partner[batch.places]])) / self.temperature
        p = logits.softmax(2)
        agree = (p[0] * beside.softmax(1)).sum(1).clamp(1e-6, 1)
        counting = torch.ones(len(labels)) if batch.progress >= 0.5 else (labels >= 0).float()
        return loss - agree.log().mean() + self._answers(logits, counting) + self.even * spread_out(logits)

    def _answers(self, logits: Tensor, counting: Tensor) -> Tensor:
        """Cross-entropy of each view `[2, B, K]` with the sharper answer to the other, as far as that is sure."""
        q = (2 * logits.detach()).softmax(2).flip(0)
        sure = q.amax(2)
        if not self.soft:
            q = F.one_hot(q.argmax(2), q.shape[2]).to(q.dtype)
            sure = (sure > self.threshold).to(q.dtype)
        return -(counting * sure * (q * logits.log_softmax(2)).sum(2)).mean()


def local_similarity(patches: Tensor, others: Tensor) -> Tensor:
    """Mean over the patches of a row of the largest cosine with a patch of the other: `[N, P, d]`, `[M, Q, d]` to
    `[N, M]`."""
    return _both_ways(F.normalize(patches, dim=2), F.normalize(others, dim=2))[0]


def _both_ways(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """`local_similarity` of unit patches to others, and of the others to them, both `[N, M]`."""
    # A row at a time: all pairs of patches at once would be N x M x P x Q.
    flat = second.flatten(0, 1).T
    there, back = [], []
    for row in first:
        alike = (row @ flat).view(len(row), len(second), -1)
        there.append(alike.amax(2).mean(0))
        back.append(alike.amax(0).mean(1))
    return torch.stack(there), torch.stack(back)


def partners(whole: Tensor, patches: Tensor, neighbours: int, *, local: bool) -> Tensor:
    """The row that each row is paired with, int64 `[N]`; itself where no other has both votes."""
    unit = F.normalize(whole)
    parts = F.normalize(patches, dim=2) if local and patches.shape[1] > 1 else None
    count = min(neighbours, len(whole) - 1)
    # Some rows at a time, each with all: a matrix of all pairs would be N x N.
    size = max(1, _PAIRS // len(whole))
    found = []
    for start in range(0, len(whole), size):
        own = torch.arange(start, min(start + size, len(whole)))
        votes = [unit[own] @ unit.T]
        if parts is not None:
            there, back = _both_ways(parts[own], parts)
            votes.append((there + back) / 2)
        both = torch.zeros_like(votes[0])
        wanted = torch.ones_like(both, dtype=torch.bool)
        for vote in votes:
            vote[torch.arange(len(own)), own] = -torch.inf
            nearest = torch.zeros_like(wanted).scatter_(1, vote.topk(count, dim=1).indices, True)
            wanted &= nearest
            both = both + vote
        best, place = both.masked_fill(~wanted, -torch.inf).max(1)
        found.append(torch.where(best.isfinite(), place, own))
    return torch.cat(found)
