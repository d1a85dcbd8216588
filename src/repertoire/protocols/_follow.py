"""Training through the stages of a protocol: a run a stage, in a directory that it goes on from."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from repertoire import registry
from repertoire.data import Samples, Splits, digest
from repertoire.errors import ConfigError, Interrupted, RunError, ascii_path, option
from repertoire.files import lock_directory, write_json
from repertoire.methods import REPLAY, Method, Stage
from repertoire.protocols._base import Protocol, StageData, joined, options_of
from repertoire.protocols._memory import Memory
from repertoire.protocols._outcome import Outcome, as_matrix, state_bytes
from repertoire.protocols._patches import memory_of
from repertoire.recipe import (
    IN_MEMORY,
    StageStart,
    TrainConfig,
    build,
    import_plugins,
    layout,
    load_splits,
    needs_of,
    pinned,
    resolve,
    stem,
)
from repertoire.tasks import Outputs
from repertoire.train import Run, RunDirectory, fit, last_state, outputs, probe_outputs, resume

__all__ = ["follow"]

PLAIN = "supervised"
"""The method of both bounds."""
UNLABELLED = "simclr"
"""The same of a method that trains features, which need no labels."""
MOST = 5_000
"""Training samples that neighbours are searched among, evenly spaced over those of all stages so far."""


def follow(
    protocol: str | Protocol,
    config: TrainConfig,
    splits: Splits | None = None,
    out: str | os.PathLike[str] | None = None,
    *,
    bounds: bool = True,
    quiet: bool = True,
) -> Outcome:
    """Trains a method through the stages of a protocol, and measures what is left of each stage after each.

    Each stage is a run in a directory of its own, of a method that takes over the network of the stage before, whose
    head grows with the classes, and what else it had learned. The last weights of a stage count. A method with a stream
    "replay" gets what the protocol's memory kept of earlier stages; nothing else of them is read again.

    The stages lie in a folder of `out` that is named by a hash of protocol, configuration and data: called again, it
    goes on where it stopped, whatever moment that was, and ends in the same weights; another configuration lies beside
    it. What is left open in the configuration is decided by the first stage.

    Of a method that trains features and needs no labels, such as "sy-con", the labels divide the data into stages, and
    what is measured is what its features tell: the 20 nearest of the training samples of all stages so far vote for the
    class of a test sample. Both bounds are then those of SimCLR, measured in the same way. Training sees no sample of
    an earlier stage; only the neighbours are of all of them.

    Args:
        protocol: a protocol or its spec, such as "classes:step=2".
        config: of the method and of each stage's training.
        splits: the data, where it has been loaded already with the configuration's options.
        out: directory; `runs/NAME-stages` if None.
        bounds: also train without anything against forgetting, and on everything at once.
        quiet: show nothing while training.

    Raises:
        ConfigError: the method, head or loss cannot go through the stages. DataError: the data cannot be divided so.
        RunError: another process is writing there.
        Interrupted: the user pressed Ctrl-C; called again, it goes on.

    Example:
        Ten digits in two stages, of two epochs each: what is remembered keeps the first five from being forgotten, as
        training without it ("finetune") forgets them. Two epochs are too few for the new five, so that what is left
        lies below training on all digits at once ("joint").

        >>> from repertoire import protocols, recipe
        >>> config = recipe.make_config(data="digits", method="replay", epochs=2)
        >>> outcome = protocols.follow("classes:step=5", config)  # doctest: +SKIP
        >>> {name: round(outcome.metrics[name], 2) for name in ("finetune", "accuracy", "joint")}  # doctest: +SKIP
        {'finetune': 0.46, 'accuracy': 0.82, 'joint': 0.86}
        >>> outcome.matrix.round(2)  # of either stage's digits, after each  # doctest: +SKIP
        array([[0.94,  nan],
               [0.93, 0.72]])
    """
    import_plugins(config)
    config = pinned(config)
    if layout(config) != (1, 1):
        raise ConfigError(
            f"stages are trained by one process: start without torchrun, and leave {option('pipeline')} out"
        )
    protocol = registry.build("protocols", protocol) if isinstance(protocol, str) else protocol
    splits = load_splits(config) if splits is None else splits
    root = Path("runs") / f"{stem(config.data)}-stages" if out is None else Path(out)
    if root.exists() and (not root.is_dir() or RunDirectory(root).occupied):
        raise RunError(f"{ascii_path(str(root))} holds something else than stages; choose another {option('out')}")
    courses = [_Course(protocol, config, splits, root, quiet)]
    if bounds:
        plain = config.model_copy(update={"method": PLAIN})
        if _trains_features(resolve(config, splits)):
            plain = config.model_copy(update={"method": UNLABELLED, "loss": "auto"})
        courses += [_Course(each, plain, splits, root, quiet) for each in (protocol, _Joint(protocol))]
    try:
        outcome, *others = [course.run() for course in courses]
    except Interrupted:
        # What the loop says of resuming is for a run alone.
        raise Interrupted("stopped and saved; the same command goes on") from None
    if bounds:
        below, above = others
        both = {"finetune": below.metrics["accuracy"], "joint": float(np.mean(above.matrix[0]))}
        outcome = replace(outcome, metrics={**outcome.metrics, **both})
    assert outcome.path is not None
    write_json(outcome.path / "outcome.json", outcome.record())
    return outcome


class _Joint(Protocol):
    """Everything at once: one stage with all that the stages of a protocol bring."""

    def __init__(self, inner: Protocol) -> None:
        super().__init__(0)
        self.inner = inner

    def stages(self, splits: Splits, seed: int) -> Iterator[StageData]:
        stages = list(self.inner.stages(splits, seed))
        last = stages[-1]
        train, val = (
            joined([replace(getattr(stage, part), classes=last.classes) for stage in stages])
            for part in ("train", "val")
        )
        yield replace(last, name="everything", train=train, val=val, new=tuple(range(len(last.classes))))


@dataclass
class _Course:
    """One method on its way through the stages."""

    protocol: Protocol
    config: TrainConfig
    splits: Splits
    root: Path
    quiet: bool

    def run(self) -> Outcome:
        stages = list(self.protocol.stages(self.splits, self.config.seed))
        config = resolve(self.config, stages[0].splits(self.splits))
        if config.tune == "auto":
            # The head alone first would be another training in the stages after the first.
            config = config.model_copy(update={"tune": "all"})
        place = self.root / self._name(config)
        memory = self._memory(config, stages)
        if not (place / "stages.json").exists():
            _rehearse(config, stages, self.splits)
        with lock_directory(place):
            return self._run(place, config, stages, memory)

    def _memory(self, config: TrainConfig, stages: Sequence[StageData]) -> Memory | None:
        """For a method that asks for one."""
        if REPLAY not in needs_of(config).streams:
            return None
        kept = self.protocol
        return memory_of(config, kept.memory, kept.keep, kept.store, kept.share, lambda: stages[0].splits(self.splits))

    def _run(self, place: Path, config: TrainConfig, stages: Sequence[StageData], memory: Memory | None) -> Outcome:
        if not (place / "stages.json").exists():
            content = {
                "protocol": repr(options_of(self.protocol)),
                "stages": [stage.name for stage in stages],
                "config": config.model_dump(mode="json"),
            }
            write_json(place / "stages.json", content)
        rows: list[dict[str, Any]] = []
        for t, stage in enumerate(stages):
            if not self.quiet:
                print(f"stage {t + 1} of {len(stages)}: {stage.name}", file=sys.stderr)
            rows.append(self._stage(place, config, t, stages, memory))
        # Where every stage has classes of its own.
        within = len(stages) > 1 and all(stage.new for stage in stages)
        matrix = as_matrix([row["accuracy"] for row in rows]) if len(rows) > 1 else np.array([rows[0]["accuracy"]])
        metrics = self.protocol.measure(matrix) if len(rows) > 1 else {"accuracy": float(matrix.mean())}
        metrics["memory_bytes"] = 0.0 if memory is None else float(memory.nbytes)
        metrics["state_bytes"] = float(state_bytes(place / f"{len(stages) - 1:02d}"))
        return Outcome(
            tuple(stage.name for stage in stages),
            matrix,
            as_matrix([row["within"] for row in rows]) if within else None,
            metrics,
            place,
        )

    def _stage(
        self, place: Path, config: TrainConfig, t: int, stages: Sequence[StageData], memory: Memory | None
    ) -> dict[str, Any]:
        """Trains a stage where it is not done yet, lets the memory look at it, and gives what was measured."""
        stage, record, kept = stages[t], place / f"{t:02d}.json", place / f"{t:02d}-memory.npz"
        if record.exists():
            row: dict[str, Any] = json.loads(record.read_text(encoding="utf-8"))
            if memory is not None and kept.exists():
                memory.load(kept)
        else:
            if memory is not None and t > 0 and not memory.seen:
                raise RunError(
                    f"the memory of stage {t} is gone from {ascii_path(str(place))}; remove the folder to begin again"
                )
            run = self._train(place / f"{t:02d}", config, t, stages, memory)
            row = _measured(run, stage, config, stages[: t + 1])
            if memory is not None:
                memory.update(
                    stage.train,
                    lambda samples: _features(run, samples, config),
                    lambda: self._method(place, config, t, stages),
                )
                memory.save(kept)
            # After the memory: what was measured says that the stage is over.
            write_json(record, row)
        if t > 0:
            # The next stage reads the newest memory only; of the old one nothing may be left.
            (place / f"{t - 1:02d}-memory.npz").unlink(missing_ok=True)
        return row

    def _train(
        self, path: Path, config: TrainConfig, t: int, stages: Sequence[StageData], memory: Memory | None
    ) -> Run:
        stage = stages[t]
        start = StageStart(_stage(stages, t, config.epochs))
        directory = RunDirectory(path)
        if directory.info_file.exists() and directory.read_info()["status"] == "finished":
            return Run(path, plugins=config.plugins)
        if t > 0:
            start = replace(start, state=last_state(path.with_name(f"{t - 1:02d}")), classes=len(stages[t - 1].classes))
        recalled = None
        if memory is not None and len(memory):
            recalled = memory.recall(lambda: self._method(path.parent, config, t - 1, stages))
        splits = stage.splits(self.splits, recalled)
        if directory.info_file.exists():
            return resume(path, quiet=self.quiet, splits=splits, stage_start=start, plugins=config.plugins)
        # Whoever opens the run must not take the whole data, with its own order of classes, for that of the stage.
        alone = config.model_copy(update={"data": IN_MEMORY})
        record = {"stage": {"name": stage.name, "number": t + 1, "of": len(stages), "data": config.data}}
        return fit(
            config=alone, splits=splits, out=path, overwrite=True, quiet=self.quiet, stage_start=start, record=record
        )

    def _method(self, place: Path, config: TrainConfig, t: int, stages: Sequence[StageData]) -> Method:
        """The method as a stage has left it."""
        path = place / f"{t:02d}"
        start = StageStart(_stage(stages, t, config.epochs), last_state(path), len(stages[t].classes))
        method = build(config, stages[t].splits(self.splits), stage_start=start).method
        return method.to(Run(path, device=config.device, plugins=config.plugins).device)

    def _name(self, config: TrainConfig) -> str:
        """Name of the folder: the method, and a hash of all that decides what comes out."""
        content = [config.model_dump(mode="json"), options_of(self.protocol), digest(self.splits)]
        found = hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=4).hexdigest()
        method = "joint" if isinstance(self.protocol, _Joint) else registry.parse(config.method).name
        return f"{method}-{found}"


def _stage(stages: Sequence[StageData], t: int, epochs: int) -> Stage:
    stage = stages[t]
    return Stage(t, len(stages), stage.classes, stage.new, len(stage.train), epochs)


def _rehearse(config: TrainConfig, stages: Sequence[StageData], splits: Splits) -> None:
    """Refuses what a later stage would be refused for, before the first one is trained.

    Raises:
        ConfigError: the head or the loss cannot grow to the classes of the last stage.
    """
    first, last = stages[0], stages[-1]
    if len(last.classes) == len(first.classes):
        return
    whole = config.model_copy(update={"tune": "all"})
    state = build(whole, first.splits(splits), weights=False).method.state_dict()
    start = StageStart(_stage(stages, len(stages) - 1, config.epochs), copy.copy(state), len(first.classes))
    build(whole, last.splits(splits), stage_start=start)


def _features(run: Run, samples: Samples, config: TrainConfig) -> np.ndarray:
    return outputs(run.to(config.device).model, samples, device=run.device).embeddings


def _trains_features(config: TrainConfig) -> bool:
    return needs_of(config).labels != "required"


def _measured(run: Run, stage: StageData, config: TrainConfig, learned: Sequence[StageData]) -> dict[str, Any]:
    """Accuracy on the test samples of every stage that can be evaluated, among all classes and among their own."""
    accuracy, within = [], []
    model = run.to(config.device).model
    bank = None
    if _trains_features(config):
        seen = joined([replace(each.train, classes=stage.classes) for each in learned])
        kept = np.unique(np.linspace(0, len(seen) - 1, min(MOST, len(seen))).astype(int))
        bank = outputs(model, seen.subset(kept), device=run.device)
    for samples in stage.evaluate.values():
        known = samples.known
        found = outputs(model, samples, device=run.device)
        logits, labels = found.logits[known], samples.labels[known]
        own = np.unique(labels)
        inside = logits[:, own]
        if bank is not None:
            logits = _votes(bank, found, len(stage.classes))[known]
            inside = _votes(bank, found, len(stage.classes), own)[known][:, own]
        accuracy.append(float((logits.argmax(1) == labels).mean()))
        within.append(float((own[inside.argmax(1)] == labels).mean()))
    return {
        "accuracy": accuracy,
        "within": within,
        "seconds": run.info.get("seconds"),
    }


def _votes(bank: Outputs, found: Outputs, classes: int, own: np.ndarray | None = None) -> np.ndarray:
    """Scores `[N, C]` by the votes of the nearest in a bank of features, or of those of its samples of some classes."""
    part = np.isin(bank.labels, np.arange(classes) if own is None else own)
    voters = Outputs(bank.logits[part], bank.embeddings[part], bank.labels[part])
    present = np.unique(voters.labels)
    if len(present) < 2:  # nothing to vote on
        return np.eye(classes)[np.resize(present, len(found.labels))]
    return probe_outputs("knn", voters, found, classes)[0].logits
