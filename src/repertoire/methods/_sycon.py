"""Continual self-supervised contrast: Sy-CON, the distillation of CaSSLe, or neither."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Annotated, Literal, Self

import torch
from torch import Tensor, nn

from repertoire.data import Batch
from repertoire.losses import InfoNCE, SyCon
from repertoire.methods._base import Stage, Step
from repertoire.methods._classifier import Classifier
from repertoire.methods._contrast import Projected
from repertoire.methods._mlp import mlp
from repertoire.methods._readout import read_out
from repertoire.methods._recipe import UNLABELLED
from repertoire.methods._staged import as_it_was
from repertoire.ranges import AtLeast, Positive
from repertoire.registry import register

__all__ = ["ContinualContrast"]


@register("methods", "sy-con", paper="sy-con")
class ContinualContrast(Projected):
    r"""Learns features without labels stage by stage, and keeps those of earlier stages without their samples.

    Cha and Moon, *Sy-CON: Symmetric Contrastive Loss for Continual Self-Supervised Representation Learning* (2023), in
    its form for SimCLR (:func:`repertoire.losses.sycon_loss` has the formula). A copy of network and projector as they
    were before the stage gives negatives to the loss that learns, and positives and negatives to the loss that keeps,
    which compares it with a prediction g(z) of what it said. In the first stage it is SimCLR.

    With `keep=cassle` it is Fini et al., *Self-Supervised Models Are Continual Learners* (2022), in its form for
    SimCLR: NT-Xent among the current embeddings, and beside it InfoNCE that finds the earlier embedding of a view, from
    g(z), among the earlier embeddings of all. With `keep=nothing` it is SimCLR throughout.

    The labels divide the data into stages, and a linear read-out learns from detached features; both tell the features
    nothing. The read-out knows only what it saw last: of stages, the neighbours are measured
    (:func:`repertoire.protocols.follow`). g is a perceptron with a hidden layer, and begins anew in each stage.

    Args:
        model: normalisation, backbone and head; the head is the read-out.
        keep: "sy-con" (default), "cassle" or "nothing".
        temperature: tau of all terms, positive.
        dimensions: width of the projector's output.
        hidden: width of the hidden layers of projector and g; the backbone's own width if None.
        batch_norm: batch normalisation before the projector's ReLU, as in the authors' code, and always in g.

    Raises:
        ConfigError: a width or a temperature that is not positive.

    Example:
        >>> import torch
        >>> from repertoire import backbones, heads
        >>> from repertoire.data import Batch
        >>> from repertoire.methods import Classifier, ContinualContrast, Normalize, Stage
        >>> net = backbones.ConvNet(in_channels=1, image_size=4, width=4, depth=1)
        >>> method = ContinualContrast(Classifier(Normalize([0.5], [0.25]), net, heads.Linear(net.out_features, 2)))
        >>> method.begin(Stage(1, 2, ("a", "b"), new=(1,)))
        >>> unlabelled = torch.full((4,), -1)
        >>> step = method.step(Batch((torch.rand(4, 1, 4, 4), torch.rand(4, 1, 4, 4)), unlabelled, torch.arange(4)))
        >>> sorted(step.logs)
        ['accuracy', 'loss', 'readout_loss']
    """

    needs = replace(Projected.needs, labels="unused", loss="", defaults=UNLABELLED, step="whole")

    def __init__(
        self,
        model: Classifier,
        keep: Literal["sy-con", "cassle", "nothing"] = "sy-con",
        temperature: Annotated[float, Positive] = 0.2,
        dimensions: Annotated[int, AtLeast(1)] = 128,
        hidden: Annotated[int, AtLeast(1)] | None = None,
        batch_norm: bool = True,
    ) -> None:
        super().__init__(model, SyCon(temperature), dimensions, hidden, batch_norm)
        self.keep = keep
        self.distance = InfoNCE(temperature)
        self.widths = (dimensions, hidden or model.backbone.out_features, dimensions)
        self.teacher: Classifier | None
        self.teacher_projector: nn.Module | None
        self.predictor: nn.Module | None
        for name in ("teacher", "teacher_projector", "predictor"):
            self.register_module(name, None)

    def train(self, mode: bool = True) -> Self:
        """The copies stay in evaluation mode."""
        super().train(mode)
        for part in (self.teacher, self.teacher_projector):
            if part is not None:
                part.eval()
        return self

    def begin(self, stage: Stage) -> None:
        if not stage.index or self.keep == "nothing":
            return
        self.teacher = as_it_was(self.model)
        self.teacher_projector = copy.deepcopy(self.projector).requires_grad_(False).eval()
        with torch.random.fork_rng(devices=[]):
            # The weights of a stage's g are the same whenever it begins, a resumed run included.
            torch.manual_seed(stage.index)
            self.predictor = mlp(*self.widths).to(next(self.projector.parameters()))

    def step(self, batch: Batch) -> Step:
        count = len(batch.views)
        images = torch.cat(batch.views)
        features = self.model.embed(images)
        z = self.projector(features)
        if self.teacher is None or self.teacher_projector is None or self.predictor is None:
            loss = self.loss(*z.chunk(count))
        else:
            with torch.no_grad():
                before = self.teacher_projector(self.teacher.embed(images)).to(z.dtype)
            loss = self._kept(z, self.predictor(z), before, count)
        readout, logs = read_out(self.model.head, features, batch.targets.repeat(count))
        return Step(loss + readout, {"loss": loss.detach(), **logs})

    def _kept(self, z: Tensor, predicted: Tensor, before: Tensor, count: int) -> Tensor:
        if self.keep == "cassle":
            return self.loss(*z.chunk(count)) + self.distance(predicted, before)
        by_view = [torch.stack(rows.chunk(count), 1) for rows in (predicted, before)]
        return self.loss(*z.chunk(count), predicted=by_view[0], previous=by_view[1])
