"""What frozen features of pretrained networks are worth on few photographs, and how fast they are had.

    python benchmarks/pretrained.py photographs/ [--per-class 5,20,100] [--sizes 160,224] [--seeds 3] [--threads 2]

The folder holds `train/CLASS/*.jpg` and `test/CLASS/*.jpg`. Features are computed once for each size and precision. On
them, a head trained by gradient descent is set beside scikit-learn's logistic regression, k nearest neighbours and
nearest class means, with the same images for all, drawn anew for each seed. Throughput is that of the forward pass
alone, the best of rounds in which all variants take turns, in images for a second of processor time: other programs
would disturb a clock. Prints Markdown.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler
from torch import Tensor, nn

from repertoire import registry
from repertoire.backbones import Backbone, Preset, frozen

PRECISIONS = ("float32", "bfloat16")


def list_images(folder: Path, most: int) -> tuple[list[Path], np.ndarray]:
    """The first files of each class, and the number of their class."""
    classes = sorted(path for path in folder.iterdir() if path.is_dir())
    files = [sorted(path.glob("*.jpg"))[:most] for path in classes]
    return [file for own in files for file in own], np.repeat(np.arange(len(classes)), [len(own) for own in files])


def read(files: list[Path], preset: Preset, size: int) -> Tensor:
    """Normalised images `[N, C, size, size]`, squared as the preset says."""
    resample = Image.Resampling[preset.interpolation.upper()]
    pixels = []
    for file in files:
        with Image.open(file) as opened:
            image = opened.convert("RGB")
        side = round(min(image.size) * (preset.crop if min(image.size) > size else 1.0))
        left, top = ((length - side) / 2 for length in image.size)
        pixels.append(np.asarray(image.resize((size, size), resample, (left, top, left + side, top + side))))
    images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(values)[:, None, None] for values in (preset.mean, preset.std))
    return ((images - mean) / std).contiguous(memory_format=torch.channels_last)


def embed(net: Backbone, files: list[Path], preset: Preset, size: int, batch: int = 64) -> np.ndarray:
    with torch.inference_mode():
        parts = [net(read(files[start : start + batch], preset, size)) for start in range(0, len(files), batch)]
    return torch.cat(parts).numpy()


def train_head(features: np.ndarray, labels: np.ndarray, classes: int, seed: int) -> Callable[[np.ndarray], np.ndarray]:
    """A linear head on features of length one, from zero: AdamW, cosine decay, 300 steps of at most 256 samples."""
    torch.manual_seed(seed)
    x, y = nn.functional.normalize(torch.from_numpy(features)), torch.from_numpy(labels)
    head: nn.Module = registry.build("heads", "linear", in_features=x.shape[1], num_classes=classes)
    for parameter in head.parameters():
        nn.init.zeros_(parameter)
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-2, weight_decay=1.0)
    steps = 300
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        rows = torch.randperm(len(x))[:256]
        optimizer.zero_grad()
        nn.functional.cross_entropy(head(x[rows]), y[rows]).backward()
        optimizer.step()
        schedule.step()

    def predict(of: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return head(nn.functional.normalize(torch.from_numpy(of))).argmax(1).numpy()

    return predict


def fit(name: str, features: np.ndarray, labels: np.ndarray, classes: int, seed: int) -> Callable[..., np.ndarray]:
    if name == "head":
        return train_head(features, labels, classes, seed)
    model = {
        "logistic regression": make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
        "the same, unit length": make_pipeline(Normalizer(), LogisticRegression(C=10, max_iter=1000)),
        "5 nearest neighbours": KNeighborsClassifier(5, metric="cosine"),
        "nearest mean, unit length": make_pipeline(Normalizer(), NearestCentroid()),
    }[name]
    return model.fit(features, labels).predict


FITS = (
    "head",
    "logistic regression",
    "the same, unit length",
    "5 nearest neighbours",
    "nearest mean, unit length",
)


def accuracy(arguments: argparse.Namespace, spec: str) -> None:
    net: Backbone = registry.build("backbones", spec, in_channels=3)
    preset = net.preset
    assert preset is not None, f"{spec} has no weights"
    counts = [int(value) for value in arguments.per_class.split(",")]
    train_files, train_labels = list_images(arguments.folder / "train", arguments.pool)
    test_files, test_labels = list_images(arguments.folder / "test", arguments.test)
    classes = int(train_labels.max()) + 1
    print(f"\n### Accuracy of {spec} on {len(test_files)} test images, mean of {arguments.seeds} draws\n")
    print(
        "| size | precision | images a class | " + " | ".join(FITS) + " | processor seconds: features, head, logistic |"
    )
    print("| --: | --- | --: |" + " --: |" * (len(FITS) + 1))
    for size in map(int, arguments.sizes.split(",")):
        for precision in PRECISIONS:
            copy = frozen(net, size, precision=precision)
            begun = time.process_time()
            train = embed(copy, train_files, preset, size)
            seconds = (time.process_time() - begun) / len(train_files)
            test = embed(copy, test_files, preset, size)
            for count in counts:
                scores: dict[str, list[float]] = {name: [] for name in FITS}
                spent: dict[str, list[float]] = {name: [] for name in FITS}
                for seed in range(arguments.seeds):
                    rng = np.random.default_rng(seed)
                    chosen = [rng.choice(np.flatnonzero(train_labels == k), count, False) for k in range(classes)]
                    rows = np.concatenate(chosen)
                    for name in FITS:
                        begun = time.process_time()
                        predict = fit(name, train[rows], train_labels[rows], classes, seed)
                        spent[name].append(time.process_time() - begun)
                        scores[name].append(float((predict(test) == test_labels).mean()))
                cells = " | ".join(f"{statistics.mean(scores[name]):.3f}" for name in FITS)
                fits = ", ".join(f"{statistics.median(spent[name]):.1f}" for name in FITS[:2])
                whole = seconds * count * classes
                print(f"| {size} | {precision} | {count} | {cells} | {whole:.1f}, {fits} |", flush=True)


def throughput(arguments: argparse.Namespace, spec: str, batch: int = 32) -> None:
    net: Backbone = registry.build("backbones", spec, in_channels=3).eval()
    print(f"\n### Images for a second of a core through {spec}, {arguments.threads} thread(s), batches of {batch}\n")
    print("| variant | " + " | ".join(f"{size} pixels" for size in arguments.sizes.split(",")) + " | first call |")
    print("| --- |" + " --: |" * (arguments.sizes.count(",") + 2))
    rows: dict[str, list[str]] = {}
    first: dict[str, float] = {}
    for size in map(int, arguments.sizes.split(",")):
        images = torch.randn(batch, 3, size, size)
        last = images.contiguous(memory_format=torch.channels_last)
        plain_last: nn.Module = registry.build("backbones", spec, in_channels=3).eval()
        plain_last = plain_last.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        folded = frozen(net, size)
        variants: dict[str, tuple[nn.Module, Tensor]] = {
            "as it is": (net, images),
            "channels last": (plain_last, last),
            "`frozen`: folded, channels last": (folded, last),
            "`frozen` in bfloat16": (frozen(net, size, precision="bfloat16"), last),
        }
        if arguments.compile:
            variants["`frozen`, compiled"] = (torch.compile(folded), last)  # type: ignore[assignment]
        best: dict[str, float] = {}
        with torch.inference_mode():
            for name, (module, x) in variants.items():
                begun = time.process_time()
                module(x)
                first.setdefault(name, time.process_time() - begun)
            for _ in range(arguments.rounds):
                for name, (module, x) in variants.items():
                    begun = time.process_time()
                    module(x)
                    best[name] = max(best.get(name, 0.0), batch / (time.process_time() - begun))
        for name, value in best.items():
            rows.setdefault(name, []).append(f"{value:.0f}")
    for name, cells in rows.items():
        print(f"| {name} | {' | '.join(cells)} | {first[name]:.1f} s |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="holds train/CLASS/*.jpg and test/CLASS/*.jpg")
    parser.add_argument("--backbones", default="lite0", help="specs, separated by spaces")
    parser.add_argument("--per-class", default="5,20,100", help="training images of each class")
    parser.add_argument("--pool", type=int, default=200, help="images of each class that the draws are from")
    parser.add_argument("--test", type=int, default=100, help="test images of each class")
    parser.add_argument("--sizes", default="160,224")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=["throughput", "accuracy"])
    parser.add_argument("--compile", action="store_true", help="also torch.compile, which takes minutes")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for spec in arguments.backbones.split():
        if arguments.only != "accuracy":
            throughput(arguments, spec)
        if arguments.only != "throughput":
            accuracy(arguments, spec)


if __name__ == "__main__":
    main()
