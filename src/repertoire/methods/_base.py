"""The contract of methods: what is optimised, and what it needs from everything around it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from repertoire import registry
from repertoire.data import Batch
from repertoire.methods._classifier import Classifier
from repertoire.ops import commit_memories
from repertoire.ranges import checked

__all__ = ["REPLAY", "Method", "Needs", "Stage", "Step", "Stream", "brought_head"]

REPLAY = "replay"
"""The stream of samples that are remembered of earlier stages."""


@dataclass(frozen=True)
class Stream:
    """A further stream of samples that a method wants beside the labelled batch, in `batch.streams[name]`.

    Attributes:
        per_sample: samples of this stream for each sample of the main batch.
        views: how many augmented views of each sample, or their names with the augmentation of each ("" for that of
            the run); named views are found with `batch.view(name)`.
        optional: whether the method also runs without it.
        labels: whether the method learns from the targets of these samples.
    """

    per_sample: float = 1.0
    views: int | Mapping[str, str] = 1
    optional: bool = False
    labels: bool = False

    @property
    def view_count(self) -> int:
        """Number of views of each sample."""
        return self.views if isinstance(self.views, int) else len(self.views)


@dataclass(frozen=True)
class Needs:
    """All that a method needs from the data, the trainer and the rule. Declared once; nothing is guessed.

    Attributes:
        views: how many augmented views of each sample `step` gets, or their names with the augmentation of each ("" for
            that of the run).
        labels: whether samples must have targets ("required": those without are left out), may have them ("used"), or
            are trained on without ("unused": only a read-out looks at them).
        targets: the kinds of targets it can learn from, a subset of "classes", "labels", "number", "votes", "maps";
            empty for what its loss can.
        fields: what `batch.fields` must hold, "mask" for instance.
        grouped: name of a factor of the samples of which all samples of a batch have the same value; "" for any. The
            method need not be told which value.
        streams: further streams of samples by name.
        step: what a rule may do with it. "objective": the method is its objective of the network's features, so a rule
            may run the network in pieces of its own. "whole": only the whole step is defined.
        per_sample: whether the loss of a batch is the mean of the losses of its samples, so that a batch may be
            processed in parts. Not so where samples are compared with each other.
        within_rank: whether it compares the samples of a batch with each other beside its loss, which in several
            processes are those of each: its step makes pairs of them, say. A loss of its own that compares is a module
            inside it, and is given those of all.
        head: spec of the head that it brings where the user names none; empty for any. `{name}` in it stands for an
            option of the method, see :func:`brought_head`.
        takes_maps: whether it can train a head that looks at maps.
        dense: whether it can train a head that gives logits of every pixel, on targets that are maps.
        augmentation: the augmentation it was designed for; None for what suits the data.
        loss: spec of the loss that it brings where the user names none; empty for cross-entropy or none at all.
        defaults: options of the run that it was designed for, such as `{"optimizer": "adamw", "lr": 0.001}`; what the
            user gives goes first.
        reference: what it needs of another trained network: "teacher", or "" for nothing.
    """

    views: int | Mapping[str, str] = 1
    labels: Literal["required", "used", "unused"] = "unused"
    targets: frozenset[str] = frozenset()
    fields: frozenset[str] = frozenset()
    grouped: str = ""
    streams: Mapping[str, Stream] = field(default_factory=dict)
    step: Literal["objective", "whole"] = "objective"
    per_sample: bool = True
    within_rank: bool = False
    head: str = ""
    takes_maps: bool = False
    dense: bool = False
    augmentation: str | None = None
    loss: str = ""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    reference: Literal["", "teacher"] = ""

    def __deepcopy__(self, memo: dict[int, Any]) -> Needs:
        # A declaration never changes; what it holds may be of a kind that cannot be copied.
        return self

    @property
    def view_count(self) -> int:
        """Number of views of each sample."""
        return self.views if isinstance(self.views, int) else len(self.views)


@dataclass
class Step:
    """The result of one batch: a loss, and what to log.

    Attributes:
        loss: the scalar to minimise; the sum of `losses` where a method has several parts.
        logs: scalars to log, detached.
        losses: for a method with several parts, the loss of each part by name (see `Method.parts`).
    """

    loss: Tensor
    logs: dict[str, Tensor] = field(default_factory=dict)
    losses: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Stage:
    """A stage of training, of which an ordinary run has one.

    Attributes:
        index, count: which stage it is, from 0, and how many there are.
        classes: names of the classes known from this stage on, in the order of the logits.
        new: positions in `classes` of those that this stage brings.
        samples: size of its training set.
        epochs: how long it lasts.
        batches: gives the training set once over, in order, unchanged (not augmented, one view), on the method's
            device; for statistics of the data in `Method.begin` and `Method.end`. Nothing by default.
        remembered: likewise what is remembered of earlier stages, for a method with the stream `REPLAY`. Nothing by
            default.
    """

    index: int = 0
    count: int = 1
    classes: tuple[str, ...] = ()
    new: tuple[int, ...] = ()
    samples: int = 0
    epochs: int = 1
    batches: Callable[[], Iterable[Batch]] = field(default=tuple, repr=False, compare=False)
    remembered: Callable[[], Iterable[Batch]] = field(default=tuple, repr=False, compare=False)


class Method(nn.Module):
    """Owns modules and turns a batch into a loss.

    All state is in parameters and buffers, so that `state_dict` is a complete checkpoint; state that moves with
    training is a `repertoire.ops.Memory`. A method knows nothing of optimisers, devices or the order of data; a
    learning rule turns its loss into changed weights. What it needs from others it declares in `needs`.

    A class is either abstract or registered: a registered method is never derived from, so that nothing it declares can
    be half inherited.

    Attributes:
        model: the classifier inside: what is left when training is over.
        needs: what it declares; a property of the class, or of the instance where options decide.
        begins_anew: names of parameters and buffers that are about a training set (its counts, a row for each of its
            samples), so that the next stage of a run keeps its own. Modules inside a method may declare the same.
        takes_turns: whether a step trains some of its parameters, and other steps others; those that no gradient
            reaches in a step stay as they are in it.
    """

    model: Classifier
    needs: Needs = Needs()
    takes_turns: ClassVar[bool] = False
    begins_anew: ClassVar[frozenset[str]] = frozenset()

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "__init__" in vars(cls):
            cls.__init__ = checked(cls.__init__)  # type: ignore[method-assign]
        if "transform" in vars(cls):
            cls.transform = _once(cls.transform)  # type: ignore[assignment, method-assign]
        if not isinstance(cls.needs, Needs) or cls.needs.step != "objective":
            return
        for name, why in (
            ("step", "a rule cannot train it by its objective alone"),
            ("after_update", "what follows the weights needs all of them in one place"),
        ):
            if name in vars(cls):
                raise TypeError(f"{cls.__name__} defines {name}, so {why}: declare needs = Needs(step='whole', ...)")

    def transform(self, batch: Batch) -> Batch:
        """Changes a batch before the network sees it: mixes its samples, say. The batch itself by default, and where it
        has been changed already (`batch.transformed`), which a rule does that cuts it into pieces afterwards."""
        return batch

    def step(self, batch: Batch) -> Step:
        """The loss of one batch: that of the features of all its views."""
        batch = self.transform(batch)
        images = torch.cat(batch.views) if len(batch.views) > 1 else batch.images
        return self.objective(self.model.features(images), batch)

    def objective(self, features: Tensor, batch: Batch) -> Step:
        """The loss of a batch, given the features `[V * N, d]` of its V views, one after the other.

        Apart from `step` so that a rule can train the network piece by piece. It may look at targets, index and fields,
        and at how many views there are, but not at their pixels: those need not be where the features are. A method
        that needs them, more than one pass through its network, or streams declares `step="whole"` and overrides `step`
        instead.
        """
        raise NotImplementedError

    @property
    def block_loss(self) -> Callable[..., Tensor] | None:
        """The loss that a part of the network can be trained by alone, for rules without an end-to-end backward pass:
        called with class scores or embeddings as its contract says. None where the method has no such loss."""
        return None

    def parts(self) -> Mapping[str, nn.Module]:
        """The modules that are optimised apart, each by an optimiser of its own; rule `alternating` trains several."""
        return {"all": self}

    def begin(self, stage: Stage) -> None:
        """Called before the first epoch of a stage, when the head has its new width. Does nothing by default.

        The weights are those of the stage before, and so is what the method keeps in parameters and buffers, as far as
        its shape is the same or has grown by a row a class. Here is where it keeps a copy of the network as it was, or
        forgets what belonged to the samples of the stage before, or what it needs to know of the data
        (`stage.batches`). A run that is resumed calls it again, and then loads what it had: modules may be added, and
        must be the same ones.
        """

    def end(self, stage: Stage) -> None:
        """Called once, after the last epoch of a stage; what it leaves in parameters and buffers goes on to the next
        one. Does nothing by default."""

    def begin_epoch(self, epoch: int) -> None:
        """Called before each epoch, counted from 0 within the stage; a resumed run calls it again for the epoch in
        progress. Does nothing by default."""

    def after_update(self) -> None:
        """Called when the weights have changed: memories commit what they saw. Teachers follow here."""
        commit_memories(self)

    def forward(self, batch: Batch) -> Step:
        """`step`; what wrappers such as DistributedDataParallel call."""
        return self.step(batch)


def _once(transform: Callable[[Any, Batch], Batch]) -> Callable[[Any, Batch], Batch]:
    """A method's `transform` that leaves a batch as it is where that has been changed already."""

    @functools.wraps(transform)
    def changed(self: Any, batch: Batch) -> Batch:
        return batch if batch.transformed else transform(self, batch)

    return changed


def brought_head(spec: str | registry.Spec, factory: Callable[..., Method] | None = None) -> str:
    """The head that a method brings, given its options; "" where it brings none.

    Args:
        spec: of the method.
        factory: its class; that of the name in the registry if None.

    Example:
        >>> from repertoire.methods import brought_head
        >>> brought_head("experts:count=4"), brought_head("supervised")
        ('experts:count=4', '')
    """
    parsed = registry.parse(spec) if isinstance(spec, str) else spec
    made = factory or registry.get("methods", parsed.name).factory
    needs: Needs = getattr(made, "needs", Needs())
    if "{" not in needs.head:
        return needs.head
    options = registry.options(made, dict.fromkeys(registry.KINDS["methods"].supplied))
    values = {name: parameter.default for name, parameter in options.items()}
    values |= dict(zip(options, parsed.args, strict=False)) | dict(parsed.kwargs)
    return needs.head.format(**values)
