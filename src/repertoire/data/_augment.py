"""Random changes to whole batches of images, on the device that trains.

Every augmentation maps uint8 `[N, H, W, C]` to float `[N, C, H, W]` in [0, 1], channels last in memory, and draws for
each image by itself. All randomness comes from torch's global state, which `Loader` seeds before each batch.

`geometry` of an augmentation is what it moves pixels by, itself if it does nothing else: applied to the mask of an
object from the same random state, it moves the mask with the image.

`change` of an augmentation, where it has one, is what it does to float images; it may follow another one:
`crop-flip+erasing`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from repertoire.data._batches import plain
from repertoire.errors import ConfigError
from repertoire.ops import seed_torch
from repertoire.registry import build

__all__ = ["build_augmentation", "move_masks"]


def move_masks(augmentation: Callable[[Tensor], Tensor], masks: Tensor) -> Tensor:
    """Masks as an augmentation that comes next moves their images; torch's random state stays as it is.

    Args:
        augmentation: `plain`, or one that has a `geometry`.
        masks: bool `[N, H, W]`.

    Returns:
        float `[N, H, W]` in [0, 1]: the share of each pixel that the object covers.

    Raises:
        ConfigError: the augmentation does not say how it moves pixels.
    """
    geometry = plain if augmentation is plain else getattr(augmentation, "geometry", None)
    if geometry is None:
        raise ConfigError(
            f"augmentation {type(augmentation).__name__} does not say how it moves masks along with images (it has no "
            "geometry); use crop-flip, photo, simclr, randaugment or another by name"
        )
    device = masks.device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        return geometry(masks[..., None].to(torch.uint8) * 255)[:, 0]


def build_augmentation(spec: str) -> nn.Module:
    """The augmentation of a spec, which may be several, one after the other, with "+" between them.

    Args:
        spec: the first may be any; those that follow are `erasing`, `randaugment`, `trivialaugment` and `strong`, of
            which the latter three then do not crop once more.

    Raises:
        ConfigError: an unknown name or option, a value out of range, or an augmentation that cannot follow another one.

    Example:
        >>> build_augmentation("photo+randaugment:magnitude=5+erasing:probability=0.25")(
        ...     torch.zeros(2, 32, 32, 3, dtype=torch.uint8)
        ... ).shape
        torch.Size([2, 3, 32, 32])
    """
    # A name begins with a letter, and the exponent of a number does not.
    specs = re.split(r"\+(?=\s*[a-z])", spec)
    stages = [cast(nn.Module, build("augmentations", part)) for part in specs]
    for part, stage in zip(specs[1:], stages[1:], strict=True):
        if not hasattr(stage, "change"):
            raise ConfigError(
                f"augmentation {spec!r}: {part.partition(':')[0].strip()} can only come first; erasing, randaugment, "
                "trivialaugment and strong may follow another one"
            )
    return stages[0] if len(stages) == 1 else _Chain(stages)


class _Chain(nn.Module):
    """Augmentations one after the other. Each draws from a random state of its own, so that what moves pixels can be
    replayed without the rest."""

    def __init__(self, stages: Sequence[nn.Module]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)

    @property
    def geometry(self) -> nn.Module | None:
        moves = [getattr(stage, "geometry", None) for stage in self.stages]
        return None if None in moves else _Chain([move for move in moves if move is not None])

    def forward(self, images: Tensor) -> Tensor:
        x = images
        for number, (stage, seed) in enumerate(
            zip(self.stages, torch.randint(2**62, (len(self.stages),)).tolist(), strict=True)
        ):
            seed_torch(seed, images.device)
            # What follows and moves nothing has nothing to do to a mask.
            x = stage(x) if number == 0 else getattr(stage, "change", nn.Identity())(x)
        return x
