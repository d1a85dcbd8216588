"""What every data source is asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

__all__ = ["Fit", "SourceRequest"]

Fit = Literal["crop", "squash", "pad"]
"""How an image becomes a square: its centre, all of it out of proportion, or all of it with a border."""


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
