"""Docstrings of classes that share options: what an option means is written once, and stands in each of them."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Mapping

__all__ = ["described", "document"]

_WIDTH = 112
_HEADINGS = ("", "Args", "Attributes", "Shapes", "Returns", "Raises", "Example")
_ENTRY = re.compile(r"^    (\w+(?:, \w+)*):", re.MULTILINE)


def described(text: str) -> dict[str, str]:
    """Reads descriptions of options off the text of an `Args` section.

    Example:
        >>> described('''
        ...     rows: at most how many rows
        ...         pass at once.
        ...     seed: of the noise.
        ... ''')
        {'rows': 'at most how many rows pass at once.', 'seed': 'of the noise.'}
    """
    entries = _entries(textwrap.indent(inspect.cleandoc(text), "    "))
    return {match[1]: " ".join(entry.split(":", 1)[1].split()) for match, entry in entries}


def document(cls: type, known: Mapping[str, str], sections: Mapping[str, str] | None = None) -> None:
    """Completes the docstring of a class: what it does not say of an option is taken from what is known of it.

    Args:
        cls: a class with a docstring; one without is left alone.
        known: what shared options do, by name.
        sections: whole sections, by their heading ("Raises"), for a docstring that has no such section.

    Example:
        >>> class Small:
        ...     '''Does little.'''
        ...     def __init__(self, rows: int = 1) -> None: ...
        >>> document(Small, {"rows": "at most how many rows pass at once."}, {"Raises": "ConfigError: no rows."})
        >>> print(Small.__doc__)
        Does little.
        <BLANKLINE>
        Args:
            rows: at most how many rows pass at once.
        <BLANKLINE>
        Raises:
            ConfigError: no rows.
    """
    if not cls.__doc__:
        return
    found = _sections(inspect.cleandoc(cls.__doc__))
    parameters = list(inspect.signature(cls).parameters)
    entries = {tuple(match[1].split(", ")): entry for match, entry in _entries(found.get("Args", ""))}
    said = {name for names in entries for name in names}
    for name in parameters:
        if name in known and name not in said:
            entries[(name,)] = _wrapped(f"{name}: {known[name]}")
    if entries:
        order = sorted(
            entries, key=lambda names: min((parameters.index(n) for n in names if n in parameters), default=0)
        )
        found["Args"] = "\n".join(entries[names] for names in order)
    for heading, text in (sections or {}).items():
        found.setdefault(heading, "\n".join(_wrapped(line, heading in ("Args", "Raises")) for line in _joined(text)))
    order_of = {heading: place for place, heading in enumerate(_HEADINGS)}
    cls.__doc__ = "\n\n".join(
        f"{heading}:\n{found[heading]}" if heading else found[heading]
        for heading in sorted(found, key=lambda heading: order_of[heading])
    )


def _sections(text: str) -> dict[str, str]:
    """The parts of a docstring by their headings; what comes before the first is under ""."""
    parts = re.split(rf"^({'|'.join(_HEADINGS[1:])}):\n", text, flags=re.MULTILINE)
    return {"": parts[0].rstrip(), **{head: body.rstrip() for head, body in zip(parts[1::2], parts[2::2], strict=True)}}


def _entries(own: str) -> list[tuple[re.Match[str], str]]:
    """The entries of an `Args` section, each with the match of its names."""
    matches = list(_ENTRY.finditer(own))
    ends = [match.start() for match in matches[1:]] + [len(own)]
    return [
        (match, own[match.start() : end].rstrip()) for match, end in zip(matches, ends[: len(matches)], strict=True)
    ]


def _joined(text: str) -> list[str]:
    """The lines of a section, those that are indented joined to the one before them."""
    return [" ".join(line.split()) for line in re.split(r"\n(?! )", inspect.cleandoc(text))]


def _wrapped(line: str, hanging: bool = True) -> str:
    indent = "    " if hanging else ""
    filled = textwrap.fill(line, _WIDTH, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False)
    return textwrap.indent(filled, "    ")
