"""One door to all data: a folder, a file, or the name of a source."""

from __future__ import annotations

import os
from pathlib import Path

from repertoire import registry
from repertoire.data._source import Fit, SourceRequest
from repertoire.data._types import Splits
from repertoire.errors import DataError, UnknownName, ascii_path, nearest

__all__ = ["load"]


def load(
    data: str | Path,
    *,
    size: int | None = None,
    fit: Fit = "crop",
    seed: int = 0,
    val: float = 0.1,
    test: float = 0.2,
    skip_unreadable: bool = False,
    cache_dir: Path | None = None,
    workers: int | None = None,
    download: bool = False,
) -> Splits:
    """Training, validation and test images.

    Args:
        data: a folder with a directory per class (with or without train/, val/ and test/), an .npz file, or the spec of
            a source: `digits`, `shapes:count=1000`, `hf:NAME`.
        size: side of the images in pixels; None for what is natural to the data.
        fit: how an image that is not square becomes square: "crop", "squash" or "pad".
        seed: decides the splits, and the images of a generated source.
        val, test: shares to draw where the data has no such part.
        skip_unreadable: go on without the images that cannot be used.
        cache_dir: where decoded images are kept; $REPERTOIRE_CACHE or the user's cache directory if None.
        workers: processes that decode; one for each core if None.
        download: whether the network may be used.

    Raises:
        DataError: the data cannot be used, or does not exist.
        UnreadableImages: some images cannot be used; all of them are named.

    Example:
        >>> splits = load("digits")
        >>> len(splits.train) > len(splits.test) > len(splits.val)
        True
    """
    request = SourceRequest(size, fit, seed, val, test, skip_unreadable, cache_dir, workers, download)
    path = Path(data)
    text = os.fspath(data)
    if path.is_dir():
        return registry.build("data", registry.Spec("folder", (text,)), request=request)
    if path.is_file():
        if path.suffix == ".npz":
            return registry.build("data", registry.Spec("npz", (text,)), request=request)
        unpack = (
            "; unpack it and give the folder" if path.suffix in (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar") else ""
        )
        raise DataError(
            f"{ascii_path(text)} is a file, not a folder with a directory per class or an .npz file{unpack}"
        )
    try:
        name = registry.parse(text).name
        registry.get("data", name)
    except UnknownName:
        known = registry.names("data")
        guess = nearest(registry.parse(text).name, known)
        hint = f"; did you mean {guess!r}?" if guess else ""
        raise DataError(
            f"there is no folder or file {ascii_path(text)}, and no data source of that name{hint} "
            f"(sources: {', '.join(known)})"
        ) from None
    return registry.build("data", text, request=request)
