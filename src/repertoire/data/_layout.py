"""What the directories of a folder mean: parts, classes, masks of objects, images without a label."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from repertoire.data._names import part_of
from repertoire.errors import DataError, ascii_path

__all__ = ["Arrangement", "Layout", "Place", "match_masks", "place", "some"]

Arrangement = Literal["auto", "classes", "groups"]
"""What the uppermost directories are: found out, classes, or groups that each hold a directory for each class."""

_PARTS = ("train", "val", "test")


class Place(NamedTuple):
    """Place of an image: its label, which is None where there is none, its part and its group."""

    part: str
    label: str | None
    group: str | None = None


@dataclass
class Layout:
    """The image files of a folder, in order, and where each belongs.

    Attributes:
        placed: those that are in a class, or in a directory for images without a label.
        masks: for each image that has one, the file of its mask.
        unused: all other images.
        notes: for a person.
    """

    placed: dict[str, Place] = field(default_factory=dict)
    masks: dict[str, str] = field(default_factory=dict)
    unused: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def labels(self) -> set[str]:
        """The names of all classes."""
        return {place.label for place in self.placed.values() if place.label is not None}


def place(where: str, files: Sequence[str], arrangement: Arrangement = "auto") -> Layout:
    """Finds out what the directories of a folder mean.

    Args:
        where: the folder, for messages.
        files: paths below it, with "/" between the parts.
        arrangement: what the uppermost directories are.

    Raises:
        DataError: what looks like classes may be something else.
    """
    layout = Layout()
    masks: dict[str, str] = {}
    instead: dict[str, Place] = {}
    heads = {name.partition("/")[0] for name in files if "/" in name}
    named = {head for head in heads if part_of(head) in _PARTS}
    divided = arrangement == "auto" and any(
        part_of(name.partition("/")[0]) == "train" and name.count("/") > 1 for name in files
    )
    # Parts without a directory for each class are no classes either.
    flat = (
        arrangement == "auto" and not divided and bool(named) and all(part_of(head) for head in heads - _masks(heads))
    )
    nested = _repeated(files) if divided else {}
    for name in files:
        head, *rest = name.split("/")
        part = part_of(head) if divided or flat else None
        if part in _PARTS:
            inner = rest[1:] if nested.get(head) else rest
            above = f"{head}/{rest[0]}/" if nested.get(head) else f"{head}/"
        else:
            part, inner, above = (None if divided or flat else "train"), [head, *rest], ""
        found = None
        if arrangement == "auto" and len(inner) > 1 and part_of(inner[0]) == "unlabelled":
            found = Place("unlabelled", None)
        elif part is not None and flat:
            found = Place(part, None)
        elif part is not None and len(inner) > (2 if arrangement == "groups" else 1):
            found = Place("train", inner[1], inner[0]) if arrangement == "groups" else Place(part, inner[0])
        if len(inner) > 1 and inner[0] in _masks(inner[:1]):
            masks[name] = above + "/".join(inner[1:])
            instead |= {name: found} if found is not None else {}
        elif found is None:
            layout.unused.append(name)
        else:
            layout.placed[name] = found
    layout.masks = match_masks(layout.placed, masks)
    if not layout.masks:  # a class that is called so
        layout.placed = {name: found for name in files if (found := layout.placed.get(name) or instead.get(name))}
        layout.unused = [name for name in files if name not in layout.placed]
    elif unmatched := sorted(set(masks) - set(layout.masks.values())):
        layout.notes.append(f"Masks that belong to no image were not used: {some(unmatched)}.")
    if arrangement == "auto" and not divided:
        _check_same_inside(where, layout)
    return layout


def _masks(names: Iterable[str]) -> set[str]:
    """Those of some directories that may hold masks."""
    return {name for name in names if name.casefold() in ("masks", "mask")}


def match_masks(images: Mapping[str, object] | Sequence[str], masks: Mapping[str, str]) -> dict[str, str]:
    """The mask of each image that has one.

    Args:
        images: paths of the images.
        masks: for each mask, the path that its image has, whatever its extension.
    """
    by_stem = {_stem(target): mask for mask, target in masks.items()}
    return {name: by_stem[stem] for name in images if (stem := _stem(name)) in by_stem}


def some(names: Sequence[str]) -> str:
    """Number of names, and the first of them, as text."""
    shown = ", ".join(ascii_path(name) for name in names[:3])
    return f"{len(names)} ({shown}{', ...' if len(names) > 3 else ''})"


def _stem(name: str) -> str:
    folder, slash, file = name.rpartition("/")
    return folder + slash + (file.rpartition(".")[0] or file)


def _repeated(files: Sequence[str]) -> dict[str, bool]:
    """Which parts have nothing in them but a directory that stands for the same part, as in `Train/train/cat/1.jpg`."""
    inside: dict[str, set[str]] = defaultdict(set)
    for name in files:
        head, *rest = name.split("/")
        inside[head].add(rest[0] if len(rest) > 1 else "")
    return {
        head: part_of(head) is not None and len(names) == 1 and part_of(next(iter(names))) == part_of(head)
        for head, names in inside.items()
    }


def _check_same_inside(where: str, layout: Layout) -> None:
    """Refuses classes that all hold the same directories: those may well be the classes."""
    inside: dict[str, set[str]] = defaultdict(set)
    for name, found in layout.placed.items():
        if found.label is not None:
            rest = name.split("/")[1:]
            inside[found.label].add(rest[0] if len(rest) > 1 else "")
    first = next(iter(inside.values()), set())
    if len(inside) > 1 and len(first) > 1 and "" not in first and all(names == first for names in inside.values()):
        heads, names = (", ".join(map(ascii_path, sorted(found)[:5])) for found in (inside, first))
        raise DataError(
            f"the directories of {where} ({heads}) all hold the same directories ({names}): are they parts, groups or "
            "classes? Call parts train, val and test; say layout=groups where the inner directories are the classes, "
            "and layout=classes where the outer ones are (as in 'folder:PATH,layout=groups')"
        )
