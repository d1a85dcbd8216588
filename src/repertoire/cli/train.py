"""`repertoire train`: images in, a run directory with a model and a report out."""

from __future__ import annotations

import inspect
import os
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

import typer

from repertoire.cli._imports import importing
from repertoire.cli._options import folder_out, holds_folds

__all__ = ["complete", "config_parameters", "fields_of", "finished", "input_parameters", "make_command", "outline"]

SUMMARY = "Train a classifier on a folder with a directory of images per class."

DETAILS = f"""{SUMMARY}

The folder may hold train/ and test/ (and val/) parts, or the classes directly. Instead of a folder: an .npz file,
digits, shapes, or hf:NAME. `repertoire list` names the losses, backbones, heads, rules and augmentations; each takes
options as in supcon:temperature=0.1 and can be combined with any other."""


def outline() -> None:
    """Stands for the command in the list of commands."""


outline.__doc__ = SUMMARY


def make_command() -> Callable[..., None]:
    """The command, with an option for each field of the configuration."""
    parameters = [
        *input_parameters(),
        _parameter(
            "out",
            Path | None,
            typer.Option(
                "-o",
                "--out",
                parser=folder_out,
                metavar="PATH",
                help="Directory of the run; runs/NAME-1 or the next free number by default.",
            ),
        ),
        _parameter("resume", Path | None, typer.Option("--resume", help="Go on with the run in this directory.")),
        _parameter("overwrite", bool, typer.Option("--overwrite", help="Replace a run that lies in --out."), False),
        _parameter(
            "report",
            bool | None,
            typer.Option(
                "--report/--no-report",
                help="Write report.html when training is over; by default, unless the run was begun without.",
                show_default=False,
            ),
        ),
        _parameter("quiet", bool, typer.Option("-q", "--quiet", help="Show nothing but the result."), False),
        _parameter(
            "protocol",
            str | None,
            typer.Option(
                "--protocol",
                help="Train in stages: classes:step=2 (new classes in each), domains; the same command goes on.",
            ),
        ),
        _parameter(
            "learner",
            str | None,
            typer.Option(
                "--learner",
                help="With --protocol: fit an estimator to frozen features instead of training a network: "
                "nearest-centroid, analytic; see 'repertoire list feature-estimators'.",
            ),
        ),
        _parameter(
            "bounds",
            bool,
            typer.Option(
                "--bounds/--no-bounds",
                help="With --protocol: also train without anything against forgetting, and on everything at once.",
            ),
            True,
        ),
        _parameter(
            "folds",
            int | None,
            typer.Option(
                "--folds",
                min=2,
                help="Cross-validation: a run for each of so many folds, and what they say together; the same command "
                "goes on.",
            ),
        ),
        _parameter(
            "attributes",
            Path | None,
            typer.Option(
                "--attributes",
                metavar="FILE",
                help="What classes are like, also classes without an image, which are then predicted too: a .csv file "
                "whose first row is class,ATTRIBUTE,ATTRIBUTE, and then a row for each class with a number for each "
                "attribute. Goes with --method zero-shot:map=bilinear,gate=confidence.",
            ),
        ),
        _parameter(
            "unseen",
            str | None,
            typer.Option(
                "--unseen",
                metavar="CLASS,CLASS",
                help="With --attributes: which classes are held out whole, to measure how well one is predicted that "
                "is only described; a fifth by default.",
            ),
        ),
        *config_parameters(),
    ]

    def train(**given: Any) -> None:
        _train(given)

    return finished(train, DETAILS, parameters)


def finished(command: Callable[..., None], text: str, parameters: list[inspect.Parameter]) -> Callable[..., None]:
    """The function with the signature that the command line is read by."""
    command.__doc__ = text
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    return command


def input_parameters() -> list[inspect.Parameter]:
    """The data, and a file with options."""
    return [
        _parameter("data", str | None, typer.Argument(help=_help("data"), show_default=False)),
        _parameter(
            "config",
            Path | None,
            typer.Option("-c", "--config", help="A YAML file with options; the command line overrides it."),
        ),
    ]


def config_parameters(aliases: Mapping[str, str] = MappingProxyType({})) -> list[inspect.Parameter]:
    """An option for each field of the configuration but the data; `aliases` are second flags, by field."""
    from repertoire.recipe import TrainConfig

    parameters = []
    for name, field in TrainConfig.model_fields.items():
        if name == "data":
            continue
        flag = "--" + name.replace("_", "-")
        default = field.get_default()
        shown = "" if default in (None, (), False) else f" [default: {default}]"
        help_text = f"{field.description}{shown}"
        if field.annotation is bool:
            option = typer.Option(f"{flag}/--no-{flag[2:]}", help=help_text, show_default=False)
        else:
            flags = [flag, aliases[name]] if name in aliases else [flag]
            option = typer.Option(*flags, help=help_text, show_default=False, parser=_reader(name))
        parameters.append(_parameter(name, _option_type(field.annotation), option))
    return parameters


def fields_of(config: Path | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that are set: by the file, and by the command line, which overrides it.

    Raises:
        ConfigError: none of them says what the data is.
    """
    from repertoire.errors import ConfigError

    fields = {**(_from_file(config) if config else {}), **_chosen(given)}
    # What is taken back is as if the file had not said it.
    fields = {name: value for name, value in fields.items() if value is not UNSET}
    if "data" not in fields:
        raise ConfigError("say what to train on: repertoire train PHOTOS/, or digits to try it out")
    return fields


UNSET = object()
"""What the command line says with `none`: that an option is not to be what the file says."""


def _chosen(given: Mapping[str, Any]) -> dict[str, Any]:
    """Values that the command line gives."""
    found = {name: value for name, value in given.items() if value is not None and value != []}
    return {name: UNSET if isinstance(value, list) and UNSET in value else value for name, value in found.items()}


def _reader(name: str) -> Callable[[str], Any] | None:
    """What reads an option where nothing is a value too, which is written `none`; None for what its type reads."""
    from repertoire.recipe import TrainConfig

    field = TrainConfig.model_fields[name]
    if field.get_default() not in (None, ()):
        return None
    number = {int | None: int, float | None: float}.get(_option_type(field.annotation))

    def read(text: str) -> Any:
        if str(text).lower() == "none":
            return UNSET
        try:
            return text if number is None else number(text)
        except ValueError:
            return text  # the configuration says what is wrong with it

    return read


def complete(arguments: Sequence[str]) -> list[str]:
    """The arguments, with the number that `--pipeline` may leave out.

    >>> complete(["train", "photos/", "--pipeline", "--epochs", "3"])
    ['train', 'photos/', '--pipeline', 'all', '--epochs', '3']
    """
    found: list[str] = []
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        found.append(argument)
        if argument == "--pipeline" and following != "all" and not following.isdecimal():
            found.append("all")
    return found


def _parameter(name: str, annotation: Any, option: Any, default: Any = None) -> inspect.Parameter:
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return inspect.Parameter(name, kind, default=default, annotation=Annotated[annotation, option])


def _help(name: str) -> str:
    from repertoire.recipe import TrainConfig

    return TrainConfig.model_fields[name].description or ""


def _option_type(annotation: Any) -> Any:
    """What the command line reads for a field: the configuration checks ranges, and says it better."""
    arguments = [a for a in typing.get_args(annotation) if a is not type(None)]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return _option_type(arguments[0])
    if typing.get_origin(annotation) is tuple:
        return list[str] | None
    if typing.get_origin(annotation) is Literal:
        return str | None
    return annotation | None


def _train(given: dict[str, Any]) -> None:
    from repertoire.errors import ConfigError
    from repertoire.recipe import make_config
    from repertoire.train import RunDirectory

    named = ["config", "out", "resume", "overwrite", "report", "quiet", "protocol", "learner", "bounds", "folds"]
    named += ["attributes", "unseen"]
    run_options = {name: given.pop(name) for name in named}
    if run_options["learner"] is not None and run_options["protocol"] is None:
        raise ConfigError("--learner goes through the stages of a --protocol, such as classes:step=2")
    if run_options["resume"] is None:
        record = {"report": run_options["report"] is not False, **_described(run_options, given)}
    if run_options["protocol"] is not None and run_options["resume"] is None:
        from repertoire.cli._stages import train_in_stages

        train_in_stages(run_options, fields_of(run_options["config"], given))
        return
    if run_options["resume"] is None and run_options["folds"] is not None:
        from repertoire.cli._folds import train_in_folds

        train_in_folds(run_options, fields_of(run_options["config"], given))
        return
    if run_options["resume"] is not None and holds_folds(run_options["resume"]):
        from repertoire.cli._folds import go_on_with_folds

        go_on_with_folds(run_options, _chosen(given))
        return
    if run_options["resume"] is not None:
        run = _resume(run_options, given)
    else:
        config = make_config(**fields_of(run_options["config"], given))
        if run_options["out"] is not None and "LOCAL_RANK" not in os.environ:
            # Before anything heavy is imported. Of several processes the first one looks, once, and tells the others.
            RunDirectory(run_options["out"]).check_free(overwrite=run_options["overwrite"])
        options = {name: run_options[name] for name in ("out", "overwrite", "quiet")}
        with importing():
            from repertoire.train import fit

        run = fit(config=config, record=record, **options)
    wanted = run_options["report"]
    _close(run, run.info.get("report", True) if wanted is None else wanted)


def _described(run_options: Mapping[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """What the run is to remember of classes that are described; the fields that are given become those of a head.

    Raises:
        ConfigError: options that do not go together.
    """
    from repertoire.cli._zero_shot import asked_for
    from repertoire.errors import ConfigError

    method = given.get("method")
    method = method if isinstance(method, str) else None
    asked = asked_for(method, run_options["attributes"], run_options["unseen"])
    if asked is None:
        return {}
    for name in ("protocol", "folds", "learner"):
        if run_options[name] is not None:
            raise ConfigError(f"--attributes describes the classes of one run; leave out --{name}")
    if given.get("tune") not in (None, "head"):
        raise ConfigError(
            "with --attributes the network stays as it is: one that is trained knows the classes that are held out to "
            "measure. Leave out --tune"
        )
    given["method"] = None
    if not str(given.get("data") or "").lower().endswith((".npz", ".safetensors")):
        given["tune"] = "head"
    return {"attributes": asked}


def _resume(run_options: Mapping[str, Any], given: Mapping[str, Any]) -> Any:
    """Goes on with a run, or extends one that is finished."""
    from repertoire.errors import ConfigError
    from repertoire.train import load, resume

    path, quiet = run_options["resume"], run_options["quiet"]
    chosen = _chosen(given)
    taken = [name for name, value in chosen.items() if value is UNSET]
    if taken:
        raise ConfigError(f"--resume takes back nothing that the run was configured with, found --{taken[0]} none")
    other = sorted(chosen.keys() - {"epochs", "patience", "plugins"})
    own = [name for name in ("config", "out", "protocol", "folds", "attributes", "unseen") if run_options[name]]
    if other or own:
        named = ", ".join("--" + name.replace("_", "-") for name in [*other, *own])
        raise ConfigError(
            f"--resume goes on with a run as it was configured and takes no other options, found {named}; a finished "
            "run can be extended with --epochs"
        )
    if "epochs" not in chosen and "patience" not in chosen:
        return resume(path, quiet=quiet, plugins=chosen.get("plugins", ()))
    run = load(path, plugins=chosen.get("plugins", ()))
    done = int(run.info.get("epochs", run.config.epochs))
    return run.extend(
        int(chosen.get("epochs", max(done, run.config.epochs))), patience=chosen.get("patience"), quiet=quiet
    )


def _from_file(path: Path) -> dict[str, Any]:
    from repertoire.errors import ConfigError
    from repertoire.recipe import read_config

    fields = read_config(path)
    own = ["out", "report", "quiet", "resume", "overwrite", "config", "protocol", "bounds", "folds"]
    own += ["attributes", "unseen"]
    misplaced = [name for name in own if name in fields]
    if misplaced:
        raise ConfigError(f"{path}: {', '.join(misplaced)} can be given on the command line only")
    return fields


def _close(run: Any, with_report: bool) -> None:
    """The last lines: the result, where the report is, what to try next."""
    if int(os.environ.get("RANK", "0")):
        return
    from repertoire.cli._zero_shot import describe, is_described

    # Before anything is printed: who reads the output may be gone.
    written = run.report() if with_report else None
    typer.echo(_result(run))
    if is_described(run):
        describe(run)
    if written is not None:
        typer.echo(f"report: {written}")
    directory = run.directory
    if run.task.kind == "none":
        inputs = "FEATURES.npz" if run.facts.modality == "features" else "IMAGE..."
        alike = f"repertoire predict {directory} {inputs} --reject 0.95"
        typer.echo(f"try next: repertoire embed {directory} {inputs}   |   {alike}")
        return
    if run.facts.modality == "features":
        typer.echo(f"try next: repertoire evaluate {directory}   |   repertoire predict {directory} FEATURES.npz")
        return
    if run.task.kind == "maps":
        typer.echo(
            f"try next: repertoire predict {directory} --out MAPS/ IMAGE...   |   repertoire evaluate {directory}"
        )
        return
    typer.echo(f"try next: repertoire predict {directory} IMAGE...   |   repertoire explain {directory} IMAGE...")


def _result(run: Any) -> str:
    """The result on the test images in a line."""
    from repertoire.train import later_counts

    metrics = run.metrics
    later = ", the last within a standard error of the best" if later_counts(run.config, run.task) else ""
    epoch = f"weights of epoch {metrics['best_epoch']}{later}"
    noun = run.noun
    if "accuracy_interval" in metrics:
        low, high = metrics["accuracy_interval"]
        return (
            f"test accuracy {metrics['accuracy']:.1%} ({low:.1%} to {high:.1%}, 95 % interval, {metrics['images']} "
            f"{noun}s), {epoch}"
        )
    shown = [text.format(metrics[key]) for key, text in run.task.headline.items() if metrics.get(key) is not None]
    return f"test: {', '.join(shown)} ({metrics.get('samples', 0)} {noun}s), {epoch}"
