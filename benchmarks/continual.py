"""What is left of ten classes that come two at a time, of letters thirteen at a time, and of one vendor's emoji.

    python benchmarks/continual.py [--streams fashion,features,letters,emoji,tuned] [--learners replay,ewc] [--seeds 3]
    python benchmarks/continual.py --peers  # beside Avalanche; _continual_peers.py says how
    python benchmarks/continual.py --draws  # how much of the difference is chance

A seed is an order of the classes, and the first weights. Each learner is told of one stage after another, and may keep
what the table says: 200 samples where it replays them, and whatever it has beside its network. Strengths are
chosen on the first two stages alone, by the accuracy on the validation samples of both, for every learner that has one.
"Plain training" does nothing against forgetting; "everything at once" is what could be had. Estimators look at features
of a pretrained network that do not change; of images, those of lite0. Prints Markdown.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from repertoire import protocols, recipe, registry
from repertoire.data import ImageSet, Samples, Splits, load

MEMORY = 200
SEED_OF_TUNING = 1000


@dataclass
class Stream:
    """Data that comes in stages.

    Attributes:
        title: for the table.
        protocol: spec.
        splits: the data, of images or features.
        features: the same as features of a network that stays as it is, for estimators.
        fields: of the training configuration.
    """

    title: str
    protocol: str
    splits: Splits
    features: Splits
    fields: dict[str, Any]


NETWORKS = (
    "supervised",
    "replay",
    "er-ace",
    "icarl",
    "ewc",
    "l2-previous",
    "consolidation",
    "lwf",
    "feature-kd",
    "y-distil",
)
ESTIMATORS = ("nearest-centroid", "analytic", "teen", "key-value", "virtual-outliers")
STRENGTHS: dict[str, list[str]] = {
    "ewc": [f"ewc:strength={s}" for s in (1, 30, 1000)],
    "l2-previous": [f"l2-previous:strength={s}" for s in (0.01, 0.3, 10)],
    "lwf": [f"lwf:weight={s}" for s in (0.3, 1, 10)],
    "feature-kd": [f"feature-kd:weight={s}" for s in (0.3, 3, 30)],
    "y-distil": [f"y-distil:weight={s}" for s in (0.3, 1, 10)],
    "consolidation": [f"consolidation:strength={s}" for s in (0.01, 0.1, 1)],
}
"""Specs of the learners that have a strength; all others have their defaults."""


def subset(samples: Samples, most: int, seed: int = 0) -> Samples:
    """At most so many samples, drawn."""
    order = np.random.Generator(np.random.Philox(seed)).permutation(len(samples))
    return samples.subset(np.sort(order[:most]))


def smaller(splits: Splits, train: int, test: int) -> Splits:
    return replace(
        splits, train=subset(splits.train, train), val=subset(splits.val, 600), test=subset(splits.test, test)
    )


def as_features(splits: Splits) -> Splits:
    """The features that lite0 has of some images."""
    config = recipe.make_config(data=recipe.IN_MEMORY, backbone="lite0", tune="head", method="supervised", device="cpu")
    return recipe.build(config, splits).splits


def images_of_vendors() -> Splits:
    """Emoji of one vendor, then those of the other, with the vendor as a factor."""
    parts = [load(f"emoji:vendor={name}") for name in ("google", "twitter")]

    def both(part: str) -> ImageSet:
        sets = [getattr(splits, part) for splits in parts]
        pixels = np.concatenate([s.pixels(slice(None)) for s in sets])
        labels = np.concatenate([s.labels for s in sets])
        names = [f"{v}/{name}" for v, s in zip(("google", "twitter"), sets, strict=True) for name in s.names]
        keys = np.concatenate([s.keys for s in sets])
        vendor = np.repeat(["1 google", "2 twitter"], [len(s) for s in sets])
        return ImageSet(pixels, labels, names, sets[0].classes, keys, factors={"vendor": vendor})

    return replace(parts[0], train=both("train"), val=both("val"), test=both("test"), source="emoji")


def streams(wanted: Iterable[str]) -> Iterable[Stream]:
    """The streams by name, each made when it is asked for."""
    on_features = {"backbone": "mlp:hidden=256,depth=1", "epochs": 10, "batch_size": 64, "lr": 0.02}
    on_images = {"backbone": "convnet:width=16,depth=3", "epochs": 4, "batch_size": 64, "lr": 0.05, "augment": "shift"}
    tuned = {"backbone": "lite0", "tune": "last:1", "epochs": 3, "batch_size": 32}
    for name in wanted:
        if name == "fashion":
            large = smaller(load("fashion-mnist", size=96), 5000, 2000)
            plain = smaller(load("fashion-mnist"), 5000, 2000)
            yield Stream("Fashion-MNIST, 5 stages of 2", "classes:step=2", plain, as_features(large), on_images)
        elif name == "features":
            splits = load("cifar10-lite0")
            yield Stream("CIFAR-10, frozen features, 5 of 2", "classes:step=2", splits, splits, on_features)
        elif name == "letters":
            splits = smaller(load("letters"), 8000, 2000)
            yield Stream("letters, 13 of 2", "classes:step=2", splits, splits, {**on_features, "lr": 0.05})
        elif name == "emoji":
            splits = images_of_vendors()
            frozen = as_features(splits)
            factors = [part.factors for part in (splits.train, splits.val, splits.test)]
            train, val, test = (
                replace(part, factors=own)
                for part, own in zip((frozen.train, frozen.val, frozen.test), factors, strict=True)
            )
            frozen = replace(frozen, train=train, val=val, test=test)
            yield Stream("emoji, one vendor, then the other", "domains:factor=vendor", frozen, frozen, on_features)
        elif name == "tuned":
            splits = smaller(load("cifar10", size=96), 1000, 500)
            yield Stream("CIFAR-10, last stage of lite0, 5 of 2", "classes:step=2", splits, as_features(splits), tuned)


def followed(
    stream: Stream, learner: str, seed: int, splits: Splits | None = None, protocol: str = ""
) -> dict[str, Any]:
    """What is left in the end where a network is trained."""
    config = recipe.make_config(data=recipe.IN_MEMORY, method=learner, seed=seed, device="cpu", **stream.fields)
    with tempfile.TemporaryDirectory() as folder:
        outcome = protocols.follow(
            protocol or f"{stream.protocol},memory={MEMORY}", config, splits or stream.splits, out=folder, bounds=False
        )
        return {**outcome.metrics, "curve": outcome.curve}


def first_two(stream: Stream, seed: int) -> Splits:
    """The samples of the first two stages, with validation samples in the place of the test."""
    stages = list(registry.build("protocols", stream.protocol).stages(stream.splits, seed))[:2]
    known = list(stages[1].classes)
    wanted = np.array([stream.splits.classes.index(name) for name in known])
    place = np.full(len(stream.splits.classes), -1)
    place[wanted] = np.arange(len(known))

    def of(samples: Samples) -> Samples:
        found = samples.subset(np.flatnonzero(np.isin(samples.labels, wanted)))
        return replace(found, labels=place[found.labels], classes=tuple(known))

    train, val = of(stream.splits.train), of(stream.splits.val)
    return replace(stream.splits, train=train, val=val, test=val)


def tuned(stream: Stream, learner: str, seed: int) -> str:
    """The spec of a learner whose strength is that which is best after two stages."""
    if learner not in STRENGTHS:
        return learner
    two, protocol = first_two(stream, seed), stream.protocol
    if protocol.startswith("classes"):
        protocol = f"{protocol},order=given"
    scores = [followed(stream, spec, seed, two, f"{protocol},memory=0")["accuracy"] for spec in STRENGTHS[learner]]
    return STRENGTHS[learner][int(np.argmax(scores))]


def joint(stream: Stream, seed: int) -> dict[str, Any]:
    """Everything at once, for as many steps."""
    from repertoire.train import in_memory

    config = recipe.make_config(data=recipe.IN_MEMORY, method="supervised", seed=seed, device="cpu", **stream.fields)
    loop = in_memory(config, stream.splits)
    found = loop.evaluate("test")
    return {"accuracy": float((found.logits.argmax(1) == found.labels).mean())}


def row(stream: Stream, title: str, learner: str, seeds: int) -> str:
    """A line of the table: mean and range over the orders of classes."""
    found, started = [], time.process_time()
    for seed in range(seeds):
        if learner == "joint":
            found.append(joint(stream, seed))
        elif learner in ESTIMATORS:
            outcome = protocols.observe(stream.protocol, learner, stream.features, seed)
            found.append(dict(outcome.metrics))
        else:
            found.append(followed(stream, tuned(stream, learner, seed), seed))
    minutes = (time.process_time() - started) / 60 / seeds

    def share(name: str) -> str:
        values = [100 * each[name] for each in found if name in each]
        return f"{np.mean(values):.1f} ({min(values):.1f} to {max(values):.1f})" if values else "–"

    kept = [
        f"{found[-1].get(name, 0) / 1e3:,.0f}" if name in found[-1] else "–" for name in ("memory_bytes", "state_bytes")
    ]
    cells = [title, share("accuracy"), share("accuracy_of_curve"), share("forgetting"), *kept, f"{minutes:.2f}"]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", default="fashion,features,letters,emoji,tuned")
    parser.add_argument("--learners", default=",".join(("joint", *NETWORKS, *ESTIMATORS)))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--peers", action="store_true", help="compare with Avalanche on the same stream instead")
    parser.add_argument("--draws", action="store_true", help="with whose draws Avalanche ends where this does")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.peers or arguments.draws:
        import _continual_peers

        if arguments.draws:
            _continual_peers.draws()
        else:
            _continual_peers.main(arguments.seeds)
        return
    titles = {"joint": "everything at once", "supervised": "plain training"}
    for stream in streams(arguments.streams.split(",")):
        print(f"\n**{stream.title}**, {len(stream.splits.train):,} samples, {arguments.seeds} orders\n")
        columns = ("at the end, %", "on the way, %", "forgetting, points", "samples, KB", "beside, KB", "minutes")
        print(f"| learner | {' | '.join(columns)} |")
        print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |", flush=True)
        for learner in arguments.learners.split(","):
            print(row(stream, titles.get(learner, f"`{learner}`"), learner, arguments.seeds), flush=True)


if __name__ == "__main__":
    main()
