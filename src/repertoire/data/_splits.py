"""Dividing samples into training, validation and test parts.

Which part a sample is in is a function of its content and the seed: neither the order of files nor their names matter,
and adding samples moves few of the others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from repertoire.data._names import alike
from repertoire.data._types import Samples, Splits
from repertoire.errors import DataError, Unreadable, ascii_path, option, plural

__all__ = ["dealt", "digest", "hashed", "held", "indicators_of", "make_splits", "remarks", "units_of_groups"]

_STRATA = 10
"""Quantiles of a number that are divided evenly."""


def make_splits(
    samples: Samples,
    *,
    val_set: Samples | None = None,
    test_set: Samples | None = None,
    extra: Mapping[str, Samples] | None = None,
    seed: int = 0,
    val: float = 0.1,
    test: float = 0.2,
    source: str,
    augmentation: str = "crop-flip",
    skipped: tuple[Unreadable, ...] = (),
    notes: tuple[str, ...] = (),
    unlabelled: bool = False,
    single: bool = False,
) -> Splits:
    """Draws the parts that a source does not have.

    Of classes, each gives its share, at least one sample, to each part that is drawn. Of several labels, each label
    does, as far as samples that have several allow (stratification after Sechidis, Tsoumakas and Vlahavas, *On the
    Stratification of Multi-label Data*, 2011); of numbers, each tenth of their range by rank. Samples of one group
    (`factors["group"]`) stay together, and so do copies of a sample; copies that lie in several classes are trained on,
    where they do least harm. Samples without a target are trained on, and are the extra set "unlabelled" too.

    Args:
        samples: the training samples, or all of them.
        val_set, test_set: the parts that the source has; without their samples that have no target, and drawn like the
            others if nothing is left.
        extra: further sets; to "unlabelled" the training samples without a target are not added.
        seed: another seed, another draw.
        val, test: shares to draw, of the samples that `samples` holds.
        source, augmentation, skipped, notes: passed on.
        unlabelled: whether data in which nothing has a target will do.
        single: whether a single class will do.

    Raises:
        DataError: fewer than two classes, classes or groups too few or too small to be divided (all are named), names
            of classes that look the same, or shares that leave nothing to train on.

    Example:
        >>> from repertoire.data import FeatureSet
        >>> rows = np.arange(20, dtype=np.float32)[:, None]
        >>> points = FeatureSet(rows, rows / 2, list("abcdefghijklmnopqrst"), ("half",), np.arange(20, dtype=np.uint64))
        >>> [len(part) for part in (lambda s: (s.train, s.val, s.test))(make_splits(points, source="points"))]
        [14, 2, 4]
    """
    notes += alike(source, samples.classes)
    without = unlabelled and not samples.known.any()
    if not without:
        _check_targets(samples, source, 1 if single else 2)
        test_set, unlabelled_test = _known_only(test_set, "test")
        val_set, unlabelled_val = _known_only(val_set, "validation")
        notes += unlabelled_test + unlabelled_val
    shares = {"test": test if test_set is None else 0.0, "val": val if val_set is None else 0.0}
    if sum(shares.values()) >= 1:
        raise DataError(f"val {val:g} and test {test:g} leave nothing to train on; together they must be less than 1")
    part, drawn = _assign(samples, shares, seed, source, without)
    notes += drawn
    train = samples.subset(np.flatnonzero(part == 0))
    extra = dict(extra or {})
    if not without and not train.known.all():
        extra.setdefault("unlabelled", train.subset(np.flatnonzero(~train.known)))
    splits = Splits(
        train=train,
        val=samples.subset(np.flatnonzero(part == 1)) if val_set is None else val_set,
        test=samples.subset(np.flatnonzero(part == 2)) if test_set is None else test_set,
        source=source,
        augmentation=augmentation,
        skipped=skipped,
        extra=extra,
        drawn=tuple(name for name, share in shares.items() if share),
    )
    return replace(splits, notes=notes + remarks(splits))


def digest(splits: Splits) -> str:
    """A hash of what is in the three parts and in the further sets: contents and targets, in their order.

    A run keeps it; data with another digest is not the data that the run was trained with.

    Example:
        >>> from repertoire.data import load
        >>> digest(load("digits")) == digest(load("digits")) != digest(load("digits", seed=1))
        True
    """
    found = hashlib.blake2b(digest_size=16)
    for part in (splits.train, splits.val, splits.test):
        found.update(np.ascontiguousarray(part.keys).tobytes())
        found.update(np.ascontiguousarray(part.labels).tobytes())
    for name, further in sorted(splits.extra.items()):
        # Training samples without a target are in the first part already.
        if not np.isin(further.keys, splits.train.keys).all():
            found.update(name.encode() + np.ascontiguousarray(further.keys).tobytes())
    return found.hexdigest()


def _check_targets(samples: Samples, source: str, fewest: int) -> None:
    if samples.kind in ("classes", "votes", "maps") and len(samples.classes) < fewest:
        only = f": {ascii_path(samples.classes[0])}" if samples.classes else ""
        raise DataError(
            f"{source} has {plural(len(samples.classes), 'class', 'classes')}{only}; a classifier needs at least two. "
            f"Methods without labels ({option('method', 'simclr')}, say) train on it as it is"
        )
    if not samples.known.any():
        raise DataError(
            f"{source} has no label; methods without labels ({option('method', 'simclr')}, say) train on it, all "
            "others need labels"
        )


def _known_only(samples: Samples | None, part: str) -> tuple[Samples | None, tuple[str, ...]]:
    """A part without its samples that have no target, which can measure nothing; None if none is left."""
    if samples is None or samples.known.all():
        return samples, ()
    keep = np.flatnonzero(samples.known)
    note = f"{len(samples) - len(keep)} {part} {samples.noun}s have no label and were left out."
    return (samples.subset(keep) if len(keep) else None), (note,)


def _assign(
    samples: Samples, shares: dict[str, float], seed: int, source: str, without: bool
) -> tuple[np.ndarray, tuple[str, ...]]:
    """0 (train), 1 (val) or 2 (test) for each sample, and how that was found."""
    drawn = [(number, share) for number, share in ((2, shares["test"]), (1, shares["val"])) if share]
    group = samples.factors.get("group")
    of_each = "of each class "
    if not drawn:
        return np.zeros(len(samples), dtype=np.int8), ()
    if group is not None:
        part, of_each = _by_group(samples, np.asarray(group), drawn, seed, source), "in whole groups "
    elif without:
        part, of_each = _by_strata(samples, np.zeros((len(samples), 1), bool), drawn, seed, source), ""
    elif samples.kind == "classes":
        part = _by_class(samples, drawn, seed, source)
    else:
        part = _by_strata(samples, indicators_of(samples), drawn, seed, source)
        of_each = {"labels": "of each label ", "number": "evenly over the range "}.get(samples.kind, of_each)
    return part, tuple(
        f"The source has no {name} part: {share:.0%} {of_each}were drawn for it, by content and seed."
        for name, share in (("validation", shares["val"]), ("test", shares["test"]))
        if share
    )


def _by_class(samples: Samples, drawn: list[tuple[int, float]], seed: int, source: str) -> np.ndarray:
    """Class by class, no class being without a sample in any part."""
    part = np.zeros(len(samples), dtype=np.int8)
    shared = _in_several_classes(samples)
    order = hashed(samples.keys, seed)
    small = []
    by_class = np.argsort(samples.labels, kind="stable")
    bounds = np.searchsorted(samples.labels[by_class], np.arange(len(samples.classes) + 1))
    for label, name in enumerate(samples.classes):
        members = by_class[bounds[label] : bounds[label + 1]]
        free = members[~shared[members]]
        # Sorted by hash, copies are neighbours; `group` counts the distinct samples among them.
        free = free[np.argsort(order[free], kind="stable")]
        group = np.cumsum(np.diff(order[free], prepend=order[free[:1]]) != 0) if len(free) else np.zeros(0, np.int64)
        distinct = int(group[-1]) + 1 if len(free) else 0
        if distinct + bool(len(members) > len(free)) < len(drawn) + 1 or distinct < len(drawn):
            small.append(f"{ascii_path(name)} ({_why_small(len(members), distinct, len(members) - len(free))})")
            continue
        start = 0
        for position, (number, share) in enumerate(drawn):
            # Leave a group for each part still to come.
            most = distinct - start - (len(drawn) - position)
            if len(members) > len(free) and position == len(drawn) - 1:
                most += 1
            count = min(max(1, round(share * distinct)), max(1, most))
            part[free[(group >= start) & (group < start + count)]] = number
            start += count
    if small:
        raise DataError(
            f"{source} has classes with too few different {samples.noun}s to divide: {', '.join(small)}; each needs at "
            f"least {len(drawn) + 1}, one for each part. Add {samples.noun}s, remove the classes, or provide the parts "
            "yourself (train/, val/, test/)"
        )
    return part


def _why_small(count: int, distinct: int, shared: int) -> str:
    """How many samples a class has, and what makes them fewer than they seem."""
    why = [f"only {distinct} different"] if distinct < count - shared else []
    why += [f"{'all' if shared == count else shared} in other classes too"] if shared else []
    return ", ".join([str(count), *why])


def _by_strata(
    samples: Samples, indicators: np.ndarray, drawn: list[tuple[int, float]], seed: int, source: str
) -> np.ndarray:
    """Stratum by stratum, the rarest first, a sample being in any number of them: each part gets from those not given
    away yet what it lacks of the stratum. What is in no stratum comes last. Copies are one sample."""
    known = np.flatnonzero(samples.known) if indicators.any() else np.arange(len(samples))
    order = hashed(samples.keys, seed)
    _, first, unit = np.unique(order[known], return_index=True, return_inverse=True)
    if len(first) < len(drawn) + 1:
        raise DataError(
            f"{source} has too few different {samples.noun}s to divide: {len(first)}; at least {len(drawn) + 1} are "
            "needed, one for each part"
        )
    # `np.unique` sorts, so that units come in the order of their hashes.
    member = np.zeros((len(first), indicators.shape[1] + 1), dtype=bool)
    np.logical_or.at(member[:, :-1], unit, indicators[known])
    member[:, -1] = True  # everything: the sizes of the parts
    totals = member.sum(0)
    given = np.zeros(len(first), dtype=np.int8)
    free = np.ones(len(first), dtype=bool)
    carried = dict.fromkeys((number for number, _ in drawn), 0.0)
    for stratum in np.argsort(totals, kind="stable"):
        last = stratum == member.shape[1] - 1
        column = member[:, stratum]
        candidates = np.flatnonzero(given == 0 if last else column & free)
        for number, share in drawn:
            # What rounding leaves goes on to the next stratum: of many small ones each would round to nothing.
            exact = share * totals[stratum] - (column & (given == number)).sum() + (0 if last else carried[number])
            lacks = max(0, round(exact))
            if last and not (given == number).any():  # no part stays empty
                lacks = max(lacks, 1)
            lacks = max(0, min(lacks, len(candidates) - last))
            carried[number] = exact - lacks if abs(exact - lacks) < 1 else 0.0
            given[candidates[:lacks]] = number
            candidates = candidates[lacks:]
        free &= ~column
    part = np.zeros(len(samples), dtype=np.int8)
    part[known] = given[unit]
    return part


def _by_group(
    samples: Samples, group: np.ndarray, drawn: list[tuple[int, float]], seed: int, source: str
) -> np.ndarray:
    """Whole groups, the largest first, each to the part that lacks most of what it holds. Groups that share a sample
    are one."""
    unit = units_of_groups(samples, group, source)
    count = int(unit.max(initial=-1)) + 1
    if count < len(drawn) + 1:
        raise DataError(
            f"{source} has {count} group{'s' if count != 1 else ''} that share no {samples.noun}, and "
            f"{len(drawn) + 1} parts, each of which needs one at least; provide the parts yourself, or leave the "
            "groups out"
        )
    order = np.full(count, np.iinfo(np.uint64).max, dtype=np.uint64)
    np.minimum.at(order, unit, hashed(samples.keys, seed))
    shares = [1 - sum(share for _, share in drawn), *(share for _, share in drawn)]
    numbers = np.array([0, *(number for number, _ in drawn)], dtype=np.int8)
    part = numbers[dealt(held(samples, unit), order, shares)][unit]
    if samples.kind == "classes":
        absent = np.setdiff1d(np.unique(samples.labels[samples.labels >= 0]), samples.labels[part == 0])
        if len(absent):
            raise DataError(
                f"{source}: dividing by group leaves no training {samples.noun} of "
                f"{', '.join(ascii_path(samples.classes[k]) for k in absent)}; their groups are too few"
            )
    return part


def units_of_groups(samples: Samples, group: np.ndarray, source: str) -> np.ndarray:
    """Numbers of what must not be divided, int64 `[N]`: the group of a sample, with all groups that share a copy.

    Raises:
        DataError: the groups are not one for each sample.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if len(group) != len(samples) or group.ndim != 1:
        raise DataError(f"{source}: groups must be [N], one for each {samples.noun}, found {list(group.shape)}")
    _, groups = np.unique(group, return_inverse=True)
    _, copies = np.unique(samples.keys, return_inverse=True)
    size = int(groups.max(initial=0)) + 1
    links = coo_array((np.ones(len(groups)), (groups, size + copies)), shape=(size + int(copies.max()) + 1,) * 2)
    joined = connected_components(links, directed=False)[1][groups]
    return np.asarray(np.unique(joined, return_inverse=True)[1], dtype=np.int64)


def held(samples: Samples, unit: np.ndarray) -> np.ndarray:
    """Counts in each unit of everything that is to be divided evenly, and of samples, float64 `[U, S + 1]`."""
    indicators = indicators_of(samples)
    holds = np.zeros((int(unit.max(initial=-1)) + 1, indicators.shape[1] + 1))
    np.add.at(holds[:, :-1], unit, indicators)
    holds[:, -1] = np.bincount(unit)
    return holds


def dealt(holds: np.ndarray, order: np.ndarray, shares: Sequence[float]) -> np.ndarray:
    """Deals units out to parts, the largest first, each to the part that lacks most of what it holds.

    Args:
        holds: of `held`.
        order: uint64 `[U]`, which of two units of one size comes first.
        shares: of the parts; none of them stays empty.

    Returns:
        The part of each unit, int64 `[U]` from 0.
    """
    lacking = np.asarray(shares, dtype=np.float64)[:, None] * holds.sum(0)
    scale = np.maximum(holds.sum(0), 1)
    given = np.zeros(len(holds), dtype=np.int64)
    empty = np.ones(len(lacking), dtype=bool)
    for position, chosen in enumerate(np.lexsort((order, -holds[:, -1]))):
        gain = ((np.minimum(lacking, holds[chosen]) - np.maximum(holds[chosen] - lacking, 0)) / scale).sum(1)
        if len(holds) - position <= empty.sum():
            gain = np.where(empty, gain, -np.inf)
        best = int(gain.argmax())
        given[chosen] = best
        lacking[best] -= holds[chosen]
        empty[best] = False
    return given


def indicators_of(samples: Samples) -> np.ndarray:
    """Indicators of what is to be divided evenly, bool `[N, K]`: classes, labels, tenths of each number's range by
    rank, the class with the most votes, or the classes that occur in a map."""
    if samples.kind == "classes":
        return samples.labels[:, None] == np.arange(len(samples.classes))
    if samples.kind == "labels":
        return samples.labels == 1
    if samples.kind == "number":
        bins = min(_STRATA, max(1, int(samples.known.sum()) // _STRATA))
        return np.concatenate([_tenths(column, bins) for column in samples.labels.T], axis=1)
    if samples.kind == "maps":
        return _occurring(samples)
    return _plurality(samples.labels, len(samples.classes))[:, None] == np.arange(len(samples.classes))


def _occurring(samples: Samples) -> np.ndarray:
    """Which classes have a pixel in each map, bool `[N, C]`."""
    found = np.zeros((len(samples), 256), dtype=bool)
    for row, part in zip(found, samples.labels, strict=True):
        row[np.unique(part)] = True
    return found[:, : len(samples.classes)]


def _tenths(column: np.ndarray, bins: int) -> np.ndarray:
    finite = np.isfinite(column)
    edges = np.quantile(column[finite], np.linspace(0, 1, bins + 1)[1:-1]) if finite.any() else np.zeros(bins - 1)
    return (np.searchsorted(edges, column, side="right")[:, None] == np.arange(bins)) & finite[:, None]


def _plurality(votes: np.ndarray, classes: int) -> np.ndarray:
    """The class with the most votes, the first of several; -1 where there is no vote."""
    counts = np.zeros((len(votes), classes + 1), dtype=np.int64)
    rows = np.repeat(np.arange(len(votes)), votes.shape[1])
    np.add.at(counts, (rows, votes.reshape(-1)), 1)  # -1 counts in the last column
    return np.where(counts[:, :-1].any(1), counts[:, :-1].argmax(1), -1)


def remarks(splits: Splits) -> tuple[str, ...]:
    """Notes for a person on the parts as they are."""
    notes = []
    groups = splits.train.factors.get("group")
    for samples, name in ((splits.val, "validation"), (splits.test, "test")):
        noun = f"{samples.noun}s"
        if samples.kind in ("classes", "labels", "maps"):
            absent = [samples.classes[k] for k in np.flatnonzero(samples.counts() == 0)]
            if absent and samples.known.any():
                notes.append(f"The {name} part has no {samples.noun} of {', '.join(map(ascii_path, absent))}.")
        if copies := int(np.isin(samples.keys, splits.train.keys).sum()):
            notes.append(f"{copies} of {len(samples)} {name} {noun} are copies of training {noun}.")
        if groups is not None and "group" in samples.factors:
            both = np.intersect1d(samples.factors["group"], groups)
            if len(both):
                notes.append(f"{len(both)} groups of the {name} part have training {noun} too.")
    return tuple(notes)


def _in_several_classes(samples: Samples) -> np.ndarray:
    """Whether a copy of a sample lies in another class, bool `[N]`."""
    _, inverse = np.unique(samples.keys, return_inverse=True)
    low = np.full(inverse.max(initial=-1) + 1, np.iinfo(np.int64).max)
    high = np.full(len(low), np.iinfo(np.int64).min)
    np.minimum.at(low, inverse, samples.labels)
    np.maximum.at(high, inverse, samples.labels)
    return (low != high)[inverse]


def hashed(keys: np.ndarray, seed: int) -> np.ndarray:
    """A permutation of the 64-bit integers that depends on the seed (SplitMix64)."""
    salt = np.random.SeedSequence([seed, 0x5B11]).generate_state(1, np.uint64)
    mixed = keys.astype(np.uint64) ^ salt
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
