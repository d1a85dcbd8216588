"""What sources of arrays share: keys, sizes, parts, targets."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np
from PIL import Image, ImageOps

from repertoire.data._archive import Archive
from repertoire.data._columns import class_numbers
from repertoire.data._maps import IGNORE, class_names
from repertoire.data._names import part_of
from repertoire.data._source import SourceRequest
from repertoire.data._splits import make_splits
from repertoire.data._types import Samples, Splits
from repertoire.errors import DataError, ascii_path, option

__all__ = ["Arrays", "names_of", "pixel_keys", "resized", "splits_of_arrays", "targets_of"]

_KINDS = {
    "images": ("images", "imgs"),
    "features": ("features", "embeddings"),
    "x": ("x", "data"),
    "labels": ("labels", "targets", "y"),
    "masks": ("masks",),
    "names": ("names", "files", "paths"),
    "group": ("group", "groups"),
    "split": ("split",),
    "votes": ("votes",),
    "maps": ("maps",),
    "classes": ("classes", "class_names"),
}
_KIND_OF = {word: kind for kind, words in _KINDS.items() for word in words}
Part = str
"""What stands behind the name of an array: "" for everything, "_train", "_val" or "_test"."""


class Arrays:
    """The arrays of a file by what they are and of which part, however the file names them.

    `images_train`, `train_images` and `x_train` are the same; `x` alone is images where it has three dimensions or
    four, and features where it has two.
    """

    def __init__(self, archive: Archive) -> None:
        self.archive = archive
        self.where = ascii_path(str(archive.path))
        self.held: dict[str, str] = {}
        """The name in the file, by ours."""
        self._read: dict[str, np.ndarray] = {}
        for name in archive.names:
            if (ours := _ours(name)) is not None:
                self.held.setdefault(ours, name)
        for ours in [ours for ours in self.held if ours.startswith("x")]:
            name = self.held.pop(ours)
            values = self._read.setdefault(name, archive.read(name))
            kind = "features" if values.ndim == 2 else "images"
            self.held.setdefault(kind + ours[1:], name)

    def __contains__(self, name: str) -> bool:
        return name in self.held or name in self.archive.texts

    def get(self, name: str) -> np.ndarray | None:
        """The array that we call so, or None."""
        if name in self.held:
            stored = self.held[name]
            if stored not in self._read:
                self._read[stored] = self.archive.read(stored)
            return self._read[stored]
        return np.array(self.archive.texts[name]) if name in self.archive.texts else None

    def called(self, name: str) -> str:
        """Name that the file has for it, for messages."""
        return self.held.get(name, name)

    def parts(self, kind: str) -> list[Part]:
        """Parts that the file has of "images" or "features".

        Raises:
            DataError: there is no such array.
        """
        found = [part for part in ("_train", "_val", "_test") if f"{kind}{part}" in self or f"labels{part}" in self]
        if kind in self or not found:
            found = [""]
        elif "_train" not in found:
            found = ["_train", *found]
        if missing := [f"{kind}{part}" for part in found if f"{kind}{part}" not in self]:
            raise DataError(
                f"{self.where} lacks {', '.join(missing)}; it holds {', '.join(self.archive.names) or 'nothing'}. Save "
                f"'{kind}' and 'labels', or '{kind}_train', 'labels_train' and the same for val and test"
            )
        return found


def _ours(name: str) -> str | None:
    """What we call an array of a file, or None for one that is none of ours."""
    words = re.split(r"[_\-. /]", name.casefold())
    whole = _KIND_OF.get("_".join(words))
    if whole is not None:
        return whole
    if len(words) != 2:
        return None
    for kind, part in (words, words[::-1]):
        if kind in _KIND_OF and part_of(part) in ("train", "val", "test"):
            return f"{_KIND_OF[kind]}_{part_of(part)}"
    return None


def splits_of_arrays(
    arrays: Arrays,
    kind: Literal["images", "features"],
    request: SourceRequest,
    make: Callable[[Part, np.ndarray, tuple[str, ...], list[str], dict[str, np.ndarray]], Samples],
    augmentation: str = "crop-flip",
) -> Splits:
    """Splits of the parts that a file has, with their targets, names and groups.

    Args:
        arrays: the file.
        kind: what its inputs are.
        request: what the source is asked.
        make: makes a set of samples of a part, its labels, the classes, names and factors.
        augmentation: see `Splits`.

    Raises:
        DataError: an array is missing, or arrays do not fit each other; as `make_splits`.
    """
    where, parts = arrays.where, arrays.parts(kind)
    counts = {part: len(arrays.get(f"{kind}{part}")) for part in parts}  # type: ignore[arg-type]
    labels, classes = targets_of(arrays, kind, counts, request)
    groups = _groups(arrays, counts)
    sets: dict[Part, Samples] = {}
    for part, count in counts.items():
        name = arrays.called(f"labels{part}")
        if len(labels[part]) != count:
            raise DataError(
                f"{where}: {arrays.called(kind + part)} has {count} {kind}, and {name} {len(labels[part])} labels"
            )
        factors = {"group": groups[part]} if part in groups else {}
        sets[part] = make(part, labels[part], classes, names_of(arrays, part, count), factors)
    if (split := arrays.get("split")) is not None and "" in sets:
        sets = _divide(where, sets[""], split)
    first = next(iter(sets.values()))
    return make_splits(
        first,
        val_set=sets.get("_val"),
        test_set=sets.get("_test"),
        extra={"unlabelled": sets["_unlabelled"]} if "_unlabelled" in sets else None,
        seed=request.seed,
        val=request.val,
        test=request.test,
        source=arrays.archive.path.name,
        augmentation=augmentation,
        unlabelled=request.unlabelled,
        single=request.single,
    )


def _groups(arrays: Arrays, counts: Mapping[Part, int]) -> dict[Part, np.ndarray]:
    """A number for the group of each sample, the same in all parts."""
    found = {part: group for part in counts if (group := arrays.get(f"group{part}")) is not None}
    for part, group in found.items():
        if group.shape != (counts[part],):
            raise DataError(
                f"{arrays.where}: group{part} must be [{counts[part]}], one for each sample; found {list(group.shape)}"
            )
    if not found:
        return {}
    _, numbers = np.unique(np.concatenate(list(found.values())), return_inverse=True)
    return _cut(numbers.astype(np.int64), found)


def names_of(arrays: Arrays, part: Part, count: int) -> list[str]:
    names = arrays.get(f"names{part}")
    if names is None:
        return [f"{part[1:]}-{number}" if part else str(number) for number in range(count)]
    if names.shape != (count,) or names.dtype.kind != "U":
        raise DataError(
            f"{arrays.where}: {arrays.called('names' + part)} must be text, [{count}]; found {names.dtype} "
            f"{list(names.shape)}"
        )
    return names.tolist()


def _divide(where: str, samples: Samples, split: np.ndarray) -> dict[Part, Samples]:
    """The parts of a set that an array gives, as text or as 0, 1 and 2 for train, val and test."""
    if split.shape != (len(samples),) or split.dtype.kind not in "Uiu":
        raise DataError(
            f"{where}: split must be text or numbers, [{len(samples)}]; found {split.dtype} {list(split.shape)}"
        )
    known = {"0": "train", "1": "val", "2": "test"} if split.dtype.kind != "U" else {"": "train"}
    part = {value: known.get(str(value)) or part_of(str(value)) for value in np.unique(split).tolist()}
    if wrong := [str(value) for value, found in part.items() if found is None]:
        raise DataError(f"{where}: split holds {', '.join(map(ascii_path, wrong[:5]))}; expected train, val or test")
    found = np.array([part[value] for value in split.tolist()])
    if not (found == "train").any():
        raise DataError(f"{where}: split gives nothing to train on")
    names = [name for name in ("train", "val", "test", "unlabelled") if (found == name).any()]
    return {f"_{name}": samples.subset(np.flatnonzero(found == name)) for name in names}


def targets_of(
    arrays: Arrays, kind: str, counts: Mapping[Part, int], request: SourceRequest
) -> tuple[dict[Part, np.ndarray], tuple[str, ...]]:
    """The targets of each part as `Samples` has them, and the names of classes, labels or numbers."""
    classes = arrays.get("classes")
    where = arrays.where
    if classes is not None and (classes.ndim != 1 or classes.dtype.kind != "U" or len(set(classes)) < len(classes)):
        raise DataError(f"{where}: classes must be different names, [C]; found {classes.dtype} {list(classes.shape)}")
    given = request.classes or (None if classes is None else tuple(classes.tolist()))
    what = next((w for w in ("votes", "maps") if any(f"{w}{part}" in arrays for part in counts)), "labels")
    if what == "maps" and kind != "images":
        raise DataError(f"{where}: maps give the pixels of images a class, and it holds {kind}")
    found = {part: arrays.get(f"{what}{part}") for part in counts}
    missing = [f"{what}{part}" for part, values in found.items() if values is None]
    if missing and not (request.unlabelled and len(missing) == len(found)):
        raise DataError(
            f"{where} lacks {', '.join(missing)}; it holds {', '.join(arrays.archive.names) or 'nothing'}. Save "
            f"'{kind}' and 'labels', or '{kind}_train', 'labels_train' and the same for val and test. Methods "
            f"without labels ({option('method', 'simclr')}, say) train on it as it is"
        )
    if missing:
        return {part: np.full(count, -1, dtype=np.int64) for part, count in counts.items()}, given or ()
    values = {part: _squeezed(array) for part, array in found.items() if array is not None}
    kinds = {part: what if what != "labels" else _kind(array) for part, array in values.items()}
    for part, array in values.items():
        if kinds[part] is None:
            raise DataError(
                f"{where}: {arrays.called(what + part)} must be integers or class names, [N]; 0 and 1, [N, K]; or "
                f"floats, [N] or [N, k]; found {array.dtype} {list(array.shape)}"
            )
    if len(set(kinds.values())) > 1:
        raise DataError(
            f"{where}: labels must be integers in all parts, or class names in all parts; found "
            + ", ".join(
                f"{arrays.called(what + part)} {array.dtype} {list(array.shape)}" for part, array in values.items()
            )
        )
    return _CONVERT[next(iter(kinds.values()))](where, values, given)  # type: ignore[index]


def _squeezed(array: np.ndarray) -> np.ndarray:
    """Classes are saved as a column by many."""
    return array[:, 0] if array.ndim == 2 and array.shape[1] == 1 and array.dtype.kind in "iuU" else array


def _kind(array: np.ndarray) -> str | None:
    if array.ndim == 1 and array.dtype.kind == "U":
        return "text"
    if array.ndim == 1 and array.dtype.kind in "iub":
        return "classes"
    if array.ndim == 2 and array.shape[1] and array.dtype.kind in "iub":
        return "labels"
    return "number" if array.ndim in (1, 2) and array.dtype.kind == "f" and 0 not in array.shape[1:] else None


Converted = tuple[dict[Part, np.ndarray], tuple[str, ...]]


def _from_text(where: str, values: Mapping[Part, np.ndarray], given: tuple[str, ...] | None) -> Converted:
    everything = [name or None for array in values.values() for name in array.tolist()]  # "" is no label
    numbers, found = class_numbers(everything)
    known = found if given is None else given
    if unknown := sorted(set(found) - set(known)):
        raise DataError(f"{where}: labels that are not in classes: {', '.join(map(ascii_path, unknown))}")
    place = np.array([*(known.index(name) for name in found), -1], dtype=np.int64)
    return _cut(place[numbers], values), known


def _from_integers(where: str, values: Mapping[Part, np.ndarray], given: tuple[str, ...] | None) -> Converted:
    everything = np.concatenate([array.astype(np.int64, casting="unsafe") for array in values.values()])
    big = any(array.dtype == np.uint64 and (array > np.iinfo(np.int64).max).any() for array in values.values())
    low = int(everything.min(initial=0))
    if given is None and not big and low >= -1:
        # Numbers may be anything (identities, say): those that occur are the classes.
        present = np.unique(everything[everything >= 0])
        numbers = np.where(everything < 0, -1, np.searchsorted(present, everything))
        return _cut(numbers, values), tuple(map(str, present.tolist()))
    if given is None:
        raise DataError(
            f"{where}: labels must be from 0, or -1 for none; found {low if not big else 'more than 2**63'}"
        )
    high = int(everything.max(initial=0))
    if low < -1 or high >= len(given) or big:
        raise DataError(
            f"{where}: labels must be from 0 to {len(given) - 1}, or -1 for none; found {low if low < -1 else high}"
        )
    return _cut(everything, values), given


def _from_labels(where: str, values: Mapping[Part, np.ndarray], given: tuple[str, ...] | None) -> Converted:
    out = {}
    for part, array in values.items():
        signed = array.astype(np.int64)
        unknown = (signed == -1) | (signed == 255)
        if not (unknown | (signed == 0) | (signed == 1)).all():
            raise DataError(
                f"{where}: labels{part} of [N, K] must be 0 and 1, and -1 or 255 where nobody knows; found "
                f"{int(signed[~unknown].min())} to {int(signed[~unknown].max())}"
            )
        out[part] = np.where(unknown, 255, signed).astype(np.uint8)
    return out, _columns(where, out, given, "label")


def _from_numbers(where: str, values: Mapping[Part, np.ndarray], given: tuple[str, ...] | None) -> Converted:
    out = {part: array.reshape(len(array), -1).astype(np.float32) for part, array in values.items()}
    for part, array in out.items():
        if np.isinf(array).any():
            raise DataError(f"{where}: labels{part} holds numbers that are infinite; use NaN where there is none")
        out[part] = np.where(np.isnan(array).any(1, keepdims=True), np.float32(np.nan), array)
    return out, _columns(where, out, given, "number")


def _from_votes(where: str, values: Mapping[Part, np.ndarray], given: tuple[str, ...] | None) -> Converted:
    for part, array in values.items():
        if array.ndim != 2 or array.dtype.kind not in "iu":
            raise DataError(f"{where}: votes{part} must be integers [N, A]; found {array.dtype} {list(array.shape)}")
    flat, classes = _from_integers(where, {part: array.reshape(-1) for part, array in values.items()}, given)
    return {part: flat[part].reshape(array.shape) for part, array in values.items()}, classes


def _from_maps(where: str, values: Mapping[Part, np.ndarray], given: tuple[str, ...] | None) -> Converted:
    out = {}
    for part, array in values.items():
        if array.ndim != 3 or array.dtype.kind not in "iu":
            raise DataError(f"{where}: maps{part} must be integers [N, H, W]; found {array.dtype} {list(array.shape)}")
        low, high = int(array.min(initial=0)), int(array.max(initial=0))
        if low < -1 or high > IGNORE:
            raise DataError(
                f"{where}: maps{part} must hold classes from 0 to 254, and -1 or 255 where there is none; found "
                f"{low if low < -1 else high}"
            )
        out[part] = array.astype(np.uint8)  # -1 becomes 255
    return out, class_names(where, [maps for array in out.values() for maps in array], given)


def _columns(
    where: str, values: Mapping[Part, np.ndarray], given: tuple[str, ...] | None, noun: str
) -> tuple[str, ...]:
    widths = {array.shape[1] for array in values.values()}
    if len(widths) > 1 or (given is not None and len(given) not in widths):
        raise DataError(
            f"{where}: labels have {' and '.join(map(str, sorted(widths)))} columns"
            + ("" if given is None else f", and classes {len(given)} names")
        )
    (width,) = widths
    return given or tuple(f"{noun} {column}" if width > 1 else noun for column in range(width))


_CONVERT = {
    "text": _from_text,
    "classes": _from_integers,
    "labels": _from_labels,
    "number": _from_numbers,
    "votes": _from_votes,
    "maps": _from_maps,
}


def _cut(numbers: np.ndarray, values: Mapping[Part, np.ndarray]) -> dict[Part, np.ndarray]:
    """One array after another, back in its parts."""
    ends = np.cumsum([len(array) for array in values.values()])[:-1]
    return dict(zip(values, np.split(numbers, ends), strict=True))


def pixel_keys(images: np.ndarray) -> np.ndarray:
    """A 64-bit BLAKE2b hash of each image's pixels, uint64 `[N]`: equal for copies, whatever their place.

    Example:
        >>> keys = pixel_keys(np.zeros((2, 8, 8, 1), dtype=np.uint8))
        >>> bool(keys[0] == keys[1])
        True
    """
    hashes = [hashlib.blake2b(image.tobytes(), digest_size=8).digest() for image in images]
    return np.frombuffer(b"".join(hashes), dtype="<u8").astype(np.uint64)


def resized(images: np.ndarray, size: int, fit: Literal["crop", "squash", "pad"]) -> np.ndarray:
    """Square images of another size: bicubic, antialiased where they shrink.

    Args:
        images: uint8 `[N, H, W, C]`, C being 1 or 3.
        size: side of the result in pixels.
        fit: what happens to images that are not square: "crop" keeps the centre, "squash" changes the proportions, and
            "pad" adds black bars.

    Returns:
        uint8 `[N, size, size, C]`; `images` itself where nothing changes.

    Example:
        >>> resized(np.zeros((2, 8, 10, 3), dtype=np.uint8), 16, "pad").shape
        (2, 16, 16, 3)
    """
    if images.shape[1:3] == (size, size):
        return images
    out = np.empty((len(images), size, size, images.shape[-1]), dtype=np.uint8)
    method = Image.Resampling.BICUBIC
    for number, pixels in enumerate(images):
        image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
        if fit == "crop":
            image = ImageOps.fit(image, (size, size), method)
        elif fit == "pad":
            image = ImageOps.pad(image, (size, size), method)
        else:
            image = image.resize((size, size), method)
        out[number] = np.asarray(image).reshape(size, size, -1)
    return out
