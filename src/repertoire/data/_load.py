"""One door to all data: a folder, a file, or the name of a source."""

from __future__ import annotations

import os
from pathlib import Path

from repertoire import registry
from repertoire.data._features import holds_features
from repertoire.data._source import Fit, SourceRequest
from repertoire.data._types import Splits
from repertoire.errors import ConfigError, DataError, UnknownName, ascii_path, nearest

__all__ = ["load", "pinned", "source_of"]


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
    unlabelled: bool = False,
    single: bool = False,
    photographs: int = 128,
    shapes: bool = False,
    most: int | None = None,
) -> Splits:
    """Training, validation and test samples.

    Args:
        data: a folder with a directory per class (with or without train/, val/ and test/) or a table labels.csv, an
            .npz file of images or features, a .safetensors file of features, a .csv of paths and labels, or the spec of
            a source: `digits`, `shapes:count=1000`, `hf:NAME`, `wds:shards-{000..099}.tar`.
        size: side of the images in pixels; None for what is natural to the data.
        fit: how an image that is not square becomes square: "crop", "squash" or "pad".
        seed: decides the splits, and the images of a generated source.
        val, test: shares to draw where the data has no such part.
        skip_unreadable: go on without the images that cannot be used.
        cache_dir: where decoded images are kept; $REPERTOIRE_CACHE or the user's cache directory if None.
        workers: processes that decode; one for each core if None.
        download: whether the network may be used.
        unlabelled: whether data without any label will do: a folder of images however they lie in it, an .npz without
            labels. What lies in `unlabelled/` beside classes is then trained on.
        single: whether data of a single class will do, for who knows others already.
        photographs: side in pixels of images that are larger than 64 pixels, or of several sizes, where `size` is None.
        shapes: whether shapes and targets are all that is wanted, as for a plan: images of files are black then, and
            none is decoded.
        most: bytes of decoded images of files that are kept on the disk, for data that does not fit there: 0 keeps
            none. The others are decoded in processes whenever they are asked for, and are the same. None keeps all.

    Raises:
        DataError: the data cannot be used, or does not exist.
        UnreadableImages: some images cannot be used; all of them are named.

    Example:
        >>> splits = load("digits")
        >>> len(splits.train) > len(splits.test) > len(splits.val)
        True
    """
    request = SourceRequest(
        size,
        fit,
        seed,
        val,
        test,
        skip_unreadable,
        cache_dir,
        workers,
        download,
        unlabelled=unlabelled,
        single=single,
        photographs=photographs,
        shapes=shapes,
        most=most,
    )
    name, text = source_of(data), os.fspath(data)
    if Path(data).exists():
        return registry.build("data", registry.Spec(name, (text,)), request=request)
    return registry.build("data", text, request=request)


def source_of(data: str | Path) -> str:
    """Name of the source that reads data.

    Args:
        data: as for `load`.

    Raises:
        DataError: there is no such file, folder or source, or it is a file of another kind.

    Example:
        >>> source_of("shapes:count=100")
        'shapes'
    """
    path, text = Path(data), os.fspath(data)
    if path.is_dir():
        return "folder"
    if path.is_file():
        return _source_of_file(path)
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
    return name


def pinned(data: str) -> str:
    """The same data with its paths made absolute, so that it is found from any directory.

    Args:
        data: as for `load`: a path, or the spec of a source, as in `hf:photos` or `table:labels.csv,targets=number`.

    Example:
        >>> pinned("digits")
        'digits'
        >>> pinned("hf:.") == f"hf:{Path.cwd()}"
        True
    """
    if Path(data).exists():
        return str(Path(data).resolve())
    try:
        spec = registry.parse(data)
        known = list(registry.options(registry.get("data", spec.name).factory, {"request": None}))
    except ConfigError:
        return data  # `load` says what is wrong with it
    chosen = dict(zip(known, spec.args, strict=False))
    named = {**dict.fromkeys(chosen, ""), **{key: f"{key}=" for key in spec.kwargs}}
    parts = []
    for key, value in {**chosen, **spec.kwargs}.items():
        if spec.name == "wds" and key in _SHARDS:
            value = os.path.abspath(value)
        elif key in _PATHS and isinstance(value, str) and Path(value).exists():
            value = str(Path(value).resolve())
        parts.append(f"{named[key]}({value})" if "," in value or "=" in value else f"{named[key]}{value}")
    return f"{spec.name}:{','.join(parts)}" if parts else data


_PATHS = ("path", "name", "root")
"""Options of sources that may be paths."""

_SHARDS = ("path", "val", "test")
"""Those that stand for several files each."""


def _source_of_file(path: Path) -> str:
    """The source that reads a file."""
    suffix = path.suffix.lower()
    if suffix in (".csv", ".tsv"):
        return "table"
    if suffix == ".safetensors" or (suffix == ".npz" and holds_features(path)):
        return "features"
    if suffix == ".npz":
        return "npz"
    unpack = "; unpack it and give the folder" if suffix in (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar") else ""
    if suffix == ".tar":
        unpack += f"; or give wds:{ascii_path(os.fspath(path))}, if it is a shard in the format of WebDataset"
    raise DataError(
        f"{ascii_path(os.fspath(path))} is a file, not a folder with a directory per class, an .npz or .safetensors "
        f"file, or a .csv of paths and labels{unpack}"
    )
