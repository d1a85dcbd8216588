"""The claims of *A Practical Approach to Novel Class Discovery in Tabular Data* (2023)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from repertoire.claims import Budget, Measured, arm, claim
from repertoire.claims.beds import new_classes as bed
from repertoire.claims.beds.learned import must_have_learned
from repertoire.discover import ClassRelation, Discoverer, TabularNCD, hidden_class_cv

DATA = "Letter recognition, 13 letters known by all of their rows, 13 new"
SIMPLE: dict[str, Sequence[Any]] = {"known_weight": [0.2, 0.8], "latent": [8, 16]}
COMPLEX: dict[str, Sequence[Any]] = {"rate": [0.001, 0.01], "distil": [0.1, 1.0]}


@arm
def chosen(budget: Budget, seed: int, *, simple: bool = True) -> dict[str, float]:
    """A discoverer with the options that hidden classes choose, and with those that are best on the new ones.

    Returns:
        Accuracy on `new` classes with options `chosen` without them, with those of the `oracle`, who has seen them,
        and with any, which is what options that are `drawn` have on average; and that of `one group`.
    """
    task = bed.drawn(budget, seed, "letters", rows=1000, mixed=False)
    epochs = budget.pick(smoke=1, small=20, full=100)
    base: Discoverer = TabularNCD(epochs=epochs, random_state=seed)
    if not simple:
        base = ClassRelation(epochs=epochs, pretraining=epochs, heads=1, mixed=False, random_state=seed)
    found = hidden_class_cv(base, task.x, task.y, SIMPLE if simple else COMPLEX, folds=2, random_state=seed)
    values, one = {}, 0.0
    for options, _ in found.scores:
        groups = base.set_params(**options, classes=task.classes).fit_predict(task.x, task.y)
        right = bed.accuracies(groups, task)
        values[str(options)], one = right["new"], right["one group: new"]
    return {
        "chosen": values[str(found.best)],
        "oracle": max(values.values()),
        "drawn": sum(values.values()) / len(values),
        "one group": one,
    }


@claim(
    "tabular-ncd",
    statement=(
        "In a table, new classes are grouped more accurately in the latent space of an encoder that learns known "
        "classes and rebuilds all rows, with hyper-parameters chosen by hidden known classes, than by k-means."
    ),
    metric="accuracy on rows of new classes",
    method="latent space, chosen by hidden classes",
    baseline="k-means",
    data=DATA,
    bed="letters",
    threshold=0.02,
    learned=0.1,
    guard="one group; the rival is k-means of the rows as they come",
    ceiling=1.0,
)
def tabular_ncd(budget: Budget, seed: int) -> Measured:
    """Troisemaine et al., *A Practical Approach to Novel Class Discovery in Tabular Data* (2023).

    Both are told how many classes there are. `extra` has semi-supervised k-means, and the number of classes that
    silhouettes in the latent space say.
    """
    ours = chosen(budget, seed)
    options: dict[str, Any] = {"bed": "letters", "rows": 1000, "mixed": False}
    kmeans = bed.discovered(budget, seed, method="k-means", **options)
    known = bed.discovered(budget, seed, method="semi-supervised-k-means", **options)
    counted = bed.discovered(budget, seed, method="tabular-ncd:epochs=20", counted=False, **options)
    extra = {
        "semi-supervised k-means": known["new"],
        "classes in the latent space": counted["classes"],
        "oracle": ours["oracle"],
    }
    return Measured(ours["chosen"], kmeans["new"], extra, trivial=kmeans["one group: new"])


@claim(
    "tabular-ncd",
    part="overfitting",
    statement=(
        "What hidden known classes choose costs the simple encoder less accuracy, compared with options chosen on the "
        "new classes themselves, than it costs a network with pseudo-labels and distillation."
    ),
    metric="accuracy lost to the best options",
    method="encoder and k-means",
    baseline="class-relation distillation",
    data=DATA,
    bed="letters",
    threshold=0.005,
    higher_is_better=False,
    learned=0.0,
    learned_by="best",
    guard=(
        "options drawn at random, the mean of both; that a choice does not help one of them is the claim; each must "
        "group new classes better than one group does"
    ),
)
def overfitting(budget: Budget, seed: int) -> Measured:
    """Troisemaine et al., *A Practical Approach to Novel Class Discovery in Tabular Data* (2023), with four trials of
    each. `extra` has the accuracies."""
    ours, theirs = (chosen(budget, seed, simple=simple) for simple in (True, False))
    for name, found in (("the encoder", ours), ("class relation", theirs)):
        must_have_learned(budget, found["chosen"], found["one group"], name)
    drawn = [found["oracle"] - found["drawn"] for found in (ours, theirs)]
    extra = {"encoder": ours["chosen"], "class relation": theirs["chosen"]}
    extra |= {"encoder: lost by a random choice": drawn[0], "class relation: lost by a random choice": drawn[1]}
    return Measured(ours["oracle"] - ours["chosen"], theirs["oracle"] - theirs["chosen"], extra, trivial=sum(drawn) / 2)
