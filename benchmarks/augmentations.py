"""How many images a second each augmentation makes, and kornia's for the same change where it has one.

    python benchmarks/augmentations.py [--size 32] [--batch-size 256] [--threads 1]
    python benchmarks/augmentations.py --threads 2 --load 2        # beside other work on both cores

All in turn, in one process, on random pixels. Prints a Markdown table of medians. `--load` keeps so many other
processes busy with matrix products of their own, one thread each, as on a machine that is shared.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import kornia.augmentation as K
import torch
from torch import Tensor

from pair_losses import BUSY
from repertoire import registry
from repertoire.data import plain


def kornia_peers(size: int) -> dict[str, Callable[[Tensor], Tensor]]:
    crop = torch.nn.Sequential(
        K.RandomCrop((size, size), padding=size // 8, padding_mode="reflect"), K.RandomHorizontalFlip()
    )
    resized = torch.nn.Sequential(K.RandomResizedCrop((size, size), scale=(0.08, 1.0)), K.RandomHorizontalFlip())
    views = torch.nn.Sequential(K.ColorJitter(0.8, 0.8, 0.8, 0.2, p=0.8), K.RandomGrayscale(p=0.2))
    return {
        "simclr:blur=0": lambda images: views(resized(plain(images))).clamp_(0, 1),
        "crop-flip": lambda images: crop(plain(images)),
        "resized-crop": lambda images: resized(plain(images)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--load", type=int, default=0, help="busy processes beside the measured one")
    options = parser.parse_args()
    busy = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(options.load)]
    try:
        table(options)
    finally:
        for process in busy:
            process.kill()


def table(options: argparse.Namespace) -> None:
    torch.set_num_threads(options.threads)
    pixels = torch.randint(0, 256, (options.batch_size, options.size, options.size, 3), dtype=torch.uint8)
    specs = sorted([*registry.names("augmentations"), "simclr:blur=0"])
    ways: dict[tuple[str, str], Callable[[Tensor], Tensor]] = {
        (name, "ours"): registry.build("augmentations", name) for name in specs
    }
    ways |= {(name, "kornia"): peer for name, peer in kornia_peers(options.size).items()}
    times: dict[tuple[str, str], list[float]] = {way: [] for way in ways}
    for number in range(options.rounds + 1):
        for way, augment in ways.items():
            start = time.perf_counter()
            augment(pixels)
            if number:  # the first call imports and builds
                times[way].append(time.perf_counter() - start)
    threads = f"{options.threads} thread{'s' if options.threads > 1 else ''}"
    threads += f", beside {options.load} busy processes" if options.load else ""
    print(f"{options.size} x {options.size} RGB, batches of {options.batch_size}, {threads}, images/s:")
    print()
    print("| augmentation | Repertoire | the same through kornia | ratio |")
    print("|---|--:|--:|--:|")
    for name in specs:
        rate = options.batch_size / statistics.median(times[name, "ours"])
        peer = times.get((name, "kornia"))
        if peer is None:
            print(f"| {name} | {rate:,.0f} | | |")
            continue
        ratio = statistics.median(a / b for a, b in zip(peer, times[name, "ours"], strict=True))
        print(f"| {name} | {rate:,.0f} | {options.batch_size / statistics.median(peer):,.0f} | {ratio:.1f} |")


if __name__ == "__main__":
    main()
