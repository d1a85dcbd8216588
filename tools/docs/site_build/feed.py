"""An Atom feed of what became performable."""

from __future__ import annotations

import datetime
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

from repertoire import papers
from site_build.catalogue import Catalogue
from site_build.text import plain

__all__ = ["component_dates", "feed"]

_ATOM = "http://www.w3.org/2005/Atom"
_AUTHORITY = "tag:repertoire-learn,2026:"
# An Atom feed needs a date even while it has no entry.
_BEGINNING = "2026-01-01T00:00:00+00:00"


def component_dates(folder: Path) -> dict[str, str]:
    """When the `components` line of each card was last written, in UTC, by slug; from the history of the repository.

    Empty where there is no repository; a line that is not committed yet has no date.
    """
    dates: dict[str, str] = {}
    for path in sorted(folder.glob("*.toml")):
        if '\ncomponents = ["' not in path.read_text(encoding="utf-8"):
            continue
        command = ["git", "blame", "--line-porcelain", "--", path.name]
        try:
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            return {}
        slug, commit, moment = "", "", ""
        for line in done.stdout.splitlines():
            if re.match(r"[0-9a-f]{40} \d", line):
                commit = line.split()[0]
            elif line.startswith("committer-time "):
                moment = line.split()[1]
            elif match := re.match(r'\tslug = "([^"]+)"', line):
                slug = match[1]
            elif line.startswith('\tcomponents = ["') and set(commit) != {"0"}:
                dates[slug] = datetime.datetime.fromtimestamp(int(moment), datetime.UTC).isoformat()
    return dates


def feed(catalogue: Catalogue, dates: Mapping[str, str]) -> str:
    """The feed: an entry for each paper that can be performed, newest first. The same input gives the same bytes.

    An entry is dated by its evidence or, without any, by `dates`; without either it has to wait.
    """
    entries = []
    for card in catalogue.cards:
        evidence = catalogue.evidence.get(card.slug)
        if card.status == "open":
            continue
        moment = evidence.measured if evidence else dates.get(card.slug)
        if moment is not None:
            entries.append((_utc(moment), card))
    entries.sort(key=lambda item: (item[0], item[1].id), reverse=True)
    ElementTree.register_namespace("", _ATOM)
    root = ElementTree.Element(f"{{{_ATOM}}}feed")
    _add(root, "id", f"{_AUTHORITY}feed")
    _add(root, "title", "Repertoire: what became performable")
    _add(root, "updated", entries[0][0] if entries else _BEGINNING)
    _add(root, "link", rel="self", href="feed.xml", type="application/atom+xml")
    _add(root, "link", rel="alternate", href="papers/index.html", type="text/html")
    _add(_add(root, "author"), "name", "The Repertoire authors")
    for moment, card in entries:
        _entry(root, moment, card)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _entry(root: ElementTree.Element, moment: str, card: papers.Card) -> None:
    entry = _add(root, "entry")
    _add(entry, "id", f"{_AUTHORITY}papers/{card.slug}")
    verdict = "" if card.status == "built" else f" (claim: {card.status})"
    _add(entry, "title", plain(card.title) + verdict)
    _add(entry, "updated", moment)
    _add(entry, "link", rel="alternate", href=f"papers/{card.slug}.html", type="text/html")
    _add(entry, "category", term=card.family)
    _add(entry, "summary", plain(card.summary))


def _add(parent: ElementTree.Element, name: str, text: str | None = None, **attributes: str) -> ElementTree.Element:
    element = ElementTree.SubElement(parent, f"{{{_ATOM}}}{name}", attributes)
    element.text = text
    return element


def _utc(moment: str) -> str:
    parsed = datetime.datetime.fromisoformat(moment)
    if parsed.tzinfo is None:
        parsed = parsed.replace(tzinfo=datetime.UTC)
    return parsed.astimezone(datetime.UTC).isoformat(timespec="seconds")
