"""What every registered protocol must do: stages that are apart, equal for equal seeds, and can be evaluated."""

from __future__ import annotations

import inspect
from dataclasses import replace

import numpy as np
import pytest

from repertoire import protocols, registry
from repertoire.data import FeatureSet, Splits
from repertoire.errors import ConfigError, DataError
from repertoire.protocols import Protocol, StageData

NAMES = registry.names("protocols")


def part(count: int, seed: int, kind: str = "classes") -> FeatureSet:
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % 5
    factors = {"domain": np.arange(count) // 5 % 3}
    keys = generator.permutation(count).astype(np.uint64) + np.uint64(1000 * seed)
    x = generator.normal(size=(count, 4)).astype(np.float32)
    if kind == "number":
        labels = labels[:, None].astype(np.float32)
    return FeatureSet(x, labels, [f"{seed}/{i}" for i in range(count)], tuple("abcde"), keys, factors)


SPLITS = Splits(part(90, 1), part(30, 2), part(45, 3), "made up")


@pytest.fixture(params=NAMES)
def protocol(request: pytest.FixtureRequest) -> Protocol:
    return registry.build("protocols", request.param)


def stages(protocol: Protocol, seed: int = 0) -> list[StageData]:
    return list(protocol.stages(SPLITS, seed))


def test_there_are_protocols():
    assert NAMES


def test_it_takes_a_memory(protocol: Protocol):
    assert isinstance(protocol, Protocol)
    assert protocol.memory == 200
    assert {"memory", "keep"} <= inspect.signature(type(protocol)).parameters.keys()
    with pytest.raises(ConfigError, match="memory is 'x'"):
        type(protocol)(memory="x")


@pytest.mark.parametrize("which", ["train", "val"])
def test_each_sample_is_in_one_stage_with_the_class_it_had(protocol: Protocol, which: str):
    whole = getattr(SPLITS, which)
    classes = {int(key): whole.classes[label] for key, label in zip(whole.keys, whole.labels, strict=True)}
    seen: list[int] = []
    for stage in stages(protocol):
        samples = getattr(stage, which)
        assert len(samples)
        assert samples.classes == stage.classes
        seen += samples.keys.tolist()
        for key, label in zip(samples.keys, samples.labels, strict=True):
            assert stage.classes[label] == classes[int(key)]
    assert sorted(seen) == sorted(whole.keys.tolist())


def test_classes_come_and_stay_in_their_places(protocol: Protocol):
    known: tuple[str, ...] = ()
    for stage in stages(protocol):
        assert stage.classes[: len(known)] == known
        assert {stage.classes[i] for i in stage.new} == set(stage.classes) - set(known)
        assert set(np.unique(stage.train.labels)) <= set(range(len(stage.classes)))
        known = stage.classes
    assert sorted(known) == sorted(SPLITS.classes)


def test_what_is_evaluated_is_in_the_order_of_the_stages_and_holds_all_of_the_test_in_the_end(protocol: Protocol):
    found = stages(protocol)
    names = [stage.name for stage in found]
    assert len(set(names)) == len(names) > 1
    for t, stage in enumerate(found):
        assert list(stage.evaluate)[: t + 1] == names[: t + 1]
        assert list(stage.evaluate) == names[: len(stage.evaluate)]
        for samples in stage.evaluate.values():
            assert samples.classes == stage.classes
        test = stage.splits(SPLITS).test
        assert len(test) == sum(map(len, stage.evaluate.values()))
    assert sorted(test.keys.tolist()) == sorted(SPLITS.test.keys.tolist())


def test_a_seed_decides(protocol: Protocol):
    def order(seed: int) -> list[list[int]]:
        return [stage.train.keys.tolist() for stage in stages(protocol, seed)]

    assert order(0) == order(0)
    assert any(order(seed) != order(0) for seed in range(1, 9))
    given = registry.build("protocols", registry.Spec(_name(protocol), (), {"order": "given"}))
    assert [s.name for s in given.stages(SPLITS, 0)] == [s.name for s in given.stages(SPLITS, 5)]


def test_splits_of_a_stage_bring_what_is_remembered(protocol: Protocol):
    first, second, *_ = stages(protocol)
    assert first.splits(SPLITS).extra == {}
    splits = second.splits(SPLITS, first.train)
    assert splits.extra["replay"] is first.train
    assert splits.train is second.train


def test_other_targets_are_refused(protocol: Protocol):
    numbers = replace(SPLITS, train=part(90, 1, "number"), val=part(30, 2, "number"), test=part(45, 3, "number"))
    with pytest.raises(DataError, match="needs a class for each sample"):
        list(protocol.stages(numbers, 0))


def test_a_stage_without_test_samples_is_refused(protocol: Protocol):
    few = replace(SPLITS, test=SPLITS.test.subset([0]))
    with pytest.raises(DataError, match="a stage needs some"):
        list(protocol.stages(few, 0))


def test_an_estimator_goes_through_it(protocol: Protocol):
    outcome = protocols.observe(protocol, "nearest-centroid", SPLITS)
    assert len(outcome.matrix) == len(stages(protocol))
    assert np.isfinite(outcome.matrix[np.tril_indices(len(outcome.matrix))]).all()
    assert 0 <= outcome.metrics["accuracy"] <= 1


def _name(protocol: Protocol) -> str:
    return next(entry.name for entry in registry.entries("protocols") if entry.factory is type(protocol))
