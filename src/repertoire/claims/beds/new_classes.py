"""Known classes and new ones among rows of features: what is known is drawn by the seed, and no new label is looked at.

Half of the classes are known, by half of their rows; the rows without a label are the other half, and those of the new
classes. Which classes are known, which rows there are and which have a label is what a seed draws. Every option that an
arm has is the same for all, or was settled on pilot seeds; accuracies are under one assignment of groups to classes,
over all rows without a label.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
import torch

from repertoire import registry
from repertoire.claims import Budget, arm
from repertoire.claims.beds import _named
from repertoire.claims.beds.frozen import components_of
from repertoire.data import Samples
from repertoire.discover import Discoverer
from repertoire.metrics import clustering_accuracy

__all__ = ["Drawn", "accuracies", "clustered", "discovered", "drawn", "fonts", "grouped"]


class Drawn(NamedTuple):
    """Rows, the known class of each or -1, and the class that is true, of which the first are the known ones."""

    x: np.ndarray
    y: np.ndarray
    truth: np.ndarray
    known: int

    @property
    def classes(self) -> int:
        return int(self.truth.max()) + 1


def _vectors(samples: Samples) -> np.ndarray:
    rows = samples.inputs(np.arange(len(samples))).reshape(len(samples), -1)
    return rows.astype(np.float32) / (255.0 if rows.dtype == np.uint8 else 1.0)


@functools.lru_cache(maxsize=3)
def _rows(budget: Budget, bed: str) -> tuple[np.ndarray, np.ndarray]:
    splits = _named.get(bed).splits(budget, 0)
    if bed == "cifar10-lite0" and splits.train.noun != "vector":  # images of the user's own
        splits = _named.features(bed, budget, 0)
    parts = (splits.train, splits.val)
    x, labels = np.concatenate([_vectors(part) for part in parts]), np.concatenate([part.labels for part in parts])
    if bed == "cifar10-lite0":
        # What every discoverer does first, done once.
        rows = torch.from_numpy(x)
        x = components_of(rows)(rows).numpy()
    return x, labels


def drawn(
    budget: Budget, seed: int, bed: str = "cifar10-lite0", *, rows: int = 1500, mixed: bool = True, known: int = 0
) -> Drawn:
    """Rows of a bed, with a share of their classes known.

    Args:
        rows: at most so many at the small budget.
        mixed: whether some rows without a label are of known classes; otherwise all of these have their label.
        known: how many classes are known; half of them by default.
    """
    x, labels = _rows(budget, bed)
    generator = np.random.default_rng(seed)
    classes = int(labels.max()) + 1
    order = np.argsort(generator.permutation(classes))
    count = budget.pick(smoke=160, small=rows, full=len(x))
    kept = generator.permutation(len(x))[:count]
    truth = order[labels[kept]]
    old = known or classes // 2
    seen = truth < old
    if mixed:
        seen &= generator.random(len(truth)) < 0.5
    # Whatever chance says, each known class has two rows with a label, and some row has none.
    for c in range(old):
        seen[np.flatnonzero(truth == c)[:2]] = True
    return Drawn(x[kept], np.where(seen, truth, -1), truth, old)


def accuracies(found: np.ndarray, task: Drawn) -> dict[str, float]:
    """Accuracy on all rows without a label, on those of known classes, and on those of new ones."""
    free = task.y < 0
    values = clustering_accuracy(found[free], task.truth[free], old=range(task.known))
    counts = np.bincount(task.truth[free])
    # Of one cluster that holds all rows, and is given the largest class.
    return {
        "all": values.all,
        "old": values.old if np.isfinite(values.old) else 0.0,
        "new": values.new if np.isfinite(values.new) else 0.0,
        "one group": float(counts.max() / counts.sum()),
        "one group: new": float(counts[task.known :].max() / counts[task.known :].sum()),
    }


def grouped(spec: str, task: Drawn, seed: int, classes: int | str) -> Discoverer:
    """A discoverer of a spec, fitted to rows, told how many classes there are or to estimate it."""
    parsed = registry.parse(spec)
    given = {**parsed.kwargs, "classes": str(classes), "random_state": str(seed)}
    built: Discoverer = registry.build("discoverers", registry.Spec(parsed.name, (), given))
    return built.fit(task.x, task.y)


def quick(budget: Budget, spec: str) -> str:
    """The spec, with one epoch where a smoke run has to show that it runs."""
    named = registry.options(registry.get("discoverers", registry.parse(spec).name).factory)
    if budget.name != "smoke" or "epochs" not in named:
        return spec
    parsed = registry.parse(spec)
    return f"{parsed.name}:" + ",".join(f"{k}={v}" for k, v in {**parsed.kwargs, "epochs": "1"}.items())


@arm
def discovered(
    budget: Budget,
    seed: int,
    *,
    method: str,
    bed: str = "cifar10-lite0",
    rows: int = 1500,
    mixed: bool = True,
    counted: bool = True,
) -> dict[str, float]:
    """A discoverer on rows of a bed: `all`, `old` and `new` accuracy, and the number of `classes` that it says.

    Args:
        counted: whether it is told how many classes there are.
    """
    task = drawn(budget, seed, bed, rows=rows, mixed=mixed)
    found = grouped(quick(budget, method), task, seed, task.classes if counted else "auto")
    return {
        **accuracies(found.labels_, task),
        "classes": float(found.n_classes_),
        "true classes": float(task.classes),
    }


def clustered(task: Drawn, seed: int) -> dict[str, float]:
    """What k-means of the rows as they come scores, told how many groups there are: the least that anything must beat
    that has learned of the known classes."""
    flat = task._replace(x=task.x.reshape(len(task.x), -1))
    return accuracies(grouped("k-means", flat, seed, task.classes).labels_, task)


@functools.lru_cache(maxsize=1)
def _glyphs(budget: Budget) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What each letter of each font looks like to the last maps of a pretrained network `[N, P, d]`, the number of the
    font, and that of the letter."""
    from repertoire.heads import Linear
    from repertoire.methods import Classifier, Normalize
    from repertoire.ops import unit_rows
    from repertoire.recipe import activations_of, build_backbone

    if budget.name == "smoke":
        generator = np.random.default_rng(0)
        font = np.repeat(np.arange(8), 16)
        rows = generator.normal(size=(len(font), 4, 8)) + 3 * np.eye(8)[font][:, None]
        return rows.astype(np.float32), font, np.tile(np.arange(16), 8)
    splits = budget.splits("glyphs", seed=0, size=128)
    parts = (splits.train, splits.val, splits.test)
    backbone = build_backbone("lite0", 1, 128)
    assert backbone.preset is not None
    preset = backbone.preset.for_channels(1)
    head = Linear(backbone.out_features, 2)
    model = Classifier(Normalize(list(preset.mean), list(preset.std)), backbone, head)
    last = len(backbone.blocks) - 1
    maps = [np.asarray(activations_of(model, part, last, device=budget.device).features, np.float32) for part in parts]
    x = torch.from_numpy(np.concatenate(maps)).flatten(2).transpose(1, 2)
    flat = unit_rows(x.flatten(0, 1))
    # 64 principal components of all patches: what is new has no label here, and takes part.
    centred = flat - flat.mean(0)
    vectors = torch.linalg.eigh(centred.T @ centred)[1][:, -64:]
    patches = (centred @ vectors).view(len(x), -1, vectors.shape[1]).numpy()
    font = np.concatenate([part.factors["group"] for part in parts])
    return patches, np.unique(font, return_inverse=True)[1], np.concatenate([part.labels for part in parts])


def fonts(budget: Budget, seed: int) -> Drawn:
    """Letters by their font: half of the fonts are known, by half of the letters, and all rows without a label are of
    other letters. What tells fonts apart is then no letter."""
    x, font, letter = _glyphs(budget)
    generator = np.random.default_rng(seed)
    count = int(font.max()) + 1
    order = np.argsort(generator.permutation(count))
    truth = order[font]
    shown = np.isin(letter, generator.permutation(int(letter.max()) + 1)[: (int(letter.max()) + 1) // 2])
    old = count // 2
    # Letters with a label are of known fonts only, so those of new fonts are left out.
    kept = ~shown | (truth < old)
    y = np.where(shown & (truth < old), truth, -1)
    return Drawn(x[kept], y[kept], truth[kept], old)


def scores(found: dict[str, float], names: tuple[str, ...], prefix: str = "") -> dict[str, Any]:
    """Some figures of an arm, by names for a reader."""
    return {f"{prefix}{name}": found[name] for name in names}
