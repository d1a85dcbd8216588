"""Robust self-training: unlabelled samples may move before they teach, and take the label that fits them best."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import torch
from torch import Tensor
from torch.nn import functional as F

from repertoire.data import Batch
from repertoire.errors import ConfigError
from repertoire.losses import Loss
from repertoire.methods._base import Needs, Step, Stream
from repertoire.methods._classifier import Classifier
from repertoire.methods._classifying import Classifying
from repertoire.methods._precision import at_least_float32
from repertoire.ops import not_counting
from repertoire.ranges import AtLeast, Positive
from repertoire.registry import register

__all__ = ["RobustSelfTraining"]

STREAM = "unlabelled"


@register("methods", "robust-self-training", paper="rss")
class RobustSelfTraining(Classifying):
    r"""RSS: unlabelled samples, also of another source, push the boundary away from where they crowd.

    Saberi et al., *Out-Of-Domain Unlabeled Data Improves Generalization* (2023; arXiv 2310.00027). Each unlabelled
    sample takes the class that fits it best, and teaches it at the worst place that it can be moved to, at a cost that
    grows with the square of the distance:

    .. math:: \ell = \frac{1}{B} \sum_b \ell\bigl(f(x_b), y_b\bigr) + \frac{\lambda}{U} \sum_u \min_y \sup_z
        \Bigl[ \mathrm{CE}\bigl(f(z), y\bigr) - \gamma\,\lVert z - x_u \rVert^2 \Bigr]

    With `robust_labelled`, the labelled samples are moved in the same way, by the loss and their own label. The
    supremum is approached by `steps` steps of gradient ascent from x, of length :math:`1 / (2 \gamma)`, each of which
    comes nearer where :math:`2 \gamma` exceeds the curvature of the loss in z. Where it does not, the worst place may
    be far away, and steps that grow are refused. What the supremum is found at takes no gradient (Danskin). At an
    infinite :math:`\gamma` nothing moves, and the second term is self-training with hard labels. The minimum over y is
    taken over the `candidates` most probable classes: the one that fits best at x need not be the best at its own
    worst place.

    Args:
        model: normalisation, backbone and head.
        loss: a loss on logits, for the labelled samples.
        gamma: the cost of moving by a distance of one, in units of the inputs after normalisation; positive.
        weight: lambda, 0 or more.
        steps: of the ascent, 0 or more; without any, nothing moves.
        candidates: how many classes are tried for each unlabelled sample, 1 or more.
        robust_labelled: whether labelled samples move too.
        ratio: unlabelled samples for each labelled one; above 0.

    Raises:
        ConfigError: an option out of range; moving that is too cheap (gamma too small) for the loss's curvature;
            a batch without the stream "unlabelled"; see also `Supervised`.

    Example:
        >>> import torch
        >>> from repertoire import backbones, heads, losses
        >>> from repertoire.data import Batch
        >>> from repertoire.methods import Classifier, Normalize, RobustSelfTraining
        >>> model = Classifier(Normalize([0.0] * 3, [1.0] * 3), backbones.Identity(3), heads.Linear(3, 2))
        >>> method = RobustSelfTraining(model, losses.CrossEntropy(), gamma=5.0)
        >>> batch = Batch((torch.randn(4, 3),), torch.tensor([0, 0, 1, 1]), torch.arange(4))
        >>> batch.streams = {"unlabelled": Batch((torch.randn(8, 3),), torch.full((8,), -1), torch.arange(8))}
        >>> sorted(method.step(batch).logs)
        ['accuracy', 'loss', 'moved', 'unlabelled_loss']
    """

    needs = Needs(
        labels="required",
        targets=frozenset({"classes"}),
        streams={STREAM: Stream(per_sample=4)},
        step="whole",
    )

    def __init__(
        self,
        model: Classifier,
        loss: Loss,
        gamma: Annotated[float, Positive] = 10.0,
        weight: Annotated[float, AtLeast(0)] = 1.0,
        steps: Annotated[int, AtLeast(0)] = 5,
        candidates: Annotated[int, AtLeast(1)] = 2,
        robust_labelled: bool = False,
        ratio: Annotated[float, Positive] = 4.0,
    ) -> None:
        super().__init__(model, loss)
        if model.head.dense:
            raise ConfigError("method 'robust-self-training' gives a sample one class, and the head one for each pixel")
        self.gamma = gamma
        self.weight = weight
        self.steps = steps
        self.candidates = min(candidates, model.head.num_classes)
        self.robust_labelled = robust_labelled
        self.needs = replace(self.needs, streams={STREAM: replace(self.needs.streams[STREAM], per_sample=ratio)})

    def step(self, batch: Batch) -> Step:
        if STREAM not in batch.streams:
            raise ConfigError(
                "method 'robust-self-training' needs unlabelled samples, and the batch has no stream 'unlabelled': "
                "give the loader one, or use method 'supervised'"
            )
        labelled, others = batch.images, batch.streams[STREAM].images
        if self.robust_labelled:
            labelled = self.worst(labelled, batch.targets)
        places, labels, cost = self.fitted(others)
        features = self.model.embed(torch.cat([labelled, places]))
        found = self.classify(features[: len(batch)], batch.targets)
        logits = at_least_float32(self.model.head(features[len(batch) :]))
        # What moving costs is no function of the weights; it is here so that the value is that of the formula.
        unlabelled = (F.cross_entropy(logits, labels, reduction="sum") - self.gamma * cost.sum()) / max(1, len(labels))
        loss = found.loss + self.weight * unlabelled
        logs = {"unlabelled_loss": unlabelled.detach(), "moved": cost.sum() / max(1, len(cost))}
        return Step(loss, {**found.logs, "loss": loss.detach(), **logs})

    def fitted(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The worst place of each input for the class that fits it best, that class int64 `[M]`, and the square of the
        distance `[M]`."""
        count = len(inputs)
        if not count:
            return inputs, torch.zeros(0, dtype=torch.int64, device=inputs.device), inputs.new_zeros(0)
        with torch.no_grad(), not_counting(self.model):
            likely = self.model(inputs).topk(self.candidates, dim=1).indices
        labels = likely.T.flatten()
        tried = inputs.repeat(self.candidates, *[1] * (inputs.dim() - 1))
        places = self.worst(tried, labels)
        with torch.no_grad(), not_counting(self.model):
            costs = self._square(places - tried)
            losses = F.cross_entropy(at_least_float32(self.model(places)), labels, reduction="none")
            best = (losses - self.gamma * costs).view(self.candidates, count).argmin(0)
        rows = best * count + torch.arange(count, device=inputs.device)
        return places[rows], labels[rows], costs[rows]

    def worst(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Where the loss of inputs, less the cost of getting there, is largest; without a gradient.

        Raises:
            ConfigError: the ascent runs away.
        """
        places = inputs.detach()
        # In units of the inputs as they are, the cost of a distance is that of it after normalisation.
        scale = self._scale(inputs)
        moves = []
        for _ in range(self.steps):
            with torch.enable_grad(), not_counting(self.model):
                z = places.clone().requires_grad_()
                value = F.cross_entropy(at_least_float32(self.model(z)), labels, reduction="sum")
                (gradient,) = torch.autograd.grad(value, z)
            # A fixed point of it is where the gradient of the loss is that of the cost.
            before, places = places, (inputs + gradient * scale.square() / (2 * self.gamma)).detach()
            moves.append(self._square(places - before).sum())
        # Where the loss is less curved than the cost, every step is shorter than the one before.
        if len(moves) > 1 and bool(torch.stack(moves[1:]).max() > moves[0]):
            raise ConfigError(
                f"gamma is {self.gamma}, at which moving costs less than it gains, so that the worst place is nowhere "
                f"near: use gamma={2 * self.gamma:g} or more"
            )
        return places

    def _scale(self, inputs: Tensor) -> Tensor:
        """The deviation that normalisation divides by, in the shape of the inputs."""
        if self.model.enters is not None:
            return inputs.new_ones(())
        std = self.model.normalize.std.to(inputs)
        return std.flatten() if inputs.dim() == 2 else std

    def _square(self, moved: Tensor) -> Tensor:
        return at_least_float32(moved / self._scale(moved)).flatten(1).square().sum(1)
