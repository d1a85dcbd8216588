"""Further samples that nobody labelled: a folder of images, or a file of features."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from repertoire.data._arrays import pixel_keys
from repertoire.data._decode import Levels
from repertoire.data._features import load_feature_set
from repertoire.data._folder import grey_set
from repertoire.data._listed import Listed, read
from repertoire.data._source import Fit, SourceRequest
from repertoire.data._types import FeatureSet, ImageSet, Samples
from repertoire.data._walk import walk
from repertoire.errors import DataError, ascii_path

__all__ = ["load_unlabelled"]

_UNKNOWN = {"classes": -1, "labels": 255, "number": np.nan, "votes": -1}


def load_unlabelled(
    path: str | os.PathLike[str], *, like: Samples, fit: Fit = "crop", levels: Levels | None = None
) -> Samples:
    """All images below a folder, however they are arranged, without labels; those that cannot be read are left out.

    Beside vectors of features: all rows of a file of features, whatever labels or parts it names.

    Args:
        path: the folder, or the `.npz` or `.safetensors` file of features.
        like: the samples whose size, channels and classes these are to have.
        fit: how an image that is not square becomes square.
        levels: black and white of images of more than 8 bits, as those have them (`Splits.levels`).

    Raises:
        DataError: there is no such folder, no image in it that can be used; of features, no such file, or one with
            other features.
    """
    if not isinstance(like, ImageSet):
        return _vectors(Path(path), like)
    root = Path(path)
    tree = walk(root)
    labels = _unknown(len(tree.files), like)
    parts = ["unlabelled"] * len(tree.files)
    listed = Listed(root, tree.files, labels, like.classes, parts, signatures=tree.signatures)
    images, *_ = read(listed, SourceRequest(max(like.size), fit, levels=levels))
    if not len(images):
        raise DataError(f"{ascii_path(str(root))} has no image that can be used")
    return images if like.channels == 3 else grey_set(images)


def _vectors(path: Path, like: Samples) -> FeatureSet:
    shown = ascii_path(os.fspath(path))
    if path.is_dir():
        raise DataError(
            f"{shown} is a folder, and the data holds {like.noun}s: compute those of its images first, by the network "
            "that the data is from, with the command `repertoire embed`, and give the file that it writes"
        )
    found = load_feature_set(path)
    if found.shape != like.shape:
        raise DataError(
            f"{shown} has {found.shape[0]} features a row, and the data {like.shape[0]}; all must have as many"
        )
    keys = pixel_keys(np.asarray(found.features))
    return replace(found, labels=_unknown(len(found), like), classes=like.classes, keys=keys)


def _unknown(count: int, like: Samples) -> np.ndarray:
    """Targets of the kind of others that say that nobody knows."""
    return np.full((count, *like.labels.shape[1:]), _UNKNOWN[like.kind], dtype=like.labels.dtype)
