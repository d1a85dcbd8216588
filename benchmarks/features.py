"""How fast heads and losses learn from features, beside a bare loop.

    python benchmarks/features.py [--samples 50000] [--width 1280] [--classes 10] [--batch 512] [--threads 1]

Random features, so that nothing but time is measured. Every row trains as `repertoire train features.npz` does, without
validation and checkpoints: shuffled batches gathered from all samples, AdamW, the learning rate of each step, the logs.
The bare loop does the same to a linear head and cross-entropy, and keeps no books. Rows take turns, and the best of the
rounds counts, in samples for a second of processor time. Prints Markdown.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from repertoire.data import FeatureSet, Splits
from repertoire.recipe import build, make_config
from repertoire.train import in_memory

RUNS = (
    ("linear", "cross-entropy"),
    ("cosine", "cross-entropy"),
    ("linear", "squentropy"),
    ("linear", "logit-adjusted"),
    ("linear", "focal"),
    ("arcface", "cross-entropy"),
)


def features(count: int, width: int, classes: int) -> Splits:
    generator = np.random.default_rng(0)

    def part(n: int) -> FeatureSet:
        return FeatureSet(
            generator.standard_normal((n, width), dtype=np.float32),
            np.arange(n) % classes,
            [str(i) for i in range(n)],
            tuple(f"class {k}" for k in range(classes)),
            np.arange(n, dtype=np.uint64),
        )

    return Splits(part(count), part(256), part(256), "random")


def bare(splits: Splits, batch: int) -> Callable[[], None]:
    x, y = (torch.from_numpy(np.ascontiguousarray(a)) for a in (splits.train.features, splits.train.labels))
    head = nn.Linear(x.shape[1], len(splits.classes))
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-3)

    def epoch() -> None:
        for rows in torch.randperm(len(x)).split(batch):
            optimizer.zero_grad()
            nn.functional.cross_entropy(head(x[rows]), y[rows]).backward()
            optimizer.step()

    return epoch


def ours(splits: Splits, head: str, loss: str, batch: int | None) -> tuple[int, Callable[[], None]]:
    given = {} if batch is None else {"batch_size": batch}
    config = make_config(data="random", head=head, loss=loss, epochs=1, **given)
    built = build(config, splits)
    return built.config.batch_size, lambda: in_memory(built, validate=False) and None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=50_000)
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--batch", type=int, help="by default what training chooses")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    splits = features(arguments.samples, arguments.width, arguments.classes)
    epochs: dict[str, Callable[[], None]] = {}
    for head, loss in RUNS:
        batch, epochs[f"{head}, {loss}"] = ours(splits, head, loss, arguments.batch)
    epochs = {"bare loop": bare(splits, batch)} | epochs
    best: dict[str, float] = {}
    for _ in range(arguments.rounds):
        for name, epoch in epochs.items():
            begun = time.process_time()
            epoch()
            seconds = time.process_time() - begun
            best[name] = max(best.get(name, 0.0), len(splits.train) / seconds)
    print(
        f"{arguments.samples:,} x {arguments.width} float32 features, {arguments.classes} classes, batches of {batch}, "
        f"{arguments.threads} thread(s)\n"
    )
    print("| head, loss | samples for a second of processor time |")
    print("| --- | --: |")
    for name, rate in best.items():
        print(f"| {name} | {rate:,.0f} |")


if __name__ == "__main__":
    main()
