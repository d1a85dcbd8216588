"""What the names of folders, splits and columns say: which part of the data, which class, and which are too alike."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache

from repertoire.errors import DataError, ascii_path

__all__ = ["alike", "part_of"]

_WORDS = {
    "train": ("train", "training", "trn"),
    "val": ("val", "valid", "validation", "validate", "dev", "devel", "development"),
    "test": ("test", "testing", "tst", "eval", "evaluation", "holdout"),
    "unlabelled": ("unlabelled", "unlabeled", "unsup", "unsupervised"),
}
_PARTS = {word: part for part, words in _WORDS.items() for word in words}
_FILLERS = frozenset(
    {"set", "sets", "data", "dataset", "split", "part", "seg", "folder", "dir", "files"}
    | {"image", "images", "img", "imgs", "pictures", "photos"}
)


@lru_cache(maxsize=4096)
def part_of(name: str) -> str | None:
    """The part of the data that the name of a folder or split stands for, in upper or lower case, with what is usually
    written around it; None for any other name.

    Example:
        >>> part_of("Training"), part_of("seg_test"), part_of("valid"), part_of("trainset"), part_of("trains")
        ('train', 'test', 'val', 'train', None)
    """
    found: set[str | None] = set()
    for word in re.split(r"[^a-z]+", name.casefold()):
        joined = {_PARTS.get(word.removesuffix(end)) for end in ("", *_FILLERS) if word.endswith(end)} - {None}
        if joined:
            found |= joined
        elif word and word not in _FILLERS:
            return None
    return found.pop() if len(found) == 1 else None


def alike(where: str, classes: Sequence[str]) -> tuple[str, ...]:
    """Note on classes whose names differ in case only, which letters do on purpose.

    Args:
        where: the data, for messages.
        classes: their names.

    Raises:
        DataError: two names differ in spaces or in the form of their Unicode only, which nobody can see.
    """
    looks: dict[str, list[str]] = defaultdict(list)
    for name in classes:
        looks[" ".join(unicodedata.normalize("NFKC", name).split())].append(name)
    if same := [names for names in looks.values() if len(names) > 1]:
        pairs = "; ".join(", ".join(ascii(name) for name in names) for names in same)
        raise DataError(
            f"{where} has classes whose names differ in spaces or in the form of their Unicode only: {pairs}. Give "
            "each class one name"
        )
    folded: dict[str, list[str]] = defaultdict(list)
    for name in looks:
        folded[name.casefold()].append(name)
    pairs = "; ".join(", ".join(map(ascii_path, names)) for names in folded.values() if len(names) > 1)
    return (f"Classes whose names differ in case only are taken for different ones: {pairs}.",) if pairs else ()
