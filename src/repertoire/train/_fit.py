"""From a configuration to a finished run, and from an unfinished one on."""

from __future__ import annotations

import contextlib
import inspect
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric

from repertoire import registry
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
    forget_peak_memory,
    give,
    import_plugins,
    layout,
    load_splits,
    make_config,
    make_fabric,
    peak_memory,
    pinned,
    resolve,
    stem,
)
from repertoire.train import _checkpoint
from repertoire.train._directory import RunDirectory, next_free
from repertoire.train._display import Display
from repertoire.train._given import data_name, give_again, splits_in_memory
from repertoire.train._loop import PATIENT_STEPS, Loop
from repertoire.train._ranks import compared_apart
from repertoire.train._run import Run
from repertoire.train._track import Callback, check_trackers

__all__ = ["complete", "fit", "in_memory", "rehearse", "resume"]


def fit(
    data: Any = None,
    *,
    out: str | Path | None = None,
    overwrite: bool = False,
    quiet: bool = True,
    config: TrainConfig | None = None,
    splits: Splits | None = None,
    stage_start: StageStart | None = None,
    callbacks: Sequence[Callback] = (),
    record: Mapping[str, Any] | None = None,
    **fields: Any,
) -> Run:
    """Trains a classifier and gives the run.

    Args:
        data: a folder with a directory per class, an .npz file, or a source such as "digits". Or what is in memory:
            `(X, y)` as `repertoire.data.from_memory` takes them, an `ImageSet` or a `FeatureSet`, `Splits`, or a pandas
            `DataFrame` with a column of paths and one of labels.
        out: the run's directory; `runs/NAME-1`, or the first number that is free, if None.
        overwrite: replace a run that lies there.
        quiet: show nothing while training.
        config: a whole configuration, instead of `data` and fields.
        splits: the images, where they have been loaded already with the configuration's options.
        stage_start: of a stage of several, where it takes up.
        callbacks: each is called with the row of every epoch, once that is saved: a dictionary of plain numbers such as
            `epoch` and `val_accuracy`. One that raises is named in a warning and not called again; the run goes on.
        record: what `run.json` is to hold besides, such as `{"project": "moths"}`; plain values by name.
        fields: fields of `TrainConfig`, such as `backbone="resnet32"` or `epochs=30`. `backbone` may be a
            `torch.nn.Module` too, and `loss` a module or function of logits and targets; a run that was trained so
            needs the module again to be opened in another process: `repertoire.load(path, backbone=module)`.

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
        for name, kind in (("backbone", "backbones"), ("loss", "losses")):
            if name in fields and not isinstance(fields[name], str):
                fields[name] = give(kind, fields[name])
        config = make_config(data=data_name(data), **fields)
        splits = splits_in_memory(data, config) if splits is None else splits
    elif data is not None or fields:
        raise ConfigError("give either config, or data and fields")
    fabric = _set_up(config, fresh=True)
    directory = _directory(fabric, config, out, overwrite)
    return _session(
        fabric,
        directory,
        pinned(config),
        splits,
        quiet=quiet,
        fresh=True,
        stage_start=stage_start,
        callbacks=callbacks,
        record=record,
    )


fit.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
    [
        *(p for p in inspect.signature(fit).parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD),
        *(
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=field.annotation)
            for name, field in TrainConfig.model_fields.items()
            if name != "data"
        ),
    ]
)


def _directory(fabric: Fabric, config: TrainConfig, out: str | Path | None, overwrite: bool) -> RunDirectory:
    """Where the run is to be; the first process decides for all.

    Raises:
        RunError: something lies there.
    """
    found: tuple[str, str | None] = ("", None)
    if fabric.is_global_zero:
        chosen = RunDirectory(out if out is not None else next_free(stem(config.data)))
        try:
            chosen.check_free(overwrite=overwrite)
            found = (str(chosen.path), None)
        except RunError as error:
            found = ("", str(error))
    path, refused = fabric.broadcast(found)
    if refused is not None:
        raise RunError(refused)
    return RunDirectory(path)


def in_memory(
    built: Built | TrainConfig,
    splits: Splits | None = None,
    *,
    epochs: int | None = None,
    validate: bool = True,
    quiet: bool = True,
) -> Loop:
    """Trains in memory, with the loop that `fit` uses, and writes nothing.

    Args:
        built: what `repertoire.recipe.build` gives, or a configuration.
        splits: the data of a configuration; loaded if None.
        epochs: fewer or more than the configuration says.
        validate: look at the validation samples after each epoch.
        quiet: show nothing while training.

    Returns:
        The loop, done: `loop.method` is trained, `loop.evaluate("test")` says what the last weights make of the test
        samples, `loop.progress.best` the validation metrics of the best epoch.

    Example:
        >>> from repertoire import recipe, train
        >>> config = recipe.make_config(data="digits", backbone="convnet:width=4,depth=2", epochs=1)
        >>> loop = train.in_memory(config)
        >>> len(loop.evaluate("test").labels) == len(loop.splits.test)
        True
    """
    if isinstance(built, TrainConfig):
        config = built if epochs is None else built.model_copy(update={"epochs": epochs})
        import_plugins(config)
        fabric = make_fabric(config)
        with _own_randomness(fabric):
            built = build(config, load_splits(config) if splits is None else splits, device=fabric.device)
            return _train_in_memory(built, fabric, validate=validate, quiet=quiet)
    if epochs is not None:
        built = replace(built, config=built.config.model_copy(update={"epochs": epochs}))
    fabric = make_fabric(built.config)
    with _own_randomness(fabric):
        return _train_in_memory(built, fabric, validate=validate, quiet=quiet)


def _train_in_memory(built: Built, fabric: Fabric, *, validate: bool, quiet: bool) -> Loop:
    display = Display(built.config.epochs, 0, quiet=quiet)
    loop = Loop(built, None, fabric, display)
    loop.validates = validate
    display.steps = loop.loader.steps_per_epoch
    loop.run()
    return loop


def resume(
    path: str | Path,
    *,
    quiet: bool = True,
    splits: Splits | None = None,
    stage_start: StageStart | None = None,
    plugins: Sequence[str] = (),
    backbone: Any = None,
    loss: Any = None,
    callbacks: Sequence[Callback] = (),
) -> Run:
    """Goes on with a run that was interrupted, killed or crashed; the result is the one it would have had.

    A finished run is given back as it is, once its weights have been found whole.

    Args:
        path: the run's directory.
        quiet: show nothing while training.
        splits: the images, where they have been loaded already with the run's options.
        stage_start: of a stage of several, where it took up.

        plugins: modules to import first, which register components that the run is trained with. A run's own are code,
            and are never imported unless they are named again.
        backbone, loss: the modules that the run was begun with, where they were given as modules.
        callbacks: as in `fit`.

    Raises:
        RunError: the directory is not a run, its data changed, or it names plugins that are not named here.
        CheckpointError: no checkpoint is whole.
    """
    directory = RunDirectory(path)
    info = directory.read_info()
    if info["status"] == "finished":
        run = Run(directory.path, plugins=plugins, backbone=backbone, loss=loss)
        _checkpoint.load(directory.best_file)
        if not quiet:
            print(f"{directory} is already finished; to train for longer, start a new run", file=sys.stderr)
        return run
    config = directory.read_config()
    plugins = (plugins,) if isinstance(plugins, str) else tuple(plugins)
    untrusted = [name for name in config.plugins if name not in plugins]
    if untrusted:
        words = " ".join(option("plugins", name) for name in untrusted)
        raise RunError(f"{directory} names plugins, which are code that would run; if you trust them, say so: {words}")
    give_again(directory, config, backbone, loss)
    if config.data == IN_MEMORY and splits is None:
        raise RunError(f"{directory} is trained on data that was in memory; give it again: splits=...")
    if "task" not in info:
        # Version 0.1.0 trained all layers at one rate, whatever they started from, and compared within a process.
        config = config.model_copy(update={"tune": "all", "layer_decay": 1.0, "gather": False})
    fabric = _set_up(config, fresh=False)
    return _session(
        fabric, directory, config, splits, quiet=quiet, fresh=False, stage_start=stage_start, callbacks=callbacks
    )


def complete(config: TrainConfig, out: str | Path, *, splits: Splits | None = None, **options: Any) -> Run:
    """The run of a configuration in a directory, finished: gone on with where it was begun, and trained otherwise.

    What is finished is given back, and what was begun and has no whole checkpoint is begun again. The directory is
    taken for one of this configuration: whoever calls names it so that it can be no other's.

    Args:
        config: of the run.
        out: its directory.
        splits: the data, where it has been loaded already with the configuration's options.
        options: `quiet`, `callbacks`, `stage_start`, and for a run that is begun `record`, as in `fit`.

    Raises:
        RepertoireError: as `fit` and `resume`.
    """
    directory = RunDirectory(out)
    if directory.occupied:
        with contextlib.suppress(CheckpointError):
            if _readable(directory):
                again = {name: value for name, value in options.items() if name != "record"}
                # The plugins are those that the one who asks has named.
                return resume(out, splits=splits, plugins=config.plugins, **again)
    return fit(config=config, out=out, overwrite=True, splits=splits, **options)


def _readable(directory: RunDirectory) -> bool:
    try:
        directory.read_info()
        return directory.config_file.exists()
    except RunError:
        return False


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
        config, _ = _settled(config, splits, fabric)
        built = build(config, splits, device=fabric.device)
        _loop(built, None, fabric, quiet=True).rehearse()
    return config


def _settled(config: TrainConfig, splits: Splits, fabric: Fabric) -> tuple[TrainConfig, str | None]:
    """Resolved, with the rule and the pieces that its budget of memory allows, and why."""
    config = resolve(config, splits)
    if config.memory is None:
        return config, None
    # What plans traces operators, and takes a second to import.
    from repertoire.plan import settle

    return settle(config, splits, fabric.device, layout(config)[1])


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


def _session(
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
    with _own_randomness(fabric):
        if fabric.is_global_zero:
            with directory.hold():
                _train(directory, config, splits, fabric, quiet=quiet, callbacks=callbacks, **options)
        else:
            _train(directory, config, splits, fabric, quiet=True, callbacks=(), **options)
    run = Run(directory.path, plugins=config.plugins)
    if config.data == IN_MEMORY and splits is not None:
        run.splits = splits
    return run


def _check_pipeline(config: TrainConfig, *, fresh: bool) -> None:
    """Refuses a pipeline that cannot be.

    Raises:
        ConfigError: the rule is not one of local learning, or there is one process. A run that was begun by several may
            go on in one.
    """
    if config.pipeline is None:
        return
    rule = registry.get("rules", registry.parse(config.rule).name).factory
    if not getattr(rule, "supports_pipeline", False):
        raise ConfigError(
            f"pipeline needs a rule in which no block waits for those after it, such as local:blocks=8; the rule is "
            f"{config.rule!r}"
        )
    if fresh and config.pipeline == "all" and layout(config) == (1, 1):
        raise ConfigError(
            f"{option('pipeline')} needs several processes: start with torchrun --nproc-per-node 2 and the command or "
            "script"
        )


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
    splits = load_splits(config) if splits is None else splits
    main = fabric.is_global_zero
    display = Display(config.epochs, 0, quiet=quiet)
    notes = list(splits.notes)
    if fresh:
        config, why = _settled(config, splits, fabric)
        notes += [why] if why else []
        info, facts = {}, Facts.of(splits)
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
    if fresh:
        info = {**(record or {}), **_new_info(built, splits, fabric, notes)}
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
    loop = _loop(built, directory, fabric, quiet=quiet, display=display)
    loop.callbacks = callbacks
    loop.forecast = None if display.quiet else display.note
    for note in compared_apart(loop.method, loop.replicas, gather=config.gather):
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


def _loop(
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
    model = merge(loop.evaluated.model)
    values: dict[str, Any] = {}
    try:
        best = _checkpoint.load(directory.best_file)
        model.load_state_dict(best.part("model"))
        values = best.values
    except CheckpointError as error:
        # The last weights are whole, and the run is worth more than its best epoch.
        warnings.warn(f"{error}; the last weights are evaluated instead", RepertoireWarning, stacklevel=2)
    result = loop.evaluate("test")
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
