"""FixMatch: what the network is sure of in an easy view is the label of a hard one."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.data import Batch
from repertoire.errors import ConfigError
from repertoire.losses import Loss, mean_entropy
from repertoire.methods._base import Needs, Step, Stream
from repertoire.methods._classifier import Classifier
from repertoire.methods._classifying import Classifying
from repertoire.methods._mix import Mix
from repertoire.methods._precision import at_least_float32
from repertoire.methods._pseudo import (
    Alignment,
    ClassThresholds,
    Policy,
    PrototypeBlend,
    Pseudo,
    PseudoLabels,
    SelfThresholds,
    ShrunkSpace,
    Threshold,
)
from repertoire.methods._sample_losses import SampleLosses, rejoined
from repertoire.methods._teacher import Teacher
from repertoire.ranges import AtLeast, Positive, Share
from repertoire.registry import register

__all__ = ["FixMatch"]

STREAM = "unlabelled"


@register("methods", "fixmatch")
class FixMatch(Classifying):
    r"""FixMatch: a few labelled samples and many without, whose labels the network gives itself where it is sure.

    Sohn et al., *FixMatch: Simplifying Semi-Supervised Learning with Consistency and Confidence* (2020). Beside B
    labelled samples a batch holds :math:`\mu B` unlabelled ones, each in a weak view and a strong one. With the
    probabilities q of the weak view, which take no gradient:

    .. math:: \ell = \frac{1}{B} \sum_b \ell\bigl(f(x_b), y_b\bigr) + \frac{\lambda}{\mu B} \sum_u
        [\max_c q_{uc} \ge \tau]\; \mathrm{CE}\bigl(f(x_u^\text{strong}),\; \arg\max_c q_{uc}\bigr)

    All samples pass through the network together, so that batch normalisation sees them together, as in the released
    code. The weak view is that of the run's augmentation; that of features is the features, and their strong view has
    half of them left out.

    What other papers change of it are options, which go together:

    - `threshold=class-adaptive` is FlexMatch (Zhang et al., 2021; :class:`repertoire.methods.ClassThresholds`), and
      `threshold=self-adaptive` FreeMatch (Wang et al., 2023; :class:`repertoire.methods.SelfThresholds`), without its
      term for fairness.
    - `align` moves the answers towards the labelled classes' shares first (:class:`repertoire.methods.Alignment`).
    - `space=shrunk` learns from the other samples too, among those classes where the label is certain (ShrinkMatch,
      Yang et al., 2023; :class:`repertoire.methods.ShrunkSpace`). With S the kept classes of a sample and w its weight,
      it adds :math:`\frac{1}{\mu B} \sum_u w_u\,\mathrm{CE}_{S_u}\bigl(g(x_u^\text{strong}), \arg\max q_u\bigr)`, the
      cross-entropy of a softmax over S alone. As in the released code, g is a perceptron of its own on the features,
      which is thrown away after training.
    - `blend=prototypes` blends the answers with those of class means (DASO, Oh et al., 2022;
      :class:`repertoire.methods.PrototypeBlend`), and adds the cross-entropy of the similarities of the strong view to
      those of the weak one. Prototypes come from features of the labelled samples by a moving average of the network.
    - `diverse=learned` cuts the strong view together from two for samples whose loss is low already (SAA, Gui et al.,
      2023; :class:`repertoire.methods.SampleLosses`); `diverse=all` does so for all.
    - `missing_classes` gives the head outputs for classes that nobody labelled, and `even` is the weight of
      :func:`repertoire.losses.mean_entropy` on the weak views, which has all classes predicted equally often (Fluss et
      al., 2023).

    FixMatch evaluates a moving average of the weights, which is the trainer's option `ema`, asks for SGD with Nesterov
    momentum at a learning rate of 0.03, and trains for about a million steps.

    Args:
        model: normalisation, backbone and head.
        loss: a loss on logits, for the labelled samples.
        threshold: tau, in [0, 1]; or "class-adaptive" or "self-adaptive".
        weight: lambda, 0 or more.
        ratio: mu, unlabelled samples for each labelled one; above 0.
        level: tau of the class-adaptive thresholds and of the shrunk space where `threshold` is a word.
        align: align the answers with the labelled classes' shares.
        space: "all" (default), or "shrunk".
        blend: "none" (default), or "prototypes".
        tempering: of the blend: above 1 more of the prototypes for rare classes, below less.
        warm_up: updates before the first blend.
        momentum: of the average of the network that prototypes come from, in [0, 1]. The released code has 0.999 for
            250,000 updates, and less in the beginning.
        diverse: "none" (default), "learned" or "all".
        missing_classes: classes without a name or a label, which the data has all the same.
        even: weight of the mean's divergence from even shares, 0 or more; by default 1 with `missing_classes`, else 0.
        strong: augmentation of the strong view.
        unlabelled: how many unlabelled samples there are; told by the trainer. Needed by the class-adaptive thresholds
            and by `diverse=learned`.
        counts: labelled samples of each class; told by the trainer. All classes alike if None.
        mix: what becomes of the labelled samples: "none" (default), "mixup" or "cutmix".
        alpha: of the Beta distribution of the mixing, positive.

    Raises:
        ConfigError: an option out of range; an option that needs the number of unlabelled samples without it; a batch
            without the stream "unlabelled"; see also `Supervised`.

    Example:
        >>> import torch
        >>> from repertoire import backbones, heads, losses
        >>> from repertoire.data import Batch
        >>> from repertoire.methods import Classifier, FixMatch, Normalize
        >>> net = backbones.ConvNet(in_channels=1, image_size=4, width=4, depth=1)
        >>> model = Classifier(Normalize([0.5], [0.25]), net, heads.Linear(net.out_features, 2))
        >>> method = FixMatch(model, losses.CrossEntropy(), ratio=2)
        >>> weak, strong = torch.rand(8, 1, 4, 4), torch.rand(8, 1, 4, 4)
        >>> unlabelled = Batch((weak, strong), torch.full((8,), -1), torch.arange(8), names=("weak", "strong"))
        >>> labelled = Batch((torch.rand(4, 1, 4, 4),), torch.tensor([0, 0, 1, 1]), torch.arange(4))
        >>> labelled.streams = {"unlabelled": unlabelled}
        >>> sorted(method.step(labelled).logs)
        ['accuracy', 'confident', 'loss', 'unlabelled_loss']
    """

    needs = Needs(
        labels="required",
        targets=frozenset({"classes"}),
        streams={STREAM: Stream(per_sample=7, views={"weak": "", "strong": "strong"})},
        step="whole",
        augmentation="crop-flip",
        defaults={"optimizer": "sgd", "lr": 0.03, "batch_size": 64, "ema": 0.999},
    )

    def __init__(
        self,
        model: Classifier,
        loss: Loss,
        threshold: float | Policy = 0.95,
        weight: Annotated[float, AtLeast(0)] = 1.0,
        ratio: Annotated[float, Positive] = 7.0,
        level: Annotated[float, Share] = 0.95,
        align: bool = False,
        space: Literal["all", "shrunk"] = "all",
        blend: Literal["none", "prototypes"] = "none",
        tempering: Annotated[float, Positive] = 1.0,
        warm_up: Annotated[int, AtLeast(0)] = 500,
        momentum: Annotated[float, Share] = 0.99,
        diverse: Literal["none", "learned", "all"] = "none",
        missing_classes: Annotated[int, AtLeast(0)] = 0,
        even: Annotated[float, AtLeast(0)] | None = None,
        strong: str = "strong",
        unlabelled: Annotated[int, AtLeast(1)] | None = None,
        counts: Tensor | None = None,
        mix: Mix = "none",
        alpha: Annotated[float, Positive] = 1.0,
    ) -> None:
        super().__init__(model, loss, mix, alpha)
        self.weight = weight
        self.even = float(missing_classes > 0) if even is None else even
        self.diverse = diverse
        views = {"weak": "", "strong": strong} | ({} if diverse == "none" else {"other": strong})
        stream = replace(self.needs.streams[STREAM], per_sample=ratio, views=views)
        self.needs = replace(
            self.needs,
            streams={STREAM: stream},
            # The mean answer of a batch is not that of its parts.
            per_sample=self.needs.per_sample and not self.even,
            within_rank=bool(self.even),
        )
        classes, width = model.head.num_classes, model.backbone.out_features
        if missing_classes >= classes:
            raise ConfigError(f"missing_classes is {missing_classes} of {classes} classes: none would have a label")
        shares = torch.ones(classes) if counts is None else torch.as_tensor(counts).float()
        # Of a class without labels nobody knows the share.
        shares = torch.where(shares > 0, shares, shares[shares > 0].mean() if bool((shares > 0).any()) else 1.0)
        tau = level if isinstance(threshold, str) else threshold
        self.pseudo = PseudoLabels(
            _policy(threshold, classes, level, unlabelled),
            Alignment(shares) if align else None,
            PrototypeBlend(classes, width, tempering=tempering, warm_up=warm_up) if blend == "prototypes" else None,
            ShrunkSpace(tau) if space == "shrunk" else None,
        )
        # Made where they are asked for alone, so that other weights come from the same random numbers as before.
        if space == "shrunk":
            self.auxiliary = _perceptron(width, classes)
        if blend == "prototypes":
            self.teacher = Teacher(model, momentum)
        if diverse == "learned":
            if unlabelled is None:
                raise ConfigError(
                    "diverse=learned keeps the loss of each unlabelled sample: give their number, unlabelled"
                )
            self.samples = SampleLosses(unlabelled)

    def step(self, batch: Batch) -> Step:
        if STREAM not in batch.streams:
            raise ConfigError(
                "method 'fixmatch' needs unlabelled samples, and the batch has no stream 'unlabelled': give the loader "
                "one, or use method 'supervised'"
            )
        batch = self.transform(batch)
        unlabelled = batch.streams[STREAM]
        weak, strong = unlabelled.view("weak"), self._strong(unlabelled)
        features = self.model.embed(torch.cat([batch.images, strong, weak]))
        labelled, hard, easy = features.split([len(batch), len(strong), len(weak)])
        answers = self.model.head(easy) if self.even else self._answers(easy)
        pseudo = self.pseudo(answers.detach(), unlabelled.index, easy.detach())
        found = self.classify(labelled, batch.targets)
        losses = self._consistency(hard, pseudo)
        if self.diverse == "learned":
            # Before any threshold: a sample that is never sure would look learned otherwise.
            self.samples.see(unlabelled.index, losses)
        consistency = (losses * pseudo.sure).sum() / max(1, len(losses))
        loss = found.loss + self.weight * consistency
        logs = {"unlabelled_loss": consistency.detach(), "confident": pseudo.sure.float().mean()}
        for name, term in self._terms(batch, hard, easy, answers, pseudo).items():
            loss = loss + term
            logs[name] = term.detach()
        return Step(loss, {**found.logs, "loss": loss.detach(), **logs})

    def _strong(self, unlabelled: Batch) -> Tensor:
        strong = unlabelled.view("strong")
        if self.diverse == "none":
            return strong
        pieces = rejoined(strong, unlabelled.view("other"))
        if self.diverse == "all":
            return pieces
        return torch.where(self.samples.naive[unlabelled.index][:, None, None, None], pieces, strong)

    @torch.no_grad()
    def _answers(self, easy: Tensor) -> Tensor:
        answers: Tensor = self.model.head(easy)
        return answers

    def _consistency(self, hard: Tensor, pseudo: Pseudo) -> Tensor:
        """The loss of every strong view `[M]`, over all classifiers that the head trains."""
        outputs = self.model.head.outputs(hard, pseudo.labels)
        return torch.stack(
            [w * F.cross_entropy(at_least_float32(z), pseudo.labels, reduction="none") for w, z in outputs]
        ).sum(0)

    def _terms(self, batch: Batch, hard: Tensor, easy: Tensor, answers: Tensor, pseudo: Pseudo) -> dict[str, Tensor]:
        """What the options add to the loss."""
        terms: dict[str, Tensor] = {}
        if self.even:
            terms["uneven"] = self.even * mean_entropy(answers)
        if pseudo.kept is not None and pseudo.weight is not None:
            among = at_least_float32(self.auxiliary(hard)).masked_fill(~pseudo.kept, -torch.inf)
            shrunk = F.cross_entropy(among, pseudo.labels, reduction="none")
            terms["shrunk_loss"] = self.weight * (shrunk * pseudo.weight).sum() / max(1, len(shrunk))
        blend = self.pseudo.blend
        if blend is not None:
            with torch.no_grad():
                targets = blend.similarities(easy).softmax(1)
                if batch.targets.dim() == 1:  # mixed samples are of no class
                    blend.see(self.teacher.network.embed(batch.images), batch.targets)  # type: ignore[operator]
            alike = F.cross_entropy(blend.similarities(hard), targets) if len(hard) else hard.sum()
            terms["similarity_loss"] = self.weight * blend.ready * alike
        return terms

    def after_update(self) -> None:
        super().after_update()
        if self.pseudo.blend is not None:
            self.teacher.follow(self.model)


def _policy(threshold: float | str, classes: int, level: float, unlabelled: int | None) -> Threshold:
    if not isinstance(threshold, str):
        return Threshold(threshold)
    if threshold == "self-adaptive":
        return SelfThresholds(classes)
    if threshold != "class-adaptive":
        raise ConfigError(
            f"threshold must be a number in [0, 1], 'class-adaptive' or 'self-adaptive', found {threshold!r}"
        )
    if unlabelled is None:
        raise ConfigError(
            "the class-adaptive policy keeps the last answer for each unlabelled sample: give their number, unlabelled"
        )
    return ClassThresholds(classes, unlabelled, level)


def _perceptron(width: int, classes: int) -> nn.Sequential:
    """Two hidden layers of a quarter of the width, as in the released code of ShrinkMatch."""
    hidden = max(1, width // 4)
    layers: list[Any] = []
    for inputs in (width, hidden):
        layers += [nn.Linear(inputs, hidden), nn.BatchNorm1d(hidden), nn.LeakyReLU(0.1)]
    return nn.Sequential(*layers, nn.Linear(hidden, classes))
