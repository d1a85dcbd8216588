"""How well every novelty score tells known classes from unknown ones, near and far.

    python benchmarks/open_world.py [--only NAME,NAME] [--scores SPEC,SPEC] [--seed 0] [--threads 1]

Features are those of lite0, and a linear layer is trained on them as `repertoire train features.npz` does by default.
Of every set some classes are held out, drawn by the seed: their test samples are near unknowns. Far ones are test
samples of another set. Scores are fitted to the training samples of known classes and have their defaults; nothing is
chosen by unknown samples. Intervals are of a bootstrap of the test samples, for one division and one layer. Prints
Markdown.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from repertoire import registry
from repertoire.data import FeatureSet, Samples, Splits, load
from repertoire.errors import ConfigError
from repertoire.openset import build_score, detection
from repertoire.recipe import build, make_config
from repertoire.train import in_memory, outputs


class Task(NamedTuple):
    """A set, how many of its classes are held out, and where far unknowns are from."""

    title: str
    known: str
    held_out: int
    far: str
    far_title: str


OMNIGLOT, EMOJI, CIFAR = "omniglot", "emoji", "cifar10-lite0"
FASHION, MNIST = "fashion-mnist:count=3000,tested=1500", "mnist5k"
TASKS = {
    "omniglot": Task("Omniglot, characters of eight alphabets", OMNIGLOT, 60, EMOJI, "emoji"),
    "emoji": Task("Emoji, by category", EMOJI, 2, OMNIGLOT, "Omniglot"),
    "fashion": Task("Fashion-MNIST", FASHION, 3, MNIST, "MNIST"),
    "cifar10": Task("CIFAR-10", CIFAR, 3, EMOJI, "emoji"),
}
MOST_FAR = 1500
_CACHE: dict[str, Splits] = {}


def features(source: str) -> Splits:
    """The splits of a source with features of lite0."""
    if source not in _CACHE:
        splits = load(source, seed=0, **({} if source == CIFAR else {"size": 128}))
        if splits.train.noun != "vector":
            config = make_config(data=source, backbone="lite0", tune="head", augment="none", device="cpu")
            splits = build(config, splits).splits
        _CACHE[source] = splits
    return _CACHE[source]


def rows(samples: Samples) -> tuple[np.ndarray, np.ndarray]:
    count = len(samples)
    return samples.inputs(np.arange(count)).reshape(count, -1).astype(np.float32), np.asarray(samples.labels)


def part(x: np.ndarray, labels: np.ndarray, classes: int) -> FeatureSet:
    names = [str(i) for i in range(len(x))]
    keys = np.arange(len(x), dtype=np.uint64)
    return FeatureSet(np.ascontiguousarray(x), labels, names, tuple(f"class {c}" for c in range(classes)), keys)


def measured(task: Task, scores: Sequence[str], seed: int) -> None:
    """Prints the table of a set."""
    splits = features(task.known)
    found = [rows(samples) for samples in (splits.train, splits.val, splits.test)]
    count = len(splits.train.classes)
    generator = np.random.default_rng(seed)
    kept = np.sort(generator.permutation(count)[task.held_out :])
    number = np.full(count, -1)
    number[kept] = np.arange(len(kept))
    parts = [part(x[number[y] >= 0], number[y[number[y] >= 0]], len(kept)) for x, y in found]
    known = Splits(*parts, source="features")
    trained = in_memory(build(make_config(data="features", seed=seed, device="cpu"), known), validate=False).method
    model = trained.model.eval()
    x, y = found[2]
    other = rows(features(task.far).test)[0]
    other = other[np.sort(generator.permutation(len(other))[:MOST_FAR])]
    none = np.zeros(len(kept), np.int64)[:1]
    train, test = (outputs(model, samples) for samples in (known.train, known.test))
    near, far = (
        outputs(model, part(values, np.repeat(none, len(values)), len(kept))) for values in (x[number[y] < 0], other)
    )
    right = test.logits.argmax(1) == test.labels
    weight, bias = (value.detach().numpy() for value in (model.head.linear.weight, model.head.linear.bias))
    print(
        f"\n**{task.title}**: {len(kept)} of {count} classes known, accuracy {right.mean():.1%} on {len(right)} test "
        f"samples; near unknowns: {len(near.labels)} of the other classes; far ones: {len(far.labels)} of "
        f"{task.far_title}.\n"
    )
    print("| score | near AUROC | near FPR95 | far AUROC | far FPR95 | s |")
    print("| --- | --: | --: | --: | --: | --: |")
    for spec in scores:
        begun = time.process_time()
        try:
            score = build_score(spec, weight, bias).fit(train.embeddings, train.logits, train.labels)
        except ConfigError as error:
            print(f"| {spec} | {error} | | | | |")
            continue
        inside = score(test.embeddings, test.logits)
        seconds = time.process_time() - begun
        cells = []
        for unknown in (near, far):
            seen = detection(inside, right, score(unknown.embeddings, unknown.logits))
            for name in ("auroc", "fpr95"):
                low, high = seen.intervals[name]
                cells.append(f"{getattr(seen, name):.3f} ({low:.3f} to {high:.3f})")
        print(f"| {spec} | {' | '.join(cells)} | {seconds:.1f} |")
        sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(TASKS), help=f"of {', '.join(TASKS)}")
    parser.add_argument("--scores", default=",".join(registry.names("novelty-scores")))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    names = arguments.only.split(",")
    if unknown := [name for name in names if name not in TASKS]:
        parser.error(f"--only {unknown[0]}: there is no such set; there are {', '.join(TASKS)}")
    scores = registry.split(arguments.scores)
    print(
        f"Seed {arguments.seed}, features of lite0 at 128 pixels, a linear layer, scores with their defaults; 95 % "
        "intervals; seconds of a processor to fit and to score the known test samples."
    )
    for name in names:
        measured(TASKS[name], scores, arguments.seed)


if __name__ == "__main__":
    main()
