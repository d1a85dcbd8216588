"""Images from a folder with a directory for each class, with a table of labels, or with neither."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from repertoire.data._columns import Targets
from repertoire.data._files import grey
from repertoire.data._layout import Arrangement, Layout, Place, match_masks, place, some
from repertoire.data._listed import Listed, read, splits_of, with_white
from repertoire.data._maps import named_classes, placed_maps
from repertoire.data._source import Fit, SourceRequest
from repertoire.data._table import listed_in, table_of
from repertoire.data._types import ImageSet, Splits
from repertoire.data._walk import Tree, walk
from repertoire.errors import ConfigError, DataError, UnreadableImages, ascii_path, nearest, option
from repertoire.registry import register

__all__ = ["folder", "grey_set", "load_folder_set", "with_channels"]

_GREY_CHUNK = 4096


@register("data", "folder")
def folder(
    request: SourceRequest,
    path: Path,
    layout: Arrangement = "auto",
    targets: Targets = "auto",
    white: float | None = None,
) -> Splits:
    """A folder of images: a directory for each class, parts that hold one for each class, or a table of labels.

    Everything below the directory of a class belongs to it. With a train/ directory that has directories, the folder is
    taken to be divided; other usual names of the parts are known too (Training, seg_train, valid, dev, Testing, ...),
    and parts that do not exist are drawn from the training images. Some names are no class:

    - `unlabelled/` holds images without a label, which become the extra set "unlabelled";
    - `masks/` says where the objects are: an image of the same relative name for each, of any format, black where
      there is none;
    - `images/` and `maps/` give every pixel a class: an image of the same relative name for each, grey or with a
      palette, whose values are the classes, 255 for none; `classes.txt` may name them, a line each, from 0;
    - a table `labels.csv` (or `.tsv`; or `metadata.csv`) that names the images gives the labels: see `table`.

    Hidden files, what operating systems leave, and files whose extension says that they are something else are ignored;
    all others must be images. They are decoded once; see `repertoire.data._cache`. Images of more than 8 bits have one
    black and one white, those of all of them together.

    Args:
        request: `size` is the side in pixels. By default images keep theirs if all are of one nearly square size of at
            most 64 pixels (which 64 of them are asked for), and get 128 otherwise. With `unlabelled`, images without
            directories, or in a single one, will do, and those of `unlabelled/` are trained on.
        path: the folder.
        layout: what the uppermost directories are: "auto" finds out whether they are parts or classes, "classes", or
            "groups", each of which holds a directory for each class and is on one side of the division.
        targets: what the values of a table are; see `table`.
        white: the value that is white in images of more than 8 bits; by default that of all images together.

    Raises:
        DataError: there is no such folder or no image in it, there are fewer than two classes, a class is too small to
            be divided, another part has a class that the training images do not, classes all hold the same directories,
            or some images have masks and others not.
        UnreadableImages: some images cannot be used, unless `request.skip_unreadable`; all of them are named.

    Example:
        >>> folder(SourceRequest(size=32), Path("photos/")).classes  # doctest: +SKIP
        ('cat', 'dog')
    """
    root = Path(path)
    _check(request.size)
    request = with_white(request, white)
    tree = walk(root)
    source = root.resolve().name or str(root)
    notes = [note] if (note := tree.note()) else []
    where = ascii_path(str(root))
    if not tree.files:
        raise DataError(f"{where} has no images; expected a directory for each class in it. {' '.join(notes)}".rstrip())
    if layout == "auto" and (mapped := _mapped(root, tree, request.classes)) is not None:
        mapped.notes = notes + mapped.notes
        return splits_of(mapped, request, source)
    known, ignored = table_of(root, tree.files, targets, request.classes) if layout == "auto" else (None, None)
    if ignored:
        notes.append(ignored)
    if known is not None:
        masks = {name: name.partition("/")[2] for name in tree.files if name.partition("/")[0].casefold() == "masks"}
        listed = listed_in(root, known, tree.files, tree.signatures)
        listed.masks = match_masks(listed.names, masks)
        if unused := [name for name in tree.files if name not in {*listed.names, *listed.masks.values()}]:
            notes.append(f"Images that the table does not name were not used: {some(unused)}.")
    else:
        found = place(where, tree.files, layout)
        if request.unlabelled:
            _take_all(found, tree)
        else:
            _check_found(root, found, 1 if request.single else 2)
        notes += found.notes
        if found.unused:
            notes.append(f"Images outside the directories of classes were not used: {some(found.unused)}.")
        listed = _listed(root, tree, found, request)
    listed.notes = notes + listed.notes
    listed.failures = tree.failures + listed.failures
    return splits_of(listed, request, source)


def load_folder_set(
    path: str | os.PathLike[str],
    *,
    classes: Sequence[str],
    size: int,
    fit: Fit = "crop",
    channels: int = 3,
    skip_unreadable: bool = False,
    cache_dir: str | os.PathLike[str] | None = None,
    workers: int | None = None,
    levels: dict[str, tuple[float, float]] | None = None,
) -> ImageSet:
    """One set of labelled images, from a folder with a directory for each class, with the classes of a trained model.

    Args:
        path: the folder. Of a class it need not have an image. A table of labels in it, or given instead of it, will do
            too; see `table`.
        classes: the names of all classes, in the order of the labels.
        size, fit, channels: how the images are to be; `channels` 1 makes them grey.
        skip_unreadable: leave out the images that cannot be used.
        cache_dir, workers: as in `load`.
        levels: black and white of images of more than 8 bits, as the training images have them (`Splits.levels`).

    Raises:
        DataError: there is no such folder or no image in it, or it has a class that is not one of `classes`.
        UnreadableImages: some images cannot be used, unless `skip_unreadable`; all of them are named.
    """
    if channels not in (1, 3):
        raise ConfigError(f"channels must be 1 or 3, found {channels}")
    _check(size)
    root, known = Path(path), tuple(classes)
    tree = Tree() if root.is_file() else walk(root)
    mapped = None if root.is_file() else _mapped(root, tree, known)
    table, _ = (None, None) if mapped is not None else table_of(root, tree.files, "auto", known)
    if mapped is not None:
        listed = mapped
    elif table is not None:
        listed = listed_in(root.parent if root.is_file() else root, table, tree.files, tree.signatures)
    else:
        layout = place(ascii_path(str(root)), tree.files, "auto")
        placed = {name: p.label for name, p in layout.placed.items() if p.label is not None}
        if not placed:
            raise DataError(
                f"{ascii_path(str(root))} has no images in directories, one for each class; {_lists(known)}"
            )
        if found := sorted({name.partition("/")[0] for name in placed} - set(placed.values()) - set(known)):
            heads = ", ".join(map(ascii_path, found))
            raise DataError(f"{ascii_path(str(root))} is divided into parts ({heads}); give one of them")
        _check_classes(root, "given", set(placed.values()), known)
        number_of = {label: position for position, label in enumerate(known)}
        labels = np.array([number_of[label] for label in placed.values()], dtype=np.int64)
        masks = layout.masks if set(placed) <= set(layout.masks) else {}
        listed = Listed(
            root, list(placed), labels, known, ["test"] * len(placed), masks=masks, signatures=tree.signatures
        )
    listed.failures = tree.failures + listed.failures
    request = SourceRequest(
        size, fit, cache_dir=None if cache_dir is None else Path(cache_dir), workers=workers, levels=levels
    )
    images, _, failures, _ = read(listed, request)
    if failures and not skip_unreadable:
        raise UnreadableImages(failures, len(listed.names))
    if not len(images):
        raise DataError(f"{ascii_path(str(root))} has no image that can be used")
    return images if channels == 3 else grey_set(images)


def _mapped(root: Path, tree: Tree, known: Sequence[str] | None) -> Listed | None:
    """The images of a folder that has maps beside them; None of another."""
    found = placed_maps(ascii_path(str(root)), tree.files)
    if found is None:
        return None
    classes = tuple(known) if known is not None else named_classes(root)
    names = list(found.maps)
    return Listed(
        root,
        names,
        np.full(len(names), -1, dtype=np.int64),
        classes,
        [found.parts[name] for name in names],
        maps=found.maps,
        signatures=tree.signatures,
        failures=tree.failures,
        notes=found.notes,
    )


def _check(size: int | None) -> None:
    if size is not None and size < 1:
        raise ConfigError(f"size must be at least 1 pixel, found {size}")


def _listed(root: Path, tree: Tree, layout: Layout, request: SourceRequest) -> Listed:
    """The images in the places that their directories say."""
    places = layout.placed
    classes = request.classes or tuple(
        sorted({p.label for p in places.values() if p.label is not None and p.part == "train"})
    )
    for part in ("train", "val", "test"):
        _check_classes(
            root, part, {p.label for p in places.values() if p.part == part and p.label is not None}, classes
        )
    number: dict[str | None, int] = {label: position for position, label in enumerate(classes)} | {None: -1}
    groups = sorted({p.group for p in places.values() if p.group is not None})
    return Listed(
        root,
        list(places),
        np.array([number[p.label] for p in places.values()], dtype=np.int64),
        classes,
        [p.part for p in places.values()],
        groups=np.array([groups.index(p.group) for p in places.values() if p.group is not None]) if groups else None,
        masks=layout.masks,
        signatures=tree.signatures,
    )


def _take_all(layout: Layout, tree: Tree) -> None:
    """For methods without labels: a folder without classes is trained on as it is, and `unlabelled/` is trained on."""
    parts = {found.part for found in layout.placed.values()}
    if len(layout.labels) < 2 and not (not layout.labels and "train" in parts):
        masks = set(layout.masks.values())
        layout.placed = {name: Place("train", None) for name in tree.files if name not in masks}
        layout.unused = []
    else:
        for name, found in layout.placed.items():
            if found.part == "unlabelled":
                layout.placed[name] = Place("train", None)


def _check_found(root: Path, layout: Layout, fewest: int) -> None:
    """Refuses a folder that is no data for a classifier, and says what it may be instead."""
    where = ascii_path(str(root))
    others = (
        f"Methods without labels ({option('method', 'simclr')}, say) train on it as it is; a table labels.csv in it "
        "gives labels, several labels or numbers"
    )
    parts = sorted({name.partition("/")[0] for name, p in layout.placed.items() if p.part != "unlabelled"})
    if not layout.labels and parts:
        raise DataError(
            f"{where} has the parts {', '.join(map(ascii_path, parts))}, but no training images in directories, one "
            f"for each class. {others}"
        )
    if not layout.labels:
        raise DataError(
            f"{where} has images, but no directories; expected one for each class, with its images in it. {others}"
        )
    if len(layout.labels) < 2:
        (only,) = layout.labels
        inside = sorted({name.split("/")[1] for name, p in layout.placed.items() if p.label and name.count("/") > 1})
        below = others
        if len(inside) > 1:
            held = ", ".join(map(ascii_path, inside[:5]))
            below = f"It holds the directories {held}: if they are the classes, give {where}/{ascii_path(only)}"
        elif fewest < 2:
            return
        raise DataError(
            f"{where} has one class, {ascii_path(only)}; a classifier needs at least two, a directory for each. {below}"
        )


def _check_classes(root: Path, part: str, found: set[str], known: Sequence[str]) -> None:
    unknown = sorted(found - set(known))
    if not unknown:
        return
    guesses = ((name, nearest(name, known)) for name in unknown)
    hints = [ascii_path(name) + (f" (did you mean {ascii_path(guess)}?)" if guess else "") for name, guess in guesses]
    raise DataError(
        f"the {part} images in {ascii_path(str(root))} have {len(unknown)} unknown "
        f"{'class' if len(unknown) == 1 else 'classes'}: {', '.join(hints)}; {_lists(known)}"
    )


def _lists(known: Sequence[str]) -> str:
    return f"the classes are {', '.join(map(ascii_path, known))}"


def with_channels(images: ImageSet, channels: int) -> ImageSet:
    """The same set with one channel or three: colour becomes grey, and grey is said three times, without a copy.

    Example:
        >>> from repertoire.data import ImageSet
        >>> grey = ImageSet(np.zeros((2, 8, 8, 1), np.uint8), np.arange(2), ["a", "b"], ("x", "y"), np.arange(2))
        >>> with_channels(grey, 3).channels, with_channels(with_channels(grey, 3), 1).channels
        (3, 1)
    """
    if images.channels == channels:
        return images
    if channels == 1:
        return grey_set(images)
    shape = (*images.images.shape[:-1], channels)
    return replace(images, images=np.broadcast_to(images.images, shape))


def grey_set(images: ImageSet) -> ImageSet:
    """The same set with one channel, in memory."""
    pixels = np.empty((len(images), *images.size, 1), dtype=np.uint8)
    for start in range(0, len(images), _GREY_CHUNK):
        pixels[start : start + _GREY_CHUNK] = grey(images.pixels(slice(start, start + _GREY_CHUNK)))
    return ImageSet(pixels, images.labels, images.names, images.classes, images.keys)
