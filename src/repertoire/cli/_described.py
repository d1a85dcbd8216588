"""What `fit-features --attributes` does: classes that are described, some of them without a row."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from repertoire.cli._options import safe_cell

if TYPE_CHECKING:
    import numpy as np

    from repertoire.data import Splits
    from repertoire.zeroshot import ClassTable, SeenUnseen, ZeroShotClassifier

__all__ = ["build_described", "measure_described", "print_described", "refit_described", "write_described"]

_POINTS = 200
"""Points of a curve that are kept for a figure."""


@dataclass(frozen=True)
class Rows:
    """Rows with a class each, as rows of the table of classes.

    Attributes:
        X, y: those to learn from.
        test_X, test_y: those that are kept for the test.
    """

    X: np.ndarray
    y: np.ndarray
    test_X: np.ndarray
    test_y: np.ndarray


def build_described(spec: str) -> ZeroShotClassifier:
    """The zero-shot classifier of a spec.

    Raises:
        UnknownName: there is none of that name; the message suggests the nearest.
        ConfigError: it is an estimator that knows no descriptions, or an option does not fit.
    """
    from repertoire import registry
    from repertoire.errors import ConfigError

    name = registry.parse(spec).name
    known = registry.names("zero-shot-classifiers")
    if name not in known and name in registry.names("feature-estimators"):
        raise ConfigError(f"{name} learns from rows alone; with --attributes, choose one of {', '.join(known)}")
    model: ZeroShotClassifier = registry.build("zero-shot-classifiers", spec)
    return model


def measure_described(
    model: ZeroShotClassifier,
    splits: Splits,
    table: ClassTable,
    unseen: Sequence[str],
    seed: int,
    source: str,
    *,
    gamma: float | None = None,
) -> dict[str, Any]:
    """Fits to some of the classes, and measures these and others, which it was only told of.

    Args:
        model: what is fitted.
        splits: the rows.
        table: what classes are like.
        unseen: the classes to hold out whole; a fifth of them, drawn by the seed, if empty.
        seed: of what is drawn.
        source: the file of the table, for messages.
        gamma: what seen classes give up; chosen on classes held out if None.

    Raises:
        DataError: a class of the rows is not in the table. UnknownName: a class to hold out has no row.
        ConfigError: too few classes.
    """
    import numpy as np

    from repertoire.errors import ConfigError, UnknownName
    from repertoire.zeroshot import seen_unseen

    rows = _rows(splits, table, source)
    present = np.unique(np.concatenate([rows.y, rows.test_y]))
    for name in unseen:
        if name not in {table.classes[c] for c in present}:
            raise UnknownName("class with rows", name, [table.classes[c] for c in present])
    if len(present) - max(1, len(set(unseen))) < 3:
        raise ConfigError(
            f"to measure classes that are only described, some are held out, and rows of three others are needed; "
            f"there are rows of {len(present)} classes"
        )
    if unseen:
        away = np.array(sorted(table.classes.index(name) for name in set(unseen)))
    else:
        away = np.sort(np.random.default_rng(seed).permutation(present)[: max(1, round(len(present) / 5))])
    inside, tested = ~np.isin(rows.y, away), ~np.isin(rows.test_y, away)
    if not tested.any():
        raise ConfigError("no row of a class that was learned is left for the test; raise --test")
    model.fit(rows.X[inside], rows.y[inside], table.values)
    if gamma is None:
        gamma = _gamma(model, rows.X[inside], rows.y[inside], table.values)
    X = np.concatenate([rows.test_X[tested], rows.test_X[~tested], rows.X[~inside]])
    y = np.concatenate([rows.test_y[tested], rows.test_y[~tested], rows.y[~inside]])
    scores = model.decision_function(X)
    new = np.isin(y, away)
    curve = seen_unseen(scores, y, model.is_seen())
    # Zero-shot learning in the narrow sense: an unseen class is known to be one.
    among = away[scores[new][:, away].argmax(1)] == y[new]
    seen, other, harmonic = curve.at(gamma)
    return {
        "unseen_classes": [table.classes[c] for c in away],
        "rows": len(y),
        "gamma": gamma,
        "seen": seen,
        "unseen": other,
        "harmonic": harmonic,
        "ausuc": curve.area,
        "among_unseen": float(np.mean([among[y[new] == c].mean() for c in np.unique(y[new])])),
        "without_gamma": dict(zip(("seen", "unseen", "harmonic"), curve.at(0.0), strict=True)),
        "curve": _thinned(curve),
    }


def _thinned(curve: SeenUnseen) -> dict[str, list[float]]:
    """Accuracies on seen and on unseen classes along gamma, at no more points than a figure shows."""
    import numpy as np

    chosen = np.unique(np.linspace(0, len(curve.seen) - 1, _POINTS).round().astype(int))
    return {"seen": curve.seen[chosen].tolist(), "unseen": curve.unseen[chosen].tolist()}


def print_described(metrics: dict[str, Any], classes: int, noun: str = "rows") -> None:
    """Prints how well classes are predicted that are told of by attributes alone."""
    from repertoire.errors import ascii_path

    away, plain = metrics["unseen_classes"], metrics["without_gamma"]
    shown = ", ".join(ascii_path(name) for name in away[:5]) + (" and others" if len(away) > 5 else "")
    typer.echo(f"held out to measure, and told of by attributes alone: {len(away)} of {classes} ({shown})")
    typer.echo(
        f"test accuracy: seen classes {metrics['seen']:.1%}, unseen {metrics['unseen']:.1%}, harmonic mean "
        f"{metrics['harmonic']:.1%}, AUSUC {metrics['ausuc']:.3f}, on {metrics['rows']} {noun}; unseen among unseen "
        f"alone {metrics['among_unseen']:.1%}"
    )
    if metrics["gamma"]:
        typer.echo(
            f"seen classes give up {metrics['gamma']:.3g} of their scores (without: {plain['seen']:.1%} and "
            f"{plain['unseen']:.1%})"
        )


def refit_described(
    model: ZeroShotClassifier, splits: Splits, table: ClassTable, gamma: float, source: str
) -> ZeroShotClassifier:
    """Fits to all classes that there are rows of, and keeps names and gamma with the classifier."""
    import numpy as np

    rows = _rows(splits, table, source)
    model.fit(rows.X, rows.y, table.values)
    kept: Any = model
    kept.class_names_, kept.gamma_ = np.array(table.classes), gamma
    return model


def write_described(model: ZeroShotClassifier, X: np.ndarray, names: Sequence[str], target: Path) -> None:
    """Writes the class of each row, and whether the classifier had rows of it."""
    from repertoire.errors import RunError
    from repertoire.files import write_text

    kept: Any = model
    if not hasattr(kept, "class_names_"):
        raise RunError("this classifier was kept without the names of its classes; predict with it in Python")
    found, seen = model.predict(X, gamma=kept.gamma_), model.is_seen()
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["name", "class", "seen"])
    writer.writerows(
        (safe_cell(name), safe_cell(str(kept.class_names_[c])), "yes" if seen[c] else "no")
        for name, c in zip(names, found, strict=True)
    )
    write_text(target, text.getvalue())
    typer.echo(f"{len(X)} predictions: {target}")


def _rows(splits: Splits, table: ClassTable, source: str) -> Rows:
    import numpy as np

    from repertoire.errors import ConfigError, DataError, nearest

    if splits.train.kind != "classes":
        raise ConfigError("--attributes describe classes, and the labels here are none")
    places = {name: place for place, name in enumerate(table.classes)}
    counts = sum((part.counts() for part in (splits.train, splits.val, splits.test)), np.zeros(1, dtype=np.int64))
    for name, count in zip(splits.train.classes, counts, strict=True):
        if count and name not in places:
            near = nearest(name, table.classes)
            raise DataError(
                f"{source} does not describe {name!r}" + (f"; did you mean {near!r} there?" if near else "")
            )
    numbers = np.array([places.get(name, -1) for name in splits.train.classes])

    def of(parts: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
        known = [part.subset(np.flatnonzero(part.known)) for part in parts]
        X = np.concatenate([part.inputs(slice(None)) for part in known])
        return X, numbers[np.concatenate([part.labels for part in known])]

    return Rows(*of([splits.train, splits.val]), *of([splits.test]))


def _gamma(model: ZeroShotClassifier, X: np.ndarray, y: np.ndarray, descriptions: np.ndarray) -> float:
    """What is taken from the scores of seen classes; nothing where too few could be held out to tell."""
    import numpy as np

    from repertoire.zeroshot import choose_gamma

    classes = len(np.unique(y))
    if model.calibrated or classes < 4:
        return 0.0
    return choose_gamma(model, X, y, descriptions, folds=3 if classes >= 6 else 2)
