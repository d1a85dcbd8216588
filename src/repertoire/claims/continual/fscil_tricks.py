"""The claim of *A Bag of Tricks for Few-Shot Class-Incremental Learning* (2024)."""

from __future__ import annotations

from repertoire.claims import Budget, Measured, arm, claim
from repertoire.claims.beds import few_shot_stages as bed
from repertoire.estimators import FewShotRecipe

STABILITY = ("contrastive", "preassigned", "pseudo_classes")
ADAPTABILITY = ("fine_tuning", "subnetwork")
TRAINING = ("larger", "pretraining", "auxiliary")
EVERY = (*STABILITY, *ADAPTABILITY, *TRAINING)


@arm
def recipe(budget: Budget, seed: int, *, switches: tuple[str, ...], tuning: int = 20) -> dict[str, float]:
    """A recipe after all sessions, in the mean over episodes; and how many numbers its network has."""
    setting = bed.drawings(budget, seed)
    found, parameters = [], 0
    for number in range(budget.pick(smoke=1, small=2, full=20)):
        model = FewShotRecipe.plain(
            *switches, epochs=budget.pick(smoke=1, small=20, full=40), hidden=128, tuning=tuning, random_state=seed
        )
        found.append(
            bed.learned(model, bed.episode(setting, setting.rows.x, setting.rows.test_x, 1000 * seed + number))
        )
        parameters = model.parameters_
    return {**bed.mean_of(found), "parameters": float(parameters)}


def means_of_features(budget: Budget, seed: int) -> float:
    """What class means of the features as they come score, in the same episodes."""
    return bed.class_means(bed.drawings(budget, seed), seed, budget.pick(smoke=1, small=2, full=20))["harmonic"]


@claim(
    "fscil-tricks",
    statement=(
        "After eight sessions of five new classes with five rows each, the eight tricks together give a harmonic mean "
        "of the accuracies on base and new classes that is a point or more above that of the nearest class mean."
    ),
    metric="harmonic mean of base and new accuracy",
    method="all eight tricks",
    baseline="nearest class mean",
    data=bed.DRAWINGS,
    bed="omniglot-all",
    threshold=0.01,
    strict=False,
    floor=means_of_features,
    learned=0.02,
    learned_by="best",
    guard="class means of the features, which the rival is",
    ceiling=1.0,
)
def fscil_tricks(budget: Budget, seed: int) -> Measured:
    """Roy et al., *A Bag of Tricks for Few-Shot Class-Incremental Learning* (2024), with a layer behind a frozen
    network. `extra` has base and new classes apart, the number of parameters, each trick by itself, and the three
    groups one added to another. The larger network does it here: by itself it is as good as all eight tricks."""
    ours, plain = recipe(budget, seed, switches=EVERY), recipe(budget, seed, switches=())
    extra = {f"all: {name}": ours[name] for name in ("base", "new", "parameters")}
    extra |= {f"none: {name}": plain[name] for name in ("base", "new", "parameters")}
    for switch in EVERY:
        found = recipe(budget, seed, switches=(switch,))
        extra[f"only {switch}"] = found["harmonic"]
    extra["stability"] = recipe(budget, seed, switches=STABILITY)["harmonic"]
    extra["stability and adaptability"] = recipe(budget, seed, switches=(*STABILITY, *ADAPTABILITY))["harmonic"]
    return Measured(ours["harmonic"], plain["harmonic"], extra)


@claim(
    "fscil-tricks",
    part="beside-training",
    statement=(
        "The eight tricks together give a harmonic mean that is a point or more above that of a network that is "
        "trained on the base classes by cross-entropy, without any of them, and frozen."
    ),
    metric="harmonic mean of base and new accuracy",
    method="all eight tricks",
    baseline="cross-entropy alone",
    data=bed.DRAWINGS,
    bed="omniglot-all",
    threshold=0.01,
    strict=False,
    floor=means_of_features,
    learned=0.02,
    guard="class means of the features",
    ceiling=1.0,
)
def beside_training(budget: Budget, seed: int) -> Measured:
    """Roy et al. (2024), whose baseline has been trained so. The tricks include four times as many hidden units;
    `extra` has the parameters, and as large a network without the other tricks."""
    ours = recipe(budget, seed, switches=EVERY)
    # What a later stage tunes, in no steps: the network is trained in the first stage, and by nothing but that.
    plain = recipe(budget, seed, switches=("subnetwork",), tuning=0)
    extra = {
        "all: parameters": ours["parameters"],
        "cross-entropy: parameters": plain["parameters"],
        "as large, cross-entropy": recipe(budget, seed, switches=("larger",))["harmonic"],
    }
    return Measured(ours["harmonic"], plain["harmonic"], extra)
