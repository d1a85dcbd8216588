"""A component that is whole passes every check, and each check finds what it is there for."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from typing import Any

from repertoire.testing import Check

Checks = Callable[[Any], list[Check]]


def failing(check: Checks, component: Any) -> list[str]:
    """The names of the checks that a component does not pass, in the order of the checks."""
    found = []
    for one in check(component):
        try:
            one()
        except Exception:  # what a component raises by itself fails its owner's test just as well
            traceback.print_exc()  # shown where a test fails
            found.append(str(one))
    return found


def every_check_is_tried(check: Checks, whole: Any, broken: Mapping[str, Any]) -> None:
    """Asserts that a whole component passes, and that there is a broken one for each check."""
    assert failing(check, whole) == []
    assert list(broken) == [str(one) for one in check(whole)]
