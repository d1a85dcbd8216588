"""One more stage for a run that is there: new samples, and classes that it does not know yet."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from repertoire import registry
from repertoire.data import Samples, Splits, alike, digest, source_of, with_channels
from repertoire.errors import ConfigError, DataError, Interrupted, RepertoireError, RunError, ascii_path, option
from repertoire.files import write_json
from repertoire.losses import LogitsLoss
from repertoire.methods import REPLAY, Method, Stage
from repertoire.protocols._measure import measure
from repertoire.protocols._memory import Keep, Memory, Store, copied, stacked
from repertoire.protocols._outcome import Outcome, as_matrix, state_bytes
from repertoire.protocols._patches import SHARE, Patches, memory_of
from repertoire.recipe import (
    IN_MEMORY,
    Facts,
    StageStart,
    TrainConfig,
    build,
    import_plugins,
    layout,
    load_splits,
    make_config,
    needs_of,
    pinned,
    stem,
    takes_loss,
)
from repertoire.train import Run, RunDirectory, complete, fit, last_state, outputs

__all__ = ["CONTINUED", "Continued", "add_stage"]

FOLDER = "stages"
"""Beside what every run holds: what is known of its stages, and what is kept of them."""

_FILES = ("memory.npz", "stages.json", "outcome.json", "report.html")

_ANEW = ("data", "method", "epochs", "batch_size", "lr", "pipeline", "gather", "strategy", "teacher", "unlabelled")
"""Options that are not those of the run before: of another data set, or decided by its size."""

_OF_THE_RUN = ("backbone", "weights", "start", "from_scratch", "head", "adapter", "size", "fit")
"""What the weights that are there decide."""

_OTHERWISE = ("data", "method", "memory", "pipeline")
"""Options that mean something else here, or nothing."""

CONTINUED = tuple(name for name in TrainConfig.model_fields if name not in (*_OF_THE_RUN, *_OTHERWISE))
"""Options of a run that another stage of it may be given."""


@dataclass(frozen=True)
class Continued:
    """What `add_stage` leaves behind.

    Attributes:
        run: the network that knows the old classes and the new ones.
        outcome: accuracy on the test samples of each stage whose data is still there, after each.
        notes: what a person should know, a sentence each; without those that were shown when training began.
    """

    run: Run
    outcome: Outcome
    notes: tuple[str, ...]


def add_stage(
    run: str | os.PathLike[str] | Run,
    data: Any,
    *,
    by: str = "replay",
    memory: int | str = 200,
    keep: Keep = "reservoir",
    store: Store = "whole",
    share: float = SHARE,
    out: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    quiet: bool = True,
    plugins: Sequence[str] = (),
    **fields: Any,
) -> Continued:
    """Trains a run further on new data, whose classes it may know or not, and says what it forgot.

    The network, its head and what its method had learned are where training begins; the head gets a row for each class
    that is new. The run that was there stays as it is. Of its data, only what `memory` allows is trained on again, and
    only by methods that ask for it (the stream "replay"): taken from the training samples where they are still there,
    and later from what the run before has kept. Test samples of earlier stages are looked at to measure what was
    forgotten, where their data is still there; copies of them are not trained on, and copies of what earlier stages
    learned are not tested on.

    Called again with the same arguments, it goes on where it was interrupted, and ends in the same weights.

    Args:
        run: the run, or its directory: one that `train` or `fit` made, or this function.
        data: as for `fit`: a folder with a directory for each class, or a file; images for a run on images, features of
            the same network for one on features. Classes of the same name are the same.
        by: the method that learns them, or its spec; "replay" (default), "supervised" to see what is forgotten if
            nothing is done about it, or any that learns classes; see the family continual.
        memory: what may be kept for methods that replay: a number of samples (default 200), or an amount such as 20MB.
        keep: "reservoir" (default), "herding" or "typical"; see :class:`repertoire.protocols.Memory`.
        store: in which form: "whole" (default), or "patches", a random few of each image, where `by` is the method that
            the run was trained by and draws the others, such as "mae-cil"; see :class:`repertoire.protocols.Patches`.
        share: of the patches of an image that are kept, above 0 and below 1; a quarter by default.
        out: directory; `runs/RUN-DATA` if None.
        overwrite: begin again, whatever lies there.
        quiet: show nothing while training.
        plugins: modules that the run was trained with, which are imported only if they are named again.
        fields: options of `TrainConfig`, such as `epochs=10`. What is not given is as in the run, but for the number of
            epochs, the size of a batch and the learning rate, which the new data decides.

    Raises:
        RunError: the run is not finished, or another one lies at `out`.
        ConfigError: the method or the head cannot learn further classes, or an option is the run's.
        DataError: the data cannot be used, or has no classes.
        Interrupted: the user pressed Ctrl-C; called again, it goes on.

    Example:
        >>> from repertoire.protocols import add_stage
        >>> found = add_stage("runs/photos-1", "new-classes/", by="replay", memory="20MB")  # doctest: +SKIP
        >>> found.outcome.metrics["forgetting"], len(found.run.classes)  # doctest: +SKIP
        (0.021, 7)
    """
    before = run if isinstance(run, Run) else Run(run, plugins=plugins)
    adding = _Adding(before, data, by, _Kept(memory, keep, store, share), fields, plugins)
    place = Path("runs") / f"{before.path.resolve().name}-{stem(str(data))}" if out is None else Path(out)
    if place.resolve() == before.path.resolve():
        raise RunError(f"{before.directory} is what it begins from, and stays as it is; choose another {option('out')}")
    try:
        return adding.into(place, overwrite=overwrite, quiet=quiet)
    except Interrupted:
        raise Interrupted("stopped and saved; the same command goes on") from None


@dataclass(frozen=True)
class _Kept:
    """What may be kept, and how; see `add_stage`."""

    memory: int | str
    keep: Keep
    store: Store
    share: float

    def __post_init__(self) -> None:
        # Refuses what is out of range.
        if self.store not in ("whole", "patches"):
            raise ConfigError(f"store must be 'whole' or 'patches', found {self.store!r}")
        Memory(self.memory, self.keep)
        Patches(self.memory, self.keep, side=2, size=2, share=self.share)


class _Adding:
    """One more stage, and what comes before it."""

    def __init__(
        self,
        before: Run,
        data: Any,
        by: str,
        kept_how: _Kept,
        fields: dict[str, Any],
        plugins: Sequence[str],
    ) -> None:
        self.before, self.kept = before, kept_how
        self.notes: list[str] = []
        if before.info["status"] != "finished":
            raise RunError(f"{before.directory} is {before.info['status']}, and only a finished run can learn further")
        if before.task.kind != "classes":
            raise ConfigError(
                f"{before.directory} does not tell classes apart, so that no class can be added; to go on from its "
                f"weights: repertoire train {ascii_path(str(data))} {option('start', str(before.path))}"
            )
        if wrong := [name for name in fields if name in (*_OF_THE_RUN, "data", "method")]:
            raise ConfigError(f"{option(wrong[0])} is that of {before.directory}, whose weights are where this begins")
        kept = {n: v for n in TrainConfig.model_fields if n not in _ANEW for v in [getattr(before.config, n)]}
        kept = {name: value for name, value in kept.items() if value is not None}
        if not isinstance(before.loss, LogitsLoss) or not takes_loss(before.config.model_copy(update={"method": by})):
            del kept["loss"]
        kept |= {"data": str(data), "method": by, "plugins": tuple(plugins)} | fields
        self.config = pinned(make_config(**kept))
        import_plugins(self.config)
        if layout(self.config) != (1, 1):
            raise ConfigError("a stage is trained by one process: start without torchrun")
        self.chain = _chain(before)
        kinds = {"features" if source_of(str(data)) == "features" else "images", before.facts.modality}
        if len(kinds) > 1:
            raise DataError(
                f"{before.directory} was trained on {before.facts.modality}, and {ascii_path(str(data))} holds others"
            )
        self.splits = load_splits(self.config, single=True)
        if self.splits.kind != "classes":
            raise DataError(f"{self.splits.source} has no class for each {self.splits.train.noun}")
        if needs_of(self.config).labels != "required":
            raise ConfigError(
                f"method {by!r} learns no classes; name one that does, or train on {ascii_path(str(data))} with "
                f"{option('start', str(before.path))}"
            )
        # Of what was read: whoever reads it again for the next stage compares it with that.
        self.digest = digest(self.splits)
        self.splits = _as_the_run_takes_it(before, self.splits)
        old = before.classes
        self.classes = (*old, *(name for name in self.splits.classes if name not in old))
        self.notes += (note for note in alike(self.splits.source, self.classes) if note not in self.splits.notes)
        self.index = len(self.chain)
        earlier = {link["name"] for link in self.chain}
        self.name = stem(self.config.data)
        if self.name in earlier:
            self.name = f"{self.name} ({self.index + 1})"

    def into(self, place: Path, *, overwrite: bool, quiet: bool) -> Continued:
        """Trains the stage where it is not done yet, and measures it."""
        folder = place / FOLDER
        settings = self._settings()
        directory = RunDirectory(place)
        goes_on = directory.occupied and not overwrite
        if goes_on:
            found = directory.read_info().get("continued") or {}
            if found.get("settings") != settings["settings"]:
                raise RunError(
                    f"{directory} holds another run; replace it: {option('overwrite', True)}, or choose another "
                    f"{option('out')}"
                )
        memory = self._remembered()
        splits, evaluated = self._stage_splits(memory)
        new = tuple(range(len(self.before.classes), len(self.classes)))
        stage = Stage(self.index, self.index + 1, self.classes, new, len(splits.train), self.config.epochs)
        alone = self.config.model_copy(update={"data": IN_MEMORY})
        record = {
            "stage": {"name": self.name, "number": self.index + 1, "of": self.index + 1, "data": self.config.data},
            "continued": settings,
        }
        go: Callable[..., Run] = complete if goes_on else partial(fit, overwrite=True)
        # An older run gives way when all that can be refused has been, and to the process that holds the directory.
        try:
            start = StageStart(stage, self._state(), len(self.before.classes))
            run = go(config=alone, out=place, splits=splits, quiet=quiet, stage_start=start, record=record)
        except ConfigError as error:
            brought, has = needs_of(self.config).head, self.config.head
            if not brought or registry.parse(brought).name == registry.parse(has).name:
                raise
            raise ConfigError(
                f"{error}. The head of {self.before.directory} is {has!r} and stays: name another {option('by')}, or "
                f"begin with a run of {option('method', self.config.method)}"
            ) from None
        folder.mkdir(exist_ok=True)
        # So that they go with the run when it is replaced: another one must not remember what this one has seen.
        directory.record(*(folder / name for name in _FILES), growing=True)
        if memory is not None:
            memory.update(
                splits.train,
                lambda samples: self._features(run, samples),
                lambda: self._method(last_state(run.path), len(self.classes)),
            )
            memory.save(folder / "memory.npz")
        outcome = self._outcome(run, folder, evaluated, memory)
        shown = () if quiet or goes_on else run.info.get("notes", ())
        return Continued(run, outcome, tuple(note for note in self.notes if note not in shown))

    def _settings(self) -> dict[str, Any]:
        config = self.config.model_dump(mode="json")
        # The weights stand for the run: it may lie elsewhere by now, and another may lie where it was.
        weights = hashlib.blake2b(digest_size=16)
        for name, value in sorted(self.before.model.state_dict().items()):
            weights.update(name.encode())
            weights.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        kept = {"memory": str(self.kept.memory), "keep": self.kept.keep}
        if self.kept.store != "whole":
            kept |= {"store": self.kept.store, "share": str(self.kept.share)}
        content = json.dumps([config, *kept.values(), self.digest, weights.hexdigest()], sort_keys=True)
        return {
            "from": str(self.before.path.resolve()),
            **kept,
            "settings": hashlib.blake2b(content.encode(), digest_size=8).hexdigest(),
        }

    def _state(self) -> dict[str, Tensor]:
        """What the method of the run before had learned, around the network that it gives."""
        try:
            state = dict(last_state(self.before.path))
        except RepertoireError:
            # A network that was merged, say: there is no method that trained it.
            state = {}
        if self.config.adapter is None:
            # With one, what the run gives away has it merged; what learns beside the weights is in its last state.
            state |= {f"model.{name}": value.clone() for name, value in self.before.model.state_dict().items()}
        return self._looked_back(state)

    def _looked_back(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The state, with what the method makes at the end of a stage, where another one trained the run.

        How much each weight matters to what is known already, say: it takes a pass over the samples of the run before,
        which trains nothing.
        """
        config, old = self.config, self.before.classes
        method = registry.get("methods", registry.parse(config.method).name).factory
        same = registry.parse(config.method).name == registry.parse(self.before.config.method).name
        if same or getattr(method, "end", Method.end) is Method.end:
            return state
        try:
            splits = self.before.splits if self.index == 1 else self._earlier()
        except RepertoireError as error:
            self.notes.append(
                f"What method {config.method!r} would keep of {self.before.directory} is not known: its data is gone "
                f"({error})."
            )
            return state
        train = _known(splits.train)
        stage = Stage(self.index - 1, self.index, old, tuple(range(len(old))), len(train), config.epochs)
        before = replace(splits, train=train, extra={})
        built = build(config, before, device=self.before.device, stage_start=StageStart(stage, state, len(old)))
        trained = built.method.to(self.before.device)
        begun = built.begun(self.before.device)
        trained.begin(begun)
        trained.end(begun)
        return {name: value.cpu() for name, value in trained.state_dict().items()}

    def _features(self, run: Run, samples: Samples) -> np.ndarray:
        return outputs(run.to(self.config.device).model, samples, device=run.device).embeddings

    def _remembered(self) -> Memory | None:
        """What is kept of the stages before, for a method that asks for it."""
        if REPLAY not in needs_of(self.config).streams:
            return None
        memory = memory_of(
            self.config, self.kept.memory, self.kept.keep, self.kept.store, self.kept.share, lambda: self.splits
        )
        if isinstance(memory, Patches):
            self._check_it_draws()
        kept = self.before.path / FOLDER / "memory.npz"
        if kept.exists():
            memory.load(kept)
            memory.shrink()
            return memory
        for link in self.chain:
            try:
                train = _known(self.before.splits.train) if self.index == 1 else self._named(self._read(link).train)
            except RepertoireError as error:
                self.notes.append(
                    f"Nothing of {link['name']} is replayed: {self.before.directory} has kept none of it, and its data "
                    f"is gone ({error}). Bring it back and begin again, {option('overwrite', True)}; or add a stage of "
                    "other samples of its classes."
                )
                continue
            memory.update(train, lambda samples: self._features(self.before, samples), self._as_it_was)
        return memory

    def _check_it_draws(self) -> None:
        """Refuses a run that has not learned to draw patches: what it rebuilds would be noise.

        Raises:
            ConfigError: it was trained by another method, or with another decoder.
        """
        found = self._state()
        for name, value in self._as_it_was().state_dict().items():
            if name.partition(".")[0] in ("model", "loss", "teacher"):
                continue
            if name not in found or found[name].shape != value.shape:
                raise ConfigError(
                    f"store=patches draws what is missing of images with what {self.before.directory} has learned of "
                    f"it, and that was trained by {self.before.config.method!r}, not by {self.config.method!r}: train "
                    f"it by the same method, or use store=whole"
                )

    def _as_it_was(self) -> Method:
        """The method as the run before has left it, around a network that has rows for the new classes, too."""
        return self._method(self._state(), len(self.before.classes))

    def _method(self, state: dict[str, Tensor], known: int) -> Method:
        """The method with what it had learned when it knew so many classes, around a network for all of this stage."""
        train, val, test = (self._named(getattr(self.splits, part)) for part in ("train", "val", "test"))
        splits = replace(self.splits, train=train, val=val, test=test, extra={})
        new = tuple(range(len(self.before.classes), len(self.classes)))
        stage = Stage(self.index, self.index + 1, self.classes, new, len(train), self.config.epochs)
        method = build(self.config, splits, stage_start=StageStart(stage, state, known)).method
        return method.to(self.before.device)

    def _stage_splits(self, memory: Memory | None) -> tuple[Splits, dict[str, Samples]]:
        """The stage's samples, with labels as positions among all classes; and the test samples of each stage."""
        parts = {part: self._named(getattr(self.splits, part)) for part in ("train", "val", "test")}
        evaluated, trained = {}, [np.zeros(0, np.uint64) if memory is None or not len(memory) else memory.samples.keys]
        for link in self.chain:
            found = self._of_link(link)
            if found is not None:
                evaluated[link["name"]], keys = found
                trained.append(keys)
        parts = self._apart(parts, evaluated, np.concatenate(trained))
        evaluated[self.name] = parts["test"]
        extra = {}
        if memory is not None and len(memory):
            recalled = memory.recall(self._as_it_was)
            extra = {REPLAY: replace(recalled, classes=self.classes)}
        test = stacked([copied(part, np.arange(len(part))) for part in evaluated.values()], self.classes)
        ends = np.cumsum([len(part) for part in evaluated.values()])
        # Of the one copy: what was read of earlier stages need not be held any longer.
        evaluated = {
            name: test.subset(np.arange(end - len(part), end))
            for (name, part), end in zip(evaluated.items(), ends, strict=True)
        }
        splits = replace(
            self.splits,
            train=parts["train"],
            val=parts["val"],
            test=test,
            notes=(*self.splits.notes, *self.notes),
            extra=extra,
        )
        return splits, evaluated

    def _apart(
        self, parts: dict[str, Samples], evaluated: Mapping[str, Samples], trained: np.ndarray
    ) -> dict[str, Samples]:
        """Without training and validation samples that earlier stages are tested on, and test samples learned before.

        What would be left empty stays whole.
        """
        tested = np.concatenate([part.keys for part in evaluated.values()] or [np.zeros(0, np.uint64)])
        found = {}
        for name, samples in parts.items():
            there = np.isin(samples.keys, trained if name == "test" else tested)
            found[name] = samples
            if not (count := int(there.sum())):
                continue
            shown = {"train": "training", "val": "validation"}.get(name, name)
            what = "were trained on in an earlier stage" if name == "test" else "are test samples of an earlier stage"
            if count == len(samples):
                self.notes.append(f"All {shown} samples {what}, so that how well they are known says little.")
                continue
            found[name] = samples.subset(np.flatnonzero(~there))
            self.notes.append(f"{count} of {len(samples)} {shown} samples {what} and are left out.")
        return found

    def _of_link(self, link: dict[str, Any]) -> tuple[Samples, np.ndarray] | None:
        """Test samples of an earlier stage, and the keys of those it learned, where its data is still what it was."""
        try:
            splits = self._read(link)
            return self._named(splits.test), splits.train.keys
        except RepertoireError as error:
            where = ascii_path(link["config"]["data"])
            self.notes.append(f"What was forgotten of {link['name']} is not measured: {where} is not usable ({error}).")
            return None

    def _read(self, link: dict[str, Any]) -> Splits:
        """The data of an earlier stage.

        Raises:
            DataError: it is gone, or is no longer what it was.
        """
        splits = load_splits(self.before.config.model_copy(update=link["config"]), single=True)
        if link["digest"] is not None and digest(splits) != link["digest"]:
            raise DataError("it is no longer what it was")
        return _as_the_run_takes_it(self.before, splits)

    def _earlier(self) -> Splits:
        """The data of all stages before, as one."""
        read = [self._read(link) for link in self.chain]

        def together(part: str) -> Samples:
            each = [self._named(getattr(splits, part)) for splits in read]
            return stacked([copied(samples, np.arange(len(samples))) for samples in each], self.before.classes)

        train, val, test = map(together, ("train", "val", "test"))
        return replace(read[-1], train=train, val=val, test=test, extra={})

    def _named(self, samples: Samples) -> Samples:
        """Labelled samples, with labels as positions among all classes."""
        samples = _known(samples)
        place = np.array([self.classes.index(name) for name in samples.classes])
        return replace(samples, labels=place[samples.labels], classes=self.classes)

    def _outcome(self, run: Run, folder: Path, evaluated: Mapping[str, Samples], memory: Memory | None) -> Outcome:
        """Accuracy on each stage after each, of those that were measured after each of them."""
        rows = _rows(self.before)
        if not rows:
            rows[self.chain[0]["name"]] = self._measured(self.before, dict(list(evaluated.items())[:-1]))
        rows[self.name] = self._measured(run, evaluated)
        # Where data was gone, there is a gap; such a stage is left out.
        after = [link["name"] for link in self.chain] + [self.name]
        shown = [i for i in after if all(i in rows[t] for t in after[after.index(i) :])]
        accuracy, within = (as_matrix([[rows[t][i][k] for i in shown if i in rows[t]] for t in shown]) for k in (0, 1))
        metrics = measure(accuracy)
        metrics["memory_bytes"] = 0.0 if memory is None else float(memory.nbytes)
        metrics["state_bytes"] = float(state_bytes(run.path))
        apart = len(self.classes) > len(self.before.classes)
        outcome = Outcome(tuple(shown), accuracy, within if apart else None, metrics, folder)
        content = {
            "protocol": repr(["continue", {name: str(value) for name, value in vars(self.kept).items()}]),
            "stages": shown,
            # As it was decided, but for the data, which the run takes for one in memory.
            "config": {**run.config.model_dump(mode="json"), "data": self.config.data},
            "chain": [*self.chain, self._link(run)],
            "runs": {link["name"]: link["run"] for link in [*self.chain, self._link(run)]},
            "seconds": {link["name"]: link.get("seconds") for link in [*self.chain, self._link(run)]},
            "rows": rows,
        }
        write_json(folder / "stages.json", content)
        write_json(folder / "outcome.json", outcome.record())
        return outcome

    def _measured(self, run: Run, evaluated: Mapping[str, Samples]) -> dict[str, list[float]]:
        """By stage: accuracy among all classes that the run knows, and among those of the stage alone."""
        model = run.to(self.config.device).model
        found = {}
        for name, samples in evaluated.items():
            logits = outputs(model, replace(samples, classes=run.classes), device=run.device).logits
            own = np.unique(samples.labels)
            right = [
                (logits.argmax(1) == samples.labels).mean(),
                (own[logits[:, own].argmax(1)] == samples.labels).mean(),
            ]
            found[name] = [float(share) for share in right]
        return found

    def _link(self, run: Run) -> dict[str, Any]:
        return {
            "name": self.name,
            "run": str(run.path.resolve()),
            "config": _of_data(self.config),
            "digest": self.digest,
            "seconds": run.info.get("seconds"),
        }


_OF_DATA = ("data", "labels", "val", "test", "fold", "seed", "skip_unreadable", "cache", "unlabelled")
"""Options that say which samples a stage has."""


def _of_data(config: TrainConfig) -> dict[str, Any]:
    return {name: getattr(config, name) for name in _OF_DATA}


def _chain(run: Run) -> list[dict[str, Any]]:
    """The stages that a run has been through: their names, data, and what it was."""
    file = run.path / FOLDER / "stages.json"
    if file.exists():
        return list(_read(file)["chain"])
    if "stage" in run.info:
        raise RunError(
            f"{run.directory} is a stage of a protocol, whose data is not known by name: go on from a run of its own"
        )
    first = {"name": stem(run.config.data), "run": str(run.path.resolve()), "config": _of_data(run.config)}
    return [first | {"digest": run.info.get("data_digest"), "seconds": run.info.get("seconds")}]


def _rows(run: Run) -> dict[str, dict[str, list[float]]]:
    """What was measured after each stage on each, by name."""
    file = run.path / FOLDER / "stages.json"
    return dict(_read(file)["rows"]) if file.exists() else {}


def _read(file: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if not {"chain", "rows"} <= found.keys():
            raise ValueError("chain or rows are missing")
        return found
    except (OSError, ValueError, AttributeError) as error:
        raise RunError(f"{ascii_path(str(file))} is damaged ({error}); train that stage again") from None


def _as_the_run_takes_it(run: Run, splits: Splits) -> Splits:
    """The samples as the network of a run takes them: grey where it was trained on grey images.

    Raises:
        DataError: they are of another kind, or features of another width.
    """
    found, wanted = Facts.of(splits, statistics=False), run.facts
    if found.modality != wanted.modality:
        raise DataError(f"{splits.source} holds {found.modality}, and {run.directory} was trained on {wanted.modality}")
    if found.channels == wanted.channels:
        return splits
    if found.modality == "features":
        raise DataError(
            f"{splits.source} has features of width {found.channels}, and {run.directory} was trained on width "
            f"{wanted.channels}: embed the new data with the same network"
        )
    train, val, test = (with_channels(part, wanted.channels) for part in (splits.train, splits.val, splits.test))
    return replace(splits, train=train, val=val, test=test, extra={})


def _known(samples: Samples) -> Samples:
    return samples if samples.known.all() else samples.subset(np.flatnonzero(samples.known))
