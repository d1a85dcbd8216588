"""Dividing samples into folds, each of which is tested once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from repertoire.data._names import alike
from repertoire.data._splits import dealt, hashed, held, indicators_of, make_splits, remarks, units_of_groups
from repertoire.data._types import Samples, Splits
from repertoire.errors import DataError, option

__all__ = ["fold_splits"]


def fold_splits(splits: Splits, number: int, of: int, *, seed: int = 0, val: float = 0.1) -> Splits:
    """The same data with one of several folds as its test part, and the others to train and validate on.

    The training samples, and the validation and test parts that were drawn from them, are divided into `of` parts of
    equal size, by content and seed as `make_splits` does: each class, label or tenth of a number's range gives every
    fold its share, samples of one group (`factors["group"]`) and copies of a sample are in one fold, and what has no
    target is always trained on. A part that the source has stays: its validation part validates every fold, and its
    test part is in no fold, but the extra set "test".

    Args:
        splits: the data.
        number: which fold is tested, from 1.
        of: how many folds there are, 2 or more.
        seed: another seed, other folds.
        val: share of the other folds to validate on, where the source has no validation part.

    Raises:
        DataError: there is no such fold, nothing has a target, there are fewer samples or groups than folds, or what a
            fold leaves cannot be divided.

    Example:
        >>> from repertoire.data import load
        >>> whole = load("digits")
        >>> folds = [fold_splits(whole, number, 5) for number in (1, 2, 3, 4, 5)]
        >>> sum(len(fold.test) for fold in folds) == len(whole.train) + len(whole.val) + len(whole.test)
        True
    """
    if of < 2 or not 1 <= number <= of:
        raise DataError(f"there is no fold {number} of {of}; folds are two or more, and counted from 1")
    pool = _pool(splits)
    if not pool.known.any():
        raise DataError(f"{splits.source} has no targets, so that a fold of it cannot be tested")
    fold = _folds_of(pool, of, seed, splits.source)
    extra = dict(splits.extra)
    if "test" not in splits.drawn:
        extra["test"] = splits.test
    # What was said of parts that are no more.
    gone = {*remarks(splits), *alike(splits.source, splits.classes)}
    notes = [note for note in splits.notes if note not in gone and not note.startswith("The source has no ")]
    found = make_splits(
        pool.subset(np.flatnonzero(fold != number - 1)),
        val_set=None if "val" in splits.drawn else splits.val,
        test_set=pool.subset(np.flatnonzero(fold == number - 1)),
        extra=extra,
        seed=seed,
        val=val,
        source=splits.source,
        augmentation=splits.augmentation,
        skipped=splits.skipped,
        notes=(*notes, f"Fold {number} of {of} is tested; the other folds are trained on."),
    )
    return replace(found, levels=splits.levels)


def _pool(splits: Splits) -> Samples:
    """The training samples and the parts that were drawn from them, in the order of the source."""
    parts = [splits.train, *(getattr(splits, name) for name in splits.drawn)]
    first = parts[0]
    rows = [np.arange(len(part)) if part.rows is None else part.rows for part in parts]
    order = np.argsort(np.concatenate(rows), kind="stable")
    names = [name for part in parts for name in part.names]
    joined = replace(
        first,
        labels=np.concatenate([part.labels for part in parts]),
        names=names,
        keys=np.concatenate([part.keys for part in parts]),
        factors={name: np.concatenate([part.factors[name] for part in parts]) for name in first.factors},
        rows=np.concatenate(rows),
    )
    return joined.subset(order)


def _folds_of(samples: Samples, of: int, seed: int, source: str) -> np.ndarray:
    """The fold of each sample from 0; -1 for those without a target, int64 `[N]`."""
    fold = np.full(len(samples), -1)
    known = np.flatnonzero(samples.known)
    some = samples.subset(known)
    group = some.factors.get("group")
    if group is not None:
        unit = units_of_groups(some, np.asarray(group), source)
        what = f"groups that share no {some.noun}"
    else:
        unit = np.unique(hashed(some.keys, seed), return_inverse=True)[1]
        what = f"different {some.noun}s with a target"
    count = int(unit.max()) + 1
    if count < of:
        raise DataError(f"{source} has {count} {what}, fewer than {of} folds; ask for fewer: {option('folds', count)}")
    if group is not None:
        order = np.full(count, np.iinfo(np.uint64).max, dtype=np.uint64)
        np.minimum.at(order, unit, hashed(some.keys, seed))
        fold[known] = dealt(held(some, unit), order, [1 / of] * of)[unit]
    else:
        fold[known] = _levelled(some, unit, count, of)[unit]
    return fold


def _levelled(samples: Samples, unit: np.ndarray, count: int, of: int) -> np.ndarray:
    """The fold of each unit, so that the folds differ by one unit in size and, as far as units with several labels
    allow it, by one in each stratum: stratum by stratum, the rarest first, as `make_splits` draws its parts."""
    indicators = indicators_of(samples)
    member = np.zeros((count, indicators.shape[1] + 1), dtype=bool)
    np.logical_or.at(member[:, :-1], unit, indicators)
    member[:, -1] = True
    # A stratum holds each unit that is in it and in no rarer one; the last holds what is in none.
    given = np.full(count, -1)
    sizes = np.zeros(of)
    for stratum in np.argsort(member.sum(0), kind="stable"):
        column = member[:, stratum]
        # Units are numbered by their hashes, so that their order is a random one.
        waiting = np.flatnonzero(column & (given < 0))
        has = np.bincount(given[column & (given >= 0)], minlength=of)
        takes = _filled(column.sum() / of - has, count / of - sizes, len(waiting))
        given[waiting] = np.repeat(np.arange(of), takes)
        sizes += takes
    return given


def _filled(lacking: np.ndarray, room: np.ndarray, count: int) -> np.ndarray:
    """How many of `count` each part takes, int64 `[P]`, where each goes to the part that lacks most by then; of several
    to the one with most room."""
    # No part takes more than what brings it level with the others.
    most = int(np.ceil(count / len(lacking) + np.ptp(lacking))) + 1
    steps = np.arange(min(most, count))
    wants = (lacking[:, None] - steps).reshape(-1)
    spare = (room[:, None] - steps).reshape(-1)
    part = np.repeat(np.arange(len(lacking)), len(steps))
    # In floating point, thirds of a whole may differ by their last digit.
    chosen = np.lexsort((part, -spare.round(9), -wants.round(9)))[:count]
    return np.bincount(part[chosen], minlength=len(lacking))
