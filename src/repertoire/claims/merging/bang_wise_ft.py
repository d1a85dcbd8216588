"""The claim of *Spurious Feature Diversification Improves Out-of-distribution Generalization* (2023)."""

from __future__ import annotations

import copy
from functools import partial

import torch

from repertoire.claims import Budget, Measured, arm, claim
from repertoire.claims.beds.marks import MARKS, TITLE, Objective, environment, fitted, mixed, plain, smoothed
from repertoire.diagnostics import both_wrong_merge_right
from repertoire.weights import interpolate

AFTER = (0.0,) * 4 + (0.9,) * 4
"""How often each mark has the digit's colour where the network is fine-tuned."""
NOWHERE = (0.0,) * MARKS
DRAWS = 5
"""How often the marks of the test images are drawn."""


@claim(
    "bang-wise-ft",
    statement=(
        "Where coloured marks no longer agree with the digits, the mean of the weights before and after fine-tuning is "
        "more accurate, by 0.5 percentage points, if labels were smoothed in fine-tuning (BANG) than if not (WiSE-FT)."
    ),
    metric="test accuracy with marks that say nothing",
    method="BANG",
    baseline="WiSE-FT",
    bed="mnist5k",
    data=TITLE,
    tier="drawn",
    threshold=0.005,
    learned=0.1,
    ceiling=1.0,
)
def bang(budget: Budget, seed: int) -> Measured:
    """Lin et al., *Spurious Feature Diversification Improves Out-of-distribution Generalization* (2023). A network is
    trained where four marks tend to agree with the digit, and fine-tuned where four others do nearly always. Halfway
    between them is what the authors take where nothing is tuned; to choose by images like the training images would
    choose by the marks. `extra` has the same with Mixup in the place of label smoothing, which is the authors' other
    form of BANG."""
    found = {name: moved(budget, seed, objective=name) for name in ("plain", "mixup", "label smoothing")}
    return Measured(
        found["label smoothing"]["halfway"],
        found["plain"]["halfway"],
        {
            "with Mixup": found["mixup"]["halfway"],
            "after fine-tuning": found["plain"]["after"],
            "after fine-tuning with label smoothing": found["label smoothing"]["after"],
            "before fine-tuning": found["plain"]["before"],
        },
        trivial=found["plain"]["majority"],
    )


@claim(
    "bang-wise-ft",
    part="mean",
    statement=(
        "Where coloured marks no longer agree with the digits, the mean of the weights before and after fine-tuning is "
        "more accurate, by 1 percentage point, than the fine-tuned network."
    ),
    metric="test accuracy with marks that say nothing",
    method="mean of the weights before and after fine-tuning",
    baseline="after fine-tuning",
    bed="mnist5k",
    data=TITLE,
    tier="drawn",
    threshold=0.01,
    learned=0.1,
    ceiling=1.0,
)
def wise(budget: Budget, seed: int) -> Measured:
    """What the paper explains: both networks lean on marks, the mean on more of them and on each less. Digits are
    fainter here, so that marks are worth leaning on. `extra` has the network before fine-tuning, and the share of the
    images that both get wrong and the mean of the weights right, and the other way round."""
    found = moved(budget, seed, objective="plain", chance=0.5, contrast=0.6, brightness=1.5, epochs=60)
    return Measured(
        found["halfway"],
        found["after"],
        {
            "before fine-tuning": found["before"],
            "both wrong, mean right": found["merge right"],
            "both right, mean wrong": found["merge wrong"],
        },
        trivial=found["majority"],
    )


OBJECTIVES: dict[str, Objective] = {"plain": plain, "mixup": mixed, "label smoothing": smoothed}


@arm
def moved(
    budget: Budget,
    seed: int,
    *,
    objective: str,
    chance: float = 0.7,
    contrast: float = 1.0,
    brightness: float = 1.0,
    epochs: int = 30,
) -> dict[str, float]:
    """Accuracy before fine-tuning with an objective, after it and halfway, where marks say nothing.

    Args:
        chance: that each of four marks has the digit's colour before fine-tuning.
        contrast: factor of the digits.
        brightness: factor of the marks.
        epochs: of fine-tuning.
    """
    seen = partial(environment, budget, contrast=contrast, brightness=brightness)
    draws = [seen(NOWHERE, number, part="test") for number in range(DRAWS)]
    x, y = (torch.cat(part) for part in zip(*draws, strict=True))
    first_marks = (chance,) * 4 + (0.0,) * 4
    before = fitted(budget, seed, seen(first_marks, 2 * seed), epochs=30)
    rows = seen(AFTER, 2 * seed + 1)
    after = fitted(budget, seed, rows, OBJECTIVES[objective], before, epochs=epochs)
    halfway = copy.deepcopy(before)
    halfway.load_state_dict(interpolate(before.state_dict(), after.state_dict()))
    with torch.no_grad():
        first, second, mean = (network(x) for network in (before, after, halfway))
    shares = both_wrong_merge_right(first, second, mean, y)
    accuracies = [float((logits.argmax(1) == y).float().mean()) for logits in (first, second, mean)]
    return {
        **dict(zip(("before", "after", "halfway"), accuracies, strict=True)),
        "merge right": shares.merge_right,
        "merge wrong": shares.merge_wrong,
        "majority": float(y.bincount().max() / len(y)),
    }
