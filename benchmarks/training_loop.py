"""What the training loop costs beside a bare PyTorch loop that does the same steps.

    python benchmarks/training_loop.py [DATA] [--rounds 7] [--images 4096]

DATA is anything `repertoire train` takes; without it, random images of 32 pixels are used, which cost the same. Both
loops train a resnet20 with the same batches, optimiser and schedule. Epochs alternate, so that a machine that slows
down slows both. The bare loop keeps no books: what the other adds are Fabric, the learning rule, the logs, the look at
the loss for NaN. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from repertoire import data, registry
from repertoire.data import ImageSet, Loader, Splits
from repertoire.recipe import build, make_config, make_fabric, make_optimizer, schedule
from repertoire.train import Loop, RunDirectory


def random_splits(count: int) -> Splits:
    generator = np.random.default_rng(0)

    def part(n: int) -> ImageSet:
        pixels = generator.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)
        names = [str(i) for i in range(n)]
        return ImageSet(pixels, np.arange(n) % 10, names, tuple("0123456789"), np.arange(n, dtype=np.uint64))

    return Splits(part(count), part(256), part(256), "random")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--images", type=int, default=4096)
    options = parser.parse_args()

    splits = data.load(options.data, size=32) if options.data else random_splits(options.images)
    if len(splits.train) > options.images:
        keep = np.linspace(0, len(splits.train) - 1, options.images).astype(np.int64)
        splits = Splits(splits.train.subset(keep), splits.val.subset(np.arange(256)), splits.test, splits.source)
    config = make_config(
        data="bench", backbone="resnet20", augment="crop-flip", method="supervised", size=32, epochs=options.rounds + 1
    )
    fabric = make_fabric(config)
    built = build(config, splits)
    config = built.config
    bare = build(config, splits).method.model.to(device=fabric.device, memory_format=torch.channels_last).train()
    optimizer = make_optimizer(config, bare)
    peak = [group["lr"] for group in optimizer.param_groups]
    loader = Loader(
        splits.train, config.batch_size, augmentation=registry.build("augmentations", "crop-flip"), device=fabric.device
    )

    def bare_epoch(number: int) -> float:
        start = time.perf_counter()
        for step, batch in enumerate(loader.epoch(number)):
            share = schedule(config, number * loader.steps_per_epoch + step, loader.steps_per_epoch)
            for group, lr in zip(optimizer.param_groups, peak, strict=True):
                group["lr"] = lr * share
            optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(bare(batch.images), batch.targets).backward()
            optimizer.step()
        if fabric.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    with tempfile.TemporaryDirectory() as folder:
        directory = RunDirectory(Path(folder))
        loop = Loop(built, directory, fabric)
        ours, theirs, whole = [], [], []
        for number in range(options.rounds + 1):
            theirs.append(bare_epoch(number))
            start = time.perf_counter()
            loop._epoch([])
            whole.append(time.perf_counter() - start)
            ours.append(directory.history()[-1]["seconds"])
    # The first epoch warms caches and allocators up.
    ours, theirs, whole = ours[1:], theirs[1:], whole[1:]
    count = loader.steps_per_epoch * config.batch_size
    ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
    books = statistics.median(a - b for a, b in zip(whole, ours, strict=True))
    print(
        f"resnet20, batch {config.batch_size}, {splits.source}, {torch.get_num_threads()} threads, "
        f"{options.rounds} rounds"
    )
    print()
    print("| loop | images/s (median) | time, ratio to bare (median of pairs) |")
    print("|---|---:|---:|")
    print(f"| bare PyTorch | {count / statistics.median(theirs):.0f} | 1.000 |")
    print(f"| Repertoire | {count / statistics.median(ours):.0f} | {ratio:.3f} |")
    print()
    print(f"After each epoch, 256 validation images and a checkpoint took {books * 1000:.0f} ms.")


if __name__ == "__main__":
    main()
