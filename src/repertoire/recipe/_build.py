"""From a configuration and data to everything that a run consists of."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from repertoire import registry
from repertoire.adapters import attach
from repertoire.backbones import load_weights
from repertoire.data import (
    Batch,
    ImageSet,
    Loader,
    Samples,
    Splits,
    StreamSource,
    build_augmentation,
    load_unlabelled,
    step_seed,
)
from repertoire.errors import ConfigError, DataError, option
from repertoire.losses import LogitsLoss, Loss
from repertoire.methods import REPLAY, Classifier, Method, Stage
from repertoire.recipe._config import TrainConfig
from repertoire.recipe._facts import Facts
from repertoire.recipe._frozen import entrance, frozen_splits
from repertoire.recipe._given import given_names
from repertoire.recipe._optim import make_optimizer
from repertoire.recipe._parts import (
    build_classifier,
    build_loss,
    build_method,
    is_pretrained,
    needs_of,
    takes_loss,
)
from repertoire.recipe._resolve import resolve
from repertoire.rules import Rule
from repertoire.tasks import Task

__all__ = ["Built", "StageStart", "build", "prepared"]

SMALL_BATCH = 64
"""Images at a time below which batch normalisation of a pretrained network keeps its statistics."""


@dataclass(frozen=True)
class StageStart:
    """Where a stage of training takes up.

    Attributes:
        stage: which one it is.
        state: of the method at the end of the stage before it; None for the first.
        classes: how many classes were known then.
    """

    stage: Stage
    state: Mapping[str, Tensor] | None = None
    classes: int = 0


@dataclass
class Built:
    """The parts of a run, ready to train.

    Attributes:
        config: resolved: nothing in it is open.
        facts: of the data.
        splits: what is trained on and evaluated: images, features, or what enters the first layer that learns.
        method: what is optimised, on the CPU or its device.
        loss: what it minimises, where the loss is the user's choice.
        notes: what a person should know, a sentence each.
        record: what run.json keeps of the start: where weights came from, and what matched.
        start: where it takes up, of a run that is one stage of several.
    """

    config: TrainConfig
    facts: Facts
    splits: Splits
    method: Method
    loss: Loss | None = None
    notes: list[str] = field(default_factory=list)
    record: dict[str, Any] = field(default_factory=dict)
    start: StageStart | None = None

    @property
    def task(self) -> Task:
        """What the targets are."""
        return self.facts.task

    @property
    def answer(self) -> Callable[[Tensor], Tensor] | None:
        """What reads the logits in the units of the target, where they are no scores of classes or labels."""
        return self.loss.predict if isinstance(self.loss, LogitsLoss) and self.task.kind == "number" else None

    @property
    def stage(self) -> Stage:
        """Which stage this is: the only one, of an ordinary run."""
        if self.start is not None:
            return self.start.stage
        names = self.splits.classes
        return Stage(
            classes=names, new=tuple(range(len(names))), samples=len(self.splits.train), epochs=self.config.epochs
        )

    def begun(self, device: str | torch.device = "cpu") -> Stage:
        """The stage, with its training set on a device; what `Method.begin` and `Method.end` take."""

        def once(samples: Samples) -> Callable[[], Iterator[Batch]]:
            samples = replace(samples, labels=self.task.encode(samples.labels))
            return partial(Loader(samples, self.config.batch_size, shuffle=False, device=device).epoch, 0)

        kept = self.splits.extra.get(REPLAY, ())
        found = replace(self.stage, batches=once(self.splits.train))
        return replace(found, remembered=once(kept)) if len(kept) and REPLAY in self.method.needs.streams else found

    def rule(self) -> Rule:
        """The learning rule, not set up yet.

        Raises:
            ConfigError: it cannot train the method.
        """
        rule: Rule = registry.build("rules", self.config.rule)
        return rule

    def make_optimizer(self, module: torch.nn.Module) -> torch.optim.Optimizer:
        """The optimiser of the method or of a piece of it; what `Rule.setup` takes."""
        return make_optimizer(self.config, module, self.method)

    def loader(self, *, device: str | torch.device = "cpu", rank: int = 0, world_size: int = 1) -> Loader:
        """The training batches: views, fields and streams as the method needs them."""
        config, needs = self.config, self.method.needs
        train = replace(self.splits.train, labels=self.task.encode(self.splits.train.labels))
        sources = {}
        for name, stream in needs.streams.items():
            samples = self.splits.extra.get(name)
            if samples is not None and len(samples):
                # The same for every process.
                size = max(1, math.ceil(config.batch_size * stream.per_sample / world_size - 1e-9)) * world_size
                sources[name] = StreamSource(samples, size, self._augmentation(), self._views(stream.views))
        return Loader(
            train,
            config.batch_size,
            augmentation=self._augmentation(),
            views=self._views(needs.views),
            fields=sorted(needs.fields),
            streams=sources,
            seed=config.seed,
            device=device,
            balanced=config.balanced,
            grouped=needs.grouped,
            rank=rank,
            world_size=world_size,
        )

    def _augmentation(self) -> Any:
        if not isinstance(self.splits.train, ImageSet):
            return None
        return build_augmentation(self.config.augment)

    def _views(self, views: int | Mapping[str, str]) -> int | dict[str, Any]:
        """How many views, or the augmentation of each by name: that of the run where it is empty. What is no image
        is left as it is there, and half left out where an augmentation is named."""
        if isinstance(views, int):
            return views
        make = build_augmentation if isinstance(self.splits.train, ImageSet) else _half_left_out
        return {name: make(spec) if spec else None for name, spec in views.items()}


def _half_left_out(spec: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """The strong view of vectors, for which there are no augmentations by name: half the features are zero, and the
    others twice as large."""
    return lambda stored: torch.nn.functional.dropout(stored.float(), 0.5)


def build(
    config: TrainConfig,
    splits: Splits,
    *,
    facts: Facts | None = None,
    device: torch.device | str = "cpu",
    weights: bool = True,
    report: Callable[[str], None] | None = None,
    stage_start: StageStart | None = None,
) -> Built:
    """Builds all parts of a run: the one way from a configuration to them.

    The first weights come from the configuration's seed, whatever random numbers were drawn before.

    Args:
        config: resolved or not.
        splits: the data.
        facts: of the data, where a run has stored them.
        device: where what frozen layers give is computed.
        weights: False where a checkpoint will bring all weights: nothing is fetched then.
        report: gets lines about what takes time.
        stage_start: where a stage of several takes up. The method is built for the samples of this stage, around the
            network of the stage before, whose head grows; what else that method had learned, it takes over.

    Raises:
        ConfigError, UnknownName: components that do not exist, or do not fit together or the data.
        DataError: the data is not what the method needs.

    Example:
        >>> from repertoire import recipe
        >>> config = recipe.make_config(data="digits", backbone="convnet:width=4,depth=2")
        >>> built = recipe.build(config, recipe.load_splits(config))
        >>> sorted(built.method.step(next(built.loader().epoch(0))).logs)
        ['accuracy', 'loss']
    """
    config = resolve(config, splits)
    facts = Facts.of(splits) if facts is None else facts
    splits, facts, notes = _with_missing_classes(config, splits, facts)
    if named := given_names(config.backbone, config.loss):
        notes.append(
            f"The {' and the '.join(named)} were given as modules, which are needed again to open this run elsewhere: "
            f"load(path, {', '.join(f'{name}=module' for name in named)})."
        )
    splits, more = prepared(config, splits)
    notes += more
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        loss = build_loss(config, facts, splits.train) if takes_loss(config) else None
        _check_targets(config, facts, loss)
        weights = weights and (stage_start is None or stage_start.state is None)
        model = build_classifier(config, facts, loss=loss, pretrained=weights)
        record = _start(config, model, facts) if weights else {}
        if config.adapter is not None:
            adapted = attach(model.backbone, config.adapter)
            record["adapter"] = {"layers": len(adapted.layers), "parameters": adapted.count}
            notes.append(f"{config.adapter} on {len(adapted.layers)} layers: {adapted.count:,} numbers learn in them.")
        if stage_start is not None and stage_start.state is not None:
            _take_up(config, model, stage_start)
        block = None
        if is_pretrained(config):
            # What an adapter changes is the frozen network, its statistics included.
            model.keeps_statistics = config.adapter is not None or config.batch_size // config.accumulate < SMALL_BATCH
            block = entrance(model, config.tune)
            # Before the method is made: a copy of the network that it keeps takes the same inputs.
            if config.adapter is None:
                model.enter_at(block)
        context: dict[str, Any] = {} if config.teacher is None else {"teacher": _teacher(config)}
        if "unlabelled" in splits.extra:
            context["unlabelled"] = len(splits.extra["unlabelled"])
        if splits.kind == "classes":
            context["counts"] = torch.from_numpy(splits.train.counts())
        method = build_method(config, model, loss, len(splits.train), **context)
        if method.needs.reference == "teacher" and config.teacher is None:
            raise ConfigError(
                f"method {registry.parse(config.method).name!r} learns from another run: give {option('teacher')}"
            )
        if stage_start is not None and stage_start.state is not None:
            _take_over(method, stage_start)
    _check_streams(config, method, splits)
    # Before anything is computed for a rule that could not train it.
    registry.build("rules", config.rule).check(method, accumulate=config.accumulate)
    if block is not None:
        if method.needs.view_count > 1 or any(s.view_count > 1 for s in method.needs.streams.values()):
            notes.append(
                "Views of what frozen layers give: the hard one has half of it left out. With all layers "
                f"({option('tune', 'all')}) it is an augmented image, which tells more and takes longer."
            )
        where = torch.device(device)
        splits = frozen_splits(
            model.to(where), splits, block, streams=method.needs.streams, device=where, report=report
        )
    return Built(config, facts, splits, method, loss, notes, record, stage_start)


def _take_up(config: TrainConfig, model: Classifier, start: StageStart) -> None:
    """Gives a network the weights of the stage before, and its head a row for each new class.

    Raises:
        ConfigError: the head cannot grow, or its outputs are no classes.
    """
    assert start.state is not None
    width, wanted = model.head.num_classes, len(start.stage.classes)
    if width != wanted:
        name = registry.parse(config.loss).name
        raise ConfigError(f"loss {name!r} has {width} outputs for {wanted} classes, which cannot grow with them")
    model.head = registry.build(
        "heads", config.head, in_features=model.backbone.out_features, num_classes=start.classes
    )
    before = {n.removeprefix("model."): value for n, value in start.state.items() if n.startswith("model.")}
    model.load_state_dict({name: before[name] for name in model.state_dict() if name in before})
    torch.manual_seed(step_seed(config.seed, start.stage.index, 2**64 - 3))
    model.head.grow(width)


@torch.no_grad()
def _take_over(method: Method, start: StageStart) -> None:
    """Gives a method what that of the stage before had learned beside the network.

    Tensors of the same name and shape are taken over, and the rows of those that have one more for each new class. What
    a module declares in `begins_anew` says something about the training set of a stage, and stays as it was built. So
    does what a loss keeps in buffers (counts of classes, memories of samples), and what only the one before had: a
    method makes that in `begin`.
    """
    assert start.state is not None
    parameters = {name for name, _ in method.named_parameters()}
    anew = {
        f"{prefix}.{name}" if prefix else name
        for prefix, module in method.named_modules()
        for name in getattr(type(module), "begins_anew", ())
    }
    for name, own in method.state_dict().items():
        before = start.state.get(name)
        if before is None or name in anew or name.startswith("model."):
            continue
        if name.startswith("loss.") and name not in parameters:
            continue
        if before.shape == own.shape:
            own.copy_(before)
        elif before.shape[1:] == own.shape[1:] and (len(before), len(own)) == (
            start.classes,
            len(start.stage.classes),
        ):
            own[: len(before)] = before


def _check_targets(config: TrainConfig, facts: Facts, loss: Loss | None) -> None:
    """Refuses a loss or a method that cannot learn from the targets there are."""
    kind, needs = facts.task.kind, needs_of(config)
    method = registry.parse(config.method).name
    if kind == "maps" and not needs.dense:
        raise ConfigError(
            f"method {method!r} learns from, or is read out by, one answer for an image, and this data has a class for "
            f"every pixel: use {option('method', 'supervised')}"
        )
    if needs.labels == "required" and kind == "none":
        raise DataError(
            f"method {method!r} needs labels, and this data has none: put the images into a directory for each class, "
            f"or learn without labels, with {option('method', 'simclr')}"
        )
    if loss is not None and kind != "none":
        # A loss on views looks at no target; what is read out of the features then are classes.
        takes = loss.targets or ("classes",)
        if kind not in takes and not (kind in ("votes", "maps") and "classes" in takes):
            fits = sorted(e.name for e in registry.entries("losses") if kind in getattr(e.factory, "targets", ()))
            raise ConfigError(
                f"loss {registry.parse(config.loss).name!r} is for {_called(takes)}, and this data has "
                f"{_called((kind,))}; losses for it: {', '.join(fits[:8])}"
            )
    elif needs.targets and kind not in needs.targets and kind != "none":
        raise ConfigError(
            f"method {method!r} is for {_called(tuple(sorted(needs.targets)))}, and this data has {_called((kind,))}"
        )


def _check_streams(config: TrainConfig, method: Method, splits: Splits) -> None:
    """Refuses a method that learns from samples that are not there."""
    for name, stream in method.needs.streams.items():
        if not stream.optional and not len(splits.extra.get(name, ())):
            raise DataError(
                f"method {registry.parse(config.method).name!r} learns from {name} samples too, and there are none: "
                f"give a folder with --{name}, put one beside the classes, or keep only some labels with "
                f"{option('labels', 4)}"
            )


def _called(kinds: tuple[str, ...]) -> str:
    words = {
        "classes": "one class each",
        "labels": "several labels each",
        "number": "numbers",
        "votes": "classes from several annotators",
        "maps": "a class for every pixel",
        "none": "no targets",
    }
    return " or ".join(words.get(kind, kind) for kind in kinds)


def prepared(config: TrainConfig, splits: Splits) -> tuple[Splits, list[str]]:
    """The splits with the streams that the options make, and without what the method has no use for.

    Args:
        config: of which `labels`, `unlabelled`, `seed` and the method count.
        splits: the data as it is.

    Returns:
        The splits, and what a person should know about them, a sentence each.

    Raises:
        DataError: a class has fewer samples than labels are to be kept, or the unlabelled samples cannot be used.

    Example:
        >>> from repertoire import recipe
        >>> config = recipe.make_config(data="digits", labels=4, method="fixmatch")
        >>> splits, notes = recipe.prepared(config, recipe.load_splits(config))
        >>> len(splits.train), len(splits.extra["unlabelled"]) > 1000
        (40, True)
    """
    notes = []
    needs = needs_of(config)
    train: Samples = splits.train
    extra = dict(splits.extra)
    more: list[Samples] = []
    if config.labels is not None:
        keep, rest = _some_labels(train, config.labels, config.seed)
        more.append(train.subset(rest))
        train = train.subset(keep)
        notes.append(f"{len(keep)} training {train.noun}s keep their label, {len(rest)} are unlabelled.")
    if config.unlabelled is not None:
        more.append(load_unlabelled(config.unlabelled, like=splits.train, fit=config.fit, levels=splits.levels))
        notes.append(f"{len(more[-1]):,} {train.noun}s without labels from {Path(config.unlabelled).name}.")
    if more and "unlabelled" in needs.streams:
        if "unlabelled" in extra:
            beside = extra["unlabelled"]
            # Those of the training part are among the others, whose labels were set aside.
            new = np.ones(len(beside), bool) if config.labels is None else ~np.isin(beside.keys, splits.train.keys)
            more.append(beside.subset(np.flatnonzero(new)))
        extra["unlabelled"] = _together([samples for samples in more if len(samples)] or more[:1])
    known = train.known
    if needs.labels == "required" and not known.all() and known.any():
        without = np.flatnonzero(~known)
        if "unlabelled" in needs.streams and "unlabelled" not in extra:
            extra["unlabelled"] = train.subset(without)
        elif "unlabelled" not in needs.streams:
            notes.append(f"{len(without)} training {train.noun}s have no label, and this method has no use for them.")
        train = train.subset(np.flatnonzero(known))
    return replace(splits, train=train, extra=extra), notes


def _together(parts: Sequence[Samples]) -> Samples:
    """Several sets as one, which is copied into memory; a single one as it is."""
    if len(parts) == 1:
        return parts[0]
    inputs = np.concatenate([part.inputs(slice(None)) for part in parts])
    stored = {"images": inputs, "masks": None} if isinstance(parts[0], ImageSet) else {"features": inputs}
    return replace(
        parts[0],
        **stored,
        labels=np.concatenate([part.labels for part in parts]),
        names=[name for part in parts for name in part.names],
        keys=np.concatenate([part.keys for part in parts]),
        factors={},
        rows=None,
    )


_UNNAMED = "unnamed "
"""What classes are called that a method is to find by itself, each with its number."""


def _with_missing_classes(config: TrainConfig, splits: Splits, facts: Facts) -> tuple[Splits, Facts, list[str]]:
    """The data and its facts with a name for each class that nobody named, where a method is to find such classes.

    That is a method with an option `missing_classes`: its head has so many more outputs.
    """
    spec = registry.parse(config.method)
    if "missing_classes" not in registry.options(registry.get("methods", spec.name).factory):
        return splits, facts, []
    try:
        count = int(spec.kwargs.get("missing_classes", 0))
    except (TypeError, ValueError):
        return splits, facts, []  # the method says what it expected
    if count < 1 or splits.kind != "classes":
        return splits, facts, []
    more = tuple(f"{_UNNAMED}{number}" for number in range(1, count + 1))

    def named(samples: Samples) -> Samples:
        return samples if samples.classes[-count:] == more else replace(samples, classes=(*samples.classes, *more))

    extra = {name: named(samples) for name, samples in splits.extra.items()}
    splits = replace(splits, train=named(splits.train), val=named(splits.val), test=named(splits.test), extra=extra)
    if facts.task.names[-count:] != more:
        facts = replace(facts, task=type(facts.task)((*facts.task.names, *more)))
    return splits, facts, [f"{count} outputs are for classes that nobody named: {', '.join(more)}."]


def _some_labels(samples: Samples, each: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions of `each` samples of every class, drawn by the seed, and of all others."""
    if samples.kind != "classes":
        raise ConfigError("labels keeps some labels of each class, and these samples have no class each")
    generator = np.random.Generator(np.random.Philox(seed))
    order = generator.permutation(len(samples))
    keep: list[np.ndarray] = []
    for k, count in enumerate(samples.counts()):
        if not count and samples.classes[k].startswith(_UNNAMED):
            continue
        if count < each:
            raise DataError(
                f"class {samples.classes[k]!r} has {count} training samples, fewer than {option('labels', each)}"
            )
        keep.append(order[samples.labels[order] == k][:each])
    chosen = np.sort(np.concatenate(keep))
    return chosen, np.setdiff1d(np.arange(len(samples)), chosen)


def _start(config: TrainConfig, model: Classifier, facts: Facts) -> dict[str, Any]:
    """Loads the weights that a run starts from, and says what became of them."""
    source = config.weights if config.weights is not None else config.start
    if source is None:
        preset = model.backbone.preset
        return {} if preset is None else {"pretrained": preset.source}
    if config.start is not None:
        from repertoire.recipe._stored import check_whole

        check_whole(config.start)
    if config.start is not None and not model.backbone.state_dict():
        # Features go straight to the head, which is all that there is to start from.
        return {"head": _start_head(config.start, model, facts)}
    report = load_weights(model.backbone, source, download=config.download)
    record: dict[str, Any] = {"weights": report.record()}
    preset = model.backbone.preset
    if preset is not None and facts.modality == "images":
        preset = preset.for_channels(facts.channels)
        model.normalize.set(preset.mean, preset.std)
    if config.start is not None:
        record["head"] = _start_head(config.start, model, facts)
    return record


def _start_head(path: str, model: Classifier, facts: Facts) -> str:
    """Takes over the rows of a run's head for classes of the same name, where the head is of the same kind."""
    from repertoire.recipe._stored import stored_head

    names, modality, state = stored_head(path)
    if modality != facts.modality:
        raise ConfigError(f"start is {path!r}, which is a run on {modality}, and this data holds {facts.modality}")
    own = model.head.state_dict()
    if set(own) != set(state) or any(own[k].shape[1:] != state[k].shape[1:] for k in own):
        return "fresh: the other run's head is of another kind"
    places = [(new, names.index(name)) for new, name in enumerate(facts.task.names) if name in names]
    rows = {k: v for k, v in own.items() if v.ndim and len(v) == len(facts.task.names) and len(state[k]) == len(names)}
    if not places or set(rows) != set(own):
        return "fresh: no class has the name of one of the other run"
    for key, value in rows.items():
        for new, old in places:
            value[new] = state[key][old]
    model.head.load_state_dict(rows)
    return f"{len(places)} of {len(facts.task.names)} classes taken over"


def _teacher(config: TrainConfig) -> Classifier:
    from repertoire.recipe._stored import stored_classifier

    assert config.teacher is not None
    return stored_classifier(config.teacher).requires_grad_(False)
