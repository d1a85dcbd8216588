"""Pseudo-labels: a network's own answers about unlabelled samples, where they are good enough to learn from."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.errors import ConfigError, ShapeError
from repertoire.methods._precision import at_least_float32
from repertoire.ops import Memory
from repertoire.ranges import AtLeast, Positive, Share, checked

__all__ = [
    "Alignment",
    "ClassQueue",
    "ClassThresholds",
    "Policy",
    "PrototypeBlend",
    "Pseudo",
    "PseudoLabels",
    "SelfThresholds",
    "ShrunkSpace",
    "Threshold",
]

Policy = Literal["class-adaptive", "self-adaptive"]


class Pseudo(NamedTuple):
    """Targets of M unlabelled samples, of K classes. None of them takes a gradient.

    Attributes:
        labels: int64 `[M]`, the most probable class of each.
        sure: bool `[M]`, which labels a policy lets count.
        probabilities: float `[M, K]`, what the labels come from, aligned and blended.
        kept: bool `[M, K]`, of samples that are not sure, the classes among which the label is all but certain; None
            where the space of classes is not shrunk.
        weight: float `[M]`, how much a sample counts in the loss within that space; 0 for those that are sure.
    """

    labels: Tensor
    sure: Tensor
    probabilities: Tensor
    kept: Tensor | None = None
    weight: Tensor | None = None


class Threshold(Memory):
    """A fixed threshold: an answer counts where its probability reaches it.

    Sohn et al., *FixMatch: Simplifying Semi-Supervised Learning with Consistency and Confidence* (2020). The base of
    the other policies, which say how high the bar is for each class.

    Args:
        threshold: in [0, 1].

    Raises:
        ConfigError: a threshold out of range.

    Example:
        >>> import torch
        >>> from repertoire.methods import Threshold
        >>> Threshold(0.9)(torch.tensor([[0.95, 0.05], [0.6, 0.4]]), torch.arange(2))
        tensor([ True, False])
    """

    @checked
    def __init__(self, threshold: Annotated[float, Share] = 0.95) -> None:
        super().__init__()
        self.threshold = threshold

    def forward(self, probabilities: Tensor, index: Tensor) -> Tensor:
        """Says which samples count, bool `[M]`, of probabilities `[M, K]`, given the samples' numbers `[M]`."""
        most, answers = probabilities.max(1)
        bar = self.bars()
        self.watch(probabilities, index)
        return most >= (bar if bar.dim() == 0 else bar[answers])

    def bars(self) -> Tensor:
        """The threshold, or that of each class `[K]`."""
        return torch.tensor(self.threshold)

    def watch(self, probabilities: Tensor, index: Tensor) -> None:
        """Remembers what thresholds are made of. Nothing where they are fixed."""

    def extra_repr(self) -> str:
        return f"threshold={self.threshold}"


class ClassThresholds(Threshold):
    r"""A lower threshold for the classes that are learnt more slowly.

    Zhang et al., *FlexMatch: Boosting Semi-Supervised Learning with Curriculum Pseudo Labeling* (2021). With
    :math:`\sigma_c` the samples whose last answer above the threshold :math:`\tau` was c, of N:

    .. math:: \beta_c = \frac{\sigma_c}{\max\bigl(\max_k \sigma_k,\; N - \sum_k \sigma_k\bigr)}, \qquad
              \tau_c = \frac{\beta_c}{2 - \beta_c}\,\tau

    The second term of the maximum is the paper's warm-up, and the convex mapping is its choice.

    Args:
        classes: K.
        samples: N, unlabelled samples in all.
        threshold: tau, in [0, 1].

    Attributes:
        chosen: int64 `[N]`, the last answer above the threshold for each sample; -1 before there was one.

    Raises:
        ConfigError: a threshold out of range, or fewer than one class or sample.

    Example:
        >>> import torch
        >>> from repertoire.methods import ClassThresholds
        >>> policy = ClassThresholds(classes=2, samples=3, threshold=0.9)
        >>> _ = policy(torch.tensor([[0.95, 0.05], [0.6, 0.4]]), torch.tensor([0, 2]))
        >>> policy.after_update()
        >>> policy.chosen, policy.bars()
        (tensor([ 0, -1, -1]), tensor([0.3000, 0.0000]))
    """

    chosen: Tensor
    begins_anew = frozenset({"chosen"})
    remembers: ClassVar = {"index": "rows", "answers": "rows"}

    @checked
    def __init__(
        self,
        classes: Annotated[int, AtLeast(1)],
        samples: Annotated[int, AtLeast(1)],
        threshold: Annotated[float, Share] = 0.95,
    ) -> None:
        super().__init__(threshold)
        self.classes = classes
        self.register_buffer("chosen", torch.full((samples,), -1, dtype=torch.int64))

    def bars(self) -> Tensor:
        counts = torch.zeros(self.classes + 1, device=self.chosen.device)
        counts.scatter_add_(0, self.chosen + 1, torch.ones((), device=self.chosen.device).expand(len(self.chosen)))
        learnt = counts[1:] / counts.amax().clamp_min(1)
        return learnt / (2 - learnt) * self.threshold

    def watch(self, probabilities: Tensor, index: Tensor) -> None:
        most, answers = probabilities.max(1)
        self.remember(len(index), index=index, answers=torch.where(most >= self.threshold, answers, -1))

    def commit(self, index: Tensor, answers: Tensor) -> None:
        self.chosen[index] = torch.where(answers >= 0, answers, self.chosen[index])


class SelfThresholds(Threshold):
    r"""Thresholds that follow how sure the network is, over all and of each class.

    Wang et al., *FreeMatch: Self-adaptive Thresholding for Semi-supervised Learning* (2023). With the probabilities q
    of a batch of unlabelled samples and a decay m, both from 1/K on:

    .. math:: \tau \leftarrow m\,\tau + (1 - m)\,\overline{\max_c q_c}, \qquad
              \tilde p \leftarrow m\,\tilde p + (1 - m)\,\bar q, \qquad
              \tau_c = \frac{\tilde p_c}{\max_k \tilde p_k}\,\tau

    They move when the weights have, so that a batch is judged by those before it; the released code lets it move them
    first.

    Args:
        classes: K.
        decay: m, in [0, 1].

    Attributes:
        level: float `[]`, tau.
        marginal: float `[K]`, p.

    Raises:
        ConfigError: a decay out of range, or no class.

    Example:
        >>> import torch
        >>> from repertoire.methods import SelfThresholds
        >>> SelfThresholds(classes=4).bars()
        tensor([0.2500, 0.2500, 0.2500, 0.2500])
    """

    level: Tensor
    marginal: Tensor
    remembers: ClassVar = {"most": "mean", "probabilities": "mean"}

    @checked
    def __init__(self, classes: Annotated[int, AtLeast(1)], decay: Annotated[float, Share] = 0.999) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("level", torch.tensor(1 / classes))
        self.register_buffer("marginal", torch.full((classes,), 1 / classes))

    def bars(self) -> Tensor:
        return self.marginal / self.marginal.amax() * self.level

    def watch(self, probabilities: Tensor, index: Tensor) -> None:
        self.remember(len(index), most=probabilities.amax(1).mean(), probabilities=probabilities.mean(0))

    def commit(self, most: Tensor, probabilities: Tensor) -> None:
        self.level.lerp_(most.to(self.level), 1 - self.decay)
        self.marginal.lerp_(probabilities.to(self.marginal), 1 - self.decay)

    def extra_repr(self) -> str:
        return f"decay={self.decay}"


class Alignment(Memory):
    r"""Moves the answers of a network towards the classes' true shares.

    Berthelot et al., *ReMixMatch: Semi-Supervised Learning with Distribution Matching and Augmentation Anchoring*
    (2020): with the running mean :math:`\tilde p` of the answers and the shares :math:`p^*` of the classes,

    .. math:: \tilde q_c \propto q_c\,\frac{p^*_c}{\tilde p_c}

    The mean moves when the weights have, with a decay in place of the paper's last 128 batches.

    Args:
        shares: float `[K]`, the classes' shares or counts, all positive.
        decay: in [0, 1].

    Attributes:
        shares: float `[K]`, of sum 1.
        mean: float `[K]`, from 1/K on.

    Raises:
        ConfigError: shares that are not positive, or a decay out of range.

    Example:
        >>> import torch
        >>> from repertoire.methods import Alignment
        >>> Alignment(torch.tensor([3.0, 1.0]))(torch.tensor([[0.5, 0.5]]))
        tensor([[0.7500, 0.2500]])
    """

    shares: Tensor
    mean: Tensor
    begins_anew = frozenset({"shares"})
    remembers: ClassVar = {"mean": "mean"}

    @checked
    def __init__(self, shares: Tensor, decay: Annotated[float, Share] = 0.999) -> None:
        super().__init__()
        shares = torch.as_tensor(shares, dtype=torch.float32)
        if shares.dim() != 1 or not len(shares) or not bool((shares > 0).all()):
            raise ConfigError(f"shares must be positive numbers [K], found {shares.tolist()}")
        self.decay = decay
        self.register_buffer("shares", shares / shares.sum())
        self.register_buffer("mean", torch.full_like(shares, 1 / len(shares)))

    def forward(self, probabilities: Tensor) -> Tensor:
        """The aligned probabilities `[M, K]`."""
        self.remember(len(probabilities), mean=probabilities.mean(0))
        return F.normalize(probabilities * (self.shares / self.mean.clamp_min(1e-6)), p=1, dim=1)

    def commit(self, mean: Tensor) -> None:
        self.mean.lerp_(mean.to(self.mean), 1 - self.decay)

    def extra_repr(self) -> str:
        return f"decay={self.decay}"


class ShrunkSpace(Memory):
    r"""The classes among which an unsure answer is sure: the closest rivals are left out.

    Yang, Zhao, Qi, Qiao, Shi and Zhao, *Shrinking Class Space for Enhanced Certainty in Semi-Supervised Learning*
    (ShrinkMatch, 2023). With the probabilities of a sample in falling order, :math:`q_1 \ge \dots \ge q_K`, and a
    threshold :math:`\tau`, the fewest rivals are left out, the second class first, such that

    .. math:: \frac{q_1}{q_1 + \sum_{k > j} q_k} \ge \tau, \qquad 2 \le j < K

    where ranks 2 to j are those that go. A sample with no such j, as always of two classes, has no space. The weight of
    a sample is :math:`q_1` times the running share of samples that are sure in all classes, which the paper takes for
    the progress of training.

    That share starts from the first batch, and moves when the weights have. The released code has a decay of 0.999, but
    begins it anew each epoch; a shorter memory takes the place of that.

    Args:
        threshold: tau, in [0, 1].
        decay: of the running share, in [0, 1].

    Attributes:
        certain: float `[]`, the share of samples that are sure; -1 before the first batch.

    Raises:
        ConfigError: an option out of range.

    Example:
        >>> import torch
        >>> from repertoire.methods import ShrunkSpace
        >>> space = ShrunkSpace(threshold=0.9)
        >>> kept, weight = space(torch.tensor([[0.50, 0.45, 0.03, 0.02]]), torch.tensor([False]))
        >>> kept  # 0.50 of 0.55 is more than 0.9
        tensor([[ True, False,  True,  True]])
    """

    certain: Tensor
    remembers: ClassVar = {"sure": "mean"}

    @checked
    def __init__(self, threshold: Annotated[float, Share] = 0.95, decay: Annotated[float, Share] = 0.99) -> None:
        super().__init__()
        self.threshold = threshold
        self.decay = decay
        self.register_buffer("certain", torch.tensor(-1.0))

    def forward(self, probabilities: Tensor, sure: Tensor) -> tuple[Tensor, Tensor]:
        """The classes that are kept, bool `[M, K]`, and the weight of each sample, float `[M]`: 0 for those that are
        sure already, and where nothing helps.

        Args:
            probabilities: float `[M, K]`.
            sure: bool `[M]`.
        """
        share = sure.to(probabilities.dtype).mean() if len(sure) else probabilities.new_zeros(())
        self.remember(len(sure), sure=share)
        if probabilities.shape[1] < 3:
            return torch.ones_like(probabilities, dtype=torch.bool), torch.zeros_like(probabilities[:, 0])
        falling, order = probabilities.sort(dim=1, descending=True, stable=True)
        # Of the classes from each rank on, the third first: from the small end, so that no difference cancels.
        rest = falling.flip(1).cumsum(1).flip(1)[:, 2:]
        enough = falling[:, :1] / (falling[:, :1] + rest) >= self.threshold
        found = enough.any(1) & ~sure
        first = enough.to(torch.uint8).argmax(1) + 2
        ranks = torch.arange(probabilities.shape[1], device=probabilities.device)
        by_rank = (ranks == 0) | (ranks >= first[:, None]) | ~found[:, None]
        kept = torch.zeros_like(by_rank).scatter(1, order, by_rank)
        progress = torch.where(self.certain < 0, share, self.certain.to(share))
        return kept, falling[:, 0] * progress * found

    def commit(self, sure: Tensor) -> None:
        sure = sure.to(self.certain)
        self.certain.copy_(torch.where(self.certain < 0, sure, self.certain.lerp(sure, 1 - self.decay)))

    def extra_repr(self) -> str:
        return f"threshold={self.threshold}, decay={self.decay}"


class ClassQueue(Memory):
    """The last features of each class, as many of a rare one as of a frequent one, and their means.

    All state is in buffers. `see` keeps what it is given until the weights have changed; `push` writes at once.

    Args:
        classes: K.
        dimensions: d, the width of features.
        size: features of each class to remember.

    Attributes:
        memory: float `[K, size, d]`; zero where nothing was written yet.
        pushed: int64 `[K]`, how many of each class there ever were.
        prototypes: float `[K, d]`, the means; zero of a class without any.

    Raises:
        ConfigError: an option out of range.

    Example:
        >>> import torch
        >>> from repertoire.methods import ClassQueue
        >>> queue = ClassQueue(classes=2, dimensions=1, size=2)
        >>> queue.push(torch.tensor([[1.0], [3.0], [5.0], [7.0]]), torch.tensor([0, 0, 0, 1]))
        >>> queue.prototypes  # the first of class 0 made room
        tensor([[4.],
                [7.]])
    """

    memory: Tensor
    pushed: Tensor
    prototypes: Tensor
    remembers: ClassVar = {"features": "rows", "labels": "rows"}

    @checked
    def __init__(
        self,
        classes: Annotated[int, AtLeast(1)],
        dimensions: Annotated[int, AtLeast(1)],
        size: Annotated[int, AtLeast(1)] = 256,
    ) -> None:
        super().__init__()
        self.register_buffer("memory", torch.zeros(classes, size, dimensions))
        self.register_buffer("pushed", torch.zeros(classes, dtype=torch.int64))
        self.register_buffer("prototypes", torch.zeros(classes, dimensions))

    def see(self, features: Tensor, labels: Tensor) -> None:
        """Keeps features `[N, d]` and their classes, int64 `[N]`, until the weights have changed."""
        self.remember(len(labels), features=features, labels=labels)

    def commit(self, features: Tensor, labels: Tensor) -> None:
        self.push(features, labels)

    @torch.no_grad()
    def push(self, features: Tensor, labels: Tensor) -> None:
        """Writes features over the oldest ones of their classes; those of class -1 are left out."""
        known = labels >= 0
        features, labels = features[known].to(self.memory), labels[known]
        if not len(labels):
            return
        classes, size = self.memory.shape[:2]
        order = labels.argsort(stable=True)
        counts = torch.bincount(labels, minlength=classes)
        of = labels[order]
        place = torch.arange(len(labels), device=labels.device) - (counts.cumsum(0) - counts)[of]
        # Where a batch has more of a class than there is room for, only the last of them: no place is written twice.
        fits = place >= counts[of] - size
        of, place, rows = of[fits], place[fits], features[order][fits]
        self.memory[of, (self.pushed[of] + place) % size] = rows
        self.pushed += counts
        seen = counts > 0
        held = self.pushed.clamp(max=size)[seen, None].to(self.memory.dtype)
        self.prototypes[seen] = self.memory[seen].sum(1) / held


class PrototypeBlend(Memory):
    r"""Blends a classifier's answers with those of the nearest class means, more so for classes that it is prone to.

    Oh, Kim and Kweon, *DASO: Distribution-Aware Semantics-Oriented Pseudo-label for Imbalanced Semi-Supervised
    Learning* (2022). Where classes are uneven, a linear classifier leans towards the frequent ones, and similarity to
    class means towards the rare. With the probabilities p of the classifier, features z, and a prototype :math:`c_k` of
    each class, the mean of the last `size` features of labelled samples of that class, as many of a rare class as of a
    frequent one where there are so many:

    .. math:: q = \mathrm{softmax}_k\bigl(\cos(z, c_k) / T\bigr), \qquad
              v_k = \left(\frac{m_k}{\max_j m_j}\right)^{1/T_\text{dist}}, \qquad
              p' = (1 - v_{k'})\,p + v_{k'}\,q, \quad k' = \arg\max_k p_k

    with m the running shares of the classes among the labels :math:`\arg\max p'`. The paper counts the labels of the
    last 100 updates, whose place a decay takes here. Prototypes are nothing but noise in the beginning: for the first
    `warm_up` updates p' = p.

    Queue, shares and the number of updates are buffers, which move when the weights have.

    Args:
        classes: K.
        dimensions: d, the width of features.
        temperature: T, positive.
        tempering: T_dist, positive: 1.5 in the released code for CIFAR-10 where labelled and unlabelled classes are
            alike in frequency, 0.3 where not.
        size: features of each class to remember.
        warm_up: updates before the first blend, 5,000 in the released code, which trains for 250,000.
        decay: of the shares, in [0, 1].

    Attributes:
        queue: :class:`repertoire.methods.ClassQueue`, the features of labelled samples.
        shares: float `[K]`, m, even in the beginning.
        updates: int64 `[]`.

    Raises:
        ConfigError: an option out of range.

    Example:
        >>> import torch
        >>> from repertoire.methods import PrototypeBlend
        >>> blend = PrototypeBlend(classes=2, dimensions=2, warm_up=0)
        >>> blend.see(torch.eye(2), torch.tensor([0, 1]))
        >>> blend.after_update()
        >>> p = torch.tensor([[0.6, 0.4]])
        >>> blend(p, torch.tensor([[0.0, 3.0]])).round()  # shares are even, so that prototypes alone count
        tensor([[0., 1.]])
    """

    shares: Tensor
    updates: Tensor
    remembers: ClassVar = {"counts": "mean"}

    @checked
    def __init__(
        self,
        classes: Annotated[int, AtLeast(1)],
        dimensions: Annotated[int, AtLeast(1)],
        temperature: Annotated[float, Positive] = 0.05,
        tempering: Annotated[float, Positive] = 1.0,
        size: Annotated[int, AtLeast(1)] = 256,
        warm_up: Annotated[int, AtLeast(0)] = 500,
        decay: Annotated[float, Share] = 0.99,
    ) -> None:
        super().__init__()
        self.temperature, self.tempering, self.warm_up, self.decay = temperature, tempering, warm_up, decay
        self.queue = ClassQueue(classes, dimensions, size)
        self.register_buffer("shares", torch.full((classes,), 1 / classes))
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    def see(self, features: Tensor, labels: Tensor) -> None:
        """Keeps features `[N, d]` of labelled samples, with their classes, until the weights have changed."""
        self.queue.see(features, labels)

    def similarities(self, features: Tensor) -> Tensor:
        """Logits of q, float `[M, K]`: cosines of features `[M, d]` and prototypes, by the temperature."""
        z = F.normalize(at_least_float32(features), dim=1)
        return z @ F.normalize(self.queue.prototypes.to(z), dim=1).T / self.temperature

    @property
    def ready(self) -> Tensor:
        """One when the warm-up is over, zero before, float `[]`; on the device, so that nothing waits for it."""
        return (self.updates >= self.warm_up).to(self.shares.dtype)

    def strength(self) -> Tensor:
        """Weight of the prototypes where the classifier says each class: v, float `[K]`; zero while warming up."""
        return self.ready * (self.shares / self.shares.amax()) ** (1 / self.tempering)

    def forward(self, probabilities: Tensor, features: Tensor) -> Tensor:
        """The blended probabilities `[M, K]`."""
        near = self.similarities(features).softmax(1).to(probabilities)
        v = self.strength().to(probabilities)[probabilities.argmax(1), None]
        blended = (1 - v) * probabilities + v * near
        chosen = F.one_hot(blended.argmax(1), probabilities.shape[1])
        self.remember(len(probabilities), counts=chosen.to(self.shares.dtype).mean(0))
        return blended

    def commit(self, counts: Tensor) -> None:
        self.shares.lerp_(counts.to(self.shares), 1 - self.decay)
        self.updates += 1

    def extra_repr(self) -> str:
        return f"temperature={self.temperature}, tempering={self.tempering}, warm_up={self.warm_up}"


class PseudoLabels(nn.Module):
    """Turns a network's answers about unlabelled samples into labels, and says which of them count.

    Probabilities are aligned first, where there is an alignment, and blended with those of class means; the most
    probable class is the label, a policy decides whether it counts, and where it does not, the space of classes may be
    shrunk until it is. Nothing takes a gradient, and all that moves is a memory.

    Args:
        policy: :class:`repertoire.methods.Threshold` or one of its kind.
        alignment: :class:`repertoire.methods.Alignment`; none by default.
        blend: :class:`repertoire.methods.PrototypeBlend`, which needs features; none by default.
        space: :class:`repertoire.methods.ShrunkSpace`; none by default.

    Example:
        >>> import torch
        >>> from repertoire.methods import PseudoLabels, Threshold
        >>> found = PseudoLabels(Threshold(0.9))(torch.tensor([[4.0, 0.0], [0.0, 1.0]]), torch.arange(2))
        >>> found.labels, found.sure
        (tensor([0, 1]), tensor([ True, False]))
    """

    def __init__(
        self,
        policy: Threshold,
        alignment: Alignment | None = None,
        blend: PrototypeBlend | None = None,
        space: ShrunkSpace | None = None,
    ) -> None:
        super().__init__()
        self.policy = policy
        self.alignment = alignment
        self.blend = blend
        self.space = space

    @torch.no_grad()
    def forward(self, logits: Tensor, index: Tensor, features: Tensor | None = None) -> Pseudo:
        """Targets of M samples.

        Args:
            logits: float `[M, K]`.
            index: int64 `[M]`, the samples' numbers in their set.
            features: float `[M, d]`, what the logits come from; a blend looks at them.

        Raises:
            ShapeError: shapes that do not fit.
            ConfigError: a blend, and no features.
        """
        if logits.dim() != 2 or index.shape != logits.shape[:1]:
            raise ShapeError(f"expected logits [M, K] and index [M], found {list(logits.shape)}, {list(index.shape)}")
        probabilities = at_least_float32(logits).softmax(1)
        if self.alignment is not None:
            probabilities = self.alignment(probabilities)
        if self.blend is not None:
            if features is None:
                raise ConfigError("answers are blended with those of class means, which needs features [M, d]")
            probabilities = self.blend(probabilities, features)
        sure = self.policy(probabilities, index)
        if self.space is None:
            return Pseudo(probabilities.argmax(1), sure, probabilities)
        return Pseudo(probabilities.argmax(1), sure, probabilities, *self.space(probabilities, sure))
