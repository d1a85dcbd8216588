"""Text of the catalogue made safe for Markdown and HTML."""

from __future__ import annotations

import html
import re

__all__ = ["anchor", "markdown", "plain"]

_FORMULA = re.compile(r"\$([^$]+)\$")
_SPECIAL = re.compile(r"([\\`*_{}\[\]#~^|$!])")


def markdown(text: str) -> str:
    r"""Text as Markdown that shows it as it is; a formula between dollar signs is set.

    >>> markdown("a_b & [c]")
    'a\\_b &amp; \\[c\\]'
    """
    parts = _FORMULA.split(text)
    shown = [_SPECIAL.sub(r"\\\1", html.escape(part, quote=False)) for part in parts[::2]]
    formulas = [f":math:`{part}`" for part in parts[1::2]]
    return "".join(piece for pair in zip(shown, [*formulas, ""], strict=True) for piece in pair)


def plain(text: str) -> str:
    r"""Text for places that take no markup: formulas lose their commands.

    >>> plain(r"$\mathcal{B}$-Coder")
    'B-Coder'
    """
    return _FORMULA.sub(lambda match: re.sub(r"\\[a-zA-Z]+|[{}\\]", "", match[1]), text)


def anchor(text: str) -> str:
    """A value for a class or an id: "does not hold" becomes "does-not-hold"."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
