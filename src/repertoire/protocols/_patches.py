"""A memory of some patches of each image, which a masked autoencoder completes when they are replayed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated

import numpy as np
import torch

from repertoire import registry
from repertoire.data import ImageSet, Samples, Splits, step_seed
from repertoire.errors import ConfigError, DataError, option
from repertoire.methods import Method, Rebuilding, patches_of, pixels_of
from repertoire.protocols._memory import Keep, Memory, MethodOf, Store
from repertoire.ranges import Between, checked
from repertoire.recipe import TrainConfig, build

__all__ = ["SHARE", "Patches", "memory_of", "rebuilds"]

SHARE = 0.25
"""Of the patches of an image, those that are kept: as in the paper."""

_AT_ONCE = 256
"""Images that are rebuilt in one pass."""

_LABEL_AND_KEY = 16
"""Bytes of a label, and of the key that says which patches these are."""


class Patches(Memory):
    """Some patches of each image, so that the same budget holds more images; a masked autoencoder draws the others.

    Zhai et al., *Masked Autoencoders are Efficient Class Incremental Learners* (2023). An image of `side` x `side`
    patches, each of p x p pixels, is kept as V of them: V p p C bytes, and 16 for its label and its key. Which patches
    these are is random and follows from the key (`keys` of the samples) and the seed, and need not be
    kept. Where the side of an image is no multiple of p, it is padded with zeros at right and bottom, which count.

    Which images are kept is chosen as in any memory; where features choose and a class comes again, those of kept
    images are of the rebuilt ones.

    Args:
        budget: a number of images, or an amount such as "20MB" of patches, labels and keys; 0 for nothing.
        keep: "reservoir" (default), "herding" or "typical".
        seed: of the reservoir, and of the patches.
        side: patches along a side of an image, 2 or more: as the network has them.
        size: side of the images in pixels.
        share: of the patches that are kept, above 0 and below 1; a quarter as in the paper. At least one is kept, and
            one is not.

    Attributes:
        samples: what is kept: images uint8 `[N, V p, p, C]`, the patches one below the other; None before anything was
            seen.
        seen: how many samples there have been.

    Raises:
        ConfigError: an option that cannot be used.

    Example:
        >>> import numpy as np
        >>> from repertoire.data import ImageSet
        >>> from repertoire.protocols import Patches
        >>> images = np.zeros((50, 8, 8, 1), np.uint8)
        >>> names, keys = [str(i) for i in range(50)], np.arange(50, dtype=np.uint64)
        >>> memory = Patches("320B", side=4, size=8)
        >>> memory.update(ImageSet(images, np.zeros(50, np.int64), names, ("a",), keys))
        >>> len(memory), memory.nbytes, memory.samples.images.shape
        (10, 320, (10, 8, 2, 1))
        >>> memory.recall().images.shape  # without a method, the mean of what is known stands for the others
        (10, 8, 8, 1)
    """

    @checked
    def __init__(
        self,
        budget: int | str = 200,
        keep: Keep = "reservoir",
        seed: int = 0,
        *,
        side: int,
        size: int,
        share: Annotated[float, Between(0, 1, "()")] = SHARE,
    ) -> None:
        super().__init__(budget, keep, seed)
        if not 2 <= side <= size:
            raise ConfigError(f"side must lie in [2, {size}], patches along a side of {size} pixels; found {side}")
        self.side, self.size = side, size
        self.edge = math.ceil(size / side)
        self.count = min(max(1, round(share * side**2)), side**2 - 1)
        # That of the run that kept the first of them.
        self._drawn_by = seed

    def places(self, keys: np.ndarray) -> np.ndarray:
        """Which patches of images are kept, int64 `[N, V]`, row by row in the image.

        Args:
            keys: of the images, uint64 `[N]`.
        """
        draws = _mixed(keys.astype(np.uint64)[:, None] ^ np.uint64(step_seed(self._drawn_by, 0, 2**64 - 5)))
        draws = _mixed(draws + np.arange(1, self.side**2 + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15))
        return np.sort(np.argsort(draws, axis=1, kind="stable")[:, : self.count], axis=1)

    def recall(self, method_of: MethodOf | None = None) -> ImageSet | None:
        """What is replayed: whole images, of which the patches that were kept are the image's own.

        Args:
            method_of: gives the method that draws the others, which is a `repertoire.methods.Rebuilding`; if None, the
                mean of the patches that were kept, by colour, stands for each of the others.
        """
        return None if self.samples is None else self._unpacked(self.samples, method_of)

    def _check(self, samples: Samples) -> None:
        if not isinstance(samples, ImageSet) or samples.size != (self.size, self.size):
            raise DataError(
                f"a memory of patches keeps images of {self.size}x{self.size} pixels, as the network takes them; these "
                f"are {samples!r}"
            )
        if len(self) and samples.channels != self.samples.channels:
            raise DataError(
                f"the memory holds images of {self.samples.channels} channels, and these have {samples.channels}"
            )

    def _size(self, samples: Samples) -> int:
        assert isinstance(samples, ImageSet)
        return self.count * self.edge**2 * samples.channels + _LABEL_AND_KEY

    def _packed(self, samples: Samples) -> Samples:
        assert isinstance(samples, ImageSet)
        patches = patches_of(torch.from_numpy(samples.images).permute(0, 3, 1, 2), self.side)
        order = torch.from_numpy(self.places(samples.keys))
        kept = patches.gather(1, order[:, :, None].expand(-1, -1, patches.shape[2]))
        kept = kept.unflatten(2, (samples.channels, self.edge, self.edge)).permute(0, 1, 3, 4, 2).flatten(1, 2)
        return replace(samples, images=kept.contiguous().numpy())

    def _unpacked(self, samples: Samples, method_of: MethodOf | None) -> ImageSet:
        assert isinstance(samples, ImageSet)
        order, channels = torch.from_numpy(self.places(samples.keys)), samples.channels
        stored = torch.from_numpy(np.ascontiguousarray(samples.inputs(slice(None))))
        kept = stored.unflatten(1, (self.count, self.edge)).permute(0, 1, 4, 2, 3).flatten(2)
        mean = kept.float().unflatten(2, (channels, -1)).mean((1, 3)).round().to(torch.uint8)
        patches = mean[:, None, :, None].expand(-1, self.side**2, -1, self.edge**2).flatten(2).clone()
        patches.scatter_(1, order[:, :, None].expand(-1, -1, kept.shape[2]), kept)
        images = pixels_of(patches, channels, self.size)
        if method_of is not None and len(images):
            images = _rebuilt(method_of(), images, order)
        return replace(samples, images=images.permute(0, 2, 3, 1).contiguous().numpy(), rows=None)

    def _form(self) -> dict[str, np.ndarray]:
        return {"grid": np.array([self.side, self.size, self.count, self._drawn_by], dtype=np.uint64)}

    def _check_form(self, found: dict[str, np.ndarray]) -> None:
        if "grid" not in found:
            # Whole images: of them, patches can be kept.
            self._check(self.samples)
            self.samples = self._packed(self.samples)
            return
        side, size, count, drawn_by = (int(value) for value in found["grid"])
        if (side, size, count) != (self.side, self.size, self.count):
            raise ConfigError(
                f"the memory of the stages before holds {count} of {side**2} patches of images of {size} pixels, and "
                f"here {self.count} of {self.side**2} of {self.size} pixels would be kept: keep the same share of them"
            )
        self._drawn_by = drawn_by


@torch.no_grad()
def _rebuilt(method: Method, images: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    """Images uint8 `[N, C, H, W]` of which only the patches in `order` are known."""
    assert isinstance(method, Rebuilding)
    training, device = method.training, next(method.parameters()).device
    method.eval()
    drawn = [
        method.rebuild(part.to(device).float() / 255, places.to(device)).mul(255).round().to(torch.uint8).cpu()
        for part, places in zip(images.split(_AT_ONCE), order.split(_AT_ONCE), strict=True)
    ]
    method.train(training)
    return torch.cat(drawn)


def rebuilds(config: TrainConfig) -> bool:
    """Whether the method of a configuration learns to draw images of which it knows some patches."""
    factory = registry.get("methods", registry.parse(config.method).name).factory
    return isinstance(factory, type) and issubclass(factory, Rebuilding)


def memory_of(
    config: TrainConfig,
    budget: int | str,
    keep: Keep,
    store: Store,
    share: float,
    splits: Callable[[], Splits],
) -> Memory:
    """The memory that a run keeps through its stages.

    Args:
        config: of the run, resolved.
        budget, keep: see `Memory`.
        store: "whole", or "patches" with a `share` of them.
        splits: gives the data of a stage; asked where patches are kept, to see how the network cuts its images.

    Raises:
        ConfigError: patches are to be kept and the method draws none, or its network has none; or what is learned are
            no images.

    Example:
        >>> from repertoire.protocols import memory_of
        >>> from repertoire.recipe import load_splits, make_config
        >>> config = make_config(data="digits", method="mae-cil", backbone="vit:patch=2,dim=16,depth=2,heads=2")
        >>> memory = memory_of(config, "1KB", "reservoir", "patches", 0.25, lambda: load_splits(config))
        >>> memory.side, memory.count
        (4, 4)
    """
    if store == "whole":
        return Memory(budget, keep, config.seed)
    data = splits()
    if not isinstance(data.train, ImageSet):
        raise ConfigError(
            f"store=patches keeps patches of images, and what is learned here are {data.train.noun}s: leave it out"
        )
    if not rebuilds(config):
        raise ConfigError(
            f"store=patches needs a method that draws what is missing of a remembered image, and "
            f"{registry.parse(config.method).name!r} does not: use {option('method', 'mae-cil')}, or store=whole"
        )
    method = build(config, data, weights=False).method
    assert isinstance(method, Rebuilding)
    return Patches(budget, keep, config.seed, side=method.side, size=method.image_size, share=share)


_U = np.uint64


def _mixed(x: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64: nearby numbers uint64 to unrelated ones."""
    x = (x ^ (x >> _U(30))) * _U(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> _U(27))) * _U(0x94D049BB133111EB)
    return x ^ (x >> _U(31))
