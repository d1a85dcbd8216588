"""What the claims about few labels share: which labels are kept, tails, and outputs matched to classes."""

from __future__ import annotations

import numpy as np
import pytest

from repertoire.claims.beds import few_labels as bed
from repertoire.data import FeatureSet, Splits
from repertoire.tasks import Outputs


def splits() -> Splits:
    labels = np.arange(60) % 3
    rows = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    part = FeatureSet(rows, labels, [str(i) for i in range(60)], tuple("abc"), np.arange(60, dtype=np.uint64))
    return Splits(part, part, part, "drawn")


def test_labels_are_kept_of_each_class_and_the_others_are_without():
    found = bed.few(splits(), seed=0, labels=[4, 2, 0], unlabelled=[3, 50, 7])
    kept, pool = found.train, found.extra["unlabelled"]
    assert kept.counts().tolist() == [4, 2, 0]
    # Of the second class there are 18 left, which is all of them.
    assert pool.counts().tolist() == [3, 18, 7]
    assert not set(kept.names) & set(pool.names)
    assert set(bed.few(splits(), 1, 4).train.names) != set(bed.few(splits(), 0, 4).train.names)
    assert len(bed.few(splits(), 0, 4).extra["unlabelled"]) == 48


def test_a_tail_falls_by_its_ratio():
    counts = bed.tail(40, 20, classes=10)
    assert (counts[0], counts[-1]) == (40, 2)
    assert counts == sorted(counts, reverse=True)
    assert counts[3] == pytest.approx(40 * 20 ** (-1 / 3), abs=0.5)


def test_outputs_of_classes_without_labels_alone_are_matched():
    """Classes 2 and 3 have no label, and their outputs are swapped; so are those of 0 and 1, which nothing excuses."""
    labels = np.array([0, 0, 1, 1, 2, 2, 3, 3])
    answers = np.array([1, 0, 1, 1, 3, 3, 2, 3])
    logits = np.eye(4, dtype=np.float32)[answers]
    found = bed.matched(Outputs(logits, logits, labels), seen=[0, 1])
    assert found == {"all": 6 / 8, "seen": 3 / 4, "missing": 3 / 4}


def test_a_mean_over_classes_counts_rare_ones_alike():
    labels = np.array([0, 0, 0, 0, 1])
    logits = np.eye(2, dtype=np.float32)[[0, 0, 0, 0, 0]]
    assert bed.balanced_accuracy(Outputs(logits, logits, labels)) == 0.5
