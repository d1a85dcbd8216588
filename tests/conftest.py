"""What all tests share: one thread, a cache of their own, no network, and a data set that is learnt in a second."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from warm import Started, start_ranks

if TYPE_CHECKING:
    from repertoire.data import Splits

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["MPLBACKEND"] = "Agg"


# What is imported and collected stays: there is no garbage yet to look for.
gc.disable()
# A compiled graph waits for the next collection like everything else.
os.environ.setdefault("TORCH_DYNAMO_RUN_GC_AFTER_COMPILE", "0")
# What compiles for the processor would start processes for it, which import PyTorch first.
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Modules and tests are hundreds of thousands of objects, which no collection of garbage walks through again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["REPERTOIRE_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _no_plugin_stays(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What a test imports from its temporary folder, and what that registers, goes with the test: a worker runs
    thousands of tests, and each may look at all that is registered, or write a plugin of the same name."""
    before = set(sys.modules)
    yield
    root = str(tmp_path_factory.getbasetemp())
    files = {name: getattr(sys.modules[name], "__file__", None) or "" for name in set(sys.modules) - before}
    written = {name for name, file in files.items() if file.startswith(root)}
    for name in written:
        del sys.modules[name]
    if written:
        from repertoire import registry

        for components in registry._REGISTRY.values():
            for name in [n for n, entry in components.items() if entry.factory.__module__ in written]:
                del components[name]


@pytest.fixture(scope="module")
def ranks() -> Iterator[Callable[..., list[Started]]]:
    """`ranks(n, *arguments)` starts Python n times with them, as the ranks of one group. There is no launcher that
    would end the others when one dies; all are ended with the last test of the file."""
    running: list[Started] = []

    def start(count: int, *arguments: str) -> list[Started]:
        started = start_ranks(count, *arguments)
        running.extend(started)
        return started

    yield start
    for process in running:
        process.end()


@pytest.fixture
def python() -> Iterator[Callable[..., Started]]:
    """`python(*arguments)` starts a Python that has imported the package; it is ended with the test."""
    running: list[Started] = []

    def start(*arguments: str, **how: Any) -> Started:
        running.append(Started(*arguments, **how))
        return running[-1]

    yield start
    for process in running:
        process.end()


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """240 grey images of 8 pixels in three classes: a bright band at the top, in the middle, or at the bottom."""
    generator = np.random.default_rng(0)
    labels = np.arange(240) % 3
    images = generator.integers(0, 160, (240, 8, 8, 1), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[1 + 2 * label : 3 + 2 * label] += 90
    path = tmp_path_factory.mktemp("tiny") / "tiny.npz"
    np.savez(path, images=images, labels=labels, classes=np.array(["top", "middle", "bottom"]))
    return path


@pytest.fixture(scope="session")
def options(tiny: Path) -> dict[str, object]:
    """Options of a run that takes a second."""
    return {
        "data": str(tiny),
        "backbone": "convnet:width=8,depth=2",
        "augment": "shift",
        "epochs": 3,
        "batch_size": 32,
        "lr": 0.05,
        "seed": 3,
        "device": "cpu",
    }


@pytest.fixture(scope="session")
def splits() -> Splits:
    """Colour images of 16 pixels in two classes that differ in brightness: 48, 16 and 16 of them."""
    from repertoire.data import ImageSet, Splits

    def images(count: int, seed: int) -> ImageSet:
        generator = np.random.default_rng(seed)
        labels = np.arange(count) % 2
        pixels = generator.integers(0, 120, (count, 16, 16, 3)) + 100 * labels[:, None, None, None]
        keys = generator.integers(0, 2**62, count).astype(np.uint64)
        return ImageSet(pixels.astype(np.uint8), labels, [str(i) for i in range(count)], ("dark", "bright"), keys)

    return Splits(images(48, 0), images(16, 1), images(16, 2), "drawn")


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file of weights for `convnet:width=4,depth=3` on such images, to begin at."""
    import torch
    from safetensors.torch import save_file

    from repertoire import backbones

    torch.manual_seed(7)
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    save_file(backbones.ConvNet(in_channels=3, image_size=16, width=4, depth=3).state_dict(), path)
    return str(path)
