"""A gallery of explanations: HTML pages beside their pictures, which open offline, however many images there are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from repertoire.files import write_text
from repertoire.report import _text
from repertoire.report._render import render

__all__ = ["Explained", "Gallery"]


@dataclass(frozen=True)
class Explained:
    """One class of an image, and the pictures that explain it.

    Attributes:
        name: of the class.
        probability: that the model gives it.
        pictures: a file for each explainer, relative to the gallery.
    """

    name: str
    probability: float
    pictures: list[str]


class Gallery:
    """Writes pages of cards, one card an image, as the images come; it holds one page in memory.

    Args:
        folder: where the pages go: `index.html`, `page-2.html` and so on.
        title: of the pages.
        subtitle: what was explained, in a sentence.
        explainers: names of the columns.
        notes: what a reader should know about the maps, a sentence each.
        pixelated: show the pixels of small images.
        per_page: images on a page.
    """

    def __init__(
        self,
        folder: Path,
        *,
        title: str,
        subtitle: str,
        explainers: Sequence[str],
        notes: Sequence[str] = (),
        pixelated: bool = False,
        per_page: int = 200,
    ) -> None:
        self.folder, self.per_page = folder, per_page
        self._shared = {
            "title": _text.label(title),
            "subtitle": _text.label(subtitle),
            "explainers": [_text.label(name) for name in explainers],
            "notes": list(notes),
            "pixelated": pixelated,
        }
        self._cards: list[dict[str, Any]] = []
        self._page = 1
        self._first = 1

    def add(
        self,
        name: str,
        original: str,
        top: Sequence[tuple[str, float]],
        explained: Sequence[Explained],
        truth: str = "",
    ) -> None:
        """A card.

        Args:
            name: of the image.
            original: its picture, a file relative to the gallery.
            top: the classes that the model finds likeliest, with their probabilities.
            explained: the classes whose maps are shown, at least one.
            truth: the right class, where it is known.
        """
        if len(self._cards) == self.per_page:
            self._write(last=False)
        self._cards.append(
            {
                "name": _text.label(name),
                "original": quote(original),
                "top": [(_text.label(label), share) for label, share in top],
                "explained": [
                    {
                        "name": _text.label(one.name),
                        "probability": one.probability,
                        "pictures": [quote(picture) for picture in one.pictures],
                    }
                    for one in explained
                ],
                "truth": _text.label(truth),
            }
        )

    def close(self) -> Path:
        """Writes the last page; gives the path of the first."""
        self._write(last=True)
        return self.folder / "index.html"

    def _write(self, *, last: bool) -> None:
        page = {
            **self._shared,
            "cards": self._cards,
            "first": self._first,
            "page": self._page,
            "previous": _file(self._page - 1) if self._page > 1 else None,
            "next": None if last else _file(self._page + 1),
        }
        write_text(self.folder / _file(self._page), _render(page))
        self._first += len(self._cards)
        self._page += 1
        self._cards = []


def _file(page: int) -> str:
    return "index.html" if page == 1 else f"page-{page}.html"


def _render(content: dict[str, Any]) -> str:
    from repertoire.explain import colour_map

    steps = ", ".join(f"rgb({red} {green} {blue})" for red, green, blue in colour_map()[::15].tolist())
    return render(
        "gallery.html.j2",
        {**content, "colours": Markup(steps)},
        styles=("gallery.css",),
        script="gallery.js",
        images="'self' file: data:",
    )
