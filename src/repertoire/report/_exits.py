"""The exits of a network that was trained block by block: how accurate each is, and what leaving early saves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from repertoire.report import _figures
from repertoire.report._text import label, percent

__all__ = ["exits"]

TOLERATED = 0.01
"""Loss of accuracy that an early exit may cost to be recommended."""


def exits(metrics: Mapping[str, Any]) -> dict[str, Any] | None:
    """The section on exits: its figures, its tables and what it recommends; None for a run without exits.

    Args:
        metrics: of the run; `repertoire.train.Run.exit_curve` says what lies under "exits" and "early_exit".
    """
    rows, curve = metrics.get("exits"), metrics.get("early_exit")
    if not rows or not curve:
        return None
    last = rows[-1]["accuracy"]
    return {
        "rows": [{**row, "last_unit": label(row["last_unit"])} for row in rows],
        "curve": curve,
        "by_block": _by_block(rows),
        "by_work": _by_work(rows, curve),
        "best": max(rows, key=lambda row: row["accuracy"]),
        "recommended": _recommended(curve, last),
    }


def _recommended(curve: list[dict[str, Any]], accuracy: float) -> dict[str, Any] | None:
    """The confidence that saves the most work at nearly the network's accuracy; None where none saves any."""
    cheap = [row for row in curve if row["work"] < 1 and row["accuracy"] >= accuracy - TOLERATED]
    return min(cheap, key=lambda row: row["work"]) if cheap else None


def _by_block(rows: list[dict[str, Any]]) -> Any:
    return _figures.line_chart(
        [
            _figures.Series(
                "",
                [(row["block"], row["accuracy"]) for row in rows],
                hints=[f"block {row['block']}: {percent(row['accuracy'])} right" for row in rows],
            )
        ],
        description=f"Test accuracy of the exit after each of {len(rows)} blocks. The table has the numbers.",
        write=_share,
        highest=1.0,
        axis="block",
    )


def _by_work(rows: list[dict[str, Any]], curve: list[dict[str, Any]]) -> Any:
    early = _figures.Series(
        "",
        [(row["work"], row["accuracy"]) for row in curve],
        hints=[f"leave when {percent(row['confidence'], 0)} sure: {_worth(row)}" for row in curve],
    )
    whole = {"accuracy": rows[-1]["accuracy"], "work": 1.0}
    network = _figures.Series("", [(1.0, whole["accuracy"])], "aside", [f"the network without exits: {_worth(whole)}"])
    return _figures.line_chart(
        [early, network],
        description=(
            "Test accuracy against the mean work of an image, for early exit at several confidences and for the "
            "network without exits. The tables have the numbers."
        ),
        write=_share,
        highest=1.0,
        mark=(1.0, "without exits"),
        axis="mean work",
        write_across=_share,
    )


def _worth(row: Mapping[str, Any]) -> str:
    return f"{percent(row['accuracy'])} right at {percent(row['work'], 0)} of the work"


def _share(share: float) -> str:
    return f"{100 * share:g}%"
