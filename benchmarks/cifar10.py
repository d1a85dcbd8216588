"""A resnet20 on CIFAR-10, through the same `fit` that a user calls.

    python benchmarks/cifar10.py FOLDER [--images 10000] [--epochs 10] [--seed 0]

FOLDER holds train/CLASS/*.jpg and test/CLASS/*.jpg. `--images` of the training images are used (0: all of them), as
many of each class; 100 more of each class are for validation, and all test images for the test. Prints the curve and
the result as Markdown tables. For the setting of a GPU: `--images 0 --epochs 30`.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch

from repertoire import train

VALIDATION = 100


def link(source: Path, target: Path, files: list[Path]) -> None:
    """A class directory of links, so that nothing is copied."""
    folder = target / source.name
    folder.mkdir(parents=True)
    for file in files:
        (folder / file.name).symlink_to(file.resolve())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    classes = sorted(path for path in (options.folder / "train").iterdir() if path.is_dir())
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for source in classes:
            files = sorted(source.iterdir())
            each = options.images // len(classes) if options.images else len(files) - VALIDATION
            link(source, root / "train", files[:each])
            link(source, root / "val", files[-VALIDATION:])
        (root / "test").symlink_to((options.folder / "test").resolve())
        run = train.fit(
            root, out=root / "run", backbone="resnet20", epochs=options.epochs, seed=options.seed, augment="crop-flip"
        )
        metrics, info, history = run.metrics, run.info, run.history
    low, high = metrics["accuracy_interval"]
    print(
        f"resnet20, {sum(info['counts']['train']):,} training images, {options.epochs} epochs, batch 128, SGD, seed "
        f"{options.seed}; {info['machine']}, {torch.get_num_threads()} threads."
    )
    print()
    print("| epoch | training loss | training accuracy | validation accuracy | images/s |")
    print("|--:|--:|--:|--:|--:|")
    for row in history:
        print(
            f"| {row['epoch']} | {row['train_loss']:.3f} | {row['train_accuracy']:.3f} | {row['val_accuracy']:.3f} "
            f"| {row['images_per_second']:.0f} |"
        )
    print()
    print(
        f"Test accuracy on {metrics['images']:,} images: **{metrics['accuracy']:.4f}** ({low:.4f} to {high:.4f}, 95 % "
        f"interval), in {info['seconds']:.0f} s of training and {info['peak_memory'] / 2**20:.0f} MiB."
    )


if __name__ == "__main__":
    main()
