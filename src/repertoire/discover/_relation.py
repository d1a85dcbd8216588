"""Discovery that keeps what a network of the known classes thought of the new rows."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from repertoire.discover._network import Batch, Network, OnPrototypes, agreement
from repertoire.ops import pinned_kmeans, sinkhorn
from repertoire.ranges import AtLeast, Positive
from repertoire.registry import register

__all__ = ["ClassRelation", "relation_loss"]


@register("discoverers", "class-relation", paper="cr-kd-ncd")
class ClassRelation(OnPrototypes):
    r"""Prototypes of new classes, found while the network keeps its opinion of how new rows resemble the known ones.

    Gu et al., *Class-relation Knowledge Distillation for Novel Class Discovery* (2023), on frozen features. A network
    learns the known classes first, and a copy of it stays as it is. Then prototypes of known and new classes learn
    together: from labels, and for the other rows from what the other view says, assigned evenly to the classes by
    :func:`repertoire.ops.sinkhorn`. What is added is

    .. math:: \ell_{\text{kd}} = -\frac{T^2}{U} \sum_i w_i \sum_{c \le C} p^{\text{old}}_{ic} \log p_{ic},
        \qquad w_i = \frac{m_i}{\bar m}

    over the U rows without a label, where p are the probabilities of the C known classes among themselves (at
    temperature :math:`\tau T`), :math:`p^{\text{old}}` those of the copy, and :math:`m_i` the probability that all
    known classes have together.

    The paper trains the network on photographs, whose views are crops. Here it stays as it is, a residual layer learns
    on its features, and views are features with noise. In the paper no row without a label is of a known class:
    with `mixed`, the default, some may be, and Sinkhorn's targets are over all classes.

    Args:
        mixed: whether rows without a label may be of a known class.
        distil: weight of :math:`\ell_{\text{kd}}`, 0 or more; 0.1 in the released code.
        weights: "learned" (default) weights rows by :math:`m_i`, through which gradients flow as in the released code;
            "affinity" without gradients; "constant" weights all alike.
        distil_temperature: T, positive; 4 in the released code.
        heads: sets of prototypes of the new classes, of which that with the least loss is used; 4 in the released code.
        epsilon: of Sinkhorn's assignment, 0.05.
        temperature: tau of the answers, 0.1.
        pretraining: epochs on the rows with a label, before.
        batch_size: rows of a step.

    Example:
        >>> import torch
        >>> from repertoire.discover import ClassRelation
        >>> truth = torch.arange(5).repeat_interleave(20)
        >>> x = 9 * torch.eye(5)[truth] + torch.randn(100, 5, generator=torch.Generator().manual_seed(0))
        >>> found = ClassRelation(classes=5, epochs=5).fit(x, torch.where(truth < 3, truth, -1))
        >>> sorted(set(found.labels_[60:].tolist()))
        [3, 4]
    """

    mixed: bool = True
    distil: Annotated[float, AtLeast(0)] = 0.1
    weights: Literal["learned", "affinity", "constant"] = "learned"
    distil_temperature: Annotated[float, Positive] = 4.0
    heads: Annotated[int, AtLeast(1)] = 4
    epsilon: Annotated[float, Positive] = 0.05
    pretraining: Annotated[int, AtLeast(1)] = 20

    @staticmethod
    def example_options() -> dict[str, Any]:
        """Few epochs for a small example."""
        return {"epochs": 10, "pretraining": 5, "hidden": 32}

    def _trained(self, rows: Tensor, labels: Tensor, known: int, classes: int, generator: torch.Generator) -> Tensor:
        seen = labels >= 0
        old = self._of_known(rows[seen], labels[seen], known, generator)
        with torch.no_grad():
            z = old(rows)
        # Every head starts from its own draw of centres among what the network of the known classes makes of the rows.
        sets = [pinned_kmeans(z, classes, labels, starts=1, generator=generator).centres for _ in range(self.heads)]
        network = Network(torch.cat([old.prototypes.detach(), *(s[known:] for s in sets)]), self.hidden, generator)
        with torch.no_grad():
            for name in ("into", "bias", "out"):
                getattr(network, name).copy_(getattr(old, name))
        new = classes - known
        losses = torch.zeros(self.heads)

        def objective(batch: Batch) -> Tensor:
            cosines = network.cosines(network(batch.views))
            with torch.no_grad():
                before = old.cosines(old(batch.views))
            each = torch.stack(
                [self._head(_columns(cosines, known, new, h), before, batch.labels, known) for h in range(self.heads)]
            )
            losses.add_(each.detach())
            return each.mean()

        self._run(network, rows, labels, objective, generator, balanced=False)
        with torch.no_grad():
            return _columns(network.cosines(network(rows)), known, new, int(losses.argmin()))

    def _of_known(self, rows: Tensor, labels: Tensor, known: int, generator: torch.Generator) -> Network:
        """A network that was trained on the known classes alone."""
        means = torch.zeros(known, rows.shape[1]).index_add_(0, labels, rows)
        network = Network(F.normalize(means), self.hidden, generator)

        def objective(batch: Batch) -> Tensor:
            logits = network.cosines(network(batch.views)) / self.temperature
            return F.cross_entropy(logits, batch.labels.repeat(2))

        self._run(network, rows, labels, objective, generator, epochs=self.pretraining)
        return network.eval().requires_grad_(False)

    def _head(self, cosines: Tensor, before: Tensor, labels: Tensor, known: int) -> Tensor:
        """Loss of one set of prototypes: cosines `[2B, K]` of both views, and those of the old network `[2B, C]`."""
        seen = labels >= 0
        pairs = cosines.view(2, len(labels), -1)
        targets = torch.zeros_like(pairs)
        targets[:, seen, labels[seen]] = 1.0
        first = 0 if self.mixed else known
        if bool((~seen).any()) and pairs.shape[2] > first:
            for view in range(2):
                targets[view, ~seen, first:] = sinkhorn(pairs[view, ~seen, first:].detach(), epsilon=self.epsilon)
        loss = agreement(pairs / self.temperature, targets)
        free = (~seen).repeat(2)
        if not self.distil or not bool(free.any()):
            return loss
        scale = self.temperature * self.distil_temperature
        kept = relation_loss(cosines[free] / scale, before[free] / scale, self.weights)
        return loss + self.distil * self.distil_temperature**2 * kept


def _columns(cosines: Tensor, known: int, new: int, head: int) -> Tensor:
    """Cosines with the known classes and with the new ones of one head."""
    start = known + head * new
    return torch.cat([cosines[:, :known], cosines[:, start : start + new]], 1)


def relation_loss(
    logits: Tensor, before: Tensor, weights: Literal["learned", "affinity", "constant"] = "learned"
) -> Tensor:
    """Cross-entropy of the known part of logits `[U, K]` with what an old network said, logits `[U, C]`.

    Rows are weighted by the probability that the known classes have together, divided by its mean.
    """
    known = before.shape[1]
    losses = -(before.softmax(1) * logits[:, :known].log_softmax(1)).sum(1)
    if weights == "constant":
        return losses.mean()
    mass = logits.softmax(1)[:, :known].sum(1)
    if weights == "affinity":
        mass = mass.detach()
    return (losses * mass / mass.mean()).mean()
