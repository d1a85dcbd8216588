"""From a list of image files, each with what is known of it, to splits: decoded once, checked, divided."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from repertoire.data._cache import Decoded, cache_directory, decode_once
from repertoire.data._decode import Levels, dimensions, read_file, signature
from repertoire.data._layout import some
from repertoire.data._levels import KINDS, levels_note
from repertoire.data._maps import class_names, read_maps
from repertoire.data._seen import Signature
from repertoire.data._source import SourceRequest
from repertoire.data._splits import make_splits
from repertoire.data._types import ImageSet, Splits
from repertoire.data._undecoded import Undecoded
from repertoire.errors import ConfigError, DataError, Unreadable, UnreadableImages, ascii_path

__all__ = ["Listed", "natural_size", "read", "splits_of", "with_white"]

_SMALL = 64
_PROBES = 64


@dataclass
class Listed:
    """Image files and what is known of them.

    Attributes:
        root: what the names are relative to.
        names: of the files, `[N]`.
        labels, classes: see `Samples`.
        parts: "train", "val", "test" or "unlabelled" of each file, or "" where it is to be drawn.
        groups: number of the group of each, int64 `[N]`, or None.
        masks: for each image that has one, the file of its mask.
        maps: for each image the file of its map of classes, where targets are maps; `labels` are then not looked at.
        signatures: of the files, where they have been asked; see `_decode.signature`.
        shown: what to call each, where that is not the name of its file; `[N]`.
        shards: number of the archive that each is a part of, int32 `[N]`, or None.
        failures: what cannot be used already.
        notes: for a person.
    """

    root: Path
    names: list[str]
    labels: np.ndarray
    classes: tuple[str, ...]
    parts: Sequence[str]
    groups: np.ndarray | None = None
    masks: Mapping[str, str] = field(default_factory=dict)
    maps: Mapping[str, str] = field(default_factory=dict)
    signatures: Mapping[str, Signature] = field(default_factory=dict)
    shown: Sequence[str] | None = None
    shards: np.ndarray | None = None
    failures: list[Unreadable] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def splits_of(listed: Listed, request: SourceRequest, source: str) -> Splits:
    """The images decoded, and divided where the list does not say how.

    Raises:
        DataError: masks that not all images have, or that have another shape; as `make_splits`.
        UnreadableImages: some images cannot be used, unless `request.skip_unreadable`; all of them are named.
    """
    images, parts, failures, levels = read(listed, request)
    if failures and not request.skip_unreadable:
        raise UnreadableImages(failures, len(listed.names) + len(listed.failures))
    sets = {part: images.subset(np.flatnonzero(parts == part)) for part in ("val", "test", "unlabelled")}
    note = levels_note(levels)
    splits = make_splits(
        images.subset(np.flatnonzero((parts == "train") | (parts == ""))),
        val_set=sets["val"] if len(sets["val"]) else None,
        test_set=sets["test"] if len(sets["test"]) else None,
        extra={"unlabelled": sets["unlabelled"]} if len(sets["unlabelled"]) else None,
        seed=request.seed,
        val=request.val,
        test=request.test,
        source=source,
        skipped=tuple(failures),
        notes=(*listed.notes, *([note] if note else [])),
        unlabelled=request.unlabelled,
        single=request.single,
    )
    return replace(splits, levels=levels)


def read(listed: Listed, request: SourceRequest) -> tuple[ImageSet, np.ndarray, list[Unreadable], Levels]:
    """The images that can be used, the part of each, what cannot be used, and the levels of black and white."""
    root, names = os.fspath(listed.root), listed.names
    signatures = dict(listed.signatures)
    for name in (*names, *listed.masks.values(), *listed.maps.values()):
        if name not in signatures:
            try:
                signatures[name] = signature(os.stat(os.path.join(root, name)))
            except OSError:
                continue  # found out, and reported with its reason, when it is read
    size = request.size or natural_size(root, names, request.photographs)
    unusable = _with_maps(listed, signatures, size, request) if listed.maps else {}
    if request.shapes:
        return _black(listed, size), np.array(listed.parts), listed.failures, {}
    options: dict[str, Any] = {"size": size, "fit": request.fit, "cache_dir": request.cache_dir}
    options |= {"workers": request.workers, "most": request.most}
    decoded = decode_once(root, names, signatures, levels=request.levels, shards=listed.shards, **options)
    reasons, masks = {**unusable, **decoded.failures}, None
    if listed.masks:
        _check_beside(root, names, listed.masks, _looked_at(listed), "mask")
        files = sorted(set(listed.masks.values()))
        found = decode_once(root, files, signatures, what="mask", **options)
        number = {name: position for position, name in enumerate(files)}
        for position, name in enumerate(names):
            if name in listed.masks and (why := found.failures.get(number[listed.masks[name]])):
                reasons.setdefault(position, f"has a mask, {listed.masks[name]}, which {why}")
        masks = _Masks.of(decoded, found, [number.get(listed.masks.get(name, ""), -1) for name in names])
    usable = np.ones(len(names), dtype=bool)
    usable[list(reasons)] = False
    good = np.flatnonzero(usable)
    shown = names if listed.shown is None else listed.shown
    images = ImageSet(
        decoded.images,  # type: ignore[arg-type]  # an array to look at
        listed.labels[good] if len(good) < len(names) else listed.labels,
        [shown[number] for number in good.tolist()],
        listed.classes,
        decoded.keys[good],
        masks=masks,  # type: ignore[arg-type]
        factors={} if listed.groups is None else {"group": listed.groups[good]},
        rows=decoded.rows[good],
    )
    failures = [Unreadable(os.path.join(root, shown[number]), why) for number, why in sorted(reasons.items())]
    return images, np.array(listed.parts)[good], listed.failures + failures, decoded.levels


def _black(listed: Listed, size: int) -> ImageSet:
    """Black images in the place of files that nobody opens."""
    count = len(listed.names)
    return ImageSet(
        np.broadcast_to(np.zeros((), np.uint8), (count, size, size, 3)),
        listed.labels,
        listed.names if listed.shown is None else listed.shown,
        listed.classes,
        np.arange(count, dtype=np.uint64),
        masks=np.broadcast_to(np.zeros((), bool), (count, size, size)) if listed.masks else None,
        factors={} if listed.groups is None else {"group": listed.groups},
    )


def with_white(request: SourceRequest, white: float | None) -> SourceRequest:
    """The request with a white of images of more than 8 bits that the user has chosen.

    Raises:
        ConfigError: it is not above 0.
    """
    if white is None:
        return request
    if not 0 < white < float("inf"):
        raise ConfigError(f"white must be a number above 0, found {white}")
    return replace(request, levels=dict.fromkeys(KINDS, (0.0, white)))


def natural_size(root: str, names: Sequence[str], usual: int = 128) -> int:
    """The size that images have if it is one, small and nearly square; what suits photographs otherwise."""
    sizes = {found for name in _some_of(names) if (found := _dimensions(root, name)) is not None}
    if len(sizes) == 1:
        short, long = sorted(sizes.pop())
        if long <= _SMALL and 4 * short >= 3 * long:
            return short
    return usual


def _some_of(names: Sequence[str]) -> Sequence[str]:
    return names[:: max(1, -(-len(names) // _PROBES))]


def _dimensions(root: str, name: str) -> tuple[int, int] | None:
    try:
        return dimensions(read_file(os.path.join(root, name))[0])
    except (OSError, ValueError):
        return None  # reported when all are decoded


def _with_maps(
    listed: Listed, signatures: Mapping[str, Signature], size: int, request: SourceRequest
) -> dict[int, str]:
    """Gives a list its maps as labels, and says which images have one that cannot be used, and why."""
    root, names = os.fspath(listed.root), listed.names
    _check_beside(root, names, listed.maps, _looked_at(listed), "map")
    files = [listed.maps[name] for name in names]
    listed.labels, failures = read_maps(root, files, signatures, size, request.fit, cache_directory(request.cache_dir))
    listed.classes = class_names(root, listed.labels, listed.classes or None)
    return {number: f"has a map, {files[number]}, which {why}" for number, why in failures.items()}


def _looked_at(listed: Listed) -> list[str]:
    """The parts; images that nobody labelled, beside others that somebody did, count as unlabelled wherever they are
    used."""
    if listed.labels.ndim != 1 or listed.labels.dtype.kind != "i" or not (listed.labels >= 0).any():
        return list(listed.parts)
    return ["unlabelled" if label < 0 else part for label, part in zip(listed.labels, listed.parts, strict=True)]


def _check_beside(root: str, names: Sequence[str], beside: Mapping[str, str], parts: Sequence[str], what: str) -> None:
    """Refuses images without the mask or map that others have, and masks or maps of another shape than their image."""
    lacking = [name for name, part in zip(names, parts, strict=True) if name not in beside and part != "unlabelled"]
    if lacking:
        raise DataError(
            f"{ascii_path(root)} has images without a {what}: {some(lacking)}; give every image its {what}, or none"
        )
    for name in _some_of(sorted(beside)):
        sizes = [_dimensions(root, file) for file in (name, beside[name])]
        if None not in sizes and sizes[0] != sizes[1]:
            (width, height), (across, down) = sizes  # type: ignore[misc]
            if abs(width * down - height * across) > max(width, height):
                raise DataError(
                    f"{ascii_path(root)}: {ascii_path(name)} is {width} x {height} pixels, and its {what} "
                    f"{ascii_path(beside[name])} {across} x {down}; a {what} must have the shape of its image"
                )


class _Masks:
    """Masks bool `[M, S, S]` in the order of decoded images, read out of a memory map when they are asked for."""

    dtype = np.dtype(bool)

    def __init__(self, pixels: np.ndarray | Undecoded, rows: np.ndarray) -> None:
        self._pixels, self._rows = pixels, rows
        self.shape = (len(rows), *pixels.shape[1:3])

    @classmethod
    def of(cls, images: Decoded, masks: Decoded, numbers: Sequence[int]) -> _Masks:
        """The masks of images, of which the n-th has the mask of the n-th number, -1 for none."""
        place = np.array([-1 if number < 0 else masks.rows[number] for number in numbers], dtype=np.int64)
        rows = np.full(len(images.images), -1, dtype=np.int64)
        used = images.rows >= 0
        rows[images.rows[used]] = place[used]
        return cls(masks.images, rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: np.ndarray) -> np.ndarray:
        rows = self._rows[index]
        return (self._pixels[np.maximum(rows, 0)][..., 0] > 127) & (rows >= 0)[..., None, None]
