"""Puts the report of a protocol together: what is left of each stage after each."""

from __future__ import annotations

import ast
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from repertoire import registry
from repertoire.errors import RunError, option
from repertoire.files import check_place, write_text
from repertoire.protocols import Outcome
from repertoire.report import _figures, _text
from repertoire.report._bars import matrix_chart
from repertoire.report._render import render
from repertoire.report._text import percent

__all__ = ["write_stages"]

COLOURS = 10
"""Stages that have a curve: of more, as many are shown, evenly spaced."""

_SETTINGS = (
    "data",
    "method",
    "loss",
    "backbone",
    "head",
    "rule",
    "weights",
    "tune",
    "epochs",
    "batch_size",
    "lr",
    "seed",
)
"""What of the configuration is shown: the run of each stage has all of it."""


def write_stages(outcome: Outcome, out: str | os.PathLike[str] | None = None) -> Path:
    """Writes the report of a protocol: one HTML file that opens offline, on any screen.

    It says what is left of each stage in the end and where most was lost, and shows the matrix of accuracies after each
    stage on each, as a table and as a figure, the average on the way between what plain training and training on
    everything at once give, the curve of each stage, and what was kept of them.

    Args:
        outcome: what `repertoire.protocols.follow` or `observe` gave, or `Outcome.read` of the directory.
        out: the file; `report.html` in the outcome's directory if None. It is replaced whole or not at all.

    Returns:
        The file's path.

    Raises:
        RunError: the outcome has no directory and `out` is None; or nothing can be written to `out`.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from repertoire.protocols import Outcome, measure
        >>> from repertoire.report import write_stages
        >>> matrix = np.array([[0.9, np.nan], [0.5, 0.8]])
        >>> outcome = Outcome(("cats", "dogs"), matrix, metrics=measure(matrix))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     page = write_stages(outcome, f"{folder}/report.html").read_text(encoding="utf-8")
        >>> "65.0%" in page
        True
    """
    if out is None and outcome.path is None:
        raise RunError("this outcome has no directory of its own: say where the report shall be, with out=FILE")
    own = outcome.path / "report.html" if out is None and outcome.path is not None else str(out)
    target = check_place(own, option("out"))
    page = render("stages.html.j2", _content(outcome), styles=("style.css", "comparison.css", "stages.css"))
    write_text(target, page)
    return target


def _content(outcome: Outcome) -> dict[str, Any]:
    names = [_text.label(name) for name in outcome.names]
    stored = _stored(outcome.path)
    config = stored.get("config") or {}
    count = len(names)
    return {
        "path": "" if outcome.path is None else str(outcome.path),
        "source": _text.name_of_data(config.get("data", "Stages")),
        "summary": _summary(names, stored, config),
        "names": names,
        "final": outcome.metrics["accuracy"],
        "tiles": _tiles(outcome.metrics),
        "sentences": _sentences(outcome, names),
        "grids": _grids(outcome, names),
        "map": matrix_chart(
            outcome.matrix,
            [f"after {t + 1}: {name}" for t, name in enumerate(names)],
            [f"{i + 1}: {name}" for i, name in enumerate(names)],
            description=f"Accuracy after each of {count} stages on each, darker where it is higher, as in the table.",
            names=("after stage", "tested on stage"),
            short=([str(t + 1) for t in range(count)],) * 2,
        ),
        "curve": _curve(outcome),
        "each": _each(outcome.matrix, names),
        "cut": count > COLOURS,
        "stages": _stages(outcome, names, stored),
        "facts": _facts(outcome, stored, config),
    }


def _stored(path: Path | None) -> dict[str, Any]:
    """Record from the start of the first stage; nothing where it is gone."""
    if path is None:
        return {}
    try:
        found: dict[str, Any] = json.loads((path / "stages.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _summary(names: Sequence[str], stored: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    trained = "A model that learned"
    if {"backbone", "method"} <= config.keys():
        trained = f"A {config['backbone']} trained with method {config['method']}"
    elif "learner" in config:
        trained = f"{config['learner']}, fitted to features,"
    through = f"through {_text.plural(len(names), 'stage')}"
    protocol, _ = _protocol(stored)
    protocol = "" if protocol == "continue" else protocol  # data that came in, and was not divided
    return _text.label(f"{trained} {through}{f' of protocol {protocol}' if protocol else ''}, one after another.")


def _protocol(stored: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Name of the protocol, that of its class if it is not registered, and its options."""
    try:
        name, options = ast.literal_eval(stored["protocol"])
        known = {entry.factory.__name__: entry.name for entry in registry.entries("protocols")}
        return known.get(str(name), str(name)), dict(options)
    except (KeyError, TypeError, ValueError, SyntaxError):
        return "", {}


def _tiles(metrics: Mapping[str, float]) -> list[tuple[str, str, str]]:
    """Title, value and meaning of each number that was measured."""
    known = (
        ("Forgetting", "forgetting", "lost, on average, since a stage was known best"),
        ("Backward transfer", "backward_transfer", "what later stages did to earlier ones"),
        ("When learned", "learning", "mean accuracy on a stage right after it"),
        ("On the way", "accuracy_of_curve", "mean over the stages, after each"),
        ("Before its turn", "zero_shot", "mean accuracy on a stage right before it"),
    )
    rows = [(title, _signed_percent(metrics[key]), says) for title, key, says in known if key in metrics]
    if {"finetune", "joint"} <= metrics.keys():
        ends = f"{100 * metrics['finetune']:.1f}–{percent(metrics['joint'])}"
        rows.append(("Bounds", ends, "plain training stage by stage, and everything at once"))
    kept = (
        ("Kept samples", "memory_bytes", "in memory for the stages to come"),
        ("Kept beside them", "state_bytes", "what the method has beside its network, or an estimator in all"),
    )
    return rows + [(title, _bytes(metrics[key]), says) for title, key, says in kept if key in metrics]


def _bytes(size: float) -> str:
    """Bytes as a person reads them, few as well.

    >>> _bytes(0.0), _bytes(1536.0), _bytes(3 * 2**20)
    ('nothing', '1.5 KiB', '3.0 MiB')
    """
    if size < 1:
        return "nothing"
    return _text.data_size(size) if size >= 2**20 else f"{size / 2**10:.1f} KiB"


def _signed_percent(share: float) -> str:
    return percent(share).replace("-", "−")


def _sentences(outcome: Outcome, names: Sequence[str]) -> list[str]:
    """Sentences that a reader would take from the numbers."""
    metrics, matrix = outcome.metrics, outcome.matrix
    count = len(names)
    said = [f"There is a single stage, with an accuracy of {percent(metrics['accuracy'])}."]
    if count > 1:
        said = [
            f"After the last of {count} stages, the mean accuracy over all of them is {percent(metrics['accuracy'])}."
        ]
    below, above = metrics.get("finetune"), metrics.get("joint")
    if below is not None and above is not None:
        between = f"Plain training stage by stage ends at {percent(below)}, and everything at once at {percent(above)}"
        if above > below:
            way = f"{(metrics['accuracy'] - below) / (above - below):.0%} of the way from the one to the other"
            said.append(f"{between}: this is {way}.")
        else:
            said.append(f"{between}, so there was nothing to be gained here.")
    if count > 1:
        lost = np.nanmax(np.where(np.tri(count, dtype=bool), matrix, -np.inf)[:-1, :-1], axis=0) - matrix[-1, :-1]
        worst = int(lost.argmax())
        if lost[worst] > 0:
            best = matrix[-1, worst] + lost[worst]
            said.append(
                f"Most was lost of stage {worst + 1} ({_text.shorten(names[worst], 40)}): {percent(best)} when it was "
                f"known best, {percent(matrix[-1, worst])} in the end."
            )
        else:
            said.append("Nothing was forgotten: no stage is known worse in the end than it was before.")
    if outcome.within is not None:
        inside = float(np.mean(outcome.within[-1]))
        said.append(
            f"Were it known which stage a sample is from, the mean would be {percent(inside)}: the difference is what "
            "classes of one stage are taken for those of another."
        )
    return said


def _grids(outcome: Outcome, names: Sequence[str]) -> list[dict[str, Any]]:
    """The matrix as tables: among all classes and, where it was measured, among those of the sample's own stage."""
    found = []
    for title, matrix in (("Among all classes", outcome.matrix), ("Among the classes of its stage", outcome.within)):
        if matrix is None:
            continue
        rows = [
            {
                "name": names[t],
                "cells": [
                    {"text": _cell(value), "tint": _tint(value), "own": i == t, "empty": not math.isfinite(value)}
                    for i, value in enumerate(row)
                ],
                "mean": percent(float(np.mean(row[: t + 1]))),
            }
            for t, row in enumerate(matrix.tolist())
        ]
        found.append({"title": title, "rows": rows})
    return found


def _cell(value: float) -> str:
    return f"{100 * value:.1f}" if math.isfinite(value) else "–"


def _tint(value: float) -> float:
    return round(min(max(value, 0.0), 1.0), 3) if math.isfinite(value) else 0.0


def _curve(outcome: Outcome) -> Markup | None:
    """The average on the way, with the bounds as lines where they were measured."""
    count = len(outcome.names)
    main = _figures.Series(
        "mean" if {"finetune", "joint"} & outcome.metrics.keys() else "",
        [(t + 1, value) for t, value in enumerate(outcome.curve)],
        hints=[f"after stage {t + 1}: {percent(value)}" for t, value in enumerate(outcome.curve)],
    )
    bounds = [
        _figures.Series(name, [(1, outcome.metrics[key]), (count, outcome.metrics[key])], "aside")
        for name, key in (("above", "joint"), ("below", "finetune"))
        if key in outcome.metrics
    ]
    return _figures.line_chart(
        [main, *bounds],
        description="Mean accuracy on the stages so far, after each. The table has the numbers.",
        write=lambda value: f"{100 * value:g}%",
        zero=True,
        highest=1.0,
        axis="after stage",
    )


def _each(matrix: np.ndarray, names: Sequence[str]) -> Markup | None:
    """A curve a stage: what is left of it after each stage."""
    count = len(names)
    shown = np.unique(np.linspace(0, count - 1, min(count, COLOURS)).round().astype(int))
    series = [
        _figures.Series(
            str(i + 1),
            [(t + 1, float(matrix[t, i])) for t in range(count)],
            f"k{number}",
            [f"{names[i]}, after stage {t + 1}: {percent(float(matrix[t, i]))}" for t in range(count)],
        )
        for number, i in enumerate(shown.tolist())
    ]
    return _figures.line_chart(
        series,
        description="Accuracy on each stage, after each. The table has the numbers.",
        write=lambda value: f"{100 * value:g}%",
        zero=True,
        highest=1.0,
        axis="after stage",
    )


def _stages(outcome: Outcome, names: Sequence[str], stored: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row a stage: how well it was learned, known best and kept, and what its training took. Of runs that do not lie
    with the outcome, what was stored says where they are and what they took."""
    runs, took = stored.get("runs", {}), stored.get("seconds", {})
    rows = []
    for i, name in enumerate(names):
        beside = "" if outcome.path is None else _text.label(outcome.path / f"{i:02d}")
        column = outcome.matrix[i:, i]
        seconds = took.get(outcome.names[i])
        if seconds is None and outcome.path is not None:
            try:
                seconds = json.loads((outcome.path / f"{i:02d}.json").read_text(encoding="utf-8")).get("seconds")
            except (OSError, ValueError, AttributeError):
                seconds = None
        rows.append(
            {
                "name": name,
                "learned": percent(float(column[0])),
                "best": percent(float(column.max())),
                "last": percent(float(column[-1])),
                "lost": _signed_percent(float(column.max() - column[-1])),
                "seconds": _text.duration(seconds) if isinstance(seconds, int | float) else "",
                "run": _text.label(runs[outcome.names[i]]) if outcome.names[i] in runs else beside,
            }
        )
    return rows


def _facts(outcome: Outcome, stored: Mapping[str, Any], config: Mapping[str, Any]) -> list[tuple[str, str]]:
    name, options = _protocol(stored)
    rows = [] if outcome.path is None else [("Directory", str(outcome.path))]
    rows += [("Protocol", name)] if name else []
    rows += [(f"– {key}", str(value)) for key, value in options.items()]
    rows += [(key.replace("_", " ").capitalize(), str(config[key])) for key in _SETTINGS if config.get(key) is not None]
    return [(title, _text.label(value)) for title, value in rows]
