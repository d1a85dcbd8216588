"""The base of methods that learn in stages without samples of earlier ones, and what they keep of the network."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable, Iterator, Mapping
from types import EllipsisType
from typing import Annotated, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.data import Batch
from repertoire.errors import ConfigError
from repertoire.heads import Head
from repertoire.losses import Loss, reduce
from repertoire.methods._apply import right_answers
from repertoire.methods._base import Needs, Stage, Step
from repertoire.methods._classifier import Classifier
from repertoire.methods._classifying import Classifying
from repertoire.methods._precision import at_least_float32
from repertoire.ranges import AtLeast, Positive
from repertoire.weights import fisher_diagonal

__all__ = ["Among", "Preserving", "Weights", "as_it_was", "softened_divergence", "weights_of"]

Among = Literal["stage", "known"]
"""Which classes compete in the loss: those that occur in the stage, or all that are known."""


class Weights(nn.Module):
    """Tensors by the names of a network's weights, in buffers, so that they go on to the next stage.

    Args:
        tensors: copied.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.names = tuple(tensors)
        for name, value in tensors.items():
            self.register_buffer(_key(name), value.detach().clone(memory_format=torch.contiguous_format))

    def __getitem__(self, name: str) -> Tensor:
        return self.get_buffer(_key(name))

    def __iter__(self) -> Iterator[Tensor]:
        return (self[name] for name in self.names)

    @torch.no_grad()
    def set(self, name: str, value: Tensor) -> None:
        """Takes another value of the same shape."""
        self[name].copy_(value)


def _key(name: str) -> str:
    return name.replace(".", "__")


def weights_of(model: Classifier, only: str = "") -> dict[str, nn.Parameter]:
    """The weights of a network that learn, by name; those alone whose name has `only` in it, where it is given.

    Raises:
        ConfigError: there are none of that name.
    """
    found = {name: weight for name, weight in model.named_parameters() if weight.requires_grad and only in name}
    if only and not found:
        some = sorted({name.rpartition(".")[0] for name, weight in model.named_parameters() if weight.requires_grad})
        raise ConfigError(
            f"only={only!r} is in the name of no weight that learns; they belong to {', '.join(some[:12])}"
            f"{', ...' if len(some) > 12 else ''}"
        )
    return found


def as_it_was(model: Classifier) -> Classifier:
    """A copy of a network that is trained no more. What it does not run, as its inputs enter later, is left out."""
    left_out = model.backbone.blocks[: model.enters] if model.enters is not None else ()
    memo: dict[int, nn.Module] = {id(block): nn.Identity() for block in left_out}
    return copy.deepcopy(model, memo).requires_grad_(False).eval()


def softened_divergence(scores: Tensor, wanted: Tensor, temperature: float) -> Tensor:
    """KL(wanted || scores) of the softmax of logits `[N, K]` over a temperature, the mean over samples."""
    softer = at_least_float32(scores).div(temperature).log_softmax(1)
    aim = at_least_float32(wanted).div(temperature).log_softmax(1)
    return reduce(F.kl_div(softer, aim, reduction="none", log_target=True).sum(1), "mean")


class _Answering(nn.Module):
    """A classifier as a function of the weights that learn alone, and with the classes alone that compete."""

    def __init__(self, model: Classifier, weights: Collection[str], columns: Tensor | None) -> None:
        super().__init__()
        self.model = model
        self._weights = {f"model.{name}" for name in weights}
        self._columns = columns

    def named_parameters(self, *args: object, **options: object) -> Iterator[tuple[str, nn.Parameter]]:
        """Those of the weights that learn."""
        return ((name, p) for name, p in super().named_parameters() if name in self._weights)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(images)
        return logits if self._columns is None else logits[:, self._columns]


class Preserving(Classifying):
    r"""Base of methods that learn the classes of a stage and hold on to what the network knew before it.

    The loss of a batch is :math:`\ell + \lambda_p L_p + \lambda_f L_f + \Omega`: a loss on logits of the new samples,
    the distance of the answers, or of the features, of the network from those of its copy as it was before the stage,
    both on the new samples, and a penalty on weights that a subclass may give. In the first stage there is only the
    loss.

    Args:
        model: normalisation, backbone and head.
        loss: a loss on logits.
        among: which classes compete in the loss: those that occur in the stage, or all that are known.
        distil: weight of the distance of answers, 0 or more.
        temperature: of these answers, positive.
        features: weight of the distance of features, 0 or more.

    Attributes:
        teacher: the network as it was before the stage, where it is needed.
        known: how many classes were known before the stage; they come first.

    Raises:
        ConfigError: an option out of range; see also `Classifying`.
    """

    needs = Needs(labels="required", targets=frozenset({"classes"}), step="whole")

    def __init__(
        self,
        model: Classifier,
        loss: Loss,
        among: Among = "stage",
        distil: Annotated[float, AtLeast(0)] = 0.0,
        temperature: Annotated[float, Positive] = 2.0,
        features: Annotated[float, AtLeast(0)] = 0.0,
    ) -> None:
        super().__init__(model, loss)
        self.among = among
        self.distil = distil
        self.temperature = temperature
        self.features = features
        self.known = 0
        self.teacher: Classifier | None
        self.register_module("teacher", None)
        # Which columns of the logits compete, and where each class is among them: None for all, in their order.
        self._columns: Tensor | None
        self._places: Tensor | None
        self.register_buffer("_columns", None, persistent=False)
        self.register_buffer("_places", None, persistent=False)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if self.teacher is not None:
            self.teacher.eval()
        return self

    def begin(self, stage: Stage) -> None:
        self.known = len(stage.classes) - len(stage.new)
        self._columns = self._places = None
        if self.among == "stage" and self.known and stage.new:
            self._compete(stage)
        self.teacher = as_it_was(self.model) if self.known and (self.distil or self.features) else None

    def _compete(self, stage: Stage) -> None:
        """Finds the classes that occur: the new ones, and old ones of which there are samples again."""
        device = next(self.model.head.parameters()).device
        there = torch.zeros(len(stage.classes), dtype=torch.bool, device=device)
        there[list(stage.new)] = True
        for batch in stage.batches():
            there[batch.targets[batch.targets >= 0].long()] = True
        if not bool(there.all()):
            self._columns = there.nonzero().flatten()
            self._places = there.cumsum(0) - 1

    def penalty(self) -> Tensor | None:
        """The penalty on weights; None where there is none in this stage."""
        return None

    def step(self, batch: Batch) -> Step:
        features = self.model.embed(batch.images)
        found = self.classify(features, batch.targets)
        loss, logs = found.loss, dict(found.logs)
        if self.teacher is not None:
            with torch.no_grad():
                before, answers = self.teacher.embed_and_score(batch.images)
            if self.distil:
                logits = self.model.head(features)[:, : self.known]
                apart = softened_divergence(logits, answers[:, : self.known], self.temperature)
                loss, logs["distillation_loss"] = loss + self.distil * apart, apart.detach()
            if self.features:
                moved = reduce((at_least_float32(features) - before).square().mean(1), "mean")
                loss, logs["feature_loss"] = loss + self.features * moved, moved.detach()
        held = self.penalty()
        if held is not None:
            loss, logs["penalty"] = loss + held, held.detach()
        return Step(loss, {**logs, "loss": loss.detach()})

    def classify(self, features: Tensor, targets: Tensor, head: Head | None = None) -> Step:
        """The loss among the classes that compete, over all classifiers that the head trains; and the accuracy among
        them."""
        if self._columns is None or self._places is None:
            return super().classify(features, targets, head)
        columns, among = self._columns, self._places[targets.long()]
        every = (self.model.head if head is None else head).outputs(features, targets)
        outputs = [(weight, logits[:, columns]) for weight, logits in every]
        loss = torch.stack([weight * self.loss(logits, among) for weight, logits in outputs]).sum()
        return Step(loss, {"loss": loss.detach(), **right_answers(self.loss, outputs[0][1], among)})

    def information(
        self, stage: Stage, names: Collection[str], labels: Literal["model", "given"], samples: int | None
    ) -> dict[str, Tensor]:
        """The diagonal of the Fisher information of these weights on the samples of a stage, by their names."""
        answering = _Answering(self.model, names, self._columns)
        found = fisher_diagonal(
            answering, self._answered(stage.batches()), labels=labels, samples=samples, seed=stage.index
        )
        return {name.removeprefix("model."): value for name, value in found.items()}

    def _answered(self, batches: Iterable[Batch]) -> Iterator[tuple[Tensor, Tensor]]:
        """Images and targets of labelled samples, numbered as the classes that compete are."""
        for batch in batches:
            known = batch.targets >= 0
            images, targets = batch.images[known], batch.targets[known].long()
            yield images, targets if self._places is None else self._places[targets]

    def has_class_rows(self, name: str) -> bool:
        """Whether a weight of the network has a row for each class."""
        return name.startswith("head.") and name.removeprefix("head.") in self.model.head.per_class

    def old_rows(self, name: str) -> slice | EllipsisType:
        """The rows of a weight that were there before the stage: those of known classes, or everything."""
        return slice(None, self.known) if self.has_class_rows(name) else ...
