"""A folder of images that nobody labelled."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from repertoire.data._decode import Levels
from repertoire.data._folder import grey_set
from repertoire.data._listed import Listed, read
from repertoire.data._source import Fit, SourceRequest
from repertoire.data._types import ImageSet, Samples
from repertoire.data._walk import walk
from repertoire.errors import DataError, ascii_path

__all__ = ["load_unlabelled"]

_UNKNOWN = {"classes": -1, "labels": 255, "number": np.nan, "votes": -1}


def load_unlabelled(
    path: str | os.PathLike[str], *, like: Samples, fit: Fit = "crop", levels: Levels | None = None
) -> ImageSet:
    """All images below a folder, however they are arranged, without labels; those that cannot be read are left out.

    Args:
        path: the folder.
        like: images whose size, channels and classes these are to have.
        fit: how an image that is not square becomes square.
        levels: black and white of images of more than 8 bits, as those have them (`Splits.levels`).

    Raises:
        DataError: there is no such folder, no image in it that can be used, or the others are not images.
    """
    if not isinstance(like, ImageSet):
        raise DataError(f"unlabelled images go with images, and the data holds {like.noun}s")
    root = Path(path)
    tree = walk(root)
    labels = np.full((len(tree.files), *like.labels.shape[1:]), _UNKNOWN[like.kind], dtype=like.labels.dtype)
    parts = ["unlabelled"] * len(tree.files)
    listed = Listed(root, tree.files, labels, like.classes, parts, signatures=tree.signatures)
    images, *_ = read(listed, SourceRequest(max(like.size), fit, levels=levels))
    if not len(images):
        raise DataError(f"{ascii_path(str(root))} has no image that can be used")
    return images if like.channels == 3 else grey_set(images)
