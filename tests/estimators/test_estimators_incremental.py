"""What every estimator must do that learns classes stage after stage."""

from __future__ import annotations

import numpy as np
import pytest

from repertoire import registry
from repertoire.estimators import load_estimator, save_estimator
from repertoire.estimators._incremental import Incremental

NAMES = [e.name for e in registry.entries("feature-estimators") if issubclass(e.factory, Incremental)]


def build(name: str) -> Incremental:
    factory = registry.get("feature-estimators", name).factory
    return factory(**getattr(factory, "example_options", dict)())


def stages() -> list[tuple[np.ndarray, np.ndarray]]:
    """Names that are not in the order in which they come, and one class that comes twice."""
    generator = np.random.default_rng(0)
    groups = (("m", "z"), ("a",), ("q", "z", "k"))
    found = []
    for names in groups:
        y = np.array(names * 12)
        centres = np.stack([3 * np.eye(9)["amzqk".index(label)] for label in y])
        found.append(((generator.normal(size=(len(y), 9)) + centres).astype(np.float32), y))
    return found


@pytest.mark.parametrize("name", NAMES)
def test_saved_after_each_stage_it_goes_on_bit_for_bit(name, tmp_path):
    whole, saved = build(name), build(name)
    for number, (x, y) in enumerate(stages()):
        whole.partial_fit(x, y)
        saved.partial_fit(x, y)
        save_estimator(saved, tmp_path / str(number))
        saved = load_estimator(tmp_path / str(number))
        np.testing.assert_array_equal(saved.logits(x), whole.logits(x))
    assert whole.classes_.tolist() == ["a", "k", "m", "q", "z"]
    x, y = (np.concatenate(part) for part in zip(*stages(), strict=True))
    assert (saved.predict(x) == y).mean() > 0.5


@pytest.mark.parametrize("name", NAMES)
def test_room_for_new_classes_changes_no_old_logit(name):
    model, (x, y) = build(name), stages()[0]
    model.partial_fit(x, y)
    before = model.logits(x)
    model._make_room(np.array([1, 3]), 4)
    np.testing.assert_array_equal(model.logits(x)[:, [1, 3]], before)


@pytest.mark.parametrize("name", NAMES)
def test_samples_are_not_kept(name):
    """What is kept of a stage of 60 rows and of one of 600 is equally large."""
    sizes = []
    for count in (60, 600):
        y = np.arange(count) % 3
        x = np.random.default_rng(1).normal(size=(count, 9)) + 3 * np.eye(3, 9)[y]
        state = build(name).partial_fit(x, y).fitted_state()
        sizes.append({key: np.shape(value) for key, value in state.items()})
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize("name", NAMES)
def test_announced_classes_are_kept_to(name):
    with pytest.raises(ValueError, match="label 7 is not among"):
        build(name).partial_fit([[5.0, 1.0], [1.0, 2.0]], [7, 1], classes=[1, 4])
