"""The base of methods in which a network learns from a slowly moving copy of itself."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.data import Batch
from repertoire.methods._base import Method, Needs, Step
from repertoire.methods._classifier import Classifier
from repertoire.methods._precision import at_least_float32
from repertoire.methods._readout import read_out
from repertoire.methods._recipe import UNLABELLED
from repertoire.methods._teacher import Teacher

__all__ = ["TwoNetworks", "squared_distance"]


def squared_distance(x: Tensor, y: Tensor) -> Tensor:
    """Gives `2 - 2 cos(x, y)` for each pair of rows of `[N, d]`, in full precision, as `[N]`."""
    return 2 - 2 * F.cosine_similarity(at_least_float32(x), at_least_float32(y), dim=1)


class TwoNetworks(Method):
    """A student, which is normalisation, backbone and projector, and a teacher that follows it.

    A subclass says in `compare` what the student is to learn from the teacher. All views of a batch pass through a
    network together where it takes several, so that batch normalisation sees them together. There is no objective for
    features alone: rules that train a network piece by piece refuse such a method.

    Args:
        model: normalisation, backbone and head; the head is a read-out that learns from detached features.
        projector: features to what is compared.
        momentum, steps: of the :class:`repertoire.methods.Teacher`.
    """

    needs = Needs(views=2, step="whole", per_sample=False, augmentation="simclr", defaults=UNLABELLED)

    def __init__(self, model: Classifier, projector: nn.Module, momentum: float, steps: int | None = None) -> None:
        super().__init__()
        self.model = model
        self.projector = projector
        self.teacher = Teacher(self.student, momentum, steps)

    @property
    def student(self) -> nn.Sequential:
        """The network that the teacher follows: images to projections."""
        return nn.Sequential(self.model.normalize, self.model.backbone, self.projector)

    def compare(self, views: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """The loss of the views, and features `[M * N, d]` of the first M or more of them for the read-out."""
        raise NotImplementedError

    def step(self, batch: Batch) -> Step:
        loss, features = self.compare(batch.views)
        labels = batch.targets.repeat(len(features) // max(1, len(batch)))
        readout, logs = read_out(self.model.head, features, labels)
        return Step(loss + readout, {"loss": loss.detach(), **logs})

    def follow(self) -> None:
        """Lets the teacher follow; called when the weights have changed."""
        self.teacher.follow(self.student)

    def after_update(self) -> None:
        super().after_update()
        self.follow()
