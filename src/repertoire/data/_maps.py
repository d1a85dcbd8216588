"""Maps of classes: a class for every pixel, from files and along with augmented images."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from repertoire.data._augment import move_masks
from repertoire.data._batches import plain
from repertoire.data._layout import some
from repertoire.data._names import part_of
from repertoire.errors import DataError, ascii_path
from repertoire.files import atomic_path

__all__ = [
    "IGNORE",
    "check_moves_maps",
    "class_names",
    "fitted",
    "move_maps",
    "named_classes",
    "placed_maps",
    "read_map",
    "read_maps",
]

IGNORE = 255
"""In stored maps, a pixel whose class is not known."""


def check_moves_maps(augmentation: Callable[[Tensor], Tensor]) -> None:
    """Raises `ConfigError` for an augmentation that does not say how it moves pixels."""
    move_masks(augmentation, torch.zeros(1, 8, 8, dtype=torch.bool))


def move_maps(augmentation: Callable[[Tensor], Tensor], maps: Tensor) -> Tensor:
    """Maps of classes as an augmentation that comes next moves their images; torch's random state stays as it is.

    Classes cannot be averaged, so it is not the maps that are moved but the coordinates of their pixels: each pixel
    then takes the class at the nearest of them. Where an augmentation fills in black, there is no class; where it
    reflects the image, the map is reflected with it.

    Args:
        augmentation: `plain`, or one that has a `geometry`.
        maps: uint8 `[N, H, W]`, 255 where the class is not known.

    Returns:
        int64 `[N, H, W]`, -1 where the class is not known.

    Raises:
        ConfigError: the augmentation does not say how it moves pixels.

    Example:
        >>> move_maps(plain, torch.tensor([[[0, 3], [255, 1]]], dtype=torch.uint8)).tolist()
        [[[0, 3], [-1, 1]]]
    """
    if augmentation is not plain:
        check_moves_maps(augmentation)
        geometry: Callable[[Tensor], Tensor] = augmentation.geometry  # type: ignore[attr-defined]
        count, height, width = maps.shape
        rows = _replayed(geometry, maps, torch.arange(height, device=maps.device)[:, None].expand(height, width))
        columns = _replayed(geometry, maps, torch.arange(width, device=maps.device).expand(height, width))
        with _forked(maps.device):
            there = geometry(maps.new_full((count, height, width, 1), 255))[:, 0] > 0.5
        image = torch.arange(count, device=maps.device)[:, None, None]
        maps = maps[image, rows.clamp_(0, height - 1), columns.clamp_(0, width - 1)].masked_fill(~there, IGNORE)
    found = maps.long()
    return found.masked_fill_(found == IGNORE, -1)


def _replayed(geometry: Callable[[Tensor], Tensor], maps: Tensor, position: Tensor) -> Tensor:
    """Where each pixel comes from along one axis, int64 `[N, H, W]`."""
    # Images are bytes: up to a side of 768 the three channels together still tell every position from the next.
    wide = -(-(int(position.max()) + 1) // 256)
    channels = torch.stack([(3 * position + wide * part) // (3 * wide) for part in range(3)], -1).clamp_(max=255)
    with _forked(maps.device):
        moved = geometry(channels.to(torch.uint8).expand(len(maps), *channels.shape).contiguous())
    return (moved.sum(1) * (255 * wide / 3)).round_().long()


def _forked(device: torch.device) -> AbstractContextManager[None]:
    return torch.random.fork_rng([device] if device.type == "cuda" else [])


def read_map(path: str, size: int, fit: str) -> np.ndarray:
    """A map from an image of indices, square and of a size, as the image beside it is made: uint8 `[size, size]`.

    The values of grey images, and the indices of those with a palette, are classes; nothing is interpolated.

    Raises:
        ValueError: it is no image of indices.
    """
    try:
        with Image.open(path) as image:
            if image.mode not in ("L", "P", "1", "I;16", "I"):
                raise ValueError(
                    f"is a {image.mode} image: a map holds the index of a class in every pixel, as grey values or with "
                    "a palette"
                )
            values = np.asarray(image)
    except OSError as error:
        raise ValueError(f"is not a readable image: {error}") from None
    if values.size and int(values.max()) > IGNORE:
        raise ValueError(f"holds the value {int(values.max())}; classes are 0 to 254, and 255 is for no class")
    return fitted(values.astype(np.uint8)[None], size, fit)[0]


def fitted(maps: np.ndarray, size: int, fit: str) -> np.ndarray:
    """Maps made square, and of a size, by nearest neighbours: "crop" keeps the centre, "squash" changes the
    proportions, and "pad" adds bars that have no class."""
    height, width = maps.shape[1:]
    if (height, width) == (size, size):
        return maps
    side, longest = min(height, width), max(height, width)
    top = left = 0
    tall, broad, down, across = height, width, size, size
    if fit == "crop":
        top, left, tall, broad = (height - side) // 2, (width - side) // 2, side, side
    elif fit == "pad":
        down, across = (max(1, round(length * size / longest)) for length in (height, width))
    rows = top + ((np.arange(down) + 0.5) * tall / down).astype(np.int64)
    columns = left + ((np.arange(across) + 0.5) * broad / across).astype(np.int64)
    found = maps[:, rows[:, None], columns]
    if (down, across) == (size, size):
        return found
    out = np.full((len(maps), size, size), IGNORE, np.uint8)
    upper, before = (size - down) // 2, (size - across) // 2
    out[:, upper : upper + down, before : before + across] = found
    return out


def read_maps(
    root: str | os.PathLike[str],
    names: Sequence[str],
    signatures: Mapping[str, tuple[int, ...]],
    size: int,
    fit: str,
    cache: Path,
) -> tuple[np.ndarray, dict[int, str]]:
    """Maps uint8 `[N, size, size]` of files, read once and kept, and why some cannot be used.

    Args:
        root, names: where they are.
        signatures: of the files: what is kept is read again when one has changed.
        size, fit: as for the images.
        cache: the directory to keep them in.
    """
    told = repr([os.path.abspath(root), size, fit, [(name, signatures.get(name)) for name in names]])
    path = (
        cache / "maps" / f"{hashlib.blake2b(told.encode('utf-8', 'surrogateescape'), digest_size=16).hexdigest()}.npy"
    )
    try:
        kept = np.load(path, mmap_mode="r", allow_pickle=False)
        if kept.shape == (len(names), size, size) and kept.dtype == np.uint8:
            return kept, {}
    except (OSError, ValueError, EOFError):
        pass
    found = np.full((len(names), size, size), IGNORE, np.uint8)
    failures: dict[int, str] = {}
    for number, name in enumerate(names):
        try:
            found[number] = read_map(os.path.join(root, name), size, fit)
        except ValueError as error:
            failures[number] = str(error)
    if not failures:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            np.save(file, found)
    return found, failures


@dataclass
class PlacedMaps:
    """The images of a folder that have a map.

    Attributes:
        maps: for each image the file of its map.
        parts: "train", "val" or "test" of each image, or "" where it is to be drawn.
        notes: for a person.
    """

    maps: dict[str, str] = field(default_factory=dict)
    parts: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def placed_maps(where: str, files: Sequence[str]) -> PlacedMaps | None:
    """Finds images and maps of one relative name, in `images/` and `maps/`, of which each may be inside of a part
    (train/images/1.jpg) or hold the parts (images/train/1.jpg); None for a folder without the two.

    Raises:
        DataError: images have no map.
    """
    images: dict[tuple[str, str], str] = {}
    maps: dict[tuple[str, str], str] = {}
    rest = []
    for name in files:
        folders = name.split("/")[:-1]
        what = next((i for i, folder in enumerate(folders[:2]) if folder.casefold() in ("images", "maps")), None)
        part = part_of(folders[0]) if what == 1 else ""
        if what is None or part is None:
            rest.append(name)
            continue
        inner = name.split("/")[what + 1 :]
        if not part and len(inner) > 1 and part_of(inner[0]) in ("train", "val", "test"):
            part = str(part_of(inner[0]))
        stem = "/".join(inner).rpartition(".")[0] or "/".join(inner)
        (images if folders[what].casefold() == "images" else maps)[part, stem] = name
    if not images or not maps:
        return None
    if lacking := [name for key, name in images.items() if key not in maps]:
        raise DataError(f"{where} has images without a map: {some(lacking)}; give every image its map, or none")
    found = PlacedMaps(
        {name: maps[key] for key, name in images.items()}, {name: key[0] for key, name in images.items()}
    )
    if unused := [*rest, *(name for key, name in maps.items() if key not in images)]:
        found.notes.append(f"Images outside images/, and maps that belong to no image, were not used: {some(unused)}.")
    return found


def named_classes(root: Path) -> tuple[str, ...]:
    """The classes that a folder names in `classes.txt`, a line each; none where there is no such file.

    Raises:
        DataError: it cannot be read, or has a name twice or an empty line.
    """
    path = root / "classes.txt"
    if not path.is_file():
        return ()
    try:
        names = [line.strip() for line in path.read_text(encoding="utf-8-sig").rstrip().splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{ascii_path(str(path))} cannot be read as text: {error}") from None
    if "" in names or len(set(names)) < len(names):
        raise DataError(f"{ascii_path(str(path))} must name each class once, in a line of its own")
    return tuple(names)


def class_names(where: str, maps: Iterable[np.ndarray], given: Sequence[str] | None) -> tuple[str, ...]:
    """The names of the classes of maps: those given, or their numbers.

    Raises:
        DataError: maps hold a class that has no name, or fewer than two classes.
    """
    highest = max((int(part.max(initial=0, where=part != IGNORE)) for part in maps), default=-1)
    if given is None:
        given = [str(k) for k in range(highest + 1)]
    if highest >= len(given):
        raise DataError(
            f"{ascii_path(where)}: the maps hold class {highest}, and there are {len(given)} names of classes (counted "
            f"from 0): name {highest + 1} classes, or write 255 where there is none"
        )
    if len(given) < 2:
        raise DataError(f"{ascii_path(where)}: the maps hold {len(given)} class; at least two are needed")
    return tuple(given)
