"""What a configuration leaves open, decided from data, weights and components."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from repertoire import registry
from repertoire.data import ImageSet, Samples, Splits
from repertoire.data import pinned as data_pinned
from repertoire.errors import ConfigError, UnknownName, option
from repertoire.losses import LogitsLoss
from repertoire.methods import Needs, brought_head
from repertoire.recipe._config import TrainConfig
from repertoire.recipe._optim import learning_rate, weight_decay
from repertoire.recipe._parts import DEFAULT_LOSSES, is_pretrained, needs_of, only_head, takes_loss, wants_pretrained
from repertoire.tasks import task_of

__all__ = ["pinned", "resolve", "stem"]

STEPS = 200
"""Steps that a run has at least, unless its epochs are given: an epoch of three steps is none."""


def resolve(config: TrainConfig, splits: Splits) -> TrainConfig:
    """Replaces what was left open by what data, weights, loss and batch call for; only the device stays the machine's.

    Resolving a resolved configuration changes nothing.

    Raises:
        ConfigError: options that exclude each other.
    """
    config = _mixing(config)
    train = splits.train
    images = isinstance(train, ImageSet)
    changes: dict[str, Any] = {"size": max(train.size) if images else None}

    def now() -> TrainConfig:
        return config.model_copy(update=changes)

    if config.backbone == "auto":
        changes["backbone"] = _backbone(config, splits)
    _check_start(config)
    task = task_of(train)
    if config.method == "auto":
        loss = config.loss if config.loss != "auto" else task.loss
        factory = registry.get("losses", registry.parse(loss).name).factory
        on_logits = isinstance(factory, type) and issubclass(factory, LogitsLoss)
        changes["method"] = "supervised" if on_logits else "embedding"
        if task.kind == "none":
            changes["method"] = "simclr" if config.loss == "auto" else "embedding"
    needs = needs_of(now())
    changes |= _designed_for(config, now(), needs)
    if config.loss == "auto":
        changes["loss"] = (needs.loss or task.loss) if takes_loss(now()) else DEFAULT_LOSSES[1]
    changes["tune"] = _tune(now(), task.kind)
    if config.head == "auto":
        given = only_head(now()) or is_pretrained(now())
        plain = "dense" if task.kind == "maps" else "linear"
        changes["head"] = brought_head(now().method) or (f"{plain}:zero=true" if given else plain)
    if config.augment == "auto":
        if not images or changes["tune"] not in ("all", "auto"):
            changes["augment"] = "none"
        else:
            # What moves digits about is all that digits can bear: a view of a flipped or cropped 6 is no longer a 6.
            wanted = _augmentation_of_loss(now()) or needs.augmentation
            photographs = splits.augmentation == "crop-flip" and max(train.size) > 64
            natural = "photo" if photographs and "photo" in registry.names("augmentations") else splits.augmentation
            changes["augment"] = wanted if wanted and splits.augmentation != "shift" else natural
    _settle_steps(config, now(), _taught(now(), train), changes)
    changes |= {"lr": learning_rate(now()), "weight_decay": weight_decay(now())}
    return now()


_MIXES = ("mixup", "cutmix")
"""What mixes the samples of a batch, and so their targets too: a matter of the method."""


def _mixing(config: TrainConfig) -> TrainConfig:
    """The configuration with what its augmentation says of mixing said by method and loss, as in
    `crop-flip+mixup:alpha=1,decoupled=0.1`.

    Raises:
        ConfigError: a method or a loss for which that cannot be said.
    """
    parts = re.split(r"\+(?=\s*[a-z])", config.augment)
    mixes = [spec for part in parts if (spec := registry.parse(part)).name in _MIXES]
    if not mixes:
        return config
    if len(mixes) > 1:
        raise ConfigError(f"augment {config.augment!r} mixes samples twice: name one of {' and '.join(_MIXES)}")
    options = {**dict(zip(("alpha",), mixes[0].args, strict=False)), **mixes[0].kwargs}
    for name in options.keys() - {"alpha", "decoupled"}:
        raise UnknownName(f"option of augmentation {mixes[0].name!r}", name, ["alpha", "decoupled"])
    method = "supervised" if config.method == "auto" else config.method
    if "mix" not in registry.options(registry.get("methods", registry.parse(method).name).factory):
        raise ConfigError(
            f"augment {config.augment!r} mixes samples, which method {method!r} does not: use "
            f"{option('method', 'supervised')}, fixmatch or unlabelled-loss"
        )
    more = f"mix={mixes[0].name}" + (f",alpha={options['alpha']}" if "alpha" in options else "")
    changes = {"method": f"{method}{',' if ':' in method else ':'}{more}"}
    if "decoupled" in options:
        if config.loss not in DEFAULT_LOSSES:
            raise ConfigError(
                f"augment {config.augment!r} asks for loss decoupled-mixup, and {option('loss', config.loss)} for "
                "another one; leave one of them out"
            )
        changes["loss"] = f"decoupled-mixup:eta={options['decoupled']}"
    rest = [part for part in parts if registry.parse(part).name not in _MIXES]
    return config.model_copy(update={**changes, "augment": "+".join(rest) or "auto"})


def _designed_for(given: TrainConfig, config: TrainConfig, needs: Needs) -> dict[str, Any]:
    """The options that a method was designed for, of those that the user left open.

    A learning rate and what goes with it belong to an optimiser and to random weights: for others they are chosen anew.
    """
    values = {name: value for name, value in needs.defaults.items() if not given.given(name)}
    optimizer = needs.defaults.get("optimizer", given.optimizer)
    if is_pretrained(config) or (given.given("optimizer") and given.optimizer != optimizer):
        values = {name: value for name, value in values.items() if name not in ("lr", "weight_decay", "momentum")}
    if is_pretrained(config):
        # Of a larger network a batch takes more memory: it is settled as for any other method.
        values.pop("batch_size", None)
    return values


def _backbone(config: TrainConfig, splits: Splits) -> str:
    if not isinstance(splits.train, ImageSet):
        return "identity"
    if config.start is not None:
        return _started(config.start)
    if wants_pretrained(config, splits):
        return "lite0"
    size = max(splits.train.size)
    return "convnet" if size <= 16 else "resnet20" if size <= 64 else "resnet20:width=32"


def _started(path: str) -> str:
    """The backbone of a run to start from."""
    from repertoire.recipe._config import read_config

    file = Path(path) / "config.yaml"
    if not file.is_file():
        raise ConfigError(f"start is {path!r}, which is not the directory of a run: it has no config.yaml")
    return str(read_config(file).get("backbone", "auto"))


def _check_start(config: TrainConfig) -> None:
    given = [name for name in ("weights", "start", "from_scratch") if getattr(config, name)]
    if len(given) > 1:
        raise ConfigError(
            f"{' and '.join(given)} exclude each other: weights of a file, of a run, or none to start from"
        )


def _augmentation_of_loss(config: TrainConfig) -> str:
    """The augmentation that a loss was designed for; empty for that of the method."""
    if not takes_loss(config):
        return ""
    return str(getattr(registry.get("losses", registry.parse(config.loss).name).factory, "augmentation", ""))


def _tune(config: TrainConfig, kind: str) -> str:
    """What learns."""
    needs = needs_of(config)
    frozen = config.tune == "head" or config.tune.startswith("last:")
    if config.adapter is not None:
        _check_adapter(config, frozen)
        return "all"
    if config.tune == "all" or (not is_pretrained(config) and not frozen):
        return "all"
    if frozen and not is_pretrained(config):
        raise ConfigError(
            f"tune {config.tune} trains on what pretrained layers see, and backbone {config.backbone!r} has random "
            f"weights: name one with weights, such as lite0, or give {option('weights')} or {option('start')}"
        )
    moving = f"targets that are maps move with the images: use {option('tune', 'all')}"
    whole = moving if kind == "maps" else _why_whole(config)
    if frozen and whole:
        raise ConfigError(f"tune {config.tune} computes what frozen layers give once, and {whole}")
    return "all" if whole or needs.labels != "required" else config.tune


def _check_adapter(config: TrainConfig, frozen: bool) -> None:
    if frozen:
        raise ConfigError(
            f"adapter {config.adapter} changes all layers of the network, and tune {config.tune} computes what they "
            f"give once: leave {option('tune')} out"
        )
    if not is_pretrained(config):
        raise ConfigError(
            f"adapter {config.adapter} changes a network that has learned something, and backbone {config.backbone!r} "
            f"has random weights: name one with weights, such as lite0, or give {option('weights')} or "
            f"{option('start')}"
        )
    if registry.parse(config.rule).name in ("local", "tpsgd"):
        raise ConfigError(f"rule {config.rule!r} trains the layers themselves, which adapter {config.adapter} freezes")


def _why_whole(config: TrainConfig) -> str:
    """Why frozen layers cannot be computed once; empty if they can.

    A method whose views differ by name can: those of features do as well (`Built.loader`). Not so one that counts its
    views, which would all be the same, or that asks for more than the augmentation of any supervised run, without which
    frozen layers always go.
    """
    needs = needs_of(config)
    name = registry.parse(config.method).name
    counted = [views for views in (needs.views, *(s.views for s in needs.streams.values())) if isinstance(views, int)]
    if any(views != 1 for views in counted) or needs.augmentation not in (None, "crop-flip"):
        return (
            f"method {name!r} needs new views of every image in every epoch: use {option('tune', 'all')}, or a method "
            "that learns from one view, such as vat or unlabelled-loss"
        )
    way_out = f": use {option('tune', 'all')}"
    if needs.fields:
        return f"method {name!r} needs more than the images' features{way_out}"
    if needs.takes_maps:
        return f"method {name!r} looks at maps{way_out}"
    if needs.reference:
        return f"the teacher of method {name!r} looks at images{way_out}"
    if registry.parse(config.rule).name not in ("backprop", "sam"):
        return f"rule {config.rule!r} trains the layers itself{way_out}"
    return ""


def _taught(config: TrainConfig, train: Samples) -> int:
    """How many training samples an epoch has: those with a label alone, where a method needs them. Whatever it has
    beside these comes with them, so that methods with unlabelled samples and without take as many steps."""
    if needs_of(config).labels != "required" or train.kind not in ("classes", "labels"):
        return len(train)
    known = int(train.known.sum())
    if config.labels is None or train.kind != "classes":
        return known
    return min(known, config.labels * int((train.counts() > 0).sum()))


def _settle_steps(given: TrainConfig, config: TrainConfig, count: int, changes: dict[str, Any]) -> None:
    """Batch, epochs and optimiser, where the user left them to the data."""
    head = only_head(config)
    tuned = head or config.tune != "all" or is_pretrained(config)
    if not given.given("batch_size") and (is_pretrained(config) or "batch_size" not in needs_of(config).defaults):
        largest = 512 if head else 32 if tuned and config.tune in ("all", "auto") else 128
        if tuned and not head:
            # Those of the streams pass through the network too, in all their views.
            beside = [s.per_sample * s.view_count for s in needs_of(config).streams.values() if not s.optional]
            largest = int(largest / (1 + sum(beside)))
        # An epoch has sixteen steps at least; of a head, where each costs more than its samples do, four.
        share = count / (4 if head else 16)
        changes["batch_size"] = max(8, min(largest, 2 ** int(math.log2(max(8, share)))))
    batch = changes.get("batch_size", config.batch_size)
    floor = 300 if head else STEPS
    if not given.given("epochs") and "epochs" not in needs_of(config).defaults:
        usual = 60 if head else {"all": 10 if tuned else 20, "auto": 10}.get(config.tune, 20)
        # A batch has no more samples than there are.
        needed = math.ceil(floor * min(batch, count) / max(1, count))
        changes["epochs"] = max(usual, min(max(200, floor), needed))
    if not given.given("optimizer") and "optimizer" not in needs_of(config).defaults and tuned:
        changes["optimizer"] = "adamw"
        if given.momentum == TrainConfig.model_fields["momentum"].default:
            changes["momentum"] = 0.9


def pinned(config: TrainConfig) -> TrainConfig:
    """Makes the paths that exist absolute, so that the run can be opened from anywhere."""
    changes: dict[str, str] = {}
    for name in ("data", "weights", "start", "teacher", "unlabelled"):
        value = getattr(config, name)
        if value is not None:
            changes[name] = data_pinned(value) if name == "data" else _absolute(value)
    return config.model_copy(update=changes)


def _absolute(path: str) -> str:
    return str(Path(path).resolve()) if Path(path).exists() else path


def stem(data: str) -> str:
    """A name for the run's directory from that of its data."""
    name = Path(data).name or Path(data).resolve().name
    stem = "".join(c if c.isalnum() or c in "-_" else "-" for c in name.split(":")[0].removesuffix(".npz"))
    return stem.strip("-") or "run"
