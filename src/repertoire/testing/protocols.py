"""What every protocol must do: stages that are apart, equal for equal seeds, and can be evaluated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from repertoire.data import FeatureSet, Splits
from repertoire.errors import ConfigError, DataError
from repertoire.protocols import Protocol, StageData, observe
from repertoire.testing._check import Check, checks, described, example_options, options_of, refused

__all__ = ["check_protocol"]

_NAMES = tuple("abcde")


def check_protocol(factory: Callable[..., Protocol], *, splits: Splits | None = None, **options: Any) -> list[Check]:
    """Checks of a protocol against :class:`repertoire.protocols.Protocol`, on a small set of features.

    Args:
        factory: the class.
        splits: features to divide, all of them labelled; of five classes and three values of a variable "domain" if
            None.
        options: options to build it with.

    Returns:
        The checks; each is called without arguments.

    Example:
        >>> from repertoire.protocols import ClassIncremental
        >>> from repertoire.testing import check_protocol
        >>> for check in check_protocol(ClassIncremental, step=2):
        ...     check()
    """
    return checks(_Protocols(factory, splits or _splits(), options))


def _part(count: int, seed: int, numbers: bool = False) -> FeatureSet:
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % len(_NAMES)
    factors = {"domain": np.arange(count) // len(_NAMES) % 3}
    keys = generator.permutation(count).astype(np.uint64) + np.uint64(1000 * seed)
    x = generator.normal(size=(count, 4)).astype(np.float32)
    targets = labels[:, None].astype(np.float32) if numbers else labels
    return FeatureSet(x, targets, [f"{seed}/{i}" for i in range(count)], _NAMES, keys, factors)


def _splits(numbers: bool = False) -> Splits:
    return Splits(_part(90, 1, numbers), _part(30, 2, numbers), _part(45, 3, numbers), "made up")


class _Protocols:
    def __init__(self, factory: Callable[..., Protocol], splits: Splits, options: dict[str, Any]) -> None:
        self.factory, self.splits = factory, splits
        self.options = {**example_options(factory), **options}

    def build(self, **options: Any) -> Protocol:
        return self.factory(**{**self.options, **options})

    def stages(self, seed: int = 0, **options: Any) -> list[StageData]:
        return list(self.build(**options).stages(self.splits, seed))

    def check_it_is_documented(self) -> None:
        described(self.factory)
        assert isinstance(self.build(), Protocol)

    def check_it_passes_on_what_may_be_kept(self) -> None:
        assert {"memory", "keep"} <= options_of(self.factory).keys(), "what may be kept is an option of every protocol"
        built = self.build(memory=7, keep="herding")
        assert (built.memory, built.keep) == (7, "herding")
        refused(ConfigError, "memory is 'x'", self.build, memory="x")

    def check_each_sample_is_in_one_stage_with_the_class_it_had(self) -> None:
        for which in ("train", "val"):
            whole = getattr(self.splits, which)
            classes = {int(key): whole.classes[label] for key, label in zip(whole.keys, whole.labels, strict=True)}
            seen: list[int] = []
            for stage in self.stages():
                samples = getattr(stage, which)
                assert len(samples), f"stage {stage.name} has nothing in {which}"
                assert samples.classes == stage.classes
                seen += samples.keys.tolist()
                for key, label in zip(samples.keys, samples.labels, strict=True):
                    assert stage.classes[label] == classes[int(key)], "a sample has another class than in the data"
            assert len(seen) == len(set(seen)), "a sample is in two stages"
            assert sorted(seen) == sorted(whole.keys.tolist()), "a sample is in no stage"

    def check_classes_come_and_stay_in_their_places(self) -> None:
        known: tuple[str, ...] = ()
        for stage in self.stages():
            assert stage.classes[: len(known)] == known, "a class that was known has another place"
            assert {stage.classes[i] for i in stage.new} == set(stage.classes) - set(known)
            assert set(np.unique(stage.train.labels)) <= set(range(len(stage.classes)))
            known = stage.classes
        assert sorted(known) == sorted(self.splits.classes)

    def check_what_is_evaluated_is_in_the_order_of_the_stages(self) -> None:
        found = self.stages()
        names = [stage.name for stage in found]
        assert len(set(names)) == len(names) > 1, "a protocol has two stages or more, with names of their own"
        for t, stage in enumerate(found):
            tested = list(stage.evaluate)
            assert tested == names[: max(len(tested), t + 1)], f"after stage {t + 1}, {tested} are tested"
            assert all(samples.classes == stage.classes for samples in stage.evaluate.values())
            assert len(stage.splits(self.splits).test) == sum(map(len, stage.evaluate.values()))
        last = found[-1].splits(self.splits).test.keys.tolist()
        assert sorted(last) == sorted(self.splits.test.keys.tolist()), "not all of the test is tested in the end"

    def check_equal_seeds_give_equal_stages(self) -> None:
        def order(seed: int, **options: Any) -> list[list[int]]:
            return [stage.train.keys.tolist() for stage in self.stages(seed, **options)]

        assert order(3) == order(3)
        if "order" in options_of(self.factory):
            assert any(order(seed) != order(0) for seed in range(1, 9)), "no seed changes the order that is drawn"
            assert order(5, order="given") == order(0, order="given"), "a seed changes the order that was given"

    def check_a_stage_brings_what_is_remembered(self) -> None:
        first, second, *_ = self.stages()
        assert first.splits(self.splits).extra == {}
        splits = second.splits(self.splits, first.train)
        assert splits.extra["replay"] is first.train
        assert splits.train is second.train

    def check_data_that_cannot_be_divided_is_refused(self) -> None:
        refused(DataError, "class", lambda: list(self.build().stages(_splits(numbers=True), 0)))
        few = replace(self.splits, test=self.splits.test.subset([0]))
        refused(DataError, "", lambda: list(self.build().stages(few, 0)))

    def check_an_estimator_goes_through_it(self) -> None:
        outcome = observe(self.build(), "nearest-centroid", self.splits)
        assert len(outcome.matrix) == len(self.stages())
        assert np.isfinite(outcome.matrix[np.tril_indices(len(outcome.matrix))]).all()
        assert 0 <= outcome.metrics["accuracy"] <= 1
