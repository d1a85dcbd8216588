"""Puts the report of a comparison together and writes it."""

from __future__ import annotations

import json
import os
import shlex
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from repertoire.compare import Comparison, Row
from repertoire.errors import option
from repertoire.files import check_place, write_text
from repertoire.report import _figures, _text
from repertoire.report._comparison_figures import Estimate, Spot, forest_chart, pareto_chart
from repertoire.report._page import thin
from repertoire.report._render import render

__all__ = ["write_comparison"]

COLOURS = 10
"""Configurations that have a colour, and so a learning curve; of more, the best ones and the baseline."""

_STYLES = {"better": "good", "worse": "aside", "baseline": "base"}


def write_comparison(comparison: Comparison, out: str | os.PathLike[str] | None = None) -> Path:
    """Writes the report of a comparison: one HTML file that opens offline, on any screen.

    It says in sentences what differs and what cannot be told apart, and shows the table, the intervals, what accuracy
    costs in time and memory, the learning curves, the trials of a search, and how to repeat it.

    Args:
        comparison: what `repertoire.compare.compare` gave.
        out: the file; `report.html` in the comparison's directory if None. It is replaced whole or not at all.

    Returns:
        The file's path.

    Raises:
        RunError: nothing can be written to `out`.

    Example:
        >>> import repertoire
        >>> found = repertoire.compare.compare("digits", vary={"lr": [0.05, 0.1]})  # doctest: +SKIP
        >>> repertoire.report.write_comparison(found)  # doctest: +SKIP
        PosixPath('comparisons/digits-1/report.html')
    """
    target = check_place(comparison.path / "report.html" if out is None else out, option("out"))
    page = render(
        "comparison.html.j2",
        _content(comparison),
        styles=("style.css", "comparison.css"),
        filters={"size": _size},
    )
    write_text(target, page)
    return target


def _content(comparison: Comparison) -> dict[str, Any]:
    c, metric = comparison, comparison.metric
    rows = c.table
    colours = _colours(c)
    return {
        "c": c,
        "metric": metric,
        "source": _text.name_of_data(c.data),
        "summary": (
            f"{len(rows)} configurations with {_text.plural(len(c.seeds), 'seed')} each, measured by {metric.title} "
            f"against {c.baseline}."
        ),
        "rows": [(number, row, colours.get(row.label, "")) for number, row in enumerate(rows, 1)],
        "searched": bool(c.space),
        "means": forest_chart(
            [_mean(row, c) for row in rows],
            description=f"{metric.title} of each configuration with its 95% interval. The table has the numbers.",
            write=lambda value: f"{value:.4g}" if not metric.share else f"{100 * value:.4g}%",
        ),
        "differences": forest_chart(
            [_difference(row, c) for row in rows if row.label != c.baseline],
            description=f"Difference of each configuration to {c.baseline} with its 95% interval.",
            write=lambda value: f"{100 * value if metric.share else value:+.4g}" if value else "0",
            reference=0.0,
        ),
        "costs": _costs(c, colours),
        "curves": _curves(c, colours),
        "curves_cut": len(rows) > COLOURS,
        "command": _command(c),
        "circumstances": _circumstances(c),
    }


def _colours(c: Comparison) -> dict[str, str]:
    """A CSS class for each configuration that has a colour: the baseline, and the best of the others."""
    sign = 1 if c.metric.higher_is_better else -1
    best = sorted(
        (row for row in c.table if row.label != c.baseline and row.mean is not None),
        key=lambda row: -sign * (row.mean or 0.0),
    )
    chosen = {c.baseline, *(row.label for row in best[: COLOURS - 1])}
    labels = [row.label for row in c.table if row.label in chosen]
    return {label: f"k{i}" for i, label in enumerate(labels)}


def _mean(row: Row, c: Comparison) -> Estimate:
    hint = c.metric.value(row.mean) + (f", {c.metric.span(*row.interval)}" if row.interval else "")
    return Estimate(row.label, row.mean, row.interval, row.values, _STYLES.get(row.verdict, "main"), hint)


def _difference(row: Row, c: Comparison) -> Estimate:
    theirs = {run.seed: run.value for run in c.row(c.baseline).runs if run.value is not None}
    values = [run.value - theirs[run.seed] for run in row.runs if run.value is not None and run.seed in theirs]
    hint = "" if row.difference is None else c.metric.difference(row.difference, sign=True)
    if row.difference_interval is not None:
        hint += f", {c.metric.differences(*row.difference_interval, sign=True)}"
    style = _STYLES.get(row.verdict, "main")
    return Estimate(row.label, row.difference, row.difference_interval, values, style, hint)


def _costs(c: Comparison, colours: dict[str, str]) -> list[dict[str, Any]]:
    figures = []
    for title, axis, write, values in (
        ("Time", "mean training time of a run", _text.duration, [row.seconds for row in c.table]),
        ("Memory", "mean peak memory of a run", _size, [row.memory for row in c.table]),
    ):
        spots = [
            Spot(number, row.label, cost, row.mean, colours.get(row.label, "plain"))
            for number, (row, cost) in enumerate(zip(c.table, values, strict=True), 1)
            if cost is not None and row.mean is not None
        ]
        figure = pareto_chart(
            spots,
            description=f"{c.metric.title} against {axis}. The table has the numbers.",
            axis=axis,
            write=c.metric.value,
            write_cost=write,
            higher_is_better=c.metric.higher_is_better,
        )
        if figure is not None:
            figures.append({"title": title, "figure": figure})
    return figures


def _curves(c: Comparison, colours: dict[str, str]) -> list[dict[str, Any]]:
    """Means over the seeds, epoch by epoch."""
    histories = {row.label: [_history(run.path) for run in row.runs if not run.reason] for row in c.table}
    numbers = {row.label: number for number, row in enumerate(c.table, 1)}
    figures = []
    charts: list[tuple[str, str, dict[str, Any]]] = [
        ("Validation accuracy", "val_accuracy", {"write": lambda v: f"{100 * v:g}%", "highest": 1.0}),
        ("Validation NLL", "val_nll", {}),
    ]
    for title, key, options in charts:
        series = [
            _figures.Series(str(numbers[label]), _averaged(histories[label], key), style)
            for label, style in colours.items()
        ]
        figure = _figures.line_chart(
            series, description=f"{title} of each configuration over the epochs, mean over the seeds.", **options
        )
        if figure is not None:
            figures.append({"title": title, "figure": figure})
    return figures


def _averaged(histories: Sequence[Sequence[dict[str, Any]]], key: str) -> list[tuple[float, float]]:
    """The mean at each epoch over the runs that came so far."""
    by_epoch: dict[int, list[float]] = {}
    for history in histories:
        for row in history:
            if row.get(key) is not None:
                by_epoch.setdefault(row["epoch"], []).append(row[key])
    rows = thin([{"epoch": epoch, key: statistics.fmean(values)} for epoch, values in sorted(by_epoch.items())])
    return [(row["epoch"], row[key]) for row in rows]


def _history(path: Path) -> list[dict[str, Any]]:
    try:
        lines = (path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]
    except (OSError, ValueError):
        return []


def _command(c: Comparison) -> str:
    """The command that goes on with it, or repeats it elsewhere."""
    words = ["repertoire", "compare", c.data]
    for name, value in c.shared.items():
        flag = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            words.append(flag if value else f"--no-{flag[2:]}")
        else:
            words += [word for item in (value if isinstance(value, list) else [value]) for word in (flag, str(item))]
    for field in c.table[0].settings:
        values = dict.fromkeys(_written(row.settings[field]) for row in c.table)
        words += ["--vary", f"{field}={','.join(values)}"]
    baseline = c.row(c.baseline)
    if baseline is not c.table[0]:
        words += [w for field, v in baseline.settings.items() for w in ("--baseline", f"{field}={_written(v)}")]
    for field, space in c.space.items():
        words += ["--search", f"{field}={space}"]
    if c.space:
        words += ["--trials", str(max((len(trials) for trials in c.trials.values()), default=0))]
    words += ["--metric", c.metric.name] if c.metric.name != "accuracy" else []
    words += ["--seed", str(c.seeds[0])] if c.seeds[0] else []
    return " ".join(_text.label(shlex.quote(word)) for word in [*words, "--seeds", str(len(c.seeds))])


def _written(value: Any) -> str:
    """A value of a list on the command line."""
    if isinstance(value, tuple | list):
        return f"({','.join(map(str, value))})"
    text = str(value).lower() if isinstance(value, bool) or value is None else str(value)
    return f"({text})" if "," in text else text


def _circumstances(c: Comparison) -> list[tuple[str, str]]:
    rows = [("Directory", str(c.path)), ("Seeds", f"{c.seeds[0]} to {c.seeds[-1]}")]
    for run in (run for row in c.table for run in row.runs if not run.reason):
        try:
            info = json.loads((run.path / "run.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        counts = {part: sum(values) for part, values in info.get("counts", {}).items()}
        images = " / ".join(_text.count(counts[part]) for part in ("train", "val", "test") if part in counts)
        rows.append(("Images to train / validate / test", images))
        named = {"Device": "device", "Machine": "machine", "Repertoire": "repertoire", "PyTorch": "torch"}
        rows += [(name, str(info[key])) for name, key in named.items() if info.get(key)]
        break
    return [(name, _text.label(value)) for name, value in rows]


def _size(value: float | None) -> str:
    return _text.DASH if value is None else "0" if value == 0 else _text.data_size(value)
