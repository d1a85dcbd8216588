from __future__ import annotations

import numpy as np
import pytest

from repertoire.data import FeatureSet
from repertoire.errors import DataError, RunError
from repertoire.tasks import (
    Classes,
    Labels,
    Maps,
    NoTargets,
    Number,
    Outputs,
    Task,
    Votes,
    majority,
    rank_me,
    task_from,
    task_of,
)


def samples(labels: np.ndarray, classes: tuple[str, ...]) -> FeatureSet:
    keys = np.arange(len(labels), dtype=np.uint64)
    return FeatureSet(np.ones((len(labels), 2), np.float32), labels, [str(i) for i in keys], classes, keys)


CASES: list[tuple[np.ndarray, tuple[str, ...], type[Task]]] = [
    (np.array([0, 1, -1]), ("a", "b"), Classes),
    (np.array([[1, 0], [0, 255]], dtype=np.uint8), ("a", "b"), Labels),
    (np.array([[1.5], [2.5]], dtype=np.float32), ("y",), Number),
    (np.array([[0, 1], [-1, 1]]), ("a", "b"), Votes),
    (np.zeros((2, 3, 3), dtype=np.uint8), ("a", "b"), Maps),
    (np.array([-1, -1]), (), NoTargets),
]


@pytest.mark.parametrize(("labels", "classes", "kind"), CASES)
def test_the_task_of_targets_and_what_a_run_keeps_of_it(labels, classes, kind):
    task = task_of(samples(labels, classes))
    assert type(task) is kind
    again = task_from({"task": task.info(), "classes": list(classes)})
    assert type(again) is kind
    assert again.names == task.names
    np.testing.assert_array_equal(again.encode(labels), task.encode(labels))


def test_runs_of_the_first_version_are_of_classes():
    assert isinstance(task_from({"classes": ["a", "b"]}), Classes)
    with pytest.raises(RunError, match="does not know"):
        task_from({"classes": [], "task": {"kind": "dreams"}})


@pytest.mark.parametrize(
    "labels", [np.zeros((3, 2)), np.zeros(3, dtype=np.int32), np.zeros((3, 2, 2, 2), dtype=np.uint8)]
)
def test_other_targets_are_refused(labels):
    with pytest.raises(DataError, match="labels must be int64"):
        samples(labels, ("a", "b"))


@pytest.mark.parametrize("task", [Classes(("a", "b")), Labels(("a",)), Number(("y",), (0.0,), (1.0,)), NoTargets(())])
def test_of_two_epochs_the_better_one_is_kept(task: Task):
    """A metric that is missing or not a number never wins."""
    best = task.best
    good, bad = (0.9, 0.1) if best.higher else (0.1, 0.9)
    assert best.rank({best.key: good}) > best.rank({best.key: bad})
    assert best.rank({best.key: float("nan")}) < best.rank({best.key: bad})
    assert best.rank({}) < best.rank({best.key: bad})
    if best.second:
        assert best.rank({best.key: good, best.second: 1.0}) > best.rank({best.key: good, best.second: 2.0})


def test_votes_are_scored_against_the_majority():
    votes = np.array([[0, 0, 1], [1, 1, -1], [-1, -1, -1]])
    np.testing.assert_array_equal(majority(votes, 2), [0, 1, -1])
    logits = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=np.float32)
    found = Votes(("a", "b")).score(Outputs(logits, logits, votes))
    assert found["accuracy"] == 0.5
    assert found["agreement"] == pytest.approx((2 / 3 + 0) / 2)
    assert found["annotators_agreement"] == pytest.approx((2 / 3 + 1) / 2)


def test_the_rank_of_an_embedding():
    generator = np.random.default_rng(0)
    flat = generator.normal(size=(200, 2)) @ generator.normal(size=(2, 16))
    assert rank_me(flat) < 2.1
    assert rank_me(np.linalg.qr(generator.normal(size=(200, 16)))[0]) == pytest.approx(16, abs=1e-3)
    same = np.ones((50, 8), dtype=np.float32)
    assert NoTargets(()).score(Outputs(same, same, np.full(50, -1)))["spread"] == pytest.approx(0, abs=1e-6)
