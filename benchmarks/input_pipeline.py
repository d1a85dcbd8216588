"""Images per second from a folder of image files to augmented batches: Pillow in a torch `DataLoader`, and Repertoire.

    python benchmarks/input_pipeline.py cifar/train         # a folder with a directory for each class
    python benchmarks/input_pipeline.py                     # 20,000 small JPEG files, made for the occasion

Both sides shuffle, pad by an eighth, crop at random, flip, and give float batches. `DataLoader` has two worker
processes that live through its epochs; its first epoch includes starting them. Repertoire's first epoch includes
decoding the folder into an empty cache, with two processes. The files are read once beforehand, so that both find
them in memory. The ways take turns, and the median over the rounds is printed. Reading the files without decoding them
is the bound for a first epoch.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from repertoire.data import CropFlip, Loader, find_images, load_folder_set

WORKERS = 2


class PillowFolder(Dataset[tuple[Tensor, int]]):
    """Images of a folder as one usually reads them: opened, decoded and augmented one by one, each time anew."""

    def __init__(self, folder: Path, size: int) -> None:
        self.files = find_images(folder)
        names = sorted({file.relative_to(folder).parts[0] for file in self.files})
        self.labels = [names.index(file.relative_to(folder).parts[0]) for file in self.files]
        self.size = size

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        with Image.open(self.files[index]) as image:
            pixels = np.asarray(image.convert("RGB").resize((self.size, self.size)))
        border = self.size // 8
        padded = np.pad(pixels, ((border, border), (border, border), (0, 0)), mode="reflect")
        top, left, flip = (int(torch.randint(high, ())) for high in (2 * border + 1, 2 * border + 1, 2))
        crop = padded[top : top + self.size, left : left + self.size]
        crop = crop[:, ::-1] if flip else crop
        return torch.from_numpy(np.ascontiguousarray(crop.transpose(2, 0, 1))).float().div_(255), self.labels[index]


def pillow(folder: Path, size: int, batch_size: int) -> list[float]:
    """Seconds of the first and the second epoch of a `DataLoader`."""
    loader = DataLoader(
        PillowFolder(folder, size), batch_size, shuffle=True, num_workers=WORKERS, persistent_workers=True
    )
    return [timed(lambda: exhaust(loader)) for _ in range(2)]


def repertoire(folder: Path, size: int, batch_size: int) -> list[float]:
    """Seconds of the first and the second epoch with Repertoire, and of opening the folder once more."""
    classes = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
    with tempfile.TemporaryDirectory() as cache:

        def loader() -> Loader:
            images = load_folder_set(folder, classes=classes, size=size, cache_dir=cache, workers=WORKERS)
            return Loader(images, batch_size, augmentation=CropFlip())

        start = time.perf_counter()
        opened = loader()
        exhaust(opened.epoch(0))
        first = time.perf_counter() - start
        return [first, timed(lambda: exhaust(opened.epoch(1))), timed(loader)]


def read(folder: Path) -> float:
    """Seconds for reading the files."""
    files = find_images(folder)
    return timed(lambda: [file.read_bytes() for file in files])


def exhaust(batches: Iterable[object]) -> None:
    for _ in batches:
        pass


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def synthetic(folder: Path, size: int, classes: int = 10, each: int = 2000) -> None:
    """JPEG files of smooth noise, which compresses about as photographs do."""
    generator = np.random.default_rng(0)
    for label in range(classes):
        (folder / f"class {label}").mkdir(parents=True)
        for number in range(each):
            coarse = Image.fromarray(generator.integers(0, 256, (8, 8, 3), dtype=np.uint8))
            coarse.resize((size, size), Image.Resampling.BICUBIC).save(folder / f"class {label}" / f"{number}.jpg")


def report(folder: Path, size: int, batch_size: int, rounds: int) -> None:
    count = len(find_images(folder))
    torch.set_num_threads(WORKERS)
    print(
        f"{count:,} images at {size} x {size}, batches of {batch_size}, {WORKERS} processes, {os.cpu_count()} cores, "
        f"torch {torch.__version__}, Python {platform.python_version()}\n"
    )
    read(folder)
    measured = [
        (read(folder), *pillow(folder, size, batch_size), *repertoire(folder, size, batch_size)) for _ in range(rounds)
    ]
    bare, base_first, base_second, first, second, again = (
        statistics.median(column) for column in zip(*measured, strict=True)
    )
    print("| what | seconds | images/s | over DataLoader |\n|---|--:|--:|--:|")
    for name, seconds, base in (
        ("reading the files, no more", bare, base_first),
        (f"Pillow in a DataLoader, {WORKERS} workers, first epoch", base_first, base_first),
        (f"Pillow in a DataLoader, {WORKERS} workers, second epoch", base_second, base_second),
        ("Repertoire, first epoch, decoding included", first, base_first),
        ("Repertoire, second epoch", second, base_second),
    ):
        print(f"| {name} | {seconds:.2f} | {count / seconds:,.0f} | {base / seconds:.2f} |")
    print(f"| Repertoire, opening the folder again | {again:.2f} | | |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="with a directory for each class")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    if given.folder is not None:
        report(given.folder, given.size, given.batch_size, given.rounds)
        return
    with tempfile.TemporaryDirectory() as temporary:
        synthetic(Path(temporary), given.size)
        report(Path(temporary), given.size, given.batch_size, given.rounds)


if __name__ == "__main__":
    main()
