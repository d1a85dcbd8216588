"""Time of a loss landscape: Repertoire, and the way of the released code of Li et al.

    python benchmarks/landscape.py                            # a resnet20 on a grid of 25 x 25, 24 images, two threads
    python benchmarks/landscape.py --images 1000 --device cuda

Both evaluate the same points of the same directions on the same images, in one process: the grid is cut into rows,
which the two take in turn, so that a busy machine slows both. The released way, written anew here after what it does:
for each point, new tensors of all weights from copies of weights and directions; then the images, one at a time, from a
`DataLoader` without workers, with the usual transforms, in batches of 128 of the default memory layout. `bare` is a
forward pass of the unmoved network for each point, over batches that are ready, with all threads on each.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from repertoire.backbones import resnet20
from repertoire.diagnostics import loss_landscape, random_directions


class Images(Dataset[tuple[Tensor, int]]):
    """Images of noise as bytes, transformed one at a time."""

    def __init__(self, count: int) -> None:
        random = np.random.default_rng(0)
        self.pixels = random.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        self.labels = random.integers(0, 10, count).tolist()
        self.mean, self.std = torch.full((3, 1, 1), 0.5), torch.full((3, 1, 1), 0.25)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, place: int) -> tuple[Tensor, int]:
        image = torch.from_numpy(self.pixels[place].transpose(2, 0, 1)).contiguous().float().div(255)
        return image.sub(self.mean).div(self.std), self.labels[place]


def released(
    model: nn.Module, loader: DataLoader, ways: list[dict[str, Tensor]], points: list[tuple[float, float]]
) -> list[float]:
    """The loss at each point, as the released code computes it."""
    parameters = dict(model.named_parameters())
    kept = {name: p.detach().clone() for name, p in parameters.items()}
    device = next(iter(kept.values())).device
    losses = []
    for a, b in points:
        changes = [ways[0][name] * a + ways[1][name] * b for name in kept]
        for (name, weight), change in zip(kept.items(), changes, strict=True):
            parameters[name].data = weight + change
        total, count = 0.0, 0
        with torch.no_grad():
            for inputs, targets in loader:
                loss = F.cross_entropy(model(inputs.to(device)), targets.to(device))
                total += loss.item() * len(inputs)
                count += len(inputs)
        losses.append(total / count)
    for name, weight in kept.items():
        parameters[name].data = weight
    return losses


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--grid", type=int, default=25)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    backbone = resnet20()
    model = nn.Sequential(backbone, nn.Linear(backbone.out_features, 10)).to(given.device).eval()
    loader = DataLoader(Images(given.images), batch_size=128, num_workers=0)
    ready = [(x.to(given.device), y.to(given.device)) for x, y in loader]
    ways = random_directions(model, 2)
    steps = np.linspace(-1, 1, given.grid).tolist()
    names = ("released way", "repertoire", "bare")
    times = dict.fromkeys(names, 0.0)
    furthest = 0.0

    def timed(name: str, function) -> object:  # type: ignore[no-untyped-def]
        start = time.perf_counter()
        result = function()
        if given.device != "cpu":
            torch.cuda.synchronize()
        times[name] += time.perf_counter() - start
        return result

    def bare() -> None:
        with torch.no_grad():
            for _ in steps:
                for inputs, _ in ready:
                    model(inputs)

    bare()  # warms up
    times = dict.fromkeys(names, 0.0)
    for b in steps:
        points = [(a, b) for a in steps]
        theirs = timed("released way", lambda points=points: released(model, loader, ways, points))
        ours = timed("repertoire", lambda b=b: loss_landscape(model, loader, ways, x=steps, y=[b]))
        timed("bare", bare)
        furthest = max(furthest, float((ours.loss[0] - torch.tensor(theirs, dtype=torch.float64)).abs().max()))
    print(
        f"torch {torch.__version__}, {given.device}, {given.threads} threads, resnet20 on a grid of {given.grid} x "
        f"{given.grid}, {given.images} images; the losses of both ways differ by {furthest:.1e} at most\n\n"
        "| way | time | over bare |\n|---|--:|--:|"
    )
    for name in names:
        print(f"| {name} | {times[name]:,.1f} s | {times[name] / times['bare']:.2f} |")
    print(f"\nThe released way takes {times['released way'] / times['repertoire']:.2f} times as long.")


if __name__ == "__main__":
    main()
