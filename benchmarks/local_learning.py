"""Local learning beside back-propagation and activation checkpointing: peak memory, speed and extra parameters.

    python benchmarks/local_learning.py [--all] [--quick]

Peak memory of a step is that of all live tensor storages, weights and optimiser state aside, counted as PyTorch makes
and frees them (on a GPU: the allocator's own peak). Speed is the median over rounds in which all settings take turns:
processor time on the CPU, where other programs would disturb a clock. Both are ratios to back-propagation. The default
is a selection that takes minutes on two cores; `--all` has every block count and auxiliary network, for every network.
Prints Markdown.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint

from repertoire import heads, registry
from repertoire.local import LocalLearning
from repertoire.methods import Classifier, Normalize

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

#: Network, image size, batch, and the settings of the default selection: blocks, auxiliary network, and after a slash
#: the pieces that a batch passes each block in, if more than one. Batches of the first two are those of the reference.
NETWORKS: list[tuple[str, int, int, list[str]]] = [
    (
        "resnet32",
        32,
        512,
        ["2 conv", "4 conv", "8 conv", "all conv", "all linear", "all auglocal:depth=1", "all auglocal:depth=1,size=4"],
    ),
    (
        "resnet110",
        32,
        256,
        ["8 conv:depth=1", "8 conv", "16 conv:depth=1", "all conv:depth=1", "all auglocal:depth=1,size=4"],
    ),
    (
        "timm:resnet50",
        224,
        8,
        ["4 linear", "8 linear", "all linear", "8 linear / 2", "8 conv:depth=1,channels=64 / 2", "4 linear / 4"],
    ),
    ("timm:vit_small_patch16_224", 224, 8, ["2 conv", "4 conv", "8 conv", "all linear"]),
]


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of the storages that operators make, until they are freed."""

    def __init__(self) -> None:
        super().__init__()
        self.live: dict[int, int] = {}
        self.now = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # Views and what is written in place: memory that was there before, such as weights.
        given = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self.live and storage._cdata not in given:
                    self.live[storage._cdata] = storage.nbytes()
                    self.now += storage.nbytes()
                    self.peak = max(self.peak, self.now)
                    weakref.finalize(storage, self._free, storage._cdata)
        return out

    def _free(self, key: int) -> None:
        self.now -= self.live.pop(key, 0)


def peak_memory(step: Callable[[], object]) -> int:
    """Bytes that a step needs at its peak, beside what is there before; a first step makes the optimiser's state."""
    step()
    gc.collect()
    if DEVICE == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with LiveBytes() as counter:
        step()
    return counter.peak


def clock() -> float:
    if DEVICE == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def sgd(module: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(module.parameters(), lr=0.01, momentum=0.9)


def network(name: str, size: int) -> Classifier:
    torch.manual_seed(0)
    net = registry.build("backbones", name, in_channels=3, image_size=size)
    model = Classifier(Normalize([0.5] * 3, [0.25] * 3), net, heads.Linear(net.out_features, 10))
    return model.to(device=DEVICE, memory_format=torch.channels_last)  # type: ignore[call-overload]


def steps(
    name: str, size: int, batch: int, settings: list[str]
) -> tuple[dict[str, Callable[[], object]], dict[str, int]]:
    """A step of each setting, and its extra parameters."""
    images = torch.rand(batch, 3, size, size, device=DEVICE).contiguous(memory_format=torch.channels_last)
    labels = torch.arange(batch, device=DEVICE) % 10
    found: dict[str, Callable[[], object]] = {}
    extra = {"back-propagation": 0, "back-propagation, in 2 pieces": 0, "checkpoint per block": 0}

    def plain(model: Classifier, optimizer: torch.optim.Optimizer) -> None:
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
        optimizer.zero_grad()

    def checkpointed(model: Classifier, optimizer: torch.optim.Optimizer) -> None:
        x = model.normalize(images)
        for block in model.backbone.blocks:
            x = checkpoint(block, x, use_reentrant=False)
        F.cross_entropy(model.head(model.backbone.pool(x)), labels).backward()
        optimizer.step()
        optimizer.zero_grad()

    def in_pieces(model: Classifier, optimizer: torch.optim.Optimizer) -> None:
        for part, target in zip(images.chunk(2), labels.chunk(2), strict=True):
            (F.cross_entropy(model(part), target) / 2).backward()
        optimizer.step()
        optimizer.zero_grad()

    kinds = {"back-propagation": plain, "checkpoint per block": checkpointed}
    if any("/" in setting for setting in settings):
        kinds["back-propagation, in 2 pieces"] = in_pieces
    for title, kind in kinds.items():
        model = network(name, size)
        found[title] = partial(kind, model, sgd(model))
    for setting in settings:
        blocks, rest = setting.split(" ", 1)
        auxiliary, _, pieces = rest.partition(" / ")
        model = network(name, size)
        count: Any = blocks if blocks == "all" else int(blocks)
        learner = LocalLearning(model, count, auxiliary, sgd, example=images[:2], accumulate=int(pieces or 1))
        learner.auxiliaries.to(memory_format=torch.channels_last)
        title = f"{len(learner.partition)} blocks, {auxiliary}" + (" (all)" if blocks == "all" else "")
        title += f", in {pieces} pieces" if pieces else ""
        extra[title] = sum(p.numel() for p in learner.auxiliaries.parameters())
        found[title] = partial(learner.step, images, labels)
    return found, extra


def measure(name: str, size: int, batch: int, settings: list[str], rounds: int) -> None:
    found, extra = steps(name, size, batch, settings)
    peaks = {title: peak_memory(step) for title, step in found.items()}
    seconds: dict[str, list[float]] = {title: [] for title in found}
    for _ in range(rounds):
        for title, step in found.items():
            start = clock()
            step()
            seconds[title].append(clock() - start)
    medians = {title: statistics.median(values) for title, values in seconds.items()}
    base_peak, base = peaks["back-propagation"], medians["back-propagation"]
    print(f"### {name}, {size} pixels, batch {batch}\n")
    print("| setting | peak memory, MiB | memory | speed | extra parameters |")
    print("|---|--:|--:|--:|--:|")
    for title in found:
        ratio = f"{peaks[title] / base_peak:.2f} | {base / medians[title]:.2f}"
        print(f"| {title} | {peaks[title] / 2**20:.0f} | {ratio} | {extra[title]:,} |")
    reached = [t for t in found if peaks[t] <= 0.2 * base_peak and base >= 0.95 * medians[t]]
    print(f"\nAt most 0.2 of the memory and at least 0.95 of the speed: {'; '.join(reached) or 'none'}.\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="every block count and auxiliary network")
    parser.add_argument("--each", action="store_true", help="only the last table: every auxiliary network once")
    parser.add_argument("--quick", action="store_true", help="one small network and one round, to see that it runs")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    each = ("resnet32", 32, 128, [f"4 {auxiliary}" for auxiliary in registry.names("auxiliaries")])
    networks, rounds = [each] if options.each else [*NETWORKS, each], options.rounds
    if options.quick:
        networks, rounds = [("resnet20", 32, 8, ["4 conv", "all linear"])], 1
    elif options.all:
        every = [f"{blocks} {auxiliary}" for blocks in (2, 4, 8, "all") for auxiliary in registry.names("auxiliaries")]
        networks = [(name, size, batch, every) for name, size, batch, _ in NETWORKS]
    where = torch.cuda.get_device_name() if DEVICE == "cuda" else f"CPU, {torch.get_num_threads()} thread(s)"
    print(f"SGD with momentum, channels last, float32; {where}, PyTorch {torch.__version__}.\n")
    for name, size, batch, settings in networks:
        measure(name, size, batch, settings, rounds)


if __name__ == "__main__":
    main()
