"""DiffROAR: whether the pixels that maps call important are those a network can learn the classes from."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from repertoire.errors import ConfigError, ShapeError
from repertoire.explain.trust._curves import pixel_ranks

__all__ = ["Accuracy", "diffroar", "keep_pixels"]

#: Trains a network on the first images and labels, and gives its accuracy on the second.
Accuracy = Callable[[Tensor, Tensor, Tensor, Tensor], float]


def keep_pixels(images: Tensor, maps: Tensor, share: float, *, hottest: bool = True, fill: float = 0.0) -> Tensor:
    """Images of which only the hottest pixels are left, or only the coldest.

    Args:
        images: float `[N, C, H, W]`.
        maps: float `[N, H, W]`, on any scale; of equal pixels, random ones are kept.
        share: of the pixels to keep, from 0 to 1.
        hottest: keep those where the map is largest; else those where it is smallest.
        fill: what the others become; the authors of DiffROAR take 0.

    Returns:
        `[N, C, H, W]`.

    Raises:
        ShapeError: maps that do not fit the images.
        ConfigError: a share outside [0, 1].

    Example:
        >>> import torch
        >>> from repertoire.explain import keep_pixels
        >>> keep_pixels(torch.ones(1, 1, 1, 4), torch.tensor([[[0.1, 0.9, 0.3, 0.2]]]), 0.5)
        tensor([[[[0., 1., 1., 0.]]]])
    """
    if not 0 <= share <= 1:
        raise ConfigError(f"share must lie in [0, 1], found {share}")
    if images.ndim != 4 or maps.shape != (len(images), *images.shape[2:]):
        raise ShapeError(
            f"maps must be [N, H, W] like the images [N, C, H, W], found {list(maps.shape)} and {list(images.shape)}"
        )
    ranks = pixel_ranks(maps if hottest else -maps).to(images.device)
    kept = (ranks < round(share * ranks.shape[1])).unflatten(1, images.shape[2:])[:, None]
    return images.where(kept, images.new_tensor(fill))


def diffroar(
    accuracy: Accuracy,
    train: tuple[Tensor, Tensor, Tensor],
    test: tuple[Tensor, Tensor, Tensor],
    shares: Sequence[float] = (0.1, 0.25, 0.5),
    *,
    fill: float = 0.0,
) -> Tensor:
    r"""DiffROAR: how much more a network learns from the hottest pixels of each image than from the coldest.

    Shah, Jain and Netrapalli, *Do Input Gradients Highlight Discriminative Features?* (2021). For a share k of the
    pixels, with a network trained afresh on images of which only those are left, and tested on such images,

    .. math:: \mathrm{DiffROAR}(k) = \mathrm{accuracy}(\text{hottest } k) - \mathrm{accuracy}(\text{coldest } k)

    It is positive where maps highlight what tells the classes apart, about zero for random maps, and negative where
    they point away from it. Unlike deletion and insertion it shows the network no image of a kind that it was not
    trained on; and it costs two trainings for each share. Which pixels are left can itself tell the class, of the
    coldest as of the hottest: then both accuracies come near that of the explained network, and the difference near
    zero, whatever the pixels show.

    Args:
        accuracy: `(images, labels, test_images, test_labels) -> accuracy`: trains a fresh network and tests it.
        train: images float `[N, C, H, W]`, labels int64 `[N]`, and the maps of the explained network `[N, H, W]`.
        test: the same for the test.
        shares: k, each from 0 to 1.
        fill: what pixels become that are not kept.

    Returns:
        float64 `[len(shares)]` in [-1, 1].

    Raises:
        ShapeError: maps that do not fit the images.
        ConfigError: no share, or one outside [0, 1].

    Example:
        >>> import torch
        >>> from repertoire.explain import diffroar
        >>> images, labels = torch.eye(2).view(2, 1, 1, 2), torch.arange(2)
        >>> def accuracy(images, labels, test_images, test_labels):
        ...     return float((test_images.flatten(1).sum(1) > 0).float().mean())  # learns where there is anything
        >>> data = (images, labels, images[:, 0])  # maps that are right: they show the pixel that is lit
        >>> diffroar(accuracy, data, data, shares=(0.5,))
        tensor([1.], dtype=torch.float64)
    """
    if not shares:
        raise ConfigError("shares is empty; name at least one share of the pixels, from 0 to 1")
    differences = []
    for share in shares:
        found = []
        for hottest in (True, False):
            kept = [keep_pixels(images, maps, share, hottest=hottest, fill=fill) for images, _, maps in (train, test)]
            found.append(accuracy(kept[0], train[1], kept[1], test[1]))
        differences.append(found[0] - found[1])
    return torch.tensor(differences, dtype=torch.float64)
