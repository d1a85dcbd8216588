"""Robust training with few labels: a teacher's answers, and stability where it is worth most."""

from __future__ import annotations

import math
from typing import Annotated, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from repertoire.data import Batch
from repertoire.losses import Loss, reduce
from repertoire.methods._base import Needs, Step, Stream
from repertoire.methods._beside import STREAM, all_images, at_ratio
from repertoire.methods._classifier import Classifier
from repertoire.methods._precision import at_least_float32
from repertoire.methods._taught import Taught
from repertoire.ops import evaluating, projected_gradient
from repertoire.ranges import AtLeast, Positive, Share
from repertoire.registry import register

__all__ = ["RobustSemi"]


@register("methods", "robust-semi", paper="srst-awr")
class RobustSemi(Taught):
    r"""Learns to withstand adversarial changes of images from few labels and a teacher that knows the plain images.

    Yang, Kong and Kim, *Enhancing Adversarial Robustness in Low-Label Regime via Adaptively Weighted Regularization and
    Knowledge Distillation* (2023). The teacher is a finished run that learned from the same labels
    (`--teacher runs/fixmatch`). With its answers :math:`p_T`, and changed images x' that are found by projected
    gradient steps (PGD) against its label, of entries at most epsilon away:

    .. math::
        \ell = \frac{1}{B} \sum_b \ell\bigl(f(x_b), y_b\bigr)
            + \frac{\gamma}{N} \sum_i \mathrm{KL}\bigl(p_T(x_i) \,\|\, p(x_i)\bigr)
            + \frac{\lambda}{N} \sum_i w_i\,\mathrm{KL}\bigl(p(x_i) \,\|\, p(x_i')\bigr)

    .. math:: w_i = \beta\,\langle p_T(x_i), p(x_i) \rangle
        + (1 - \beta)\,\bigl(1 - \langle p_T(x_i), p(x_i') \rangle\bigr)

    Stability counts more where the network agrees with the teacher about the plain image, and where the attack succeeds
    against it. The N samples are all of the batch, with labels or without, as in the released code, which lets
    gradients flow through the weights too, smooths the labels by 0.2 (`--loss cross-entropy:label_smoothing=0.2`), and
    looks for changes with the network in evaluation mode, so that batch normalisation and dropout stand still.

    With `hard` the teacher's label takes the place of its answers, and with `weighted=false` all samples count alike:
    both together are robust self-training (Carmon et al., *Unlabeled Data Improves Adversarial Robustness*, 2019).

    A step costs as many passes forth and back as there are steps of the attack, and two more.

    Args:
        model: normalisation, backbone and head.
        loss: a loss on logits, for the labelled samples.
        teacher: a trained classifier; told by the trainer.
        epsilon: largest change of a pixel of [0, 1], 0 or more.
        steps: of the attack, 1 or more; its steps are a quarter of epsilon long, from a random place.
        robust: lambda, 0 or more; 3 by default in the released code.
        distil: gamma, 0 or more.
        beta: in [0, 1].
        hard: learn the teacher's labels in the place of its answers.
        weighted: count samples by w; else all alike.
        ratio: unlabelled samples for each labelled one; above 0.

    Raises:
        ConfigError: there is no teacher, or one of another number of classes; an option out of range; see also
            `Supervised`.

    Example:
        >>> import copy, torch
        >>> from repertoire import backbones, heads, losses
        >>> from repertoire.data import Batch
        >>> from repertoire.methods import Classifier, Normalize, RobustSemi
        >>> net = backbones.ConvNet(in_channels=1, image_size=4, width=4, depth=1)
        >>> model = Classifier(Normalize([0.5], [0.25]), net, heads.Linear(net.out_features, 2))
        >>> method = RobustSemi(model, losses.CrossEntropy(), teacher=copy.deepcopy(model), steps=2)
        >>> batch = Batch((torch.rand(4, 1, 4, 4),), torch.tensor([0, 0, 1, 1]), torch.arange(4))
        >>> batch.streams = {"unlabelled": Batch((torch.rand(8, 1, 4, 4),), torch.full((8,), -1), torch.arange(8))}
        >>> sorted(method.step(batch).logs)
        ['accuracy', 'distillation_loss', 'loss', 'robust_loss', 'withstood']
    """

    needs = Needs(
        labels="required",
        targets=frozenset({"classes"}),
        streams={STREAM: Stream(per_sample=4, optional=True)},
        step="whole",
        # Each sample counts alone, but its attack begins at random: pieces would begin elsewhere.
        per_sample=False,
        reference="teacher",
    )

    def __init__(
        self,
        model: Classifier,
        loss: Loss,
        teacher: Classifier | None = None,
        epsilon: Annotated[float, AtLeast(0)] = 8 / 255,
        steps: Annotated[int, AtLeast(1)] = 10,
        robust: Annotated[float, AtLeast(0)] = 3.0,
        distil: Annotated[float, AtLeast(0)] = 1.0,
        beta: Annotated[float, Share] = 0.5,
        hard: bool = False,
        weighted: bool = True,
        ratio: Annotated[float, Positive] = 4.0,
    ) -> None:
        super().__init__(model, loss, teacher, "robust-semi")
        self.epsilon = epsilon
        self.steps = steps
        self.robust = robust
        self.distil = distil
        self.beta = beta
        self.hard = hard
        self.weighted = weighted
        self.needs = at_ratio(self.needs, ratio)

    @classmethod
    def example_options(cls) -> dict[str, Any]:
        """Options for an example of four classes and images of 8 x 8 pixels, where the defaults do not do."""
        return {**super().example_options(), "steps": 2}

    def attacked(self, images: Tensor, labels: Tensor) -> Tensor:
        """Images that are changed against these labels `[N]`, in the network's evaluation mode."""
        low, high = (0.0, 1.0) if images.ndim == 4 else (-math.inf, math.inf)

        def objective(changed: Tensor) -> Tensor:
            return F.cross_entropy(at_least_float32(self.model(changed)), labels, reduction="sum")

        # In float32 whatever the precision is, so that all precisions begin alike.
        start = images + (2 * torch.rand(images.shape, device=images.device) - 1).to(images) * self.epsilon
        with evaluating(self.model):
            return projected_gradient(
                objective,
                images,
                epsilon=self.epsilon,
                step_size=max(self.epsilon / 4, 1e-12),
                steps=self.steps,
                start=start,
                low=low,
                high=high,
            )

    def step(self, batch: Batch) -> Step:
        images = all_images(batch)
        count = len(images)
        taught = self.answers(images)
        label = taught.argmax(1)
        changed = self.attacked(images, label)
        features = self.model.embed(torch.cat([images, changed]))
        found = self.classify(features[: len(batch)], batch.targets)
        log_p, log_q = at_least_float32(self.model.head(features)).log_softmax(1).split([count, count])
        p, q, answers = log_p.exp(), log_q.exp(), taught.exp()
        unstable = (p * (log_p - log_q)).sum(1)
        if self.weighted:
            agreed, withstood = (answers * p).sum(1), (answers * q).sum(1)
            unstable = unstable * (self.beta * agreed + (1 - self.beta) * (1 - withstood))
        if self.hard:
            distilled = F.nll_loss(log_p, label, reduction="none")
        else:
            distilled = (answers * (taught - log_p)).sum(1)
        stability, distillation = reduce(unstable, "mean"), reduce(distilled, "mean")
        loss = found.loss + self.distil * distillation + self.robust * stability
        held = (log_q.argmax(1) == label).sum() / max(1, count)
        logs = {"distillation_loss": distillation.detach(), "robust_loss": stability.detach(), "withstood": held}
        return Step(loss, {**found.logs, **logs, "loss": loss.detach()})
