"""What frozen layers give, computed once and kept: training a head, or the last stages, then takes seconds."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from repertoire.backbones import Precision, fast_bfloat16, frozen
from repertoire.data import FeatureSet, Loader, Samples, Splits, cache_directory
from repertoire.errors import ConfigError, DataError, option
from repertoire.files import atomic_path
from repertoire.methods import Classifier
from repertoire.ops import evaluating

__all__ = ["activations_of", "entrance", "frozen_splits"]

Report = Callable[[str], None]

_MEASURED = 64
"""Samples that say how long all others will take."""


def entrance(model: Classifier, tune: str) -> int | None:
    """The block at which inputs enter where only a part of the network learns; None for all of it.

    Raises:
        ConfigError: the network has fewer stages than are to learn.
    """
    backbone = model.backbone
    if tune in ("all", "auto"):
        return None
    if tune == "head":
        return len(backbone.blocks)
    stages = int(tune.removeprefix("last:"))
    if stages > len(backbone.stage_ends):
        raise ConfigError(
            f"tune {tune} asks for more stages than the network has: {len(backbone.stage_ends)}; use "
            f"{option('tune', 'all')}"
        )
    return 0 if stages == len(backbone.stage_ends) else backbone.stage_ends[-stages - 1] + 1


def frozen_splits(
    model: Classifier,
    splits: Splits,
    block: int,
    *,
    streams: Collection[str] = (),
    device: torch.device,
    report: Report | None = None,
) -> Splits:
    """The splits with what enters a block of the network in the place of the images.

    Args:
        model: a classifier, on its device.
        splits: images.
        block: see `Classifier.activations`.
        streams: which of the further sets a method draws from; the others stay images, at which nobody looks.
        device: where to compute.
        report: gets a line for each part that is computed, and none for what was kept.
    """

    def seen(samples: Samples) -> FeatureSet:
        return activations_of(model, samples, block, device=device, report=report)

    drawn = {name: seen(samples) for name, samples in splits.extra.items() if name in streams and len(samples)}
    return replace(
        splits,
        train=seen(splits.train),
        val=seen(splits.val),
        test=seen(splits.test),
        extra={**splits.extra, **drawn},
    )


def activations_of(
    model: Classifier, samples: Samples, block: int, *, device: torch.device | str = "cpu", report: Report | None = None
) -> FeatureSet:
    """Inputs of a block of a classifier, for every sample: computed once, and kept in the user's cache.

    The file is named by a hash of the images' content, of the weights that were passed, and of the block; it appears
    when it is whole, and two processes that compute the same do no harm to each other.

    Raises:
        DataError: the network gives values that are not finite.
    """
    precision = _precision(samples, torch.device(device))
    name = _fingerprint(model, samples, block, precision)
    path = cache_directory() / "activations" / f"{name}.npy"
    found = _kept(path, len(samples))
    if found is None:
        if report is not None:
            report(f"computing what {len(samples):,} {samples.noun}s look like to the frozen layers, once")
        found = _computed(model, samples, block, path, torch.device(device), precision, report)
    return FeatureSet(found, samples.labels, samples.names, samples.classes, samples.keys, samples.factors)


def _kept(path: Path, count: int) -> np.ndarray | None:
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return found if len(found) == count else None


@torch.inference_mode()
def _computed(
    model: Classifier,
    samples: Samples,
    block: int,
    path: Path,
    device: torch.device,
    precision: Precision,
    report: Report | None = None,
) -> np.ndarray:
    dtype = np.float32 if block == len(model.backbone.blocks) else np.float16
    # Only looked at: normalisation is folded away, which is several times faster.
    looking = Classifier(model.normalize, frozen(model.backbone, samples.shape[-1], precision=precision), model.head)
    with evaluating(looking):
        first = looking.activations(next(Loader(samples, 2, shuffle=False, device=device).epoch(0)).images, block)
        shape = (len(samples), *first.shape[1:])
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary:
            made = np.lib.format.open_memmap(temporary, mode="w+", dtype=dtype, shape=shape)
            start, began = 0, time.perf_counter()
            for batch in Loader(samples, 32, shuffle=False, device=device).epoch(0):
                found = looking.activations(batch.images, block).float()
                if not bool(found.isfinite().all()):
                    raise DataError("the network gives values that are not finite; its weights are not usable")
                made[start : start + len(found)] = found.cpu().numpy().astype(dtype)
                start += len(found)
                if report is not None and start == _MEASURED and len(samples) > start:
                    left = (time.perf_counter() - began) / start * (len(samples) - start)
                    if left >= 10:
                        report(f"that will take about {round(left)} s more here, as the first {start} say")
            made.flush()
            del made
    return np.load(path, mmap_mode="r", allow_pickle=False)


def _precision(samples: Samples, device: torch.device) -> Precision:
    """The precision of frozen layers: bfloat16 where it is faster and there are photographs to look at, whose features
    differ in the third digit then."""
    return "bfloat16" if fast_bfloat16(device) and samples.shape[-1] > 64 else "float32"


def _fingerprint(model: Classifier, samples: Samples, block: int, precision: Precision) -> str:
    """Digest of the images (their content, order and size) and of the layers that they pass."""
    found = hashlib.blake2b(digest_size=16)
    found.update(np.ascontiguousarray(samples.keys).tobytes())
    # Equal files may have been made square, or resized, in different ways: a few pixels tell.
    some = np.unique(np.linspace(0, len(samples) - 1, min(16, len(samples))).astype(int))
    found.update(samples.inputs(some).tobytes())
    found.update(repr((block, samples.shape, type(model.backbone).__name__, len(samples), precision)).encode())
    state = model.state_dict()
    for name in sorted(state):
        if name.startswith("head.") or (name.startswith("backbone.blocks.") and _later(name, block)):
            continue
        found.update(name.encode())
        found.update(state[name].detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def _later(name: str, block: int) -> bool:
    return int(name.split(".")[2]) >= block
