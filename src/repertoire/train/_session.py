"""One session of training: from a configuration and a directory to a run that is finished, or can go on."""

from __future__ import annotations

import contextlib
import hashlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric

from repertoire.adapters import merge
from repertoire.data import Splits, digest
from repertoire.errors import (
    CheckpointError,
    ConfigError,
    Interrupted,
    RepertoireError,
    RepertoireWarning,
    RunError,
    option,
)
from repertoire.files import atomic_path, write_json
from repertoire.local import Pipeline
from repertoire.recipe import (
    IN_MEMORY,
    Built,
    Facts,
    StageStart,
    TrainConfig,
    build,
    describe,
    emulated,
    forget_peak_memory,
    layout,
    load_splits,
    make_fabric,
    peak_memory,
    resolve,
)
from repertoire.train import _checkpoint
from repertoire.train._directory import RunDirectory
from repertoire.train._display import Display
from repertoire.train._loop import PATIENT_STEPS, Loop
from repertoire.train._ranks import compared_apart
from repertoire.train._run import Run
from repertoire.train._track import Callback

__all__ = ["HEAD_EPOCHS", "make_loop", "own_randomness", "session", "settled"]


def session(
    fabric: Fabric,
    directory: RunDirectory,
    config: TrainConfig,
    splits: Splits | None,
    *,
    quiet: bool,
    fresh: bool,
    stage_start: StageStart | None,
    callbacks: Sequence[Callback] = (),
    record: Mapping[str, Any] | None = None,
) -> Run:
    forget_peak_memory(fabric.device)
    options: dict[str, Any] = {"fresh": fresh, "stage_start": stage_start, "record": record}
    with own_randomness(fabric):
        if fabric.is_global_zero:
            with directory.hold():
                _train(directory, config, splits, fabric, quiet=quiet, callbacks=callbacks, **options)
        else:
            _train(directory, config, splits, fabric, quiet=True, callbacks=(), **options)
    run = Run(directory.path, plugins=config.plugins)
    if config.data == IN_MEMORY and splits is not None:
        run.splits = splits
    return run


@contextlib.contextmanager
def own_randomness(fabric: Fabric) -> Iterator[None]:
    """Random numbers, and algorithms, that leave those of the caller alone."""
    devices = [fabric.device] if fabric.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), torch.backends.cudnn.flags(deterministic=True, benchmark=False):
        yield


def _train(
    directory: RunDirectory,
    config: TrainConfig,
    splits: Splits | None,
    fabric: Fabric,
    *,
    quiet: bool,
    fresh: bool,
    stage_start: StageStart | None,
    callbacks: Sequence[Callback],
    record: Mapping[str, Any] | None,
) -> None:
    main = fabric.is_global_zero
    display = Display(config.epochs, 0, quiet=quiet)
    if splits is None:
        # Photographs that are seen for the first time take a while to decode, before there is anything to say of them.
        display.note(f"reading {Path(config.data).name or config.data}")
        splits = load_splits(config)
    notes = list(splits.notes)
    if fresh:
        config, why = settled(config, splits, fabric)
        notes += [why] if why else []
        info, facts = {}, Facts.of(splits)
        _check_whole(config, stage_start)
    else:
        info = directory.read_info()
        facts = Facts.stored(info)
        ranks = layout(config)[1]
        if info.get("ranks") != ranks:
            raise RunError(
                f"{directory} was trained by {info.get('ranks')} ranks and cannot go on with {ranks}: the batches "
                "would be others"
            )
        if info["data_digest"] != digest(splits):
            raise RunError(f"the data of {directory} ({config.data}) changed since the run began; start a new run")
    steps = [] if fresh else _checkpoint.checkpoints(directory.checkpoints)
    saved = bool(steps)
    # While the first steps may still begin anew, the first weights are needed; frozen layers always are.
    early = not saved or _checkpoint.step_of(steps[0]) <= PATIENT_STEPS or config.tune not in ("all", "auto")
    built = build(
        config, splits, facts=facts, device=fabric.device, weights=early, report=display.note, stage_start=stage_start
    )
    streams = _streams_of(built)
    if fresh:
        info = {**(record or {}), **_new_info(built, splits, fabric, notes), "streams": streams}
    elif info.get("streams", streams) != streams:
        raise RunError(
            f"what {directory} draws from beside its data ({', '.join(streams)}) changed since the run began; start a "
            "new run"
        )
    parts = " / ".join(f"{len(part):,}" for part in (built.splits.train, built.splits.val, built.splits.test))
    noun = splits.train.noun
    what = f"{info['size']} pixels; " if facts.modality == "images" else ""
    display.note(
        f"{splits.source}: {parts} {noun}s to train / validate / test, {len(splits.classes)} {_outputs(facts)}, {what}"
        f"{config.backbone} with {info['parameters']:,} parameters on {fabric.device}"
    )
    for note in info["notes"] if fresh else ():
        display.note(f"note: {note}")
    if splits.skipped:
        display.note(f"note: {len(splits.skipped)} {noun}s cannot be used and are left out; the report lists them")
    head_only = None
    if config.tune == "auto" and not saved:
        head_only = _fit_head(built, splits, fabric, display)
    loop = make_loop(built, directory, fabric, quiet=quiet, display=display)
    loop.callbacks = callbacks
    loop.forecast = None if display.quiet else display.note
    for note in (*emulated(config, fabric.device), *compared_apart(loop.method, loop.replicas, gather=config.gather)):
        display.note(f"note: {note}")
    if fresh:
        loop.rehearse()
    fabric.barrier()
    if main:
        if fresh:
            # What can be refused has been: only now does an older run give way.
            directory.clear()
            directory.write_config(config)
        elif not saved:
            directory.truncate_history(0)
        info = {key: value for key, value in info.items() if key not in ("format", "reason")}
        directory.write_info({**info, "status": "running"})
        _checkpoint.sweep(directory.checkpoints)
    fabric.barrier()
    if saved:
        loop.restore()
    elif head_only is not None:
        loop.start_from(head_only)
        if main:
            info["head_only"] = head_only
            directory.write_info({**info, "status": "running"})
    try:
        loop.run()
        if main:
            _finish(directory, splits, loop, info)
    except BaseException as error:
        if main:
            status = "interrupted" if isinstance(error, Interrupted | KeyboardInterrupt) else "failed"
            reason = str(error) if isinstance(error, RepertoireError) else type(error).__name__
            directory.write_info({**info, "status": status, "reason": reason})
        raise
    fabric.barrier()


def _check_whole(config: TrainConfig, stage_start: StageStart | None) -> None:
    """Refuses to divide weights among processes where something looks at all of a network.

    Raises:
        ConfigError: a part of it is frozen, its head is trained first, or it is one stage of several.
    """
    if config.strategy != "fsdp":
        return
    if config.tune != "all":
        raise ConfigError(
            f"{option('strategy', 'fsdp')} divides a network that learns as a whole, and {option('tune', config.tune)} "
            f"runs frozen layers by themselves: give {option('tune', 'all')}"
        )
    if stage_start is not None:
        raise ConfigError(f"{option('strategy', 'fsdp')} does not train in stages, in which a head grows")


def settled(config: TrainConfig, splits: Splits, fabric: Fabric) -> tuple[TrainConfig, str | None]:
    """Resolved, with the rule and the pieces that its budget of memory allows, and why."""
    config = resolve(config, splits)
    if config.memory is None:
        return config, None
    # What plans traces operators, and takes a second to import.
    from repertoire.plan import settle

    return settle(config, splits, fabric.device, layout(config)[1])


def _streams_of(built: Built) -> dict[str, str]:
    """A hash of the samples of each further stream that a run draws from."""
    found = {name: built.splits.extra.get(name) for name in built.method.needs.streams}
    return {
        name: hashlib.blake2b(np.ascontiguousarray(samples.keys).tobytes(), digest_size=8).hexdigest()
        for name, samples in sorted(found.items())
        if samples is not None and len(samples)
    }


def _outputs(facts: Facts) -> str:
    return {"labels": "labels", "number": "numbers"}.get(facts.task.kind, "classes")


def _fit_head(built: Built, splits: Splits, fabric: Fabric, display: Display) -> dict[str, float]:
    """Trains the head alone on what the frozen network gives, and leaves it in the method: the first half of `auto`.

    Returns:
        The validation metrics with that head.
    """
    config = built.config
    # All that was chosen for the whole network is chosen again for the head.
    own = ("optimizer", "momentum", "weight_decay", "lr", "clip", "augment", "patience", "tune", "rule", "accumulate")
    kept = {name: getattr(config, name) for name in TrainConfig.model_fields if name not in own}
    kept |= {"tune": "head", "ema": None, "epochs": HEAD_EPOCHS, "precision": "32", "pipeline": None, "memory": None}
    # What the frozen layers make of the test images would be looked at by nobody.
    seen = replace(splits, test=splits.val)
    alone = build(TrainConfig(**kept), seen, facts=built.facts, device=fabric.device, report=display.note)
    loop = Loop(alone, None, make_fabric(alone.config))
    loop.forecast = None if display.quiet else lambda line: display.note(f"the head alone: {line}")
    loop.keep_best = True
    loop.run()
    built.method.model.head.load_state_dict({k: v.detach().cpu() for k, v in loop.best_head().items()})
    metrics = dict(loop.progress.best)
    shown = built.task.best
    if shown.key in metrics:
        display.note(f"the head alone, on frozen features: validation {_shown(built, metrics)}")
    return metrics


def _shown(built: Built, metrics: dict[str, float]) -> str:
    return ", ".join(
        text.format(metrics[key]) for key, text in built.task.headline.items() if metrics.get(key) is not None
    )


HEAD_EPOCHS = 60
"""Epochs of the head alone, in `auto`: seconds, on features that are there already."""


def make_loop(
    built: Built,
    directory: RunDirectory | None,
    fabric: Fabric,
    *,
    quiet: bool,
    display: Display | None = None,
) -> Loop:
    display = display or Display(built.config.epochs, 0, quiet=quiet)
    display.epochs = built.config.epochs
    display.noun = built.splits.train.noun if built.facts.modality == "features" else "image"
    stages = layout(built.config)[0]
    pipeline = Pipeline(stages, device=fabric.device) if stages > 1 else None
    loop = Loop(built, directory, fabric, display, pipeline)
    display.steps = loop.loader.steps_per_epoch
    return loop


def _new_info(built: Built, splits: Splits, fabric: Fabric, notes: list[str]) -> dict[str, Any]:
    return {
        "status": "running",
        "source": splits.source,
        **built.facts.info(),
        "counts": {name: getattr(splits, name).counts().tolist() for name in ("train", "val", "test")},
        "parameters": sum(p.numel() for p in built.method.model.parameters()),
        "learned": sum(p.numel() for p in built.method.parameters() if p.requires_grad),
        "start": built.record,
        "notes": [*notes, *built.notes],
        "skipped": [{"path": item.path, "reason": item.reason} for item in splits.skipped],
        "data_digest": digest(splits),
        "levels": {kind: list(ends) for kind, ends in splits.levels.items()},
        "ranks": layout(built.config)[1],
        "device": str(fabric.device),
        **describe(fabric.device),
    }


def _finish(directory: RunDirectory, splits: Splits, loop: Loop, info: dict[str, Any]) -> None:
    """Evaluates the best weights on the test samples, and closes the books."""
    # Of divided weights this process has a share only, and the best ones are whole in their file.
    model = Run(directory.path).model if loop.sharded else merge(loop.evaluated.model)
    values: dict[str, Any] = {}
    try:
        best = _checkpoint.load(directory.best_file)
        model.load_state_dict(best.part("model"))
        values = best.values
    except CheckpointError as error:
        # The last weights are whole, and the run is worth more than its best epoch.
        warnings.warn(f"{error}; the last weights are evaluated instead", RepertoireWarning, stacklevel=2)
    result = loop.evaluate("test", model if loop.sharded else None)
    metrics = loop.task.score(result)
    metrics["best_epoch"] = values.get("epoch", loop.progress.epoch)
    metrics.update({name: value for name, value in values.items() if name.startswith("val_")})
    example = torch.zeros(2, *loop.splits.train.shape, device=loop.fabric.device)
    if loop.config.tune in ("all", "auto") and loop.rule.exits(model, example) is not None:
        metrics.update(Run(directory.path).exit_curve(splits.test))
    with atomic_path(directory.predictions_file) as temporary, open(temporary, "wb") as file:
        more: dict[str, Any] = {} if result.answers is None else {"answers": loop.task.decode(result.answers)}
        np.savez(
            file, logits=result.logits, embeddings=result.embeddings.astype(np.float16), labels=result.labels, **more
        )
    write_json(directory.metrics_file, metrics)
    progress = loop.progress
    directory.write_info(
        {
            **info,
            "status": "finished",
            "epochs": progress.epoch,
            "steps": progress.total_steps,
            "seconds": progress.seconds,
            "peak_memory": peak_memory(loop.fabric.device),
        }
    )
