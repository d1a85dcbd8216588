"""A griffe extension: `val, test: shares ...` in a docstring documents each of the two."""

from __future__ import annotations

import re
from typing import Any

import griffe

__all__ = ["GroupedNames", "ungroup"]

_GROUP = re.compile(r"^([ \t]+)(\*{0,2}\w+(?:, \*{0,2}\w+)+):(?= )(.*(?:\n\1[ \t]+\S.*)*)", re.MULTILINE)
_SECTION = re.compile(r"^([ \t]*)(Args|Attributes):\n((?:(?:\1[ \t]+.*)?\n)*(?:\1[ \t]+.*)?)", re.MULTILINE)


def ungroup(docstring: str) -> str:
    """The docstring with an entry of its own for each name.

    >>> print(ungroup("Args:\\n    a, b: both.\\n    c: alone."))
    Args:
        a: both.
        b: both.
        c: alone.
    """

    def split(match: re.Match[str]) -> str:
        indent, names, text = match.groups()
        return "\n".join(f"{indent}{name}:{text}" for name in names.split(", "))

    return _SECTION.sub(lambda match: _GROUP.sub(split, match[0]), docstring)


class GroupedNames(griffe.Extension):
    """Rewrites docstrings before they are parsed."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = ungroup(obj.docstring.value)
