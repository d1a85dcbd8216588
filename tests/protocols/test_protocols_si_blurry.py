from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from repertoire.data import FeatureSet, Splits
from repertoire.errors import ConfigError, DataError
from repertoire.protocols import SiBlurry


def splits_of(classes: int, each: int = 20) -> Splits:
    def part(count: int, start: int) -> FeatureSet:
        labels = np.arange(count * classes) % classes
        names = [str(i) for i in range(len(labels))]
        keys = (start + np.arange(len(labels))).astype(np.uint64)
        return FeatureSet(np.zeros((len(labels), 2), np.float32), labels, names, tuple(map(str, range(classes))), keys)

    return Splits(part(each, 0), part(2, 10**5), part(3, 10**6), "made up")


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 12), st.integers(2, 5), st.floats(0, 1), st.floats(0, 1), st.integers(0, 99))
def test_every_sample_comes_once_in_the_proportions_that_were_asked_for(classes, stages, disjoint, blurry, seed):
    stages = min(stages, classes)
    splits = splits_of(classes)
    found = list(SiBlurry(stages, disjoint, blurry).stages(splits, seed))
    assert len(found) == stages
    keys = np.concatenate([stage.train.keys for stage in found])
    assert sorted(keys.tolist()) == sorted(splits.train.keys.tolist())
    own = [set(stage.name.split("+")) for stage in found]
    assert sorted(name for names in own for name in names) == sorted(splits.classes)
    away = dict.fromkeys(splits.classes, 0)
    for stage, names in zip(found, own, strict=True):
        counts = np.bincount(stage.train.labels, minlength=len(stage.classes))
        for name, count in zip(stage.classes, counts.tolist(), strict=True):
            away[name] += 0 if name in names else count
    alone = min(classes, max(stages, round(disjoint * classes)))
    # Of a class that is disjoint nothing is elsewhere; of another at most the share that is scattered.
    assert sum(count == 0 for count in away.values()) >= alone
    most = min(19, round(blurry * 20))
    assert all(count <= most for count in away.values())
    assert all(len(stage.new) > 0 and len(stage.val) > 0 for stage in found)


def test_nothing_is_scattered_at_zero_and_all_classes_are_alone_at_one():
    splits = splits_of(10)
    for protocol in (SiBlurry(5, 0.5, 0.0), SiBlurry(5, 1.0, 1.0)):
        for stage in protocol.stages(splits, 3):
            own = set(stage.name.split("+"))
            assert {stage.classes[label] for label in np.unique(stage.train.labels)} == own
            assert {stage.classes[label] for label in stage.new} == own


def test_sizes_of_stages_are_drawn():
    found = [tuple(len(stage.train) for stage in SiBlurry(4).stages(splits_of(12), seed)) for seed in range(6)]
    assert len(set(found)) > 3
    assert max(max(sizes) / min(sizes) for sizes in found) > 2


def test_a_class_that_leaked_is_known_before_its_stage_and_tested_from_it_on():
    leaked = 0
    for seed in range(5):
        for stage in SiBlurry(3, 0.3, 0.9).stages(splits_of(9), seed):
            tested = {
                stage.classes[label] for samples in stage.evaluate.values() for label in np.unique(samples.labels)
            }
            assert tested <= set(stage.classes)
            leaked += len(set(stage.classes) - tested)
    assert leaked > 0


def test_what_cannot_be_divided():
    with pytest.raises(DataError, match="fewer stages"):
        list(SiBlurry(5).stages(splits_of(4), 0))
    with pytest.raises(ConfigError, match="stages"):
        SiBlurry(1)
    with pytest.raises(ConfigError, match="blurry"):
        SiBlurry(blurry=1.5)
