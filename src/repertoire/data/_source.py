"""What every data source is asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from repertoire.data._decode import Fit

__all__ = ["Fit", "SourceRequest"]


@dataclass(frozen=True)
class SourceRequest:
    """The wishes that are the same for all sources; a source's own options come with its spec.

    Attributes:
        size: side of the images in pixels; None for what is natural to the source.
        fit: how an image that is not square becomes square.
        seed: decides the splits, and the images of a generated source.
        val, test: shares to draw where the source has no such part, each in (0, 1).
        skip_unreadable: go on without the images that cannot be used.
        cache_dir: where decoded images are kept; the user's cache directory if None.
        workers: processes that decode; one for each core if None.
        download: whether the network may be used.
        classes: the class names in order, where they are given from outside; an unknown one is an error.
        unlabelled: whether data without any label will do, for methods that need none.
        single: whether data of a single class will do, for who knows others already.
        photographs: side in pixels of images that are larger than 64 pixels, or of several sizes, where none is asked
            for.
        levels: black and white of images of more than 8 bits, by kind, where they are given from outside.
        shapes: whether shapes and targets are all that is wanted: images of files are black then, and none is decoded.
        most: bytes of decoded images of files that may be kept on the disk; what does not fit is decoded whenever it is
            asked for. None for all.
    """

    size: int | None = None
    fit: Fit = "crop"
    seed: int = 0
    val: float = 0.1
    test: float = 0.2
    skip_unreadable: bool = False
    cache_dir: Path | None = None
    workers: int | None = None
    download: bool = False
    classes: tuple[str, ...] | None = None
    unlabelled: bool = False
    single: bool = False
    photographs: int = 128
    levels: Mapping[str, Sequence[float]] | None = None
    shapes: bool = False
    most: int | None = None
