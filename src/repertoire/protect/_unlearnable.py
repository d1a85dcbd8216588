"""Unlearnable images: the pixels that matter most are changed so that there seems to be nothing left to learn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire.errors import ConfigError, ShapeError
from repertoire.ops import evaluating, keeping_modes, largest_entries
from repertoire.ranges import AtLeast, Between, Positive, Share, checked

__all__ = ["Protected", "sparse_unlearnable"]

_LEVELS = 255


@dataclass(frozen=True)
class Protected:
    """Images that were changed, and how far the search came.

    Attributes:
        images: uint8, of the shape of those that were given.
        changes: int16 of the same shape, what was added, before it was brought into [0, 255].
        rounds: how many there were.
        fooled: the share of the changed images that the network names rightly in the end, which is to be near 1: it
            has learned the changes, and so will others.
    """

    images: Tensor
    changes: Tensor
    rounds: int
    fooled: float


@checked
def sparse_unlearnable(
    images: Tensor,
    labels: Tensor,
    network: nn.Module,
    *,
    epsilon: Annotated[float, Between(1 / _LEVELS, 1)] = 8 / _LEVELS,
    share: Annotated[float, Between(0, 1, "(]")] = 0.5,
    rounds: Annotated[int, AtLeast(1)] = 10,
    updates: Annotated[int, AtLeast(1)] = 20,
    steps: Annotated[int, AtLeast(1)] = 20,
    step_size: Annotated[float, Positive] | None = None,
    enough: Annotated[float, Share] = 0.99,
    batch_size: Annotated[int, AtLeast(1)] = 64,
    rate: Annotated[float, Positive] = 1e-3,
    generator: torch.Generator | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> Protected:
    r"""Changes the most significant pixels of images so that networks trained on them learn less of use.

    Sun, Liu, Yan, Xu and Sun, *Medical Unlearnable Examples: Securing Medical Data from Unauthorized Training via
    Sparsity-Aware Local Masking* (2024), on error-minimising noise (Huang et al., *Unlearnable Examples: Making
    Personal Data Unexploitable*, 2021). Every image gets a change :math:`\delta_i` that makes the loss *small*, so that
    there is nothing left to learn from what it shows, against a network that learns meanwhile:

    .. math:: \min_\theta \sum_i \min_{\delta_i} \; \ell\bigl(f_\theta(x_i + m_i \odot \delta_i), y_i\bigr),
        \qquad \lVert \delta_i \rVert_\infty \le \epsilon

    The mask :math:`m_i` has the `share` of the pixels at which the gradient of the loss is largest, summed over the
    colours: medical images are black for the most part, and what is changed there only shows. In turns, the network
    takes `updates` steps on the changed images, and every image `steps` steps of

    .. math:: \delta \leftarrow \mathrm{clip}_\epsilon\bigl(\delta - \alpha\,\mathrm{sign}\,\nabla_\delta \ell\bigr)
        \odot m

    with a mask that is looked for anew in each round, at the image as it was. With a share of 1 it is the noise of
    Huang et al. In the end changes are rounded to what an image of 8 bits can hold; they stay within epsilon, and
    outside of the masks there are none.

    Nobody should take this for encryption. Networks that are trained adversarially learn from such images, and
    compression (JPEG), smoothing and fewer colours take much of the changes away; so store them without loss.

    Images, changes, and as many numbers in float32, are held in memory.

    Args:
        images: uint8 `[N, C, H, W]`.
        labels: int64 `[N]`, the classes.
        network: images float `[N, C, H, W]` in [0, 1] to logits `[N, K]`; it is trained, and computes where it is.
        epsilon: the largest change of a value on the scale of [0, 1], from 1/255 on; what is no multiple of it is
            rounded down.
        share: of the pixels of each image, those that may be changed; above 0.
        rounds: at most so many.
        updates: steps of the network in a round.
        steps: steps of every image in a round.
        step_size: alpha, on the scale of [0, 1]; a tenth of epsilon if None.
        enough: the share of changed images named rightly at which no further round is needed.
        batch_size: of both.
        rate: learning rate of the network, by Adam.
        generator: draws which images the network is trained on; torch's random state if None.
        progress: called after each round with its number, from 1, and the share that is named rightly.

    Raises:
        ShapeError: images or labels of another kind or shape. ConfigError: an option out of range, or fewer than two
            classes, between which nobody learns to tell anything.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from repertoire.protect import sparse_unlearnable
        >>> _ = torch.manual_seed(0)
        >>> images = torch.randint(0, 256, (6, 1, 4, 4), dtype=torch.uint8)
        >>> network = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
        >>> found = sparse_unlearnable(images, torch.arange(6) % 2, network, epsilon=8 / 255, share=0.25, rounds=1)
        >>> int(found.changes.abs().max()), (found.changes != 0).flatten(1).sum(1).tolist()
        (8, [4, 4, 4, 4, 4, 4])
    """
    _check(images, labels)
    device = next((p.device for p in network.parameters()), torch.device("cpu"))
    count = len(images)
    noise = torch.zeros(images.shape, dtype=torch.float32)
    alpha = epsilon / 10 if step_size is None else step_size
    optimizer = torch.optim.Adam((p for p in network.parameters() if p.requires_grad), lr=rate)

    def some(index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        plain = images[index].to(device).float() / _LEVELS
        return plain, noise[index].to(device), labels[index].to(device)

    done, right = 0, 0.0
    with keeping_modes(network):
        while done < rounds and (not done or right < enough):
            network.train()
            for _ in range(updates):
                # With replacement, so that a few images make whole batches too.
                x, change, y = some(torch.randint(count, (min(batch_size, count),), generator=generator))
                optimizer.zero_grad()
                F.cross_entropy(network(x + change), y).backward()
                optimizer.step()
            named = 0
            with evaluating(network):
                for index in torch.arange(count).split(batch_size):
                    x, change, y = some(index)
                    changed = _descended(network, x, change, y, epsilon, share, steps, alpha)
                    with torch.no_grad():
                        named += int((network(changed).argmax(1) == y).sum())
                    noise[index] = (changed - x).cpu()
            done, right = done + 1, named / count
            if progress is not None:
                progress(done, right)
    largest = int(epsilon * _LEVELS + 1e-6)
    changes = (noise * _LEVELS).round().clamp(-largest, largest).to(torch.int16)
    stored = (images.to(torch.int16) + changes).clamp(0, _LEVELS).to(torch.uint8)
    return Protected(stored, changes, done, right)


def _check(images: Tensor, labels: Tensor) -> None:
    if images.dtype is not torch.uint8 or images.ndim != 4:
        raise ShapeError(f"images must be uint8 [N, C, H, W], found {images.dtype} {list(images.shape)}")
    if labels.dtype is not torch.int64 or labels.shape != (len(images),):
        raise ShapeError(
            f"labels must be int64 [{len(images)}], one for each image, found {labels.dtype} {list(labels.shape)}"
        )
    if len(labels.unique()) < 2:
        raise ConfigError("the images are all of one class, which nobody learns to tell from others: give two or more")


def _descended(
    network: nn.Module, x: Tensor, change: Tensor, y: Tensor, epsilon: float, share: float, steps: int, alpha: float
) -> Tensor:
    """Changed images whose loss is smaller, within epsilon of the plain ones `x` and different from them at the most
    significant pixels alone."""

    def slope(at: Tensor) -> Tensor:
        with torch.enable_grad():
            inputs = at.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(F.cross_entropy(network(inputs), y, reduction="sum"), inputs)
        return gradient

    floor, ceiling = (x - epsilon).clamp_min(0), (x + epsilon).clamp_max(1)
    mask = None
    if share < 1:
        mask = largest_entries(slope(x).abs().sum(1, keepdim=True), share)
    moved = (x + change).clamp(floor, ceiling)
    for _ in range(steps):
        if mask is not None:
            moved = torch.where(mask, moved, x)
        moved = (moved - alpha * slope(moved).sign()).clamp(floor, ceiling)
    return moved if mask is None else torch.where(mask, moved, x)
