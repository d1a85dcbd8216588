"""Images from a folder with a directory for each class."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from repertoire.data._cache import decode_once
from repertoire.data._decode import dimensions, read_file
from repertoire.data._files import grey
from repertoire.data._source import Fit, SourceRequest
from repertoire.data._splits import make_splits
from repertoire.data._types import ImageSet, Splits
from repertoire.data._walk import Tree, walk
from repertoire.errors import ConfigError, DataError, Unreadable, UnreadableImages, ascii_path, nearest
from repertoire.registry import register

__all__ = ["folder", "load_folder_set"]

_PARTS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_SMALL, _USUAL = 64, 128
_PROBES = 64
_GREY_CHUNK = 4096


@register("data", "folder")
def folder(request: SourceRequest, path: Path) -> Splits:
    """A folder with a directory for each class, or with train/, val/ and test/ that hold one for each class.

    Everything below the directory of a class belongs to it. With a train/ directory that has directories, the folder is
    taken to be divided; val/ may also be called valid/ or validation/, and parts that do not exist are drawn from the
    training images. Hidden files, and those whose extension says that they are something else, are ignored; all others
    must be images. They are decoded once; see `repertoire.data._cache`.

    Args:
        request: `size` is the side in pixels. By default images keep theirs if all are of one nearly square size of at
            most 64 pixels (which 64 of them are asked for), and get 128 otherwise.
        path: the folder.

    Raises:
        DataError: there is no such folder or no image in it, there are fewer than two classes, a class is too small to
            be divided, or another part has a class that the training images do not.
        UnreadableImages: some images cannot be used, unless `request.skip_unreadable`; all of them are named.

    Example:
        >>> folder(SourceRequest(size=32), Path("photos/")).classes  # doctest: +SKIP
        ('cat', 'dog')
    """
    root = Path(path)
    _check(request.size)
    tree = walk(root)
    notes = [note] if (note := tree.note()) else []
    placed = _place(tree.files)
    if unused := [name for name in tree.files if name not in placed]:
        notes.append(f"Images outside the directories of classes were not used: {len(unused)} ({_some(unused)}).")
    classes = request.classes or tuple(sorted({label for part, label in placed.values() if part == "train"}))
    _check_found(root, tree, placed, classes)
    for part in ("train", "val", "test"):
        _check_classes(root, part, {label for where, label in placed.values() if where == part}, classes)
    labels = {name: classes.index(label) for name, (_, label) in placed.items()}
    images, failures = _read(root, tree, labels, classes, request.size or _natural_size(root, list(labels)), request)
    if failures and not request.skip_unreadable:
        raise UnreadableImages(failures, len(placed))
    parts = np.array([placed[name][0] for name in images.names])
    sets = {part: images.subset(np.flatnonzero(parts == part)) for part in ("train", "val", "test")}
    notes += _remarks(sets)
    return make_splits(
        sets["train"],
        val_set=sets["val"] if len(sets["val"]) else None,
        test_set=sets["test"] if len(sets["test"]) else None,
        seed=request.seed,
        val=request.val,
        test=request.test,
        source=root.resolve().name or str(root),
        skipped=tuple(failures),
        notes=tuple(notes),
    )


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
) -> ImageSet:
    """One set of labelled images, from a folder with a directory for each class, with the classes of a trained model.

    Args:
        path: the folder. Of a class it need not have an image.
        classes: the names of all classes, in the order of the labels.
        size, fit, channels: how the images are to be; `channels` 1 makes them grey.
        skip_unreadable: leave out the images that cannot be used.
        cache_dir, workers: as in `load`.

    Raises:
        DataError: there is no such folder or no image in it, or it has a class that is not one of `classes`.
        UnreadableImages: some images cannot be used, unless `skip_unreadable`; all of them are named.
    """
    if channels not in (1, 3):
        raise ConfigError(f"channels must be 1 or 3, found {channels}")
    _check(size)
    root, known = Path(path), tuple(classes)
    tree = walk(root)
    placed = {name: name.partition("/")[0] for name in tree.files if "/" in name}
    if not placed:
        raise DataError(f"{ascii_path(str(root))} has no images in directories, one for each class; {_lists(known)}")
    _check_classes(root, "given", set(placed.values()), known)
    labels = {name: known.index(label) for name, label in placed.items()}
    request = SourceRequest(size, fit, cache_dir=None if cache_dir is None else Path(cache_dir), workers=workers)
    images, failures = _read(root, tree, labels, known, size, request)
    if failures and not skip_unreadable:
        raise UnreadableImages(failures, len(placed))
    if not len(images):
        raise DataError(f"{ascii_path(str(root))} has no image that can be used")
    return images if channels == 3 else _grey(images)


def _check(size: int | None) -> None:
    if size is not None and size < 1:
        raise ConfigError(f"size must be at least 1 pixel, found {size}")


def _is_divided(files: Iterable[str]) -> bool:
    """Whether train/ is a part and not a class: whether it has a directory with an image."""
    return any(name.startswith("train/") and name.count("/") > 1 for name in files)


def _place(files: Sequence[str]) -> dict[str, tuple[str, str]]:
    """The part and class of each file that is in one."""
    placed = {}
    divided = _is_divided(files)
    for name in files:
        head, *rest = name.split("/")
        if divided and head in _PARTS and len(rest) > 1:
            placed[name] = (_PARTS[head], rest[0])
        elif not divided and rest:
            placed[name] = ("train", head)
    return placed


def _check_found(root: Path, tree: Tree, placed: Mapping[str, tuple[str, str]], classes: Sequence[str]) -> None:
    where = ascii_path(str(root))
    if not tree.files:
        note = tree.note() or ""
        raise DataError(f"{where} has no images; expected a directory for each class in it. {note}".rstrip())
    if not placed:
        raise DataError(f"{where} has images, but no directories; expected one for each class, with its images in it")
    if len(classes) < 2:
        only = ascii_path(classes[0]) if classes else "none"
        raise DataError(f"{where} has one class, {only}; a classifier needs at least two, a directory for each")


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


def _some(names: Sequence[str]) -> str:
    return ", ".join(ascii_path(name) for name in names[:3]) + (", ..." if len(names) > 3 else "")


def _natural_size(root: Path, files: Sequence[str]) -> int:
    """The size that images have if it is one, small and nearly square; what suits photographs otherwise."""
    sizes = set()
    for name in files[:: -(-len(files) // _PROBES)]:
        try:
            sizes.add(dimensions(read_file(os.path.join(root, name))[0]))
        except (OSError, ValueError):
            continue  # reported when all are decoded
    if len(sizes) == 1:
        short, long = sorted(sizes.pop())
        if long <= _SMALL and 4 * short >= 3 * long:
            return short
    return _USUAL


def _read(
    root: Path,
    tree: Tree,
    labels: Mapping[str, int],
    classes: tuple[str, ...],
    size: int,
    request: SourceRequest,
) -> tuple[ImageSet, list[Unreadable]]:
    """The labelled images that can be used, and what cannot be."""
    names = list(labels)
    decoded = decode_once(
        root,
        names,
        tree.signatures,
        size=size,
        fit=request.fit,
        cache_dir=request.cache_dir,
        workers=request.workers,
    )
    good = np.flatnonzero(decoded.rows >= 0)
    images = ImageSet(
        decoded.images,
        np.array(list(labels.values()), dtype=np.int64)[good],
        [names[number] for number in good],
        classes,
        decoded.keys[good],
        rows=decoded.rows[good],
    )
    failures = [Unreadable(os.path.join(root, names[number]), why) for number, why in decoded.failures.items()]
    return images, tree.failures + failures


def _grey(images: ImageSet) -> ImageSet:
    """The same set with one channel, in memory."""
    pixels = np.empty((len(images), *images.size, 1), dtype=np.uint8)
    for start in range(0, len(images), _GREY_CHUNK):
        pixels[start : start + _GREY_CHUNK] = grey(images.pixels(slice(start, start + _GREY_CHUNK)))
    return ImageSet(pixels, images.labels, images.names, images.classes, images.keys)


def _remarks(sets: dict[str, ImageSet]) -> list[str]:
    """What a person should know about parts that the folder has."""
    notes = []
    for part, name in (("val", "validation"), ("test", "test")):
        images = sets[part]
        absent = [images.classes[k] for k in np.flatnonzero(images.counts() == 0)] if len(images) else []
        if absent:
            notes.append(f"The {name} part has no image of {', '.join(map(ascii_path, absent))}.")
        copies = int(np.isin(images.keys, sets["train"].keys).sum())
        if copies:
            notes.append(f"{copies} of {len(images)} {name} images are copies of training images.")
    return notes
