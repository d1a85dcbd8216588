"""Tables of the built pages: each cell knows the name of its column, which a phone shows in place of the head."""

from __future__ import annotations

import html
import re

__all__ = ["label_cells", "raw_tables"]

_TABLE = re.compile(r"<table>.*?</table>", re.DOTALL)
_ROW = re.compile(r"<tr>.*?</tr>", re.DOTALL)
_HEAD = re.compile(r"<th\b[^>]*>(.*?)</th>", re.DOTALL)
_CELL = re.compile(r"<td\b")
_TAG = re.compile(r"<[^>]+>")
_PARAGRAPH = re.compile(r"<p>.*?</p>", re.DOTALL)
_CODE = re.compile(r"<(code|math)\b.*?</\1>", re.DOTALL)


def label_cells(page: str) -> str:
    """The page with the attribute `data-label` on each cell of a plain table.

    >>> label_cells("<table><tr><th>name</th></tr><tr><td>a</td></tr></table>")
    '<table><tr><th>name</th></tr><tr><td data-label="name">a</td></tr></table>'
    """
    return _TABLE.sub(lambda table: _labelled(table[0]), page)


def _labelled(table: str) -> str:
    labels = [html.escape(html.unescape(_TAG.sub("", head)).strip()) for head in _HEAD.findall(table)]

    def row(match: re.Match[str]) -> str:
        names = iter(labels)
        return _CELL.sub(lambda _: f'<td data-label="{name}"' if (name := next(names, "")) else "<td", match[0])

    return _ROW.sub(row, table)


def raw_tables(page: str) -> list[str]:
    """The paragraphs of a page that show the row of a table as it was typed.

    >>> raw_tables("<p>as it says. | a | b |</p><p>p(x | y)</p>")
    ['<p>as it says. | a | b |</p>']
    """
    return [p for p in _PARAGRAPH.findall(page) if len(re.findall(r"(?:^|\s)\|(?=\s|$)", _bare(p))) >= 2]


def _bare(paragraph: str) -> str:
    return _TAG.sub("", _CODE.sub("", paragraph))
