"""What a run was made of that was not trained itself: merged, stitched or compressed from others."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from repertoire.report._text import count, data_size, label, number, percent

__all__ = ["made_of", "making"]

_SHARES = ("accuracy", "balanced_accuracy", "macro_f1", "f1")
"""Metrics that are written as percentages."""


def made_of(info: Mapping[str, Any]) -> dict[str, Any] | None:
    """The section on where the network came from: title, text and tables; None for a run that was trained.

    Args:
        info: what run.json says.
    """
    for key, section in (("merged", _merged), ("stitched", _stitched), ("compressed", _compressed)):
        if key in info:
            return section(info[key])
    return None


def making(info: Mapping[str, Any], out: str) -> str:
    """The command that makes the same again; nothing for a run that was trained.

    Args:
        info: what run.json says.
        out: directory of the run.
    """
    options: dict[str, Any]
    if made := info.get("merged"):
        options = {"by": made["operator"], "base": made.get("base"), "data": made.get("data")}
        words = ["merge", *made["runs"]]
    elif made := info.get("stitched"):
        options = {name: made.get(name) for name in ("epochs", "lr", "distil")}
        words = ["stitch", *made["runs"]]
    elif made := info.get("compressed"):
        options = {"by": made["by"], "base": made.get("origin", {}).get("run")}
        words = ["compress", made["run"]]
    else:
        return ""
    for name, value in {**options, "out": out}.items():
        words += [] if value is None else [f"--{name}", str(value)]
    return " ".join(label(shlex.quote(word)) for word in ("repertoire", *words))


def _table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> dict[str, Any]:
    return {"caption": caption, "head": head, "rows": rows}


def _value(key: str, value: float) -> str:
    return percent(value) if key in _SHARES else number(value)


def _named(path: str) -> str:
    return label(Path(path).name)


def _merged(made: Mapping[str, Any]) -> dict[str, Any]:
    key = made["key"]
    rows = [
        [_named(run), _value(key, value), "yes" if place in made["ingredients"] else "left out"]
        for place, (run, value) in enumerate(zip(made["runs"], made["before"], strict=True))
    ]
    rows.append(["the result", _value(key, made["after"]), ""])
    tables = [_table("On the validation samples", ["Run", label(key).capitalize(), "Used"], rows)]
    text = f"The weights of {count(len(made['runs']))} runs were merged by {label(made['operator'])}."
    if parts := made.get("parts"):
        text += (
            " They know different classes. On the test samples of each run’s classes, the second table has how many "
            "that run gets right by itself, and how many the result does if it is asked for these only. Among all "
            "classes it has to tell more apart, and its accuracy above is lower."
        )
        told = [
            [_named(part["run"]), count(len(part["classes"])), count(part["samples"]), percent(part["alone"]),
             percent(part["merged"])]
            for part in parts
        ]  # fmt: skip
        head = ["Run", "Classes", "Test samples", "Alone", "Merged"]
        tables.append(_table("Among the classes of each run", head, told))
    return {"title": "What it was made of", "text": text, "tables": tables}


def _stitched(made: Mapping[str, Any]) -> dict[str, Any]:
    key = made["key"]
    rows = []
    for route in made["routes"]:
        front, back = (_named(made["runs"][route[end]]) for end in ("from", "into"))
        way = front if front == back else f"{front} into {back}"
        rows.append([way, percent(route["share"]), _value(key, route["value"])])
    text = (
        "Several networks in one. A route begins in one of them and ends in it or in the next larger one; costs are "
        "operations of convolutions and linear layers, as a share of the largest network. A budget takes the best "
        "route that is cheap enough: repertoire predict RUN IMAGES --budget 0.4."
    )
    return {
        "title": "Routes",
        "text": text,
        "tables": [_table("On the validation samples", ["Route", "Cost", label(key).capitalize()], rows)],
    }


def _compressed(made: Mapping[str, Any]) -> dict[str, Any]:
    key = made["key"]
    rows = [
        ["Weights", *(data_size(size) for size in made["bytes"])],
        ["Validation " + label(key), *(_value(key, value) for value in made["val"])],
        ["Test " + label(key), *(_value(key, value) for value in made["test"])],
    ]
    if "multiplications" in made:
        rows.insert(1, ["Multiplications an image", *(f"{value:,.0f}" for value in made["multiplications"])])
    text = f"The network of the run {_named(made['run'])} was compressed by {label(made['by'])}."
    if origin := made.get("origin"):
        where = (
            f"the run {_named(origin['run'])}"
            if "run" in origin
            else f"the published weights of {label(origin['backbone'])}"
        )
        text += f" What is stored is a change of {where}, which is needed to open it."
    return {"title": "What was compressed", "text": text, "tables": [_table("", ["", "Before", "After"], rows)]}
