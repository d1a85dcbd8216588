"""SBCL: contrast on two levels, between subclasses of like sizes and between classes."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor

from repertoire.errors import ConfigError, ShapeError
from repertoire.losses.contracts._base import EmbeddingLoss, check_embeddings, check_index
from repertoire.losses.contracts._positives import check_dimensions, group, mean_over
from repertoire.losses.embeddings._supcon import supcon_loss
from repertoire.ops import Memory, class_index, class_sums, kmeans, pair_logsumexp, unit_rows
from repertoire.ranges import AtLeast, Positive, checked
from repertoire.registry import register

__all__ = ["SubclassContrastive", "subclass_contrastive_loss"]

#: Stands for the logarithm of nothing.
_LEAST = -1e4


@checked
def subclass_contrastive_loss(
    embeddings: Tensor,
    labels: Tensor,
    subclasses: Tensor,
    *,
    temperature: Annotated[float, Positive] = 0.1,
    class_temperature: Annotated[float, Positive] | Tensor = 0.2,
    beta: Annotated[float, AtLeast(0)] = 0.25,
    index: Tensor | None = None,
) -> Tensor:
    r"""SBCL: rows of a subclass attract each other, and those of its other subclasses more weakly.

    Hou et al., *Subclass-balancing Contrastive Learning for Long-tailed Recognition* (2023). With z the embeddings
    scaled to unit length, M(i) the other rows of the subclass of i, P(i) ⊇ M(i) those of its class, V(i) the other
    views of its sample, and A(i) all other rows:

    .. math::
        \begin{aligned}
        \ell_i &= -\frac{1}{|M(i)|} \sum_{p \in M(i)} \log
            \frac{\exp(z_i \cdot z_p / \tau_1)}{\sum_{a \in A(i)} \exp(z_i \cdot z_a / \tau_1)}
          - \frac{\beta}{|Q(i)|} \sum_{q \in Q(i)} \log
            \frac{\exp(z_i \cdot z_q / \tau_2)}{\sum_{a \in D(i)} \exp(z_i \cdot z_a / \tau_2)} \\
        Q(i) &= P(i) \setminus M(i) \cup V(i), \qquad D(i) = A(i) \setminus M(i) \cup V(i)
        \end{aligned}

    The first term counts subclasses as the supervised contrastive loss counts classes. Where these are clusters of the
    frequent classes, each about as large as a rare class, no class outweighs another. The second term keeps the
    subclasses of a class together. The loss is the mean over the rows with a positive of their class.

    No pair is ever stored: denominators are streamed, positives need the sums of classes and subclasses.

    Args:
        embeddings: float `[N, d]` of any length.
        labels: int64 `[N]` of any values.
        subclasses: int64 `[N]`, of any values; rows of different classes are of different subclasses.
        temperature: tau_1, positive.
        class_temperature: tau_2, positive; a number, or `[N]`, as high for a row as its class is spread.
        beta: weight of the second term, 0 or more; the released code uses 0.25.
        index: int64 `[N]`, the number of each row's sample: rows of the same are views of it. All different if None.

    Returns:
        A scalar; float32 for half-precision embeddings. Zero, with a zero gradient, if no row has a positive.

    Raises:
        ShapeError: shapes or dtypes that do not fit.
        ConfigError: a temperature is not positive.

    Example:
        >>> import torch
        >>> from repertoire.losses import subclass_contrastive_loss
        >>> subclass_contrastive_loss(torch.eye(4), torch.tensor([0, 0, 1, 1]), torch.tensor([0, 0, 1, 1]))  # log 3
        tensor(1.0986)
    """
    check_embeddings(embeddings, labels)
    for name, values in (("subclasses", subclasses), ("index", index)):
        if values is not None and (values.shape != labels.shape or values.is_floating_point()):
            raise ShapeError(f"{name} must be int64 [{len(labels)}], found {values.dtype} {list(values.shape)}")
    z = unit_rows(embeddings)
    if isinstance(class_temperature, Tensor):
        if class_temperature.shape != labels.shape:
            raise ShapeError(f"class_temperature must be [{len(labels)}], found {list(class_temperature.shape)}")
        weak = 1 / class_temperature.to(z.dtype)
    else:
        weak = torch.full_like(z[:, 0], 1 / class_temperature)
    groups = group(labels)
    # A subclass is one within its class, whatever its number.
    subgroups = group(groups.own * len(labels) + class_index(subclasses)[0], warn=False)
    length = z.square().sum(1)
    total = class_sums(z, groups.own, len(groups.counts))[groups.own]
    near = class_sums(z, subgroups.own, len(subgroups.counts))[subgroups.own]

    strong = 1 / temperature
    attraction = ((z * near).sum(1) - length) / subgroups.positives.clamp_min(1)
    lse = pair_logsumexp(z, scale=strong, bound=strong, exclude_self=True)
    first = (lse - strong * attraction).masked_fill(subgroups.positives == 0, 0.0)
    if not beta:
        return mean_over(first, groups.anchors)
    similar = (z * (total - near)).sum(1)
    count = groups.positives - subgroups.positives
    # Clamped, because the sum of two empty sums has no gradient.
    lse = pair_logsumexp(z, scale=weak, **subgroups.pairs("different")).clamp_min(_LEAST)
    if index is not None:
        views = group(index, warn=False)
        own = class_sums(z, views.own, len(views.counts))[views.own]
        similar, count = similar + (z * own).sum(1) - length, count + views.positives
        lse = torch.logaddexp(lse, pair_logsumexp(z, scale=weak, **views.pairs("same")).clamp_min(_LEAST))
    second = (lse - weak * similar / count.clamp_min(1)).masked_fill(count == 0, 0.0)
    return mean_over(first + beta * second, groups.anchors)


@register("losses", "subclass-contrastive", paper="sbcl")
class SubclassContrastive(EmbeddingLoss, Memory):
    r"""SBCL: rows of a subclass attract each other, and those of its other subclasses more weakly.

    The module form of :func:`repertoire.losses.subclass_contrastive_loss`, which gives the paper and the formula, with
    the paper's clustering. It remembers the embedding of every training sample as it last was. After `warmup` epochs,
    and then every few, each class is clustered by cosine into subclasses of equal sizes, about as large as the smallest
    class: a class of n samples into n // max(smallest class, `smallest`) of them. Until then the loss is the supervised
    contrastive loss, and also where the samples' numbers are not given, or where there is a reference set. The paper
    embeds all samples anew for each clustering, which a loss cannot.

    The temperature of a class grows with its spread phi, the mean distance to its mean over log(n + 10):
    :math:`\tau_2 = \tau_1 \exp(\phi / \bar\phi)`. The released code has :math:`\tau_1 \phi / \bar\phi`. A class that is
    a single subclass keeps tau_1.

    Args:
        samples: size of the training set, positive.
        dimensions: d; told by the method if None.
        temperature: tau_1, positive.
        beta: weight of the contrast between classes, 0 or more; the released code uses 0.25.
        smallest: least size of a subclass, positive; the released code uses 10.
        warmup: epochs before the first clustering; the released code takes 10 of 1000.
        every: epochs between two clusterings, positive; the released code takes 10.
        linear: the temperature of the released code.

    Attributes:
        bank: float `[samples, d]`, the last embedding of each sample.
        bank_labels: int64 `[samples]`, -1 where the sample was not seen.
        subclasses: int64 `[samples]`, the subclass within its class; -1 before the first clustering.
        temperatures: float `[samples]`, tau_2 of the sample's class.

    Shapes:
        embeddings float `[N, d]`, labels int64 `[N]`; index int64 `[N]` in 0..samples-1.

    Raises:
        ConfigError: a size out of range, or called before the dimensions are known.
        ConfigError: the temperature is not positive.

    Example:
        >>> import torch
        >>> from repertoire.losses import SubclassContrastive
        >>> loss = SubclassContrastive(samples=4, dimensions=4)
        >>> loss(torch.eye(4), torch.tensor([0, 0, 1, 1]), index=torch.arange(4))  # log 3
        tensor(1.0986)
        >>> loss.after_update()
        >>> loss.bank_labels
        tensor([0, 0, 1, 1])
    """

    wants = ("index",)
    views = 2
    remembers: ClassVar[dict[str, Literal["rows", "mean"]]] = {"rows": "rows", "labels": "rows", "index": "rows"}
    bank: Tensor
    bank_labels: Tensor
    subclasses: Tensor
    temperatures: Tensor
    seen: Tensor
    clusterings: Tensor

    def __init__(
        self,
        samples: Annotated[int, AtLeast(1)],
        dimensions: Annotated[int, AtLeast(1)] | None = None,
        temperature: Annotated[float, Positive] = 0.1,
        beta: Annotated[float, AtLeast(0)] = 0.25,
        smallest: Annotated[int, AtLeast(1)] = 10,
        warmup: Annotated[int, AtLeast(0)] = 10,
        every: Annotated[int, AtLeast(1)] = 10,
        linear: bool = False,
    ) -> None:
        super().__init__()
        self.temperature = temperature
        self.beta = beta
        self.smallest = smallest
        self.warmup = warmup
        self.every = every
        self.linear = linear
        self.register_buffer("bank", None)
        self.register_buffer("bank_labels", torch.full((samples,), -1, dtype=torch.int64))
        self.register_buffer("subclasses", torch.full((samples,), -1, dtype=torch.int64))
        self.register_buffer("temperatures", torch.full((samples,), temperature))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        self.register_buffer("clusterings", torch.zeros((), dtype=torch.int64))
        if dimensions is not None:
            self.prepare(dimensions)

    def prepare(self, dimensions: int) -> None:
        """Makes the bank, empty."""
        check_dimensions(dimensions, None if self.bank is None else self.bank.shape[1])
        if self.bank is None:
            self.bank = torch.zeros(len(self.bank_labels), dimensions)

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor,
        reference: Tensor | None = None,
        reference_labels: Tensor | None = None,
        index: Tensor | None = None,
    ) -> Tensor:
        """The loss of embeddings `[N, d]` with labels `[N]`, of samples with the numbers `index` `[N]`."""
        if self.bank is None:
            raise ConfigError("dimensions of the embeddings are not known yet: give dimensions, or call prepare")
        if index is not None:
            check_embeddings(embeddings, labels, reference, reference_labels)
            check_index(index, len(embeddings), len(self.temperatures))
            self.remember(len(embeddings), rows=embeddings, labels=labels, index=index)
        if reference is not None or index is None or not int(self.clusterings):
            return supcon_loss(
                embeddings,
                labels,
                temperature=self.temperature,
                reference=reference,
                reference_labels=reference_labels,
            )
        return subclass_contrastive_loss(
            embeddings,
            labels,
            self.subclasses[index],
            temperature=self.temperature,
            class_temperature=self.temperatures[index],
            beta=self.beta,
            index=index,
        )

    def commit(self, rows: Tensor, labels: Tensor, index: Tensor) -> None:
        """Writes the embeddings of a step down, and clusters when it is time."""
        # The mean over the views of a sample; samples without a label have no class to be clustered in.
        number, views = class_index(index)
        means = class_sums(rows.to(self.bank.dtype), number, len(views)) / views.clamp_min(1)[:, None]
        sample, label = (torch.zeros_like(views).scatter_(0, number, v.long()) for v in (index, labels))
        keep = (views > 0) & (label >= 0)
        self.bank[sample[keep]] = means[keep]
        self.bank_labels[sample[keep]] = label[keep]
        self.seen += (views > 0).sum()
        due = (self.warmup + self.every * int(self.clusterings)) * len(self.bank)
        if int(self.seen) >= max(due, 1):
            self.cluster()

    @torch.no_grad()
    def cluster(self) -> None:
        """Clusters what is remembered of each class, and sets the temperatures of the classes."""
        number = int(self.clusterings)
        self.clusterings += 1
        known = self.bank_labels >= 0
        classes, sizes = self.bank_labels[known].unique(return_counts=True)
        if not len(classes):
            return
        generator = torch.Generator().manual_seed(number)
        size = max(int(sizes.min()), self.smallest)
        spreads, split = [], []
        for label, count in zip(classes.tolist(), sizes.tolist(), strict=True):
            members = (self.bank_labels == label).nonzero().squeeze(1)
            rows = unit_rows(self.bank[members])
            parts = max(1, count // size)
            found = kmeans(rows, parts, balanced=True, generator=generator).assignment if parts > 1 else 0
            self.subclasses[members] = found
            distance = torch.linalg.vector_norm(rows - rows.mean(0), dim=1).mean()
            spreads.append(float(distance) / math.log(count + 10))
            split.append(parts > 1)
        mean = max(sum(spreads) / len(spreads), 1e-12)
        for label, spread, several in zip(classes.tolist(), spreads, split, strict=True):
            ratio = spread / mean
            factor = (max(ratio, 0.1) if self.linear else math.exp(ratio)) if several else 1.0
            self.temperatures[self.bank_labels == label] = self.temperature * factor
