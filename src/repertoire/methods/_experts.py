"""Experts for a long tail: some lean towards rare classes, and each agrees with itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated

import torch
from torch import Tensor
from torch.nn import functional as F

from repertoire.data import Batch
from repertoire.errors import ConfigError
from repertoire.heads import Experts as ExpertsHead
from repertoire.losses import Loss
from repertoire.methods._apply import right_answers
from repertoire.methods._base import Needs, Stage, Step
from repertoire.methods._classifier import Classifier
from repertoire.methods._classifying import Classifying
from repertoire.methods._precision import at_least_float32
from repertoire.ranges import AtLeast, Share
from repertoire.registry import register

__all__ = ["Experts"]


@register("methods", "experts", paper="mdcs")
class Experts(Classifying):
    r"""MDCS: experts that lean towards frequent or rare classes, and distil their sure answers into harder views.

    Zhao et al., *MDCS: More Diverse Experts with Consistency Self-distillation for Long-tailed Recognition* (2023).
    With n the counts of the classes, p the softmax of the shifted logits :math:`g_e = f_e + \lambda_e \log n` of expert
    e, and a weak and a strong view of each sample:

    .. math:: \sum_e \Bigl[ \mathrm{CE}(g_e(x), y) + \gamma\,r \operatorname*{mean}_{i:\;
        \arg\max g_e(x_i^\text{weak}) = y_i} \mathrm{KL}\bigl(p_e(x_i^\text{weak}) \,\Vert\,
        p_e(x_i^\text{strong})\bigr) \Bigr]

    where the first term is over both views, no gradient flows into the weak one of the second, and r rises from 0 to 1
    over the first epochs. The larger :math:`\lambda_e`, the more an expert leans towards rare classes. They are evenly
    spaced, up to `spread` from what the loss itself does: logit-adjusted, the default, shifts by log n, so that three
    experts have the -0.5, 1 and 2.5 of the released code; another loss takes the place of the cross-entropy. What
    answers in the end is the mean of the logits that are *not* shifted: that of the others would count the frequencies
    twice.

    The experts share the network and have hidden layers of their own (head `experts`), where the paper gives each of
    them the last stages. For vectors of features, which no augmentation knows, the strong view is the weak one with
    normal noise, in units of each feature's deviation.

    Args:
        model: normalisation, backbone, and a head `experts` with as many of them.
        loss: a loss on logits.
        count: how many experts, 1 or more. One alone, without a strong view, is `Supervised`.
        spread: how far the outer experts are from what the loss does, 0 or more; a single expert is there.
        distil: gamma, 0 or more.
        warmup: the share of the epochs over which r rises, in [0, 1]; the released code has 20 epochs of 200.
        strong: the augmentation of the strong view; "auto" is "strong" for images and "noise" for vectors, and "none"
            leaves it out, and what is distilled with it.
        noise: deviation of the noise, 0 or more.
        counts: training samples of each class; told by the trainer. All alike if None.
        image_size: told by the trainer for images.

    Raises:
        ConfigError: an option out of range; a head without experts, or with another number of them; see also
            `Supervised`.

    Example:
        >>> import torch
        >>> from repertoire import backbones, heads, losses
        >>> from repertoire.data import Batch
        >>> from repertoire.methods import Classifier, Experts, Normalize
        >>> net = backbones.ConvNet(in_channels=1, image_size=4, width=4, depth=1)
        >>> model = Classifier(Normalize([0.5], [0.25]), net, heads.Experts(net.out_features, 2, count=3))
        >>> counts = torch.tensor([90, 10])
        >>> method = Experts(model, losses.LogitAdjusted(counts), counts=counts, image_size=4)
        >>> weak, strong = torch.rand(4, 1, 4, 4), torch.rand(4, 1, 4, 4)
        >>> batch = Batch((weak, strong), torch.tensor([0, 0, 0, 1]), torch.arange(4), names=("weak", "strong"))
        >>> sorted(method.step(batch).logs)
        ['accuracy', 'distilled', 'loss', 'self_distillation']
    """

    needs = Needs(
        views={"weak": "", "strong": "strong"},
        labels="required",
        targets=frozenset({"classes"}),
        per_sample=False,
        head="experts:count={count}",
        loss="logit-adjusted",
    )

    shifts: Tensor
    prior: Tensor
    begins_anew = frozenset({"shifts", "prior"})

    def __init__(
        self,
        model: Classifier,
        loss: Loss,
        count: Annotated[int, AtLeast(1)] = 3,
        spread: Annotated[float, AtLeast(0)] = 1.5,
        distil: Annotated[float, AtLeast(0)] = 0.6,
        warmup: Annotated[float, Share] = 0.1,
        strong: str = "auto",
        noise: Annotated[float, AtLeast(0)] = 0.5,
        counts: Tensor | None = None,
        image_size: int | None = None,
    ) -> None:
        super().__init__(model, loss)
        found = model.head.count if isinstance(model.head, ExpertsHead) else None
        if found != count:
            what = f"head {type(model.head).__name__}" if found is None else f"head experts:count={found}"
            raise ConfigError(
                f"method 'experts' trains {count} experts, and {what} has not as many: leave the head out"
            )
        self.distil = distil
        self.warmup = warmup
        self.noise = noise
        if strong == "auto":
            strong = "noise" if image_size is None else "strong"
        self.noisy = strong == "noise"
        views: int | Mapping[str, str] = 1 if strong in ("noise", "none") else {"weak": "", "strong": strong}
        # Without what is distilled, the loss of a batch is the mean over its samples.
        alone = strong == "none" or not distil
        self.needs = replace(self.needs, views=views, per_sample=alone and loss.reduction == "mean")
        known = torch.ones(model.head.num_classes) if counts is None else torch.as_tensor(counts).float().clamp_min(1)
        leaning = torch.linspace(-spread, spread, count) if count > 1 else torch.zeros(1)
        # Moderate numbers: what all classes have in common goes away in a softmax.
        shape = leaning[:, None, None] * (known.log() - known.log().mean())
        self.register_buffer("shifts", shape)
        # What the loss adds to the logits by itself, which the distributions that are compared have too.
        self.register_buffer("prior", float(getattr(loss, "prior_power", 0.0)) * (known.log() - known.log().mean()))
        self.rise = 1.0
        self.epochs = 1

    def begin(self, stage: Stage) -> None:
        self.epochs = stage.epochs

    def begin_epoch(self, epoch: int) -> None:
        rising = self.warmup * self.epochs
        self.rise = min(1.0, epoch / rising) if rising else 1.0

    def transform(self, batch: Batch) -> Batch:
        if not self.noisy or not self.training:
            return batch
        weak = batch.images
        deviation = self.model.normalize.std
        if weak.dim() == 2 and self.model.enters is None:
            deviation = deviation.flatten()
        elif self.model.enters is not None:
            deviation = torch.ones((), device=weak.device)
        strong = weak + self.noise * deviation.to(weak) * torch.randn_like(weak)
        return replace(batch, views=(weak, strong), names=("weak", "strong"))

    def objective(self, features: Tensor, batch: Batch) -> Step:
        head = self.model.head
        assert isinstance(head, ExpertsHead)
        plain = head.each(features)
        shifted = at_least_float32(plain) + self.shifts
        count = max(1, len(features) // max(1, len(batch)))
        targets = batch.targets.repeat(count)
        loss = torch.stack([self.loss(logits, targets) for logits in shifted]).sum()
        logs = right_answers(self.loss, plain.detach()[:, : len(batch)].mean(0), batch.targets)
        if count > 1 and self.distil:
            kept, share = _self_distillation(shifted + self.prior, batch.targets)
            loss = loss + self.distil * self.rise * kept
            logs |= {"self_distillation": kept.detach(), "distilled": share}
        return Step(loss, {"loss": loss.detach(), **logs})


def _self_distillation(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Divergence of the strong views from the weak ones that are right, summed over experts; and how many are.

    Args:
        logits: float `[E, 2N, C]`, the weak views first.
        targets: int64 `[N]`.
    """
    weak, strong = logits.chunk(2, dim=1)
    with torch.no_grad():
        sure = weak.argmax(2) == targets
        teacher = weak.log_softmax(2)
    apart = F.kl_div(strong.log_softmax(2), teacher, reduction="none", log_target=True).sum(2)
    each = (apart * sure).sum(1) / sure.sum(1).clamp_min(1)
    return each.sum(), sure.float().mean() if sure.numel() else each.detach().sum()
