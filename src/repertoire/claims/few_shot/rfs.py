"""The claim of *Rethinking Few-Shot Image Classification: a Good Embedding Is All You Need?* (2020)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from repertoire.claims import Budget, Measured, claim
from repertoire.claims._training import embeddings, new_method, optimise, resolved, train
from repertoire.data import Batch, ImageSet, load
from repertoire.estimators import FrozenEmbeddingClassifier, NearestCentroid, evaluate_episodes
from repertoire.methods import Classifier, Method, Needs, Step

BASE = 7  # of the 12 shapes; the other five are never trained on


class PrototypicalNetwork(Method):
    """The usual meta-learned baseline (Snell, Swersky and Zemel, *Prototypical Networks for Few-shot Learning*, 2017).

    Each batch is an episode: the first half is the support set, whose class means are the prototypes, and the second
    half is classified by squared distance to them.
    """

    needs = Needs(labels="required", step="whole")

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model = model

    def step(self, batch: Batch) -> Step:
        features = self.model.embed(batch.images)
        half = len(batch) // 2
        members = F.one_hot(batch.targets[:half], self.model.head.num_classes).to(features)
        sizes = members.sum(0)
        prototypes = members.T @ features[:half] / sizes.clamp_min(1)[:, None]
        logits = -torch.cdist(features[half:], prototypes).square()
        # A class without support cannot be answered, nor asked for.
        logits = logits.masked_fill(sizes == 0, -torch.inf)
        targets = batch.targets[half:].masked_fill(sizes[batch.targets[half:]] == 0, -1)
        loss = F.cross_entropy(logits, targets, ignore_index=-1)
        return Step(loss, {"loss": loss.detach()})


def _only(images: ImageSet, classes: range) -> ImageSet:
    """The images of some classes, which become all the classes there are."""
    chosen = images.subset(np.flatnonzero(np.isin(images.labels, classes)))
    names = tuple(images.classes[c] for c in classes)
    return replace(chosen, labels=chosen.labels - classes.start, classes=names)


@claim(
    "rfs",
    statement=(
        "On classes never seen, logistic regression on an embedding trained by ordinary classification and frozen is "
        "more accurate than a prototypical network trained episode by episode."
    ),
    metric="5-way 5-shot accuracy",
    method="frozen embedding, logistic regression",
    baseline="prototypical network",
    data="shapes: 7 base and 5 novel classes, 32 pixels",
    threshold=0.0,
)
def rfs(budget: Budget, seed: int) -> Measured:
    """Tian et al., *Rethinking Few-Shot Image Classification: a Good Embedding Is All You Need?* (2020), without
    self-distillation. Both networks see equally many images."""
    count = budget.pick(smoke=500, small=4000, full=50_000)
    splits = load(f"shapes:count={count},classes=12", size=32, seed=seed)
    train_part, val_part, test_part = (_only(part, range(BASE)) for part in (splits.train, splits.val, splits.test))
    base = replace(splits, train=train_part, val=val_part, test=test_part)
    novel = _only(splits.train, range(BASE, 12))
    options: dict[str, Any] = {
        "backbone": budget.pick(smoke="convnet:width=8", small="convnet:width=16", full="resnet32"),
        "augment": "crop-flip",
        "epochs": budget.pick(smoke=1, small=15, full=60),
        "seed": seed,
        "device": budget.device,
    }
    classified = embeddings(train(base, **options), novel)
    # An episode of all 7 classes, ten images of each: about five to learn from and five to ask for.
    config = resolved(base, **options, batch_size=10 * BASE, balanced=True)
    episodic = PrototypicalNetwork(new_method(base, config).model)
    meta_learned = embeddings(optimise(episodic, base, config), novel)

    episodes = budget.pick(smoke=10, small=200, full=600)

    def few_shot(features: np.ndarray, estimator: object, shots: int) -> float:
        scores = evaluate_episodes(
            features, novel.labels, estimator, ways=5, shots=shots, queries=15, count=episodes, seed=seed
        )
        return scores.mean

    return Measured(
        method=few_shot(classified, FrozenEmbeddingClassifier(), 5),
        baseline=few_shot(meta_learned, NearestCentroid(normalize=False), 5),
        extra={
            "1 shot: frozen embedding": few_shot(classified, FrozenEmbeddingClassifier(), 1),
            "1 shot: prototypical network": few_shot(meta_learned, NearestCentroid(normalize=False), 1),
            "5 shots: nearest centroid in the frozen embedding": few_shot(classified, NearestCentroid(), 5),
        },
    )
