"""Images from tar files in the format of WebDataset, each read in its place: nothing is unpacked.

The format is a plain tar in which the files of a sample follow each other and share their name up to the first dot:
`0001.jpg`, `0001.cls`. It is read with the standard library, because the files are on a disk here: where a sample
begins is known once its shard has been gone through, so that any order, and going on at any step, cost nothing. (The
package `webdataset` streams from afar, and shuffles what happens to be in a buffer.)
"""

from __future__ import annotations

import glob
import hashlib
import os
import re
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from repertoire.data._cache import cache_directory
from repertoire.data._decode import member, part_signature, plain_reason
from repertoire.data._layout import some
from repertoire.data._listed import Listed, splits_of, with_white
from repertoire.data._seen import Signature
from repertoire.data._source import SourceRequest
from repertoire.data._types import Splits
from repertoire.errors import ConfigError, DataError, ascii_path
from repertoire.files import atomic_path
from repertoire.registry import register

__all__ = ["wds"]

_IMAGES = frozenset(
    ["jpg", "jpeg", "png", "ppm", "pgm", "pbm", "webp", "bmp", "tif", "tiff", "gif", "jp2", "avif", "qoi"]
)
"""Last extensions of members that are images."""

_FORMAT = 1
_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")
_LONGEST_LABEL = 4096


@register("data", "wds")
def wds(
    request: SourceRequest,
    path: str,
    val: str | None = None,
    test: str | None = None,
    label: str = "cls",
    white: float | None = None,
) -> Splits:
    """Shards of images: tar files in the format of WebDataset, on a local disk.

    A sample is the files that follow each other and share their name up to the first dot: an image, and one with the
    extension `label` that holds its class as text. Samples without one have no label. A file `classes.txt` beside the
    shards may name the classes, a line each, from 0; otherwise they are called what the files say.

    Each shard is gone through once, and where its samples lie is remembered. The order of an epoch takes some shards at
    a time and mixes their samples (`Loader`), so samples of all classes should lie in each of them. It is a function of
    seed and epoch, whether images are kept decoded or not.

    Args:
        request: `size` is the side in pixels; by default as in `folder`.
        path: of the training shards: one file, `shards-{000..099}.tar` for a hundred of them, or a pattern such as
            `shards-*.tar`.
        val, test: of the validation and test shards, likewise; drawn from the training samples if None.
        label: extension of the file that says the class.
        white: as in `folder`.

    Raises:
        ConfigError: an option is out of its range.
        DataError: a shard is missing, damaged or compressed, or holds no image; a class that training does not have; as
            `make_splits`.
        UnreadableImages: some images cannot be used, unless `request.skip_unreadable`; all of them are named.

    Example:
        >>> import io, tempfile
        >>> from PIL import Image
        >>> shard = Path(tempfile.mkdtemp()) / "shard-0.tar"
        >>> with tarfile.open(shard, "w") as tar:
        ...     for number in range(20):
        ...         picture = io.BytesIO()
        ...         Image.new("RGB", (8, 8), (9 * number, 0, 0)).save(picture, "PNG")
        ...         for name, content in (("png", picture.getvalue()), ("cls", str(number % 2).encode())):
        ...             info = tarfile.TarInfo(f"{number}.{name}")
        ...             info.size = len(content)
        ...             tar.addfile(info, io.BytesIO(content))
        >>> wds(SourceRequest(), str(shard)).classes
        ('0', '1')
    """
    if request.size is not None and request.size < 1:
        raise ConfigError(f"size must be at least 1 pixel, found {request.size}")
    given = {"train": path, "val": val, "test": test}
    files = {part: _expanded(str(text)) for part, text in given.items() if text is not None}
    shards = [(part, file) for part, found in files.items() for file in found]
    kept = cache_directory(request.cache_dir) / "shards"
    root = Path(os.path.commonpath([os.path.dirname(file) for _, file in shards]))
    listed = _listed(root, shards, [_index(file, label, kept) for _, file in shards], request)
    return splits_of(listed, with_white(request, white), os.path.basename(path))


def _expanded(text: str) -> list[str]:
    """The files that a pattern stands for, in order.

    Raises:
        DataError: there is none, or one is missing.
    """
    found = [text]
    while any(_BRACES.search(each) for each in found):
        found = [each for given in found for each in _counted(given)]
    if not any(os.path.exists(each) for each in found):
        found = [file for each in found for file in sorted(glob.glob(each))]
    missing = [file for file in found if not os.path.isfile(file)]
    if missing or not found:
        raise DataError(
            f"there is no shard {ascii_path(text)}" if not found else f"shards that are not there: {some(missing)}"
        )
    return [os.path.abspath(file) for file in found]


def _counted(text: str) -> Iterator[str]:
    """Texts with the first `{a..b}` replaced by each number from a to b, as wide as a is."""
    braces = _BRACES.search(text)
    if braces is None:
        yield text
        return
    first, last = braces.groups()
    if int(last) < int(first):
        raise DataError(f"{ascii_path(text)} counts downwards, from {first} to {last}")
    for number in range(int(first), int(last) + 1):
        yield f"{text[: braces.start()]}{number:0{len(first)}d}{text[braces.end() :]}"


@dataclass(frozen=True)
class _Index:
    """Contents of a shard.

    Attributes:
        names: of its samples that have an image.
        labels: what each says of its class; empty where it says nothing.
        places: where the image of each begins, and how long it is, int64 `[N, 2]`.
        status: of the file, when it was read.
    """

    names: list[str]
    labels: list[str]
    places: np.ndarray
    status: os.stat_result


def _index(file: str, label: str, kept: Path) -> _Index:
    """The contents of a shard, read now or, if it has not changed, some time before."""
    status = os.stat(file)
    known = f"{_FORMAT} {label} {status.st_size} {status.st_mtime_ns} {status.st_ino} {status.st_ctime_ns}"
    memory = kept / (hashlib.blake2b(os.fsencode(file), digest_size=16).hexdigest() + ".npz")
    try:
        with np.load(memory, allow_pickle=False) as arrays:
            if str(arrays["known"]) == known:
                names, labels = (_lines(arrays[name]) for name in ("names", "labels"))
                return _Index(names, labels, arrays["places"], status)
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
        pass
    names, labels, places = _read(file, label)
    found = _Index(names, labels, np.array(places, dtype=np.int64).reshape(-1, 2), status)
    with atomic_path(memory) as temporary, open(temporary, "wb") as handle:
        np.savez(handle, known=np.array(known), places=found.places, names=_packed(names), labels=_packed(labels))
    return found


def _packed(texts: Sequence[str]) -> np.ndarray:
    return np.frombuffer(os.fsencode("\0".join(texts)), dtype=np.uint8)


def _lines(packed: np.ndarray) -> list[str]:
    return os.fsdecode(packed.tobytes()).split("\0")


def _read(file: str, label: str) -> tuple[list[str], list[str], list[tuple[int, int]]]:
    names: list[str] = []
    labels: list[str] = []
    places: list[tuple[int, int]] = []
    last = None
    try:
        with tarfile.open(file, "r:") as tar, open(file, "rb") as content:
            for item in tar:
                tar.members = []  # type: ignore[attr-defined]  # or all headers are kept
                folder, slash, base = item.name.rpartition("/")
                stem, _, extension = base.partition(".")
                if not item.isfile() or not stem:
                    continue
                if folder + slash + stem != last:
                    last, image, said = folder + slash + stem, None, ""
                if extension == label and item.size <= _LONGEST_LABEL:
                    content.seek(item.offset_data)
                    said = content.read(item.size).decode("utf-8", "replace").strip().replace("\0", "")
                    if image is not None:
                        labels[image] = said
                elif extension.rpartition(".")[2].lower() in _IMAGES and image is None:
                    image = len(names)
                    names.append(last)
                    labels.append(said)
                    places.append((item.offset_data, item.size))
    except (OSError, tarfile.TarError, EOFError) as error:
        reason = plain_reason(error) if isinstance(error, OSError) else " ".join(str(error).split())
        raise DataError(
            f"{ascii_path(file)} cannot be read as a shard ({reason}); shards are tar files that are not compressed"
        ) from None
    if not names:
        raise DataError(f"{ascii_path(file)} holds no image; those that are known end in {', '.join(sorted(_IMAGES))}")
    return names, labels, places


def _listed(root: Path, shards: Sequence[tuple[str, str]], indices: Sequence[_Index], request: SourceRequest) -> Listed:
    names: list[str] = []
    shown: list[str] = []
    said: list[str] = []
    parts: list[str] = []
    numbers: list[int] = []
    signatures: dict[str, Signature] = {}
    for number, ((part, file), index) in enumerate(zip(shards, indices, strict=True)):
        relative = os.path.relpath(file, root)
        for name, (offset, length) in zip(index.names, index.places.tolist(), strict=True):
            names.append(member(relative, offset, length))
            shown.append(f"{relative}/{name}")
            signatures[names[-1]] = part_signature(index.status, offset, length)
        said += index.labels
        parts += [part] * len(index.names)
        numbers += [number] * len(index.names)
    labels, classes, notes = _labels(root, said, parts, request)
    return Listed(
        root,
        names,
        labels,
        classes,
        parts,
        signatures=signatures,
        shown=shown,
        shards=np.array(numbers, dtype=np.int32),
        notes=notes,
    )


def _labels(
    root: Path, said: Sequence[str], parts: Sequence[str], request: SourceRequest
) -> tuple[np.ndarray, tuple[str, ...], list[str]]:
    """The labels as `Samples` has them, the names of the classes, and what to say about it."""
    where = ascii_path(str(root))
    present = {text for text in said if text}
    named = _named(root)
    numeric = all(text.isdecimal() for text in present)
    if numeric and named is not None:
        if beyond := sorted({text for text in present if int(text) >= len(named)}, key=int):
            raise DataError(f"{where}: classes.txt names {len(named)} classes, and samples have {some(beyond)}")
        called = {text: named[int(text)] for text in present}
    else:
        called = {text: text for text in present}
    seen = {text for text, part in zip(said, parts, strict=True) if text and part == "train"}
    order = sorted(seen, key=int) if numeric else sorted(seen)
    classes = request.classes or tuple(dict.fromkeys(called[text] for text in order))
    number = {name: position for position, name in enumerate(classes)}
    if unknown := sorted({called[text] for text in present} - set(number)):
        raise DataError(
            f"{where}: the training samples have no {'class' if len(unknown) == 1 else 'classes'} {some(unknown)}, and "
            "others do"
        )
    labels = np.array([number[called[text]] if text else -1 for text in said], dtype=np.int64)
    missing = int((labels < 0).sum())
    notes = [f"{missing} samples say nothing of their class."] if missing and present else []
    return labels, classes, notes


def _named(root: Path) -> list[str] | None:
    try:
        lines = (root / "classes.txt").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    return [line.strip() for line in lines if line.strip()]
