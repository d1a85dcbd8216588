"""The cards: what each paper says, and which components perform it."""

from __future__ import annotations

import dataclasses
import functools
import json
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from repertoire.errors import DataError, UnknownName
from repertoire.papers._status import Status, stored_verdict

__all__ = ["Card", "get", "load", "read"]

FOLDER = Path(__file__).parent / "cards"

Kind = Literal["method", "finding", "survey", "benchmark", "application", "tool"]
Fit = Literal["core", "portable", "evidence", "outside"]


@dataclass(frozen=True)
class Card:
    """One paper of the catalogue.

    Attributes:
        id: number of the paper in the list that Repertoire was built from.
        slug: short name, unique; what commands and claims call it.
        title: as published.
        year: of the first public version.
        family: slug of its family.
        kind: what the paper offers: a method, a finding, a survey, a benchmark, an application or a tool.
        fit: "core" (can be performed here as it is), "portable" (its idea carries over from another field),
            "evidence" (measures what others propose) or "outside" (needs what Repertoire does not have).
        code: address of the released code, or "".
        summary: what it does and why, for a person who has never heard of it.
        claim: what it asserts, in one sentence that can be tested.
        keywords: what a person would type who needs it.
        components: dotted names of what performs it, `repertoire.losses.SupCon`; empty until there is any.
        authors: as they are cited, "Khosla et al."; "" where nothing here cites the paper yet.
        url: address of the paper, or "".
        reduction: what of the paper is left out, or replaced by what, in a few words; "" where it is whole.
    """

    id: int
    slug: str
    title: str
    year: int
    family: str
    kind: Kind
    fit: Fit
    code: str
    summary: str
    claim: str
    keywords: tuple[str, ...]
    components: tuple[str, ...] = ()
    reduction: str = ""
    authors: str = ""
    url: str = ""

    @property
    def status(self) -> Status:
        """Status of the paper: what the stored evidence says; else "built" if there is a component, or "open"."""
        return stored_verdict(self.slug) or ("built" if self.components else "open")


_FIELDS = {field.name for field in dataclasses.fields(Card)}
_REQUIRED = _FIELDS - {"components", "reduction", "authors", "url"}


def read(path: Path) -> list[Card]:
    """The cards of one file.

    Raises:
        DataError: the file is not TOML, or a card lacks a field or has one too many.
    """
    try:
        rows = _parse(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not TOML: {error}") from None
    cards = []
    for number, row in enumerate(rows, 1):
        if missing := _REQUIRED - row.keys():
            raise DataError(f"{path}: card {number} ({row.get('slug', 'no slug')}) lacks {', '.join(sorted(missing))}")
        if unknown := row.keys() - _FIELDS:
            raise DataError(f"{path}: card {number} ({row['slug']}) has the unknown field {', '.join(sorted(unknown))}")
        lists = {"keywords": tuple(row["keywords"]), "components": tuple(row.get("components", ()))}
        cards.append(Card(**row | lists))
    return cards


def _parse(text: str) -> list[dict[str, Any]]:
    """The tables of a file of cards.

    A card's lines are `key = value` with values that JSON writes the same way, and the JSON parser, being written in C,
    is several times as fast as `tomllib` on the catalogue. Whatever JSON does not understand is left to `tomllib`.
    """
    body = re.sub(r"^(\w+) *= *(.*)$", r'"\1": \2,', text, flags=re.MULTILINE)
    tables = [table.strip().removesuffix(",") for table in body.split("[[paper]]")]
    if not tables[0]:
        try:
            return [json.loads(f"{{{table}}}") for table in tables[1:]]
        except json.JSONDecodeError:
            pass
    rows = tomllib.loads(text).get("paper", [])
    return rows if isinstance(rows, list) else [rows]


@functools.cache
def _catalogue() -> dict[str, Card]:
    cards = [card for path in sorted(FOLDER.glob("*.toml")) for card in read(path)]
    return {card.slug: card for card in sorted(cards, key=lambda card: card.id)}


def load() -> list[Card]:
    """All cards, in the order of their numbers. Read once.

    >>> len({card.slug for card in load()}) == len(load())
    True
    """
    return list(_catalogue().values())


def get(name: str | int) -> Card:
    """The card of that slug or number.

    >>> get("supcon").title
    'Supervised Contrastive Learning'
    >>> get(292).slug
    'supcon'

    Raises:
        UnknownName: there is none; the message suggests the nearest slug.
    """
    text = str(name).strip()
    cards = _catalogue()
    if text in cards:
        return cards[text]
    for card in cards.values():
        if str(card.id) == text:
            return card
    raise _UnknownPaper(text, list(cards))


class _UnknownPaper(UnknownName):
    """`UnknownName` without the list of all papers, which would fill a screen."""

    def __init__(self, name: str, known: list[str]) -> None:
        super().__init__("paper", name, known)
        self.message = self.message.split(" (known: ")[0] + " (search with: repertoire papers search WORDS)"
        self.args = (self.message,)
