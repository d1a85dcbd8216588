"""Pseudo-labels: a network's own answers about unlabelled samples, where they are good enough to learn from."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.errors import ConfigError, ShapeError
from repertoire.methods._precision import at_least_float32
from repertoire.ops import Memory
from repertoire.ranges import AtLeast, Share, checked

__all__ = ["Alignment", "ClassThresholds", "Policy", "PseudoLabels", "SelfThresholds", "Threshold"]

Policy = Literal["fixed", "class-adaptive", "self-adaptive"]


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


class PseudoLabels(nn.Module):
    """Turns a network's answers about unlabelled samples into labels, and says which of them count.

    Probabilities are aligned first, where there is an alignment; the most probable class is the label, and a policy
    decides whether it counts. Nothing takes a gradient, and all that moves is a memory.

    Args:
        policy: :class:`repertoire.methods.Threshold` or one of its kind.
        alignment: :class:`repertoire.methods.Alignment`; none by default.

    Example:
        >>> import torch
        >>> from repertoire.methods import PseudoLabels, Threshold
        >>> PseudoLabels(Threshold(0.9))(torch.tensor([[4.0, 0.0], [0.0, 1.0]]), torch.arange(2))
        (tensor([0, 1]), tensor([ True, False]))
    """

    def __init__(self, policy: Threshold, alignment: Alignment | None = None) -> None:
        super().__init__()
        self.policy = policy
        self.alignment = alignment

    @torch.no_grad()
    def forward(self, logits: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """Labels int64 `[M]`, and which of them count, bool `[M]`.

        Args:
            logits: float `[M, K]`.
            index: int64 `[M]`, the samples' numbers in their set.

        Raises:
            ShapeError: shapes that do not fit.
        """
        if logits.dim() != 2 or index.shape != logits.shape[:1]:
            raise ShapeError(f"expected logits [M, K] and index [M], found {list(logits.shape)}, {list(index.shape)}")
        probabilities = at_least_float32(logits).softmax(1)
        if self.alignment is not None:
            probabilities = self.alignment(probabilities)
        return probabilities.argmax(1), self.policy(probabilities, index)
