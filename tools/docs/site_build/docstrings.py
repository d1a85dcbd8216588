"""A Markdown extension for the idioms of docstrings: formulas, references to other objects, and examples.

.. math:: E = m c^2         a formula of its own, also with the formula on the indented lines that follow
:math:`E = m c^2`           one in the text
:func:`repertoire.ops.knn`  a link to what is documented under that name (also class, meth, mod, ...)
>>> 1 + 1                   an example, up to the next blank line
"""

from __future__ import annotations

import html
import logging
import re

from markdown import Markdown
from markdown.extensions import Extension
from markdown.preprocessors import Preprocessor

from site_build.tex import TexError, to_mathml

__all__ = ["DocstringExtension"]

# A child of mkdocs' own logger, so that `mkdocs build --strict` counts the warnings.
_log = logging.getLogger("mkdocs.site_build")

_FENCE = re.compile(r"^\s*(```+|~~~+)")
_BLOCK = re.compile(r"^(\s*)\.\. math::[ \t]*(.*)$")
_INLINE = re.compile(r":math:`([^`]+)`")
_ROLE = re.compile(r":(?:func|class|meth|mod|attr|data|exc|obj):`~?([\w.]+)`")
_EXAMPLE = re.compile(r"^(\s*)>>> ")


class DocstringExtension(Extension):
    """See the module."""

    def extendMarkdown(self, md: Markdown) -> None:
        # Fenced code is taken out at priority 25: examples become such before, formulas are looked for after.
        md.preprocessors.register(_Examples(md), "docstring-examples", 27)
        md.preprocessors.register(_Formulas(md), "docstring-formulas", 22)


class _Examples(Preprocessor):
    def run(self, lines: list[str]) -> list[str]:
        found: list[str] = []
        fence = indent = ""
        inside = False
        for line in lines:
            if inside and not line.strip():
                found.append(f"{indent}```")
                inside = False
            if fence:
                fence = "" if line.strip().startswith(fence) else fence
            elif not inside and (opening := _FENCE.match(line)):
                fence = opening[1]
            elif not inside and (example := _EXAMPLE.match(line)):
                indent, inside = example[1], True
                found += ["", f"{indent}```pycon"]
            found.append(re.sub(r"\s*# doctest:.*$", "", line) if inside else line)
        return [*found, f"{indent}```"] if inside else found


class _Formulas(Preprocessor):
    def run(self, lines: list[str]) -> list[str]:
        found: list[str] = []
        position = 0
        while position < len(lines):
            block = _BLOCK.match(lines[position])
            position += 1
            if not block:
                found.append(lines[position - 1])
                continue
            indent, formula = block[1], [block[2]]
            if not block[2]:
                while position < len(lines) and not lines[position].strip():
                    position += 1
            while position < len(lines) and lines[position].startswith(indent + " ") and lines[position].strip():
                formula.append(lines[position])
                position += 1
            found += ["", indent + self._store(" ".join(formula), display=True), ""]
        text = "\n".join(found)
        text = _INLINE.sub(lambda match: self._store(match[1], display=False), text)
        return _ROLE.sub(_reference, text).split("\n")

    def _store(self, tex: str, *, display: bool) -> str:
        try:
            element = to_mathml(tex, display=display)
        except TexError as error:
            _log.warning("%s", error)
            element = f"<code>{html.escape(tex)}</code>"
        # A div for the block: what is stored as anything else would be wrapped in a paragraph.
        return self.md.htmlStash.store(f'<div class="formula">{element}</div>' if display else element)


def _reference(match: re.Match[str]) -> str:
    dotted = match[1]
    name = dotted.rpartition(".")[2]
    return f"[`{name}`][{dotted}]" if dotted.startswith("repertoire.") else f"`{dotted}`"
