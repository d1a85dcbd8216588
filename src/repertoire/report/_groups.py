"""Writes the page of groups that were discovered: how large each is, and pictures of it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repertoire.files import check_place, write_text
from repertoire.report import _text
from repertoire.report._render import render
from repertoire.report._samples import data_uri

__all__ = ["Group", "write_groups"]

SHOWN = 12
"""Samples of a group."""

LARGEST = 96
"""Their side in pixels."""


@dataclass(frozen=True)
class Group:
    """A group of samples.

    Attributes:
        name: of a known class, or "new 1".
        new: whether it is no known class.
        files: its images, the most typical first; none of features, which are no pictures.
        shown: how each sample is called.
    """

    name: str
    new: bool
    files: Sequence[Path]
    shown: Sequence[str]


def write_groups(
    out: str | os.PathLike[str], groups: Sequence[Group], *, source: str, facts: Mapping[str, str], noun: str = "image"
) -> Path:
    """Writes the page of groups: one HTML file that opens offline. New groups come first, and the largest of them.

    Images are shown, and of other samples the names.

    Args:
        out: the file, which is replaced whole or not at all.
        groups: those to show; an empty one is left out.
        source: what was grouped.
        facts: what else a reader should know, by name.
        noun: what a sample is called.

    Returns:
        The file's path.

    Raises:
        RunError: nothing can be written to `out`. UnreadableImages: an image that is to be shown is none any more.
    """
    from repertoire.data import read_images

    path = check_place(out, "out")
    cards: list[dict[str, Any]] = []
    for group in sorted(groups, key=lambda each: (not each.new, -len(each.shown))):
        if not group.shown:
            continue
        names = [_text.label(name) for name in group.shown[:SHOWN]]
        pixels = read_images(group.files[:SHOWN], size=LARGEST, fit="pad") if group.files else ()
        pictures = [
            {"address": data_uri(image), "name": name} for image, name in zip(pixels, names, strict=bool(group.files))
        ]
        card = {"name": _text.label(group.name), "new": group.new, "count": len(group.shown)}
        cards.append({**card, "samples": names, "pictures": pictures})
    content = {"source": _text.label(source), "cards": cards, "facts": dict(facts), "noun": noun}
    write_text(path, render("groups.html.j2", content))
    return path
