"""`repertoire fit-features`: an estimator on features that are there already, fitted in seconds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from repertoire.cli._options import folder_out, safe_cell

if TYPE_CHECKING:
    import numpy as np

    from repertoire.data import Samples, Splits
    from repertoire.estimators import FeatureEstimator
    from repertoire.tasks import Task

__all__ = ["fit_features"]


def fit_features(
    features: Annotated[
        Path, typer.Argument(help="An .npz or .safetensors file with features and labels.", show_default=False)
    ],
    estimator: Annotated[
        str | None,
        typer.Option(
            "--estimator",
            help="What to fit; see 'repertoire list feature-estimators', or with --attributes 'repertoire list "
            "zero-shot-classifiers'.",
            show_default="frozen-embedding; with --attributes eszsl",
        ),
    ] = None,
    attributes: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="What classes are like, also classes without a row, which are then predicted too: a .csv file whose "
            "first row is class,ATTRIBUTE,ATTRIBUTE, and then a row for each class with a number for each attribute, "
            "such as 1 for yes and 0 for no.",
            show_default=False,
        ),
    ] = None,
    unseen: Annotated[
        str | None,
        typer.Option(
            metavar="CLASS,CLASS",
            help="With --attributes: which classes are held out whole, to measure how well one is predicted that is "
            "only described; a fifth by default.",
            show_default=False,
        ),
    ] = None,
    predict: Annotated[
        Path | None,
        typer.Option(
            "--predict", help="Then predict the rows of this file, which needs no labels.", show_default=False
        ),
    ] = None,
    fitted: Annotated[
        Path | None,
        typer.Option(
            "--fitted", help="Fit nothing: use what lies in this directory, on all of FEATURES.", show_default=False
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            parser=folder_out,
            metavar="PATH",
            help="Directory; runs/FEATURES-ESTIMATOR-1 by default.",
            show_default=False,
        ),
    ] = None,
    test: Annotated[float, typer.Option(help="Share held out for the test where the file names no test rows.")] = 0.2,
    seed: Annotated[int, typer.Option(help="Of what is held out, and of what the estimator draws.")] = 0,
) -> None:
    """Fit an estimator to features, score it on rows it has not seen, and keep it.

    Writes estimator.json, estimator.safetensors and metrics.json, and with --predict predictions.csv.

    With --attributes, some classes may have no row at all: they are predicted by what they are like.
    """
    import numpy as np

    from repertoire.data import load
    from repertoire.errors import ConfigError
    from repertoire.estimators import load_estimator, save_estimator
    from repertoire.files import write_json
    from repertoire.statistics import interval

    if fitted is not None:
        if predict is not None:
            raise ConfigError("with --fitted, FEATURES are what is predicted; leave --predict out")
        if attributes is not None or unseen is not None:
            raise ConfigError("with --fitted, nothing is fitted; leave --attributes and --unseen out")
        _write_predictions(load_estimator(fitted), features, _free(out, features, "predictions") / "predictions.csv")
        return
    if unseen is not None and attributes is None:
        raise ConfigError("--unseen holds out classes that are described: give --attributes FILE with it")
    if attributes is not None:
        _fit_described(features, attributes, estimator or "eszsl", unseen, predict, out, test, seed)
        return
    estimator = estimator or "frozen-embedding"
    model = _build(estimator, seed)
    splits = load(f"features:{features}", seed=seed, val=min(0.1, test), test=test)
    folder = _free(out, features, estimator)
    task = _fit(model, splits, estimator)
    metrics = task.score(_outputs(model, splits.test, task))
    if task.kind == "number":
        away = np.abs(_targets(splits.test) - model.predict(splits.test.inputs(slice(None))))
        known = away[np.isfinite(away)].tolist()
        metrics["mae_interval"] = list(interval(known, bounds=(0.0, max(known))))
    save_estimator(model, folder)
    write_json(folder / "metrics.json", metrics)
    rows = [len(p) if _learns_unlabelled(model) else int(p.known.sum()) for p in (splits.train, splits.val)]
    _print(metrics, sum(rows))
    typer.echo(f"kept: {folder}")
    if predict is not None:
        _write_predictions(model, predict, folder / "predictions.csv")


def _fit_described(
    features: Path,
    attributes: Path,
    estimator: str,
    unseen: str | None,
    predict: Path | None,
    out: Path | None,
    test: float,
    seed: int,
) -> None:
    """Fits a zero-shot classifier, measures it on classes held out, and keeps it fitted to all."""
    from repertoire.cli._described import build_described, measure_described, print_described, refit_described
    from repertoire.data import load
    from repertoire.errors import ascii_path
    from repertoire.estimators import save_estimator
    from repertoire.files import write_json
    from repertoire.report import write_described_classes
    from repertoire.zeroshot import read_attributes

    model, table, source = build_described(estimator), read_attributes(attributes), ascii_path(str(attributes))
    splits = load(f"features:{features}", seed=seed, val=min(0.1, test), test=test)
    folder = _free(out, features, estimator)
    names = [name.strip() for name in unseen.split(",") if name.strip()] if unseen else []
    metrics = measure_described(model, splits, table, names, seed, source)
    model = refit_described(model, splits, table, metrics["gamma"], source)
    save_estimator(model, folder)
    write_json(folder / "metrics.json", metrics)
    page = write_described_classes(folder / "described.html", metrics, source=features.stem, noun="rows")
    print_described(metrics, len(table.classes))
    typer.echo(f"figure: {page}")
    typer.echo(f"kept: {folder}")
    if predict is not None:
        _write_predictions(model, predict, folder / "predictions.csv")


def _build(spec: str, seed: int) -> FeatureEstimator:
    from repertoire import registry
    from repertoire.errors import ConfigError

    name = registry.parse(spec).name
    if name not in registry.names("feature-estimators") and name in registry.names("zero-shot-classifiers"):
        raise ConfigError(f"{name} predicts classes by what they are like: give --attributes FILE with it")
    model: FeatureEstimator = registry.build("feature-estimators", spec)
    if getattr(model, "random_state", 0) is None:
        model.set_params(random_state=seed)
    return model


def _fit(model: FeatureEstimator, splits: Splits, spec: str) -> Task:
    """Fits to the training and validation rows; to those without a label where the estimator learns from them."""
    import numpy as np
    from sklearn.base import is_classifier

    from repertoire import registry
    from repertoire.errors import ConfigError
    from repertoire.tasks import task_of

    task = task_of(splits.train)
    wanted = {"classes": True, "number": False}.get(task.kind)
    if wanted is None or (task.kind == "number" and task.outputs != 1):
        raise ConfigError(
            f"estimators take a class or one number a row, and the labels here are {task.outputs} "
            f"{task.kind if task.kind != 'number' else 'numbers'}; train a head on them: repertoire train FEATURES"
        )
    if is_classifier(model) != wanted:
        entries = registry.entries("feature-estimators")
        fit = [e.name for e in entries if is_classifier(e.factory()) == wanted]
        what = "classes" if wanted else "numbers"
        raise ConfigError(f"{spec} does not predict {what}, which these labels are; these do: {', '.join(fit)}")
    every = [splits.train, splits.val]
    if _learns_unlabelled(model):
        parts = every + [splits.extra[name] for name in ("unlabelled",) if name in splits.extra]
    else:
        parts = [part.subset(np.flatnonzero(part.known)) for part in every]
    X = np.concatenate([part.inputs(slice(None)) for part in parts])
    model.fit(X, np.concatenate([_targets(part) for part in parts]))
    return task


def _learns_unlabelled(model: FeatureEstimator) -> bool:
    return bool(getattr(model, "learns_unlabelled", False))


def _targets(samples: Samples) -> np.ndarray:
    """Class names, or numbers: what a user reads, and not positions; "" where nobody knows the class."""
    import numpy as np

    return np.array([*samples.classes, ""])[samples.labels] if samples.kind == "classes" else samples.labels[:, 0]


def _outputs(model: Any, samples: Samples, task: Task) -> Any:
    """What the estimator says about some samples, as a network's outputs."""
    import numpy as np

    from repertoire.tasks import Outputs

    X = samples.inputs(slice(None))
    if samples.kind == "number":
        answers = task.encode(model.predict(X)[:, None])
        return Outputs(answers, X, samples.labels, answers)
    # Classes that no training row had are known to the data, and not to the estimator.
    logits = np.full((len(X), len(samples.classes)), -100.0, np.float32)
    columns = [samples.classes.index(str(name)) for name in model.classes_]
    logits[:, columns] = np.log(np.clip(model.predict_proba(X), 1e-30, None))
    return Outputs(logits, X, np.asarray(samples.labels))


def _print(metrics: dict[str, Any], rows: int) -> None:
    if "accuracy" in metrics:
        low, high = metrics["accuracy_interval"]
        typer.echo(
            f"test accuracy {metrics['accuracy']:.1%} ({low:.1%} to {high:.1%}) on {metrics['images']} rows, fitted to "
            f"{rows}; balanced {metrics['balanced_accuracy']:.1%}, NLL {metrics['nll']:.3f}"
        )
        return
    r2 = "" if metrics["r2"] is None else f", R2 {metrics['r2']:.3f}"
    low, high = metrics["mae_interval"]
    typer.echo(
        f"test mean absolute error {metrics['mae']:.4g} ({low:.4g} to {high:.4g}){r2} on {metrics['samples']} rows, "
        f"fitted to {rows}"
    )


def _free(out: Path | None, features: Path, what: str) -> Path:
    """The directory to write to, which must hold nothing yet.

    Raises:
        ConfigError: something lies in it.
    """
    from repertoire.errors import ConfigError, ascii_path

    if out is None:
        stem = f"{features.stem}-{what.partition(':')[0]}"
        number = 1
        while (Path("runs") / f"{stem}-{number}").exists():
            number += 1
        return Path("runs") / f"{stem}-{number}"
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(
            f"--out {ascii_path(str(out))} exists already; name a directory that is empty or not there yet"
        )
    return out


def _write_predictions(model: Any, path: Path, target: Path) -> None:
    import csv
    import io

    from repertoire.cli._described import write_described
    from repertoire.files import write_text
    from repertoire.zeroshot import ZeroShotClassifier

    X, names = _rows(path, model.n_features_in_)
    if isinstance(model, ZeroShotClassifier):
        write_described(model, X, names, target)
        return
    found = model.predict(X)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if hasattr(model, "predict_proba"):
        sure = model.predict_proba(X).max(1)
        writer.writerow(["name", "class", "probability"])
        writer.writerows(
            (safe_cell(n), safe_cell(str(f)), f"{p:.6f}") for n, f, p in zip(names, found, sure, strict=True)
        )
    else:
        writer.writerow(["name", "prediction"])
        writer.writerows((safe_cell(n), f"{f:.8g}") for n, f in zip(names, found, strict=True))
    write_text(target, text.getvalue())
    typer.echo(f"{len(X)} predictions: {target}")


def _rows(path: Path, width: int) -> tuple[np.ndarray, list[str]]:
    """All rows of a file of features in their order, and what they are called.

    Raises:
        DataError: it cannot be read, or has other features than the estimator was fitted to.
    """
    import zipfile

    import numpy as np
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    from repertoire.errors import DataError, ascii_path

    shown = ascii_path(str(path))
    try:
        if path.suffix.lower() == ".safetensors":
            X, names = load_file(path)["features"], None
        else:
            with np.load(path, allow_pickle=False) as stored:
                X, names = stored["features"], stored.get("names")
    except KeyError:
        raise DataError(f"{shown} holds no array called features") from None
    except (OSError, ValueError, TypeError, zipfile.BadZipFile, SafetensorError) as error:
        raise DataError(f"{shown} cannot be read as features: {error}") from None
    if X.ndim != 2 or X.shape[1] != width or X.dtype.kind != "f" or not np.isfinite(X).all():
        raise DataError(
            f"{shown} has features {X.dtype} {list(X.shape)}; the estimator was fitted to finite floats [N, {width}]"
        )
    return X, [str(name) for name in (np.arange(len(X)) if names is None else names)]
