"""What methods for few labels are said to survive is what their claims put them through, and their baselines too."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest

from repertoire.claims import Budget, Claim
from repertoire.claims.beds import few_labels as bed
from repertoire.claims.semi_supervised import daso, ssl_zero_shot_classes, unmixmatch
from repertoire.data import Splits

SMOKE = Budget("smoke")


class Trained:
    """Stands for the training of every arm: what each is given, and a network that has not learned."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.runs: list[tuple[str, Splits, dict[str, Any]]] = []
        original = bed.trained

        def noted(budget: Budget, seed: int, splits: Splits, method: str, **fields: Any) -> Any:
            self.runs.append((method, splits, dict(fields)))
            return original(budget, seed, splits, method, **fields)

        monkeypatch.setattr(bed, "trained", noted)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> Trained:
    return Trained(monkeypatch)


def called(module: ModuleType, seed: int = 3) -> None:
    """Measures all claims of a module."""
    for claim in vars(module).values():
        if isinstance(claim, Claim):
            claim(SMOKE, seed)


def test_unlabelled_images_from_elsewhere(trained: Trained):
    called(unmixmatch)
    for method, splits, _ in trained.runs:
        pool = splits.extra["unlabelled"]
        assert not pool.known.any()
        assert not np.isin(pool.keys, np.concatenate([splits.train.keys, splits.test.keys])).any(), method
    # The baseline gets the same labels, the same hard augmentation and the same mixing.
    by_name = {method.partition(":")[0]: (method, splits, fields) for method, splits, fields in trained.runs}
    (_, ours, fields), (plain, theirs, same) = by_name["unmixmatch"], by_name["supervised"]
    assert "mix=mixup" in plain
    assert fields["augment"] == same["augment"]
    assert ours.train.names == theirs.train.names


def test_a_reversed_tail_of_unlabelled_samples(trained: Trained, monkeypatch: pytest.MonkeyPatch):
    asked: list[tuple[list[int], list[int]]] = []
    original = bed.few

    def noted(splits: Splits, seed: int, labels: Any = 4, unlabelled: Any = None) -> Splits:
        asked.append((labels, unlabelled))
        return original(splits, seed, labels, unlabelled)

    monkeypatch.setattr(bed, "few", noted)
    called(daso)
    for labels, pool in asked:
        order = np.argsort(labels, kind="stable")
        assert max(labels) / min(labels) == max(pool) / min(pool) == 20
        # What has the fewest labels has the most samples without.
        assert (np.diff(np.asarray(pool)[order]) <= 0).all()
    assert any(fields.get("loss") == "logit-adjusted" for _, _, fields in trained.runs)


def test_classes_that_nobody_labelled(trained: Trained):
    called(ssl_zero_shot_classes)
    for _, splits, _ in trained.runs:
        counts = splits.train.counts()
        assert sorted(counts.tolist()) == [0] * 3 + [4] * 7
        pool = splits.extra["unlabelled"].counts()
        assert (pool[counts == 0] > 0).all()


def test_every_arm_takes_as_many_steps_on_labels(monkeypatch: pytest.MonkeyPatch):
    """Supervised or not, with the same augmentation, in batches of one size."""
    taken = []
    original = bed.in_memory

    def noted(built: Any, **options: Any) -> Any:
        taken.append(
            (built.config.epochs * built.loader().steps_per_epoch, built.config.batch_size, built.config.augment)
        )
        return original(built, **options)

    monkeypatch.setattr(bed, "in_memory", noted)
    splits = bed.few(bed.digits(SMOKE), 3, 4)
    for method in ("supervised", bed.FIXMATCH, f"{bed.FIXMATCH},threshold=class-adaptive"):
        bed.trained(SMOKE, 3, splits, method)
    assert len(taken) == 3
    assert len(set(taken)) == 1
