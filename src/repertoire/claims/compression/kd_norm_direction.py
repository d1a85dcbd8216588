"""The claim of *Improving Knowledge Distillation via Regularizing Feature Norm and Direction* (2023)."""

from __future__ import annotations

import functools
from typing import Any

import torch

from repertoire import registry
from repertoire.claims import Budget, Measured, arm, claim
from repertoire.claims._training import accuracy, new_method, optimise, resolved, train
from repertoire.claims.beds.frozen import characters, splits_of
from repertoire.claims.beds.raw import raw_accuracy_of_rows
from repertoire.data import Splits
from repertoire.methods import Method

SETTINGS: dict[str, Any] = {"optimizer": "adamw", "lr": 0.005, "weight_decay": 1e-3, "batch_size": 64}


def drawn(budget: Budget, seed: int) -> Splits:
    """Features of drawn characters, of which the seed draws those to learn from."""
    return splits_of(characters(budget, seed), "drawn characters")


def raw_floor(budget: Budget, seed: int) -> float:
    """What the features give as they come."""
    return raw_accuracy_of_rows(characters(budget, seed))


@functools.lru_cache(maxsize=1)
def teacher_of(budget: Budget, seed: int) -> Method:
    """A network sixteen times as wide as the student, trained on the same drawings."""
    return train(
        drawn(budget, seed),
        backbone=budget.pick(smoke="mlp:hidden=32", small="mlp:hidden=512", full="mlp:hidden=2048"),
        epochs=budget.pick(smoke=1, small=20, full=60),
        seed=seed,
        device=budget.device,
        **SETTINGS,
    )


@arm
def distilled(budget: Budget, seed: int, *, weight: float, norm_direction: float = 0.0) -> dict[str, float]:
    """Test accuracy of a small network that learned from labels and, with a weight, from a wide one.

    Args:
        weight: of the distillation; 0 for the labels alone.
        norm_direction: of norm and direction.
    """
    splits, teacher = drawn(budget, seed), teacher_of(budget, seed)
    config = resolved(
        splits,
        backbone=budget.pick(smoke="mlp:hidden=16", small="mlp:hidden=32", full="mlp:hidden=64"),
        epochs=budget.pick(smoke=1, small=30, full=100),
        seed=seed,
        device=budget.device,
        **SETTINGS,
    )
    fresh: Any = new_method(splits, config)

    torch.manual_seed(seed)
    student: Method = registry.build(
        "methods",
        f"distil:weight={weight},norm_direction={norm_direction}",
        model=fresh.model,
        loss=fresh.loss,
        teacher=teacher.model,
    ).to(budget.device)
    found = optimise(student, splits, config)
    return {"accuracy": accuracy(found, splits.test), "teacher": accuracy(teacher, splits.test)}


@claim(
    "kd-norm-direction",
    statement=(
        "A small network that is distilled from a wide one is more accurate when its features also follow the norm and "
        "the direction of the teacher's class means."
    ),
    metric="test accuracy",
    method="distillation with norm and direction",
    baseline="distillation",
    bed="omniglot-all",
    data="Omniglot, 242 characters of eight alphabets, frozen features of a pretrained network",
    threshold=0.005,
    learned=0.02,
    floor=raw_floor,
    ceiling=1.0,
)
def norm_and_direction(budget: Budget, seed: int) -> Measured:
    """Wang et al., *Improving Knowledge Distillation via Regularizing Feature Norm and Direction* (2023). The teacher
    is a network sixteen times as wide as the student. Of the weights 1 and 4, either with and without norm and
    direction, 4 was the best for both on a pilot seed. `extra` has the student of the labels alone, and the teacher.
    """
    ours = distilled(budget, seed, weight=4.0, norm_direction=2.0)
    plain = distilled(budget, seed, weight=4.0)
    return Measured(
        ours["accuracy"],
        plain["accuracy"],
        extra={"labels alone": distilled(budget, seed, weight=0.0)["accuracy"], "teacher": plain["teacher"]},
    )
