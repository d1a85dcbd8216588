"""From a configuration to a finished run, and from an unfinished one on."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric

from repertoire import registry
from repertoire.backbones import load_weights
from repertoire.data import Splits
from repertoire.errors import ConfigError, Interrupted, RepertoireError, RunError
from repertoire.files import atomic_path, lock_directory, write_json
from repertoire.local import Local, Pipeline
from repertoire.train import _checkpoint
from repertoire.train._build import (
    build_classifier,
    build_loss,
    build_method,
    channel_statistics,
    import_plugins,
    load_splits,
    resolve,
)
from repertoire.train._config import TrainConfig, make_config
from repertoire.train._directory import RunDirectory, next_free
from repertoire.train._display import Display
from repertoire.train._environment import describe, forget_peak_memory, layout, make_fabric, peak_memory
from repertoire.train._loop import Loop
from repertoire.train._metrics import score
from repertoire.train._plan import settle
from repertoire.train._run import Run
from repertoire.train._track import check_trackers

__all__ = ["digest", "fit", "pinned", "rehearse", "resume", "stem"]


def fit(
    data: str | Path | None = None,
    *,
    out: str | Path | None = None,
    overwrite: bool = False,
    quiet: bool = True,
    config: TrainConfig | None = None,
    splits: Splits | None = None,
    **fields: Any,
) -> Run:
    """Trains a classifier and gives the run.

    Args:
        data: a folder with a directory per class, an .npz file, or a source such as "digits".
        out: the run's directory; `runs/NAME-1`, or the first number that is free, if None.
        overwrite: replace a run that lies there.
        quiet: show nothing while training.
        config: a whole configuration, instead of `data` and fields.
        splits: the images, where they have been loaded already with the configuration's options.
        fields: fields of `TrainConfig`, such as `backbone="resnet32"` or `epochs=30`.

    Raises:
        ConfigError, UnknownName: an option cannot be used.
        DataError, UnreadableImages: the data cannot be used.
        RunError: the directory holds a run, or another process is writing to it.
        Interrupted: the user pressed Ctrl-C; the run was saved.
        NonFiniteLoss: the loss became infinite or NaN.

    Example:
        >>> import repertoire
        >>> run = repertoire.train.fit("digits", epochs=10)  # doctest: +SKIP
        >>> run.metrics["accuracy"] > 0.9  # doctest: +SKIP
        True
    """
    if config is None:
        if data is None:
            raise ConfigError("say what to train on: a folder with a directory per class, or a source such as 'digits'")
        config = make_config(data=str(data), **fields)
    elif data is not None or fields:
        raise ConfigError("give either config, or data and fields")
    directory = RunDirectory(out if out is not None else next_free(stem(config.data)))
    if directory.occupied and not overwrite:
        raise RunError(
            f"{directory} already holds a run; go on with it: --resume {directory}, replace it: --overwrite, "
            "or choose another --out"
        )
    return _session(directory, pinned(config), splits, quiet=quiet, fresh=True)


def resume(path: str | Path, *, quiet: bool = True, splits: Splits | None = None) -> Run:
    """Goes on with a run that was interrupted, killed or crashed; the result is the one it would have had.

    A finished run is given back as it is, once its weights have been found whole.

    Args:
        path: the run's directory.
        quiet: show nothing while training.
        splits: the images, where they have been loaded already with the run's options.

    Raises:
        RunError: the directory is not a run, or its data changed. CheckpointError: no checkpoint is whole.
    """
    directory = RunDirectory(path)
    info = directory.read_info()
    if info["status"] == "finished":
        run = Run(directory.path)
        _checkpoint.load(directory.best_file)
        if not quiet:
            print(f"{directory} is already finished; to train for longer, start a new run", file=sys.stderr)
        return run
    return _session(directory, directory.read_config(), splits, quiet=quiet, fresh=False)


def rehearse(config: TrainConfig, splits: Splits | None = None) -> TrainConfig:
    """Takes the first batch of a run through network and loss, trains nothing and leaves nothing behind.

    Args:
        config: of the run.
        splits: the images, where they have been loaded already with the configuration's options.

    Returns:
        The configuration with everything resolved that it left open.

    Raises:
        RepertoireError: whatever `fit` would refuse the run for before its first step.
    """
    fabric = _set_up(config, fresh=True)
    splits = load_splits(config) if splits is None else splits
    with _own_randomness(fabric):
        config, _ = settle(resolve(config, splits), splits, fabric.device, layout(config)[1])
        directory = RunDirectory("rehearsal")  # where nothing is written
        _assemble(directory, config, splits, fabric, _new_info(config, splits, fabric), quiet=True).rehearse()
    return config


def _set_up(config: TrainConfig, *, fresh: bool) -> Fabric:
    import_plugins(config)
    check_trackers(config)
    _check_pipeline(config, fresh=fresh)
    return make_fabric(config)


@contextlib.contextmanager
def _own_randomness(fabric: Fabric) -> Iterator[None]:
    """Random numbers, and algorithms, that leave those of the caller alone."""
    devices = [fabric.device] if fabric.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), torch.backends.cudnn.flags(deterministic=True, benchmark=False):
        yield


def _session(directory: RunDirectory, config: TrainConfig, splits: Splits | None, *, quiet: bool, fresh: bool) -> Run:
    fabric = _set_up(config, fresh=fresh)
    existed = directory.path.exists()
    forget_peak_memory(fabric.device)
    try:
        with _own_randomness(fabric):
            if fabric.is_global_zero:
                with lock_directory(directory.path):
                    _train(directory, config, splits, fabric, quiet=quiet, fresh=fresh)
            else:
                _train(directory, config, splits, fabric, quiet=True, fresh=fresh)
    except BaseException:
        if not existed and not directory.occupied:
            # Refused before it began: leave no empty directory, whose number the next run would skip.
            shutil.rmtree(directory.path, ignore_errors=True)
        raise
    return Run(directory.path)


def _check_pipeline(config: TrainConfig, *, fresh: bool) -> None:
    """Refuses a pipeline that cannot be.

    Raises:
        ConfigError: the rule is not one of local learning, or there is one process. A run that was begun by several may
            go on in one.
    """
    if config.pipeline is None:
        return
    rule = registry.get("rules", registry.parse(config.rule).name).factory
    if not (isinstance(rule, type) and issubclass(rule, Local)):
        raise ConfigError(
            f"pipeline needs a rule in which no block waits for those after it, such as local:blocks=8; the rule is "
            f"{config.rule!r}"
        )
    if fresh and config.pipeline == "all" and layout(config) == (1, 1):
        raise ConfigError(
            "pipeline needs several processes: start with torchrun --nproc-per-node 2 -m repertoire train ... "
            "--pipeline"
        )


def pinned(config: TrainConfig) -> TrainConfig:
    """With the paths that exist made absolute, so that the run can be opened from anywhere."""
    changes = {
        name: str(Path(value).resolve())
        for name, value in (("data", config.data), ("weights", config.weights))
        if value is not None and Path(value).exists()
    }
    return config.model_copy(update=changes)


def _train(
    directory: RunDirectory, config: TrainConfig, splits: Splits | None, fabric: Fabric, *, quiet: bool, fresh: bool
) -> None:
    splits = load_splits(config) if splits is None else splits
    main = fabric.is_global_zero
    if fresh:
        config, why = settle(resolve(config, splits), splits, fabric.device, layout(config)[1])
        info = _new_info(config, splits, fabric)
        info["notes"] += [why] if why else []
    else:
        info = directory.read_info()
        ranks = layout(config)[1]
        if info.get("ranks") != ranks:
            raise RunError(
                f"{directory} was trained by {info.get('ranks')} ranks and cannot go on with {ranks}: the batches "
                "would be others"
            )
        if info["data_digest"] != digest(splits):
            raise RunError(f"the data of {directory} ({config.data}) changed since the run began; start a new run")
    saved = not fresh and bool(_checkpoint.checkpoints(directory.checkpoints))
    loop = _assemble(directory, config, splits, fabric, info, quiet=quiet, fresh=fresh, saved=saved)
    splits, display = loop.splits, loop.display
    parts = " / ".join(f"{len(part):,}" for part in (splits.train, splits.val, splits.test))
    display.note(
        f"{splits.source}: {parts} images to train / validate / test, {len(splits.classes)} classes, {info['size']} "
        f"pixels; {config.backbone} with {info['parameters']:,} parameters on {fabric.device}"
    )
    for note in info["notes"] if fresh else ():
        display.note(f"note: {note}")
    if splits.skipped:
        display.note(f"note: {len(splits.skipped)} images cannot be used and are left out; the report lists them")
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


def _assemble(
    directory: RunDirectory,
    config: TrainConfig,
    splits: Splits,
    fabric: Fabric,
    info: dict[str, Any],
    *,
    quiet: bool,
    fresh: bool = True,
    saved: bool = False,
) -> Loop:
    """Network, loss, method and loop; `info` is told the number of parameters, and of images that have no use."""
    # The same first weights on every rank, whatever random numbers were drawn before.
    torch.manual_seed(config.seed)
    model = build_classifier(
        config,
        num_classes=len(info["classes"]),
        channels=info["channels"],
        size=info["size"],
        mean=info["mean"],
        std=info["std"],
        pretrained=not saved,
    )
    if config.weights is not None and not saved:
        load_weights(model.backbone, config.weights)
    method = build_method(
        config, model, build_loss(config, splits.train.counts(), len(splits.train)), len(splits.train)
    )
    if method.needs.labels == "required" and (splits.train.labels < 0).any():
        splits, note = _labelled(splits)
        info["notes"] = [*info["notes"], note] if fresh else info["notes"]
    info["parameters"] = sum(p.numel() for p in model.parameters())
    display = Display(config.epochs, 0, quiet=quiet)
    stages = layout(config)[0]
    pipeline = Pipeline(stages, device=fabric.device) if stages > 1 else None
    loop = Loop(config, directory, splits, method, fabric, display, pipeline)
    display.steps = loop.loader.steps_per_epoch
    return loop


def _new_info(config: TrainConfig, splits: Splits, fabric: Fabric) -> dict[str, Any]:
    mean, std = channel_statistics(splits)
    return {
        "status": "running",
        "source": splits.source,
        "classes": list(splits.classes),
        "channels": splits.train.channels,
        "size": max(splits.train.size),
        "mean": mean,
        "std": std,
        "counts": {name: getattr(splits, name).counts().tolist() for name in ("train", "val", "test")},
        "notes": list(splits.notes),
        "skipped": [{"path": item.path, "reason": item.reason} for item in splits.skipped],
        "data_digest": digest(splits),
        "ranks": layout(config)[1],
        "device": str(fabric.device),
        **describe(fabric.device),
    }


def _finish(directory: RunDirectory, splits: Splits, loop: Loop, info: dict[str, Any]) -> None:
    """Evaluates the best weights on the test images, and closes the books."""
    model = loop.evaluated.model
    best = _checkpoint.load(directory.best_file)
    model.load_state_dict(best.part("model"))
    result = loop.evaluate("test")
    metrics = score(result, splits.classes)
    metrics["best_epoch"] = best.values["epoch"]
    metrics["val_accuracy"] = best.values["val_accuracy"]
    if isinstance(loop.rule, Local):
        metrics.update(Run(directory.path).exit_curve(splits.test))
    with atomic_path(directory.predictions_file) as temporary, open(temporary, "wb") as file:
        np.savez(file, logits=result.logits, embeddings=result.embeddings.astype(np.float16), labels=result.labels)
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


def _labelled(splits: Splits) -> tuple[Splits, str]:
    """The splits without the training images that have no label, and a note that says so."""
    keep = np.flatnonzero(splits.train.labels >= 0)
    note = f"{len(splits.train) - len(keep)} training images have no label, and this method has no use for them."
    return replace(splits, train=splits.train.subset(keep)), note


def digest(splits: Splits) -> str:
    """What makes data the same: the images and labels of the three parts, in their order."""
    found = hashlib.blake2b(digest_size=16)
    for part in (splits.train, splits.val, splits.test):
        found.update(np.ascontiguousarray(part.keys).tobytes())
        found.update(np.ascontiguousarray(part.labels).tobytes())
    return found.hexdigest()


def stem(data: str) -> str:
    """A name for the run's directory from that of its data."""
    name = Path(data).name or Path(data).resolve().name
    stem = "".join(c if c.isalnum() or c in "-_" else "-" for c in name.split(":")[0].removesuffix(".npz"))
    return stem.strip("-") or "run"
