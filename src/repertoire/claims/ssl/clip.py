"""The claim of *Learning Transferable Visual Models From Natural Language Supervision* (2021)."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor
from torch.nn import functional as F

from repertoire import losses
from repertoire.claims import Budget, Measured, arm, claim
from repertoire.claims.beds.described import LETTERS, REDRAWN, World, letters, per_class
from repertoire.claims.beds.frozen import descend, shuffled
from repertoire.claims.beds.towers import new_tower

WIDTH = 64


@arm
def told(budget: Budget, seed: int) -> dict[str, float]:
    """Accuracies, in the mean over classes, for letters in unseen styles.

    Returns:
        `zero-shot`, `labels` and `words` among the classes that were learned from: of two towers on pictures and names,
        of one on pictures that learned numbers of classes, and of one that learned which words a name has. `neighbours`
        of the features as they are. `zero-shot, new` and `words, new` of letters that were never seen, among all.
    """
    world = letters(budget, seed)
    x, u = (torch.from_numpy(part).float() for part in (world.x, world.test_x))
    y, names = torch.from_numpy(world.y), torch.from_numpy(world.descriptions).float()
    scale = x.std()
    x, u = x / scale, u / scale
    torch.manual_seed(seed)
    image, text, loss = new_tower(x.shape[1], WIDTH), new_tower(names.shape[1], WIDTH), losses.CLIP()
    labelled, worded = new_tower(x.shape[1], len(names)), new_tower(x.shape[1], names.shape[1])
    parts = (image, text, loss, labelled, worded)

    def objective(index: Tensor) -> Tensor:
        shown, known = x[index], y[index]
        total = loss(image(shown), text(names[known])) + F.cross_entropy(labelled(shown), known)
        return total + F.binary_cross_entropy_with_logits(worded(shown), names[known])

    weights = [weight for part in parts for weight in part.parameters()]
    descend(weights, objective, shuffled(len(x), 128), epochs=budget.pick(smoke=2, small=60, full=200), rate=2e-3)
    for part in parts:
        part.eval()
    with torch.no_grad():
        scores = {
            "zero-shot": F.normalize(image(u), dim=1) @ F.normalize(text(names), dim=1).T,
            "labels": labelled(u),
            "words": F.logsigmoid(worded(u)) @ names.T + F.logsigmoid(-worded(u)) @ (1 - names).T,
        }
    votes = KNeighborsClassifier(5).fit(world.x, world.y).predict(world.test_x[~world.new])
    found = {name: _right(part, world, new=False) for name, part in scores.items()}
    found |= {f"{name}, new": _right(scores[name], world, new=True) for name in ("zero-shot", "words")}
    return found | {"neighbours": per_class(votes, world.test_y[~world.new])}


def _right(scores: Tensor, world: World, *, new: bool) -> float:
    """Accuracy among the classes that were learned from; or of new classes, among all."""
    rows = np.flatnonzero(world.new == new)
    among = np.arange(scores.shape[1]) if new else np.flatnonzero(world.seen)
    return per_class(among[scores.numpy()[rows][:, among].argmax(1)], world.test_y[rows])


@claim(
    "clip",
    statement=(
        "Told the names of letters, a model trained on pictures with names recognises letters in new fonts no more "
        "than two percentage points less often than the same network trained with the letters as classes."
    ),
    metric="accuracy for letters in unseen styles, mean over the letters",
    method="two towers on pictures and names, zero-shot",
    baseline="the picture's tower with classes",
    bed="glyphs",
    data=LETTERS,
    overlap=REDRAWN,
    threshold=-0.02,
    strict=False,
    learned=0.03,
    guard="the five nearest neighbours in the features as they come",
)
def clip(budget: Budget, seed: int) -> Measured:
    """Radford et al., *Learning Transferable Visual Models From Natural Language Supervision* (2021).

    A name is the words of Unicode's: the letter, its case, its mark. What is trivial is the vote of the five nearest
    letters. `extra` has what no classes can give: how often letters are recognised that no picture showed, among all
    letters; and a network that tells which words a name has, the paper's bag of words.
    """
    found = told(budget, seed)
    extra = {
        "letters that were never seen": found["zero-shot, new"],
        "words of names": found["words"],
        "words of names: letters that were never seen": found["words, new"],
    }
    return Measured(found["zero-shot"], found["labels"], extra, trivial=found["neighbours"])
