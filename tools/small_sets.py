"""Small image sets of several kinds, as folders: what `benchmarks/pretrained.py --only train` compares defaults on.

    python tools/small_sets.py small/                          # eight sets of 5 to 100 images a class
    python benchmarks/pretrained.py small/* --only train --ways logistic,head,auto --threads 1

Each set is drawn from a data source of Repertoire (`repertoire list data`), and written as `SET/train/CLASS/*.png` and
`SET/test/CLASS/*.png`. A set whose source is not there is left out, and the line says what to install. The draw is a
function of the seed alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from repertoire.data import ImageSet, load
from repertoire.errors import RepertoireError


@dataclass(frozen=True)
class Small:
    """A set: where it is from, and how much of it.

    Attributes:
        source: name of the data source.
        classes: the first so many; None for all.
        train, test: images a class.
        change: what becomes of an image.
    """

    source: str
    classes: int | None
    train: int
    test: int
    change: Callable[[Image.Image, np.random.Generator], Image.Image] | None = None


def odd_sizes(image: Image.Image, generator: np.random.Generator) -> Image.Image:
    """Enlarged to 150 to 400 pixels, of any proportion."""
    return image.resize(tuple(int(s) for s in generator.integers(150, 401, 2)), Image.Resampling.BICUBIC)


def grey(image: Image.Image, generator: np.random.Generator) -> Image.Image:
    """Without colours, at 80 pixels."""
    return image.convert("L").resize((80, 80), Image.Resampling.BICUBIC)


def large(image: Image.Image, generator: np.random.Generator) -> Image.Image:
    """At 105 pixels, the size in which Omniglot was drawn."""
    return image.resize((105, 105), Image.Resampling.BICUBIC)


SETS = {
    "cifar10-5": Small("cifar10", None, 5, 50),
    "photographs-of-odd-sizes": Small("cifar10", 5, 60, 60, odd_sizes),
    "grey-photographs": Small("cifar10", 8, 10, 40, grey),
    "emoji": Small("emoji", 8, 15, 40),
    "drawn-characters": Small("omniglot", 20, 10, 10, large),
    "clothes": Small("fashion-mnist", None, 20, 50),
    "handwritten-digits": Small("mnist5k", None, 20, 50),
    "printed-letters": Small("glyphs", 26, 10, 6),
}


def everything(name: str) -> ImageSet:
    """All images of a source, whatever they are split into."""
    splits = load(name)
    parts = [part for part in (splits.train, splits.val, splits.test) if isinstance(part, ImageSet) and len(part)]
    pixels = [part.pixels(np.arange(len(part))) for part in parts]
    if len({p.shape[1:] for p in pixels}) > 1:
        parts, pixels = parts[:1], pixels[:1]
    labels = np.concatenate([part.labels for part in parts])
    keys = np.concatenate([part.keys for part in parts])
    names = [n for part in parts for n in part.names]
    return ImageSet(np.concatenate(pixels), labels, names, parts[0].classes, keys)


def write(small: Small, out: Path, seed: int) -> int:
    """Writes a set, and gives how many classes it has."""
    images = everything(small.source)
    generator = np.random.default_rng(seed)
    classes = images.classes[: small.classes]
    for label, name in enumerate(classes):
        rows = generator.permutation(np.flatnonzero(images.labels == label))[: small.train + small.test]
        for place, (row, pixels) in enumerate(zip(rows, images.pixels(rows), strict=True)):
            split = "train" if place < small.train else "test"
            folder = out / split / name.replace("/", "-")
            folder.mkdir(parents=True, exist_ok=True)
            picture = Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels)
            if small.change is not None:
                picture = small.change(picture, generator)
            picture.save(folder / f"{row}.png")
    return len(classes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder to write to")
    parser.add_argument("--sets", default=",".join(SETS), help="which, of " + ", ".join(SETS))
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    for name in given.sets.split(","):
        if (given.out / name).exists():
            print(f"{name}: is there")
            continue
        try:
            count = write(SETS[name], given.out / name, given.seed)
        except RepertoireError as error:
            print(f"{name}: left out: {error}")
            continue
        print(f"{name}: {count} classes, {SETS[name].train} a class to learn from, up to {SETS[name].test} to test")


if __name__ == "__main__":
    main()
