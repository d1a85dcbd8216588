"""A paper's status, computed from what is there and never typed."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Literal, get_args

from repertoire.errors import DataError

__all__ = ["STATUSES", "Status", "missing_components", "stored_verdict"]

Status = Literal["open", "built", "holds", "does not hold", "inconclusive"]
STATUSES: tuple[Status, ...] = get_args(Status)

# Evidence is read as data: the catalogue stands below the claims and does not import them.
EVIDENCE = Path(__file__).parent.parent / "claims" / "evidence"


def stored_verdict(slug: str) -> Status | None:
    """What the evidence of a paper's claim says, the `full` budget before the `small` one; None without evidence.

    Raises:
        DataError: a file of evidence cannot be read.
    """
    for budget in ("full", "small"):
        path = EVIDENCE / f"{slug}.{budget}.json"
        try:
            verdict = json.loads(path.read_text(encoding="utf-8"))["verdict"]
        except FileNotFoundError:
            continue
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
            raise DataError(
                f"{path} is not evidence ({error!r}); remove it and run: repertoire claims run {slug}"
            ) from None
        if verdict not in ("holds", "does not hold", "inconclusive"):
            raise DataError(f"{path}: the verdict is {verdict!r}, expected holds, does not hold or inconclusive")
        return verdict
    return None


def missing_components(components: tuple[str, ...]) -> list[str]:
    """The dotted names that do not import. Imports their rooms, which is why no listing calls it."""
    missing = []
    for dotted in components:
        module, _, name = dotted.rpartition(".")
        try:
            found = hasattr(importlib.import_module(module), name)
        except ModuleNotFoundError:
            found = False
        if not found:
            missing.append(dotted)
    return missing
