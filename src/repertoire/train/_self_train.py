"""Self-training: a student learns what a teacher is surest of in a pool without labels, and then the labels."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

import repertoire
from repertoire import registry
from repertoire.data import Samples, Splits, digest, load_unlabelled
from repertoire.errors import ConfigError, DataError, Interrupted, RunError, UnknownName, ascii_path, option
from repertoire.files import atomic_path, lock_directory, write_json, write_text
from repertoire.losses import LogitsLoss
from repertoire.methods import brought_head
from repertoire.recipe import IN_MEMORY, TrainConfig, import_plugins, layout, make_config, needs_of, prepared, stem
from repertoire.select import top_k_per_class
from repertoire.statistics import interval
from repertoire.train._directory import RunDirectory
from repertoire.train._fit import complete
from repertoire.train._outputs import outputs
from repertoire.train._run import Run

__all__ = ["STUDENT", "SelfTraining", "self_train", "sentences"]

FORMAT = 1
MANIFEST = "self-train.json"
SUMMARY = "summary.json"
CHOSEN = "chosen.npz"

_DATA = ("data", "size", "fit", "labels", "val", "test", "fold", "skip_unreadable", "download", "seed")
"""What a student has of its teacher, always: another seed would divide the data anew, and test on other samples."""

_NETWORK = ("backbone", "weights", "start", "from_scratch", "head", "adapter")
"""What it has of its teacher unless it is given a network of its own."""

_USUAL = (
    "tune",
    "layer_decay",
    "augment",
    "loss",
    "class_weights",
    "balanced",
    "rule",
    "device",
    "precision",
    "memory",
)
"""What it has of its teacher unless it is given otherwise."""

STUDENT = tuple(
    name
    for name in TrainConfig.model_fields
    if name not in (*_DATA, "unlabelled", "teacher", "start", "pipeline", "gather")
)
"""Options of a run that a student may be given; all others are the teacher's, or are decided anew."""


@dataclass(frozen=True)
class SelfTraining:
    """What `self_train` leaves behind.

    Attributes:
        path: its directory, which holds a run for each phase, what was chosen of the pool, and what was measured.
        teacher: the run that chose.
        pretrained: the student after what was chosen of the pool.
        run: the student after the labels: the network to use.
        labels_alone: a student that never saw the pool, for as many steps; None where it was not asked for.
        summary: what was chosen and measured, as `summary.json` has it.

    Example:
        >>> import repertoire
        >>> found = repertoire.train.SelfTraining.read("runs/photos-self-trained")  # doctest: +SKIP
        >>> found.run.predict("photo.jpg").argmax(1)  # doctest: +SKIP
    """

    path: Path
    teacher: Run
    pretrained: Run
    run: Run
    labels_alone: Run | None
    summary: Mapping[str, Any]

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> SelfTraining:
        """Opens what lies in a directory.

        Raises:
            RunError: it holds no self-training, or one that is not finished, or the teacher is gone.
        """
        root = Path(path)
        manifest = _manifest(root)
        try:
            summary: dict[str, Any] = json.loads((root / SUMMARY).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise RunError(
                f"the self-training in {ascii_path(str(root))} is not finished; the command that began it goes on"
            ) from None
        except (OSError, ValueError) as error:
            raise RunError(f"{ascii_path(str(root))}/{SUMMARY} cannot be read: {error}") from None
        alone = root / "labels-alone"
        return cls(
            root,
            Run(manifest["teacher"]),
            Run(root / "pretrain"),
            Run(root / "finetune"),
            Run(alone) if (alone / "metrics.json").exists() else None,
            summary,
        )

    def __str__(self) -> str:
        return "\n".join(sentences(self.summary))


def self_train(
    teacher: str | os.PathLike[str] | Run,
    pool: str | os.PathLike[str] | Samples,
    *,
    top: int = 200,
    most: int = 10,
    labels_alone: bool = True,
    finetune_epochs: int | None = None,
    finetune_lr: float | None = None,
    out: str | os.PathLike[str] | None = None,
    splits: Splits | None = None,
    quiet: bool = True,
    **fields: Any,
) -> SelfTraining:
    """Trains a student on what a teacher is surest of in a pool without labels, and then on the teacher's labels.

    Yalniz, Jégou, Chen, Paluri and Mahajan, *Billion-scale Semi-supervised Learning for Image Classification* (2019).
    The teacher scores the pool; every class takes the `top` samples that score highest for it, whatever the teacher
    says of them otherwise (`repertoire.select.top_k_per_class`); the student learns these with the class that took
    them; and it is fine-tuned on the samples whose labels are true, alone. A third run, of the labels alone for as many
    steps and with as many looks at the validation samples, says whether the pool helped.

    Samples of the pool that are copies of labelled, validation or test samples are left out. Each phase is an ordinary
    run, in a directory of its own. The same call goes on where it was stopped, at whatever instant, and ends in the
    same weights.

    Args:
        teacher: a finished run that tells classes apart.
        pool: a folder of images, however they lie in it, or of a run on features a file of these; labels are not
            looked at. Or a set of samples.
        top: K, samples of the pool that each class takes; fewer than the pool has.
        most: P, classes of each sample that count, the highest first; 10 in the paper, which has 1,000 classes. 1 lets
            a sample be taken by one class only.
        labels_alone: also train a student on the labels alone.
        finetune_epochs: passes over the labels; as for any run with a start if None.
        finetune_lr: their learning rate; as for any run with a start if None.
        out: directory; `runs/NAME-self-trained` if None.
        splits: the teacher's data, where that was in memory.
        quiet: show nothing while training.
        fields: fields of `TrainConfig` for the student (`STUDENT`): `backbone="resnet20"`, `epochs=30`, of which
            `epochs`, `lr` and `batch_size` are those of the pool, and of the labels alone. What is not given is the
            teacher's network, loss and augmentation, and otherwise decided anew; data, seed and division are always
            the teacher's, so that all are tested on the same samples.

    Returns:
        All runs, and what was chosen and measured.

    Raises:
        ConfigError, UnknownName: an option that cannot be used, or belongs to the teacher.
        DataError: the pool cannot be used, or is too small for `top`.
        RunError: the teacher cannot teach, its data or the pool changed, or the directory holds something else.
        Interrupted: the user pressed Ctrl-C; the same call goes on.

    Example:
        >>> import repertoire
        >>> found = repertoire.train.self_train("runs/photos-1", "more/", top=200)  # doctest: +SKIP
        >>> found.summary["differences"][0]["interval"]  # doctest: +SKIP
        [0.012, 0.047]
    """
    run = teacher if isinstance(teacher, Run) else Run(teacher, plugins=tuple(fields.get("plugins", ())))
    phases = _Phases(run, pool, top, most, labels_alone, finetune_epochs, finetune_lr, splits, fields, quiet)
    phases.check()
    root = Path("runs") / f"{stem(run.config.data)}-self-trained" if out is None else Path(out)
    manifest = phases.manifest()
    _check_free(root, manifest)
    # Before anything is written: a pool that is too small is refused.
    chosen = None if (root / CHOSEN).exists() else phases.choose()
    with lock_directory(root):
        if not (root / MANIFEST).exists():
            write_json(root / MANIFEST, manifest)
        try:
            return phases.run_all(root, chosen)
        except Interrupted:
            # What the loop says of resuming is for a run alone.
            raise Interrupted("stopped and saved; the same command goes on") from None


@dataclass
class _Phases:
    """A teacher, a pool, and how a student is to learn from them."""

    teacher: Run
    pool: str | os.PathLike[str] | Samples
    top: int
    most: int
    labels_alone: bool
    finetune_epochs: int | None
    finetune_lr: float | None
    given_splits: Splits | None
    fields: Mapping[str, Any]
    quiet: bool

    def check(self) -> None:
        """Refuses what can be refused before the pool is looked at.

        Raises:
            RunError, ConfigError: says what is wrong.
        """
        run = self.teacher
        if run.info["status"] != "finished":
            raise RunError(f"{run.directory} is {run.info['status']}, and cannot teach before it is finished")
        if run.task.kind != "classes":
            raise RunError(
                f"every class takes the samples that score highest for it, and {run.directory} does not tell classes "
                f"apart: it learned {run.task.kind}"
            )
        for name, value in (("top", self.top), ("most", self.most)):
            if value < 1:
                raise ConfigError(f"{option(name)} is {value}; it must be at least 1")
        for name in self.fields:
            if name in TrainConfig.model_fields and name not in STUDENT:
                raise ConfigError(f"{option(name)} is the teacher's, and cannot be another one for its student")
            if name not in TrainConfig.model_fields:
                raise UnknownName("training option", name, list(STUDENT))
        import_plugins(self.pretraining)
        if layout(self.pretraining) != (1, 1):
            raise ConfigError("self-training is done by one process: start without torchrun")
        if self.pretraining.method != "auto":
            needs, method = needs_of(self.pretraining), registry.parse(self.pretraining.method).name
            if needs.labels != "required" or needs.reference or any(not s.optional for s in needs.streams.values()):
                raise ConfigError(
                    f"a student learns from samples with a class each, and method {method!r} wants something else: "
                    f"use {option('method', 'supervised')}"
                )
        self.finetuning(Path("pretrain"))
        if self.given_splits is None and run.data_changed:
            raise RunError(
                f"the data of {run.directory} changed since it was trained, and its test samples may be others now: "
                "train a teacher anew"
            )
        if tuple(self.splits.classes) != run.classes:
            raise RunError(
                f"{run.directory} has outputs for classes that nobody named, which a student could not be tested on: "
                "use a teacher without missing_classes"
            )

    @cached_property
    def splits(self) -> Splits:
        """The teacher's data."""
        return self.teacher.splits if self.given_splits is None else self.given_splits

    @cached_property
    def labelled(self) -> Samples:
        """The training samples with a label, as many as the teacher had."""
        config = self.teacher.config.model_copy(update={"unlabelled": None})
        train: Samples = prepared(config, self.splits)[0].train
        return train.subset(np.flatnonzero(train.known))

    @cached_property
    def kept(self) -> dict[str, Any]:
        """What the student has of its teacher, and what it was given."""
        config, own = self.teacher.config, dict(self.fields)
        kept = {name: getattr(config, name) for name in (*_DATA, *_NETWORK, *_USUAL)}
        whole = config.tune in ("all", "auto")
        # What was decided for the teacher's network is decided anew for another one, and so is what brought a method.
        anew = {name for name in ("tune",) if whole}
        if not whole or needs_of(config).augmentation is not None:
            anew.add("augment")
        if not isinstance(self.teacher.loss, LogitsLoss):
            anew.add("loss")
        if brought_head(config.method):
            anew.add("head")
        if "backbone" in own:
            anew |= {*_NETWORK, "tune"} | ({"augment"} if not whole else set())
        if {"weights", "from_scratch"} & own.keys():
            anew |= {"weights", "start", "from_scratch"}
        return {**{name: value for name, value in kept.items() if value is not None and name not in anew}, **own}

    @cached_property
    def pretraining(self) -> TrainConfig:
        """How the student learns what was chosen."""
        labels = ("labels", "fold", "class_weights", "balanced")
        return make_config(**{**_without(self.kept, *labels), "data": IN_MEMORY})

    def finetuning(self, start: Path) -> TrainConfig:
        """How it learns the labels then, from the network of that run."""
        own = _without(self.kept, "epochs", "lr", "batch_size", "weights", "from_scratch", "adapter")
        own |= {"start": str(start), "tune": own.get("tune", "all")}
        for name, value in (("epochs", self.finetune_epochs), ("lr", self.finetune_lr)):
            if value is not None:
                own[name] = value
        return make_config(**own)

    def alone(self, pretrained: Run, student: Run) -> tuple[TrainConfig, Splits]:
        """How a student learns the labels alone, for as many steps and epochs as the other one has in both phases.

        An epoch of it is several passes over the labels: with as many epochs, as many weights are looked at on the
        validation samples, of which the best stay. Where the steps do not divide, it gets the few more.
        """
        steps, epochs = (sum(int(run.info[name]) for run in (pretrained, student)) for name in ("steps", "epochs"))
        batch = student.config.batch_size
        own = _without(self.kept, "labels", "fold", "patience")
        rows = np.resize(np.arange(len(self.labelled)), math.ceil(steps / epochs) * batch)
        config = make_config(**{**own, "data": IN_MEMORY, "epochs": epochs, "batch_size": batch})
        return config, self._apart(self.labelled.subset(rows), "labels alone")

    def _apart(self, train: Samples, what: str) -> Splits:
        """Other training samples beside the teacher's validation and test samples."""
        return replace(self.splits, train=train, source=f"{self.splits.source}, {what}", notes=(), skipped=(), extra={})

    def manifest(self) -> dict[str, Any]:
        """All that decides what comes out."""
        run = self.teacher
        in_memory = isinstance(self.pool, Samples)
        return {
            "format": FORMAT,
            "repertoire": repertoire.__version__,
            "teacher": str(run.path.resolve()),
            "weights": hashlib.blake2b(run.directory.best_file.read_bytes(), digest_size=8).hexdigest(),
            "pool": IN_MEMORY if in_memory else str(Path(self.pool).resolve()),  # type: ignore[arg-type]
            "top": self.top,
            "most": self.most,
            "finetune_epochs": self.finetune_epochs,
            "finetune_lr": self.finetune_lr,
            "student": json.loads(make_config(data="", **self.fields).model_dump_json(exclude_unset=True)),
            "data_digest": digest(self.splits),
        }

    @cached_property
    def whole(self) -> Samples:
        """The pool as it was given."""
        like = self.splits.train
        if not isinstance(self.pool, Samples):
            return load_unlabelled(self.pool, like=like, fit=self.teacher.config.fit, levels=self.splits.levels)
        if self.pool.shape != like.shape:
            raise DataError(
                f"the pool holds inputs {list(self.pool.shape)}, and the teacher looks at {list(like.shape)}"
            )
        return self.pool

    @cached_property
    def samples(self) -> Samples:
        """The pool without copies of samples that have a label, or that something is measured on."""
        known = np.concatenate([part.keys for part in (self.labelled, self.splits.val, self.splits.test)])
        return self.whole.subset(np.flatnonzero(~np.isin(self.whole.keys, known)))

    def choose(self) -> _Chosen:
        """What each class takes of the pool.

        Raises:
            DataError: the pool is too small.
        """
        noun = f"{self.whole.noun}s"
        left = len(self.samples)
        if self.top >= left:
            copies = len(self.whole) - left
            more = f", without {copies:,} that are copies of labelled, validation or test {noun}" if copies else ""
            raise DataError(
                f"every class takes {self.top:,} {noun} of the pool, which has {left:,}{more}: where each takes all, "
                f"nothing is chosen. Give more {noun}, or let a class take fewer: {option('top', max(1, left // 10))}"
            )
        self._say(f"the teacher looks at {left:,} {noun}")
        run = self.teacher.to(self.pretraining.device)
        logits = outputs(run.model, self.samples, device=run.device).logits
        found = top_k_per_class(run.answers_of(torch.from_numpy(logits).double()), self.top, most=self.most)
        index, labels, scores = (each.numpy() for each in (found.index, found.labels, found.scores))
        return _Chosen(index, labels, scores, self.samples.keys[index], len(self.whole), left)

    def run_all(self, root: Path, chosen: _Chosen | None) -> SelfTraining:
        """Goes through the phases, of which those that are finished are not done again."""
        file = root / CHOSEN
        if chosen is not None:
            chosen.write(file)
        else:
            chosen = _Chosen.read(file)
        noun = f"{self.teacher.noun}s"
        pretrained = self._phase(
            root / "pretrain",
            self.pretraining,
            lambda: self._taken(chosen, root),
            f"first {len(chosen.index):,} {noun} of the pool, with the classes that took them",
        )
        student = self._phase(
            root / "finetune",
            self.finetuning(pretrained.path),
            lambda: self.splits,
            f"then {len(self.labelled):,} {noun} with their labels",
        )
        alone = None
        if self.labels_alone:
            config, splits = self.alone(pretrained, student)
            what = "for comparison, the labels alone for as many steps"
            alone = self._phase(root / "labels-alone", config, lambda: splits, what)
        summary = self._summary(chosen, pretrained, student, alone)
        write_json(root / SUMMARY, summary)
        return SelfTraining(root, self.teacher, pretrained, student, alone, summary)

    def _phase(self, path: Path, config: TrainConfig, splits: Callable[[], Splits], what: str) -> Run:
        directory = RunDirectory(path)
        if not (directory.metrics_file.exists() and directory.read_info()["status"] == "finished"):
            self._say(f"the student learns {what}: {directory}")
            record = {"self_training": path.name, "report": False}
            complete(config, path, splits=splits(), quiet=self.quiet, record=record)
        return Run(path, plugins=config.plugins)

    def _say(self, line: str) -> None:
        if not self.quiet:
            print(line, file=sys.stderr)

    def _taken(self, chosen: _Chosen, root: Path) -> Splits:
        """What was chosen of the pool as training samples, each as often as classes took it.

        Raises:
            RunError: the pool is another one now.
        """
        found = self.samples
        if chosen.index.max(initial=-1) >= len(found) or not np.array_equal(found.keys[chosen.index], chosen.keys):
            raise RunError(
                f"the pool changed since {ascii_path(str(root))} was begun; choose another {option('out')}, or put it "
                "back as it was"
            )
        taken = replace(found.subset(chosen.index), labels=chosen.labels, classes=self.splits.classes)
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([taken.noun, "class", "score"])
        for name, label, score in zip(taken.names, chosen.labels, chosen.scores, strict=True):
            writer.writerow([_cell(name), _cell(self.splits.classes[label]), f"{score:.6f}"])
        write_text(root / "chosen.csv", text.getvalue())
        return self._apart(taken, "chosen of the pool")

    def _summary(self, chosen: _Chosen, pretrained: Run, student: Run, alone: Run | None) -> dict[str, Any]:
        labels = len(self.labelled)
        arms = [
            ("teacher", self.teacher, labels),
            ("after the pool", pretrained, len(chosen.index)),
            ("student", student, labels),
        ]
        arms += [] if alone is None else [("labels alone", alone, labels)]
        others = [(name, run) for name, run in (("labels alone", alone), ("teacher", self.teacher)) if run is not None]
        times = np.unique(chosen.index, return_counts=True)[1]
        return {
            "format": FORMAT,
            "noun": self.teacher.noun,
            "pool": {"samples": chosen.pool, "scored": chosen.scored, "top": self.top, "most": self.most},
            "chosen": {"samples": len(times), "several": int((times > 1).sum()), "pairs": len(chosen.index)},
            "classes": [
                {
                    "class": name,
                    "taken": len(scores := chosen.scores[chosen.labels == number]),
                    "lowest": float(scores.min()) if len(scores) else None,
                    "mean": float(scores.mean()) if len(scores) else None,
                }
                for number, name in enumerate(self.splits.classes)
            ],
            "runs": [
                {
                    "name": name,
                    "path": str(run.path.resolve()) if run is self.teacher else run.path.name,
                    "trained_on": trained_on,
                    "steps": run.info.get("steps"),
                    "seconds": run.info.get("seconds"),
                    **{key: run.metrics.get(key) for key in ("accuracy", "accuracy_interval", "balanced_accuracy")},
                }
                for name, run, trained_on in arms
            ],
            "differences": [{"of": "student", "from": name, **_difference(student, run)} for name, run in others],
        }


@dataclass(frozen=True)
class _Chosen:
    """What each class takes of the pool.

    Attributes:
        index: int64 `[M]`, positions in the pool without copies.
        labels: int64 `[M]`, the class that took each.
        scores: float `[M]`, its probability of that class.
        keys: uint64 `[M]`, hashes of what was chosen.
        pool: samples of the pool.
        scored: those that the teacher looked at.
    """

    index: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    keys: np.ndarray
    pool: int
    scored: int

    def write(self, file: Path) -> None:
        with atomic_path(file) as temporary, open(temporary, "wb") as opened:
            np.savez(opened, **vars(self))

    @classmethod
    def read(cls, file: Path) -> _Chosen:
        try:
            with np.load(file, allow_pickle=False) as stored:
                found = {name: stored[name] for name in cls.__annotations__}
        except (OSError, ValueError, KeyError) as error:
            raise RunError(f"{ascii_path(str(file))} cannot be read: {error}; remove it to choose anew") from None
        return cls(**{**found, "pool": int(found["pool"]), "scored": int(found["scored"])})


def _without(fields: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in names}


def _cell(text: str) -> str:
    """Text that no spreadsheet takes for a formula."""
    shown = ascii_path(str(text))
    return f"'{shown}" if shown.startswith(("=", "+", "-", "@")) else shown


def _difference(one: Run, other: Run) -> dict[str, Any]:
    """By how much more often one run is right on the test samples than another, which are the same ones, in pairs."""
    right, labels = zip(*map(_right, (one, other)), strict=True)
    if not np.array_equal(*labels):
        raise RunError(f"{one.directory} and {other.directory} were tested on other samples; train the teacher anew")
    values = (right[0].astype(float) - right[1]).tolist()
    return {"difference": float(np.mean(values)), "interval": list(interval(values, bounds=(-1.0, 1.0)))}


def _right(run: Run) -> tuple[np.ndarray, np.ndarray]:
    with np.load(run.directory.predictions_file, allow_pickle=False) as stored:
        logits, labels = stored["logits"], stored["labels"]
    return logits.argmax(1) == labels, labels


def _manifest(root: Path) -> dict[str, Any]:
    """Reads what a self-training was asked for.

    Raises:
        RunError: there is none, or it is damaged or from a newer version.
    """
    shown = ascii_path(str(root))
    try:
        found: dict[str, Any] = json.loads((root / MANIFEST).read_text(encoding="utf-8"))
        newer = found["format"] > FORMAT
    except FileNotFoundError:
        raise RunError(f"{shown} holds no self-training: it has no {MANIFEST}") from None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise RunError(f"{shown}/{MANIFEST} is damaged: {error}") from None
    if newer:
        raise RunError(f"{shown} was written by a newer version of Repertoire ({found.get('repertoire')}); upgrade")
    return found


def _check_free(root: Path, asked: Mapping[str, Any]) -> None:
    """Refuses a directory that holds anything but this self-training.

    Raises:
        RunError: it does.
    """
    shown, other = ascii_path(str(root)), f"choose another {option('out')}"
    if not (root / MANIFEST).exists():
        if root.exists() and (not root.is_dir() or any(not p.name.startswith(".") for p in root.iterdir())):
            raise RunError(f"{shown} is not empty and holds no self-training; nothing in it was touched; {other}")
        return
    before = _manifest(root)
    now, then = ({**each, **each.get("student", {})} for each in (dict(asked), before))
    about = ("format", "repertoire", "student")
    changed = sorted(n for n in {*now, *then} if n not in about and now.get(n) != then.get(n))
    if changed:
        words = "; ".join(f"{name} was {then.get(name)!r}, is {now.get(name)!r}" for name in changed)
        raise RunError(f"{shown} holds self-training of another kind: {words}; {other}")


def sentences(summary: Mapping[str, Any]) -> list[str]:
    """What was chosen, what came of it, and whether it helped, a sentence each."""
    noun, pool, chosen = f"{summary['noun']}s", summary["pool"], summary["chosen"]
    least = min(row["taken"] for row in summary["classes"])
    each = f"{pool['top']:,}" if least == pool["top"] else f"{least:,} to {pool['top']:,}"
    lines = [
        f"Each of {len(summary['classes'])} classes took {each} {noun} of a pool of {pool['scored']:,}: "
        f"{chosen['samples']:,} different ones."
    ]
    if pool["samples"] > pool["scored"]:
        lines.append(
            f"{pool['samples'] - pool['scored']:,} more are copies of labelled, validation or test {noun}, and were "
            "left out."
        )
    if chosen["several"] > chosen["samples"] / 10:
        lines.append(
            f"{chosen['several']:,} of them were taken by several classes, of which one at most is right: take fewer "
            f"({option('top')}), or let each be taken once ({option('most', 1)})."
        )
    student = next(row for row in summary["runs"] if row["name"] == "student")
    low, high = student["accuracy_interval"]
    lines.append(f"The student: test accuracy {student['accuracy']:.1%} ({low:.1%} to {high:.1%}, 95 % interval).")
    than = {"labels alone": "the labels alone for as many steps", "teacher": "its teacher"}
    for row in summary["differences"]:
        low, high = row["interval"]
        verdict = "better" if low > 0 else "worse" if high < 0 else "not to be told from chance on these test samples"
        lines.append(
            f"Against {than[row['from']]}: {100 * row['difference']:+.1f} points ({100 * low:+.1f} to "
            f"{100 * high:+.1f}), {verdict}."
        )
    return lines
