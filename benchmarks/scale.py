"""Many small images in many classes: start-up time, memory and images per second for each way to keep them decoded.

    python benchmarks/scale.py                       # 200,000 JPEG files of 32 pixels in 1,000 classes, made beforehand
    python benchmarks/scale.py --images 20000 --classes 100 --folder scratch   # fewer, made and left in a folder

Beside Repertoire stands what one usually writes: a list of files, Pillow, and a torch `DataLoader` with two worker
processes that pad, crop and flip. Repertoire reads the same files from a folder, and packed into tar files in the
format of WebDataset, with all, half or none of them kept decoded. Each way runs in a process of its own, the ways take
turns, and the median over the rounds is printed. `first start` is with an empty cache (every file is read, hashed and
decoded once, whatever is kept), `later start` once more in another process; both end with the first batch. Memory is
what cannot be given back (anonymous pages of the process and its children), after the speed has been measured; what is
read through a memory map can be, and is not counted. PyTorch and all imports are part of the memory, and not of the
time.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

SIZE = 32
BATCH = 256
SHARD = 5_000
WORKERS = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=200_000)
    parser.add_argument("--classes", type=int, default=1_000)
    parser.add_argument("--seen", type=int, default=40_000, help="images over which the speed is measured")
    parser.add_argument("--rounds", type=int, default=3, help="how often the speed of each is measured")
    parser.add_argument(
        "--folder", type=Path, help="where the files are made, and left; a temporary folder if not given"
    )
    parser.add_argument("--way", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        print(json.dumps(measured(options.way, options.folder, options.images, options.seen)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        make(folder, options.images, options.classes)
        compare(folder, options)


def compare(folder: Path, options: argparse.Namespace) -> None:
    """Runs every way in turn and prints the table."""
    ways = ["DataLoader", *(f"{data} {cache}" for data in ("files", "shards") for cache in ("all", "half", "none"))]
    shutil.rmtree(folder / "cache", ignore_errors=True)
    rounds = [{way: run(way, folder, options) for way in ways} for _ in range(options.rounds)]
    print(f"{options.images:,} JPEG files of {SIZE} pixels in {options.classes:,} classes, batches of {BATCH}")
    print(
        f"{os.cpu_count()} cores, torch {torch.__version__}, {platform.machine()}; median of {options.rounds} rounds\n"
    )
    print("| way | cache on disk | first start | later start | memory | an image | images/s | of DataLoader |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for way in ways:
        found = [one[way] for one in rounds]
        later = statistics.median(one["start"] for one in (found[1:] or found))
        speed = statistics.median(one["speed"] for one in found)
        ratio = statistics.median(one[way]["speed"] / one["DataLoader"]["speed"] for one in rounds)
        first = f"{found[0]['start']:.1f} s"
        held = statistics.median(one["held"] for one in found) / options.images
        memory = statistics.median(one["memory"] for one in found) / 2**20
        disk = size_of(folder / "cache" / way.replace(" ", "-")) / 2**20
        cells = [named(way), f"{disk:,.0f} MiB", first, f"{later:.1f} s", f"{memory:,.0f} MiB", f"{held:,.0f} B"]
        print(f"| {' | '.join([*cells, f'{speed:,.0f}', f'{ratio:.2f}'])} |")


def named(way: str) -> str:
    if way == "DataLoader":
        return "files, Pillow and `DataLoader`"
    data, cache = way.split()
    return f"{data}, `--cache {cache}`" if cache != "half" else f"{data}, `--cache` half of it"


def run(way: str, folder: Path, options: argparse.Namespace) -> dict[str, float]:
    command = [sys.executable, __file__, "--way", way, "--folder", str(folder), "--images", str(options.images)]
    done = subprocess.run([*command, "--seen", str(options.seen)], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    print(way, found, file=sys.stderr, flush=True)
    return found


def measured(way: str, folder: Path, images: int, seen: int) -> dict[str, float]:
    """Seconds until the first batch, bytes held, and images per second, of one way in this process."""
    import repertoire.data  # noqa: F401  # before the clock starts

    torch.set_num_threads(1)
    before = anonymous(children=False)
    start = time.perf_counter()
    batches = pillow(folder) if way == "DataLoader" else ours(folder, images, *way.split())
    next(batches)
    started = time.perf_counter() - start
    held = anonymous(children=False) - before
    count, begin = 0, time.perf_counter()
    for batch in batches:
        count += batch
        if count >= seen:
            break
    speed = count / (time.perf_counter() - begin)
    return {"start": started, "speed": speed, "memory": anonymous(), "held": held}


def ours(folder: Path, images: int, data: str, cache: str) -> Iterator[int]:
    """Sizes of the batches of Repertoire's loader."""
    from repertoire.data import CropFlip, Loader, load

    most = {"all": None, "half": images * SIZE * SIZE * 3 // 2, "none": 0}[cache]
    where = folder / "files" if data == "files" else f"wds:{folder}/shards/shard-*.tar"
    cache_dir = folder / "cache" / f"{data}-{cache}"
    splits = load(where, size=SIZE, cache_dir=cache_dir, workers=WORKERS, most=most, val=0.01, test=0.01)
    loader = Loader(splits.train, BATCH, augmentation=CropFlip())
    for epoch in range(1_000):
        yield from (len(batch) for batch in loader.epoch(epoch))


class PillowFolder(Dataset[tuple[Tensor, int]]):
    """Images of a folder as one usually reads them: listed, opened, decoded and augmented one by one."""

    def __init__(self, folder: Path) -> None:
        names = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
        self.samples = [
            (os.path.join(folder, name, file), label)
            for label, name in enumerate(names)
            for file in sorted(os.listdir(folder / name))
        ]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        path, label = self.samples[index]
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
        border = SIZE // 8
        padded = np.pad(pixels, ((border, border), (border, border), (0, 0)), mode="reflect")
        top, left, flip = (int(torch.randint(high, ())) for high in (2 * border + 1, 2 * border + 1, 2))
        crop = padded[top : top + SIZE, left : left + SIZE]
        crop = crop[:, ::-1] if flip else crop
        return torch.from_numpy(np.ascontiguousarray(crop.transpose(2, 0, 1))).float().div_(255), label


def pillow(folder: Path) -> Iterator[int]:
    """Sizes of the batches of a `DataLoader`."""
    options: dict[str, Any] = {"shuffle": True, "num_workers": WORKERS, "persistent_workers": True}
    loader = DataLoader(PillowFolder(folder / "files"), BATCH, **options)
    while True:
        for images, _ in loader:
            yield len(images)


def make(folder: Path, images: int, classes: int) -> None:
    """The files, a directory for each class, and the same in shards, in a random order."""
    if (folder / "made").exists():
        return
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 256, (classes, 4, 4, 3), dtype=np.uint8)
    order = generator.permutation(images)
    (folder / "shards").mkdir(parents=True, exist_ok=True)
    for label in range(classes):
        (folder / "files" / f"class-{label:04d}").mkdir(parents=True, exist_ok=True)
    for first in range(0, images, SHARD):
        with tarfile.open(folder / "shards" / f"shard-{first // SHARD:04d}.tar", "w") as tar:
            for number in order[first : first + SHARD].tolist():
                label = number % classes
                content = picture(coarse[label], generator)
                (folder / "files" / f"class-{label:04d}" / f"{number:08d}.jpg").write_bytes(content)
                for extension, data in (("jpg", content), ("cls", b"%d" % label)):
                    info = tarfile.TarInfo(f"{number:08d}.{extension}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    (folder / "made").touch()


def picture(coarse: np.ndarray, generator: np.random.Generator) -> bytes:
    """A glyph of 4 x 4 cells under noise, as JPEG."""
    glyph = coarse.repeat(SIZE // 4, 0).repeat(SIZE // 4, 1)
    noise = generator.integers(-40, 41, (SIZE, SIZE, 1))
    file = io.BytesIO()
    Image.fromarray((glyph + noise).clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=85)
    return file.getvalue()


def anonymous(children: bool = True) -> int:
    """Bytes of this process, and of those that it has started, which no file stands behind."""
    total, waiting = 0, [os.getpid()]
    while waiting:
        process = Path("/proc") / str(waiting.pop())
        try:
            lines = (process / "status").read_text().splitlines()
            total += sum(1024 * int(line.split()[1]) for line in lines if line.startswith(("RssAnon", "RssShmem")))
            if children:
                waiting += [int(i) for file in process.glob("task/*/children") for i in file.read_text().split()]
        except OSError:
            continue
    return total


def size_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


if __name__ == "__main__":
    main()
