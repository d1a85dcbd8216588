"""Relational reasoning: are these two views of the same image?"""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.data import Batch
from repertoire.losses import reduce
from repertoire.methods._base import Method, Needs, Step
from repertoire.methods._classifier import Classifier
from repertoire.methods._precision import at_least_float32
from repertoire.methods._readout import read_out
from repertoire.ranges import AtLeast
from repertoire.registry import register

__all__ = ["Relational"]


@register("methods", "relational", paper="relational-reasoning")
class Relational(Method):
    r"""Pretraining without labels that learns to tell whether two views are of the same image.

    Patacchiola and Storkey, *Self-Supervised Relational Reasoning for Representation Learning* (2020). Every two of the
    K views of a batch give N pairs of views of the same image, and N of different ones by shifting one view along the
    batch, each time by one more. A relation head r, a perceptron with batch normalisation and one output, looks at the
    two features side by side. With y = 1 for the same image and the probability p of the right answer:

    .. math:: \ell = -(1 - p)^\gamma \log p, \qquad p = \sigma\bigl((2y - 1)\,r([f(x_i), f(x_j)])\bigr)

    and the loss is the mean over all N K (K - 1) pairs. The head is thrown away afterwards. The released code weights
    both answers with a half.

    Args:
        model: normalisation, backbone and head; the head is the read-out.
        views: K, two or more; the paper uses up to 32 and gains with each.
        gamma: weight of the hard pairs, 0 or more; 0 is the plain cross-entropy.
        hidden: width of the relation head's hidden layer.

    Raises:
        ConfigError: fewer than two views, a width that is not positive, or a negative gamma.

    Example:
        >>> import torch
        >>> from repertoire import backbones, heads
        >>> from repertoire.data import Batch
        >>> from repertoire.methods import Classifier, Normalize, Relational
        >>> net = backbones.ConvNet(in_channels=1, image_size=4, width=4, depth=1)
        >>> method = Relational(Classifier(Normalize([0.5], [0.25]), net, heads.Linear(net.out_features, 2)), views=3)
        >>> step = method.step(Batch(tuple(torch.rand(3, 4, 1, 4, 4)), torch.full((4,), -1), torch.arange(4)))
        >>> sorted(step.logs)
        ['accuracy', 'loss', 'readout_loss', 'relation_accuracy']
    """

    needs = Needs(views=4, per_sample=False, within_rank=True, augmentation="simclr")

    def __init__(
        self,
        model: Classifier,
        views: Annotated[int, AtLeast(2)] = 4,
        gamma: Annotated[float, AtLeast(0)] = 2.0,
        hidden: Annotated[int, AtLeast(1)] = 256,
    ) -> None:
        super().__init__()
        self.model = model
        self.views = views
        self.needs = replace(self.needs, views=views)
        self.gamma = gamma
        width = 2 * model.backbone.out_features
        self.relation = nn.Sequential(
            nn.Linear(width, hidden), nn.BatchNorm1d(hidden), nn.LeakyReLU(), nn.Linear(hidden, 1)
        )

    def objective(self, features: Tensor, batch: Batch) -> Step:
        views, count = features.chunk(self.views), len(batch)
        pairs = list(combinations(range(self.views), 2))
        # Shifts go round 1..N-1, so that no image meets itself.
        shifts = [1 + number % max(1, count - 1) for number in range(len(pairs))]
        left = torch.cat([views[i] for i, _ in pairs] * 2)
        right = torch.cat(
            [views[j] for _, j in pairs] + [views[j].roll(s, 0) for (_, j), s in zip(pairs, shifts, strict=True)]
        )
        scores = at_least_float32(self.relation(torch.cat([left, right], 1)).squeeze(1))
        same, different = scores.chunk(2)
        right_answer = torch.cat([same, -different])
        log_p = F.logsigmoid(right_answer)
        loss = -reduce((1 - log_p.exp()) ** self.gamma * log_p, "mean")
        readout, logs = read_out(self.model.head, features, batch.targets.repeat(self.views))
        relation = (right_answer.detach() > 0).float().mean()
        return Step(loss + readout, {"loss": loss.detach(), "relation_accuracy": relation, **logs})
