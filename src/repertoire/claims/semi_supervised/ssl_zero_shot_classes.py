"""The claim of *Semi-Supervised Learning in the Few-Shot Zero-Shot Scenario* (2023)."""

from __future__ import annotations

import numpy as np
import torch

from repertoire.claims import Budget, Measured, arm, claim
from repertoire.claims._training import pixels
from repertoire.claims.beds import few_labels as bed
from repertoire.ops import kmeans
from repertoire.tasks import Outputs


def _clustered(found: Outputs, seen: list[int], seed: int) -> Outputs:
    """The answers of a network without outputs for the missing classes: the samples that it is least sure of, as many
    as these classes have, in as many clusters of their features."""
    logits = torch.from_numpy(found.logits)[:, seen].double()
    missing = [c for c in range(found.logits.shape[1]) if c not in seen]
    count = round(len(logits) * len(missing) / found.logits.shape[1])
    unsure = logits.softmax(1).amax(1).topk(count, largest=False).indices
    answers = np.zeros_like(found.logits)
    answers[np.arange(len(logits)), np.asarray(seen)[logits.argmax(1).numpy()]] = 1
    features = torch.nn.functional.normalize(torch.from_numpy(found.embeddings)[unsure].float(), dim=1)
    groups = kmeans(features, len(missing), generator=torch.Generator().manual_seed(seed)).assignment.numpy()
    answers[unsure.numpy()] = 0
    answers[unsure.numpy(), np.asarray(missing)[groups]] = 1
    return Outputs(answers, found.embeddings, found.labels)


@arm
def with_missing(budget: Budget, seed: int, *, more: str = "") -> dict[str, float]:
    """Four labels of seven classes, none of three, and samples without labels of all: the accuracies of `all` classes,
    of those `seen` and of the `missing` ones, and of all where unsure samples are `clustered`."""
    missing = np.random.default_rng(seed).permutation(10)[:3]
    seen = [c for c in range(10) if c not in missing]
    splits = bed.few(bed.digits(budget), seed, [4 * (c in seen) for c in range(10)])
    found = bed.scores(bed.trained(budget, seed, splits, bed.FIXMATCH + more, lr=bed.RATE), splits.test)
    return {
        **bed.matched(found, seen),
        "clustered": bed.matched(_clustered(found, seen, seed), seen)["all"],
    }


def raw(budget: Budget, seed: int) -> float:
    """The nearest labelled image by raw pixels, or that with the images that are furthest from any in three clusters,
    as the rival's least sure ones: whichever is more accurate."""
    missing = np.random.default_rng(seed).permutation(10)[:3]
    seen = [c for c in range(10) if c not in missing]
    splits = bed.few(bed.digits(budget), seed, [4 * (c in seen) for c in range(10)])
    (x, y), (test_x, test_y) = pixels(splits.train), pixels(splits.test)
    near = torch.full((len(test_x), 10), -torch.inf)
    for c in seen:
        near[:, c] = -torch.cdist(test_x, x[y == c]).amin(1)
    found = Outputs(near.numpy(), test_x.numpy(), test_y.numpy())
    return max(bed.matched(each, seen)["all"] for each in (found, _clustered(found, seen, seed)))


@claim(
    "ssl-zero-shot-classes",
    statement=(
        "Where three of ten classes have no label, FixMatch is more accurate with outputs for all of them whose mean "
        "answer is to be even than without, its least sure answers clustered into three classes."
    ),
    metric="test accuracy, outputs without labels matched to classes",
    method="FixMatch and the entropy of the mean answer",
    baseline="FixMatch, the least sure samples in three clusters",
    data=bed.TITLE + ", four labels of seven of them",
    bed=bed.BED,
    threshold=0.03,
    floor=raw,
    learned=0.02,
    learned_by="best",
    guard=(
        "the nearest labelled image by raw pixels, or that and clusters of the images furthest from any; that the "
        "rival has no outputs for the missing classes is the claim"
    ),
    ceiling=1.0,
)
def zero_shot_classes(budget: Budget, seed: int) -> Measured:
    """Fluss, Hacohen and Weinshall, *Semi-Supervised Learning in the Few-Shot Zero-Shot Scenario* (2023).

    Both are told how many classes there are. Both had to beat the trivial answer; twenty seeds left open whether the
    rival does (0.553 against 0.532), whose least sure samples are few of those of the missing classes. FixMatch by
    itself, in `extra`, never answers with a class without labels.
    """
    ours, theirs = with_missing(budget, seed, more=",even=1"), with_missing(budget, seed)
    extra = {"FixMatch by itself": theirs["all"], "labelled classes: FixMatch by itself": theirs["seen"]}
    extra |= {"labelled classes": ours["seen"], "classes without labels": ours["missing"]}
    return Measured(ours["all"], theirs["clustered"], extra)
