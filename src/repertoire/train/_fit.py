"""From a configuration to a finished run, and from an unfinished one on."""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric

from repertoire import registry
from repertoire.data import Splits
from repertoire.errors import (
    CheckpointError,
    ConfigError,
    RunError,
    option,
)
from repertoire.recipe import (
    IN_MEMORY,
    Built,
    StageStart,
    TrainConfig,
    build,
    give,
    import_plugins,
    layout,
    load_splits,
    make_config,
    make_fabric,
    pinned,
    stem,
)
from repertoire.train import _checkpoint
from repertoire.train._directory import RunDirectory, next_free
from repertoire.train._display import Display
from repertoire.train._given import data_name, give_again, splits_in_memory
from repertoire.train._loop import Loop
from repertoire.train._run import Run
from repertoire.train._session import make_loop, own_randomness, session, settled
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
    return session(
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

    Raises:
        Interrupted: the user pressed Ctrl-C; nothing was saved.

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
        with own_randomness(fabric):
            built = build(config, load_splits(config) if splits is None else splits, device=fabric.device)
            return _train_in_memory(built, fabric, validate=validate, quiet=quiet)
    if epochs is not None:
        built = replace(built, config=built.config.model_copy(update={"epochs": epochs}))
    fabric = make_fabric(built.config)
    with own_randomness(fabric):
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
    return session(
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
    with own_randomness(fabric):
        config, _ = settled(config, splits, fabric)
        built = build(config, splits, device=fabric.device)
        make_loop(built, None, fabric, quiet=True).rehearse()
    return config


def _set_up(config: TrainConfig, *, fresh: bool) -> Fabric:
    import_plugins(config)
    check_trackers(config)
    _check_pipeline(config, fresh=fresh)
    _check_sharding(config, fresh=fresh)
    return make_fabric(config)


def _check_sharding(config: TrainConfig, *, fresh: bool) -> None:
    """Refuses weights that are divided among processes where that cannot be.

    Raises:
        ConfigError: the configuration has what needs all weights in one process, or there is one process.
    """
    if config.strategy != "fsdp":
        return
    sharded = option("strategy", "fsdp")
    rule = registry.get("rules", registry.parse(config.rule).name).factory
    reasons = {
        f"rule {config.rule!r} looks at all weights, or steps through the network in its own way": not getattr(
            rule, "supports_sharding", False
        ),
        f"{option('pipeline')} divides the network in another way": config.pipeline is not None,
        f"{option('ema')} keeps a second network whole": config.ema is not None,
        f"{option('adapter')} computes with whole weights of layers": config.adapter is not None,
        f"{option('memory')} plans for a network that each process holds": config.memory is not None,
        f"{option('precision', '16')} has a loss scale that is not divided; use bf16": config.precision == "16",
        f"{option('teacher')} is a network beside the one that is divided": config.teacher is not None,
    }
    if found := [reason for reason, holds in reasons.items() if holds]:
        raise ConfigError(f"{sharded} does not go together with this: {'; '.join(found)}")
    if fresh and layout(config)[1] == 1:
        raise ConfigError(
            f"{sharded} needs several processes: start with torchrun --nproc-per-node 2 and the command or script"
        )


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
